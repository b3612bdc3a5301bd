//! Grants to another node, and promotion under a set of its own.

use super::state::{NOBODY, UNUSED, count};
use super::{Action, Next, Set, State, Synchrony};

impl<const N: usize> Synchrony<N> {
    /// Can nobody outside the fenced ones have acknowledged, or acknowledge, under this set?
    fn is_fenced(&self, s: &State<N>, set: Set) -> bool {
        let n = set.names.count_ones() as u8;
        let enough = if self.rules.fence_enough { n + 1 } else { n };
        count(set.names, |i| s.fences[i].is_some()) >= enough.saturating_sub(set.needed)
    }

    /// Fences of each set in force that needs anybody.
    fn is_every_set_fenced(&self, s: &State<N>) -> bool {
        let newest = s.nodes[usize::from(s.holder)].active;
        let counts = |set: &Set| !set.is_asynchronous() && (self.rules.fence_every_set || *set == newest);
        s.in_force().filter(counts).all(|set| self.is_fenced(s, set))
    }

    /// May node `i` take over by fences, and may it when the holder is silent for another reason?
    pub fn may_take_over(&self, s: &State<N>, i: usize) -> (bool, bool) {
        let highest = s.fences.iter().flatten().max();
        let needs_standbys = s.in_force().any(|set| !set.is_asynchronous());
        let is_highest = highest.is_none() || s.fences[i].as_ref() == highest || !needs_standbys;
        let has_all = self.is_every_set_fenced(s) && (is_highest || !self.rules.candidate_is_highest);
        let is_alone = s.in_force().any(|set| set.is_asynchronous()) && self.rules.alone_is_not_silenced;
        (has_all && !is_alone, has_all || !self.rules.fences_after_closes)
    }

    pub(super) fn take_over(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let id = i as u8;
        if s.epoch >= self.epochs {
            return;
        }
        let grant = || {
            let mut t = *s;
            (t.epoch, t.holder, t.vacant, t.late, t.fences) = (s.epoch + 1, id, false, UNUSED, [None; N]);
            (t.before, t.is_behind) = (t.sets, false);
            (t.nodes[i].upstream, t.nodes[i].fenced) = (NOBODY, s.epoch);
            t
        };
        let is_silent = s.nodes[usize::from(s.holder)].primary == 0;
        if s.holder == id {
            out.push((Action::GrantToLast(id), grant()));
            return;
        }
        let (by_fences, when_silent) = self.may_take_over(s, i);
        if by_fences {
            out.push((Action::GrantFenced(id), grant()));
        }
        if is_silent && when_silent {
            out.push((Action::GrantSilent(id), grant()));
        }
    }

    /// What is agreed for the holder, and its promotion.
    pub(super) fn holder(&self, s: &State<N>, out: &mut Next<N>) {
        let h = usize::from(s.holder);
        if s.vacant {
            return;
        }
        self.widen(s, h, out);
        self.commit_late(s, h, out);
        if s.restarts < self.restarts && s.nodes[h].primary == s.epoch {
            let mut t = *s;
            t.restarts += 1;
            t.is_behind = !self.rules.read_at_start;
            out.push((Action::RestartHolder, t));
        }
        if s.is_behind {
            let mut t = *s;
            t.is_behind = false;
            out.push((Action::CatchUp, t));
        }
        self.promote(s, h, out);
    }

    /// The end of a change is committed, perhaps long after it was proposed.
    fn commit_late(&self, s: &State<N>, h: usize, out: &mut Next<N>) {
        let last = s.in_force().last();
        if s.late == UNUSED || last != Some(s.late) {
            return;
        }
        let mut t = *s;
        t.late = UNUSED;
        t.narrow(s.late);
        if s.late.is_asynchronous() {
            // From here on the operator has it so that a take-over may lose commits.
            t.nodes.iter_mut().for_each(|node| node.exempt = node.log.len);
        } else {
            // From here on nothing before the change may be lost, whoever acknowledged it.
            let m = &mut t.nodes[h];
            m.told = m.told.max(s.late_mark);
            Self::judge(&mut t);
        }
        out.push((Action::Narrow(s.late), t));
    }

    /// The first phase of a change, or of a promotion: a set comes into force as the last one.
    fn widen(&self, s: &State<N>, h: usize, out: &mut Next<N>) {
        let is_primary = s.nodes[h].primary == s.epoch;
        if s.is_behind || is_primary && !self.changes {
            return;
        }
        for set in self.usable(h).filter(|set| *set != s.target()) {
            let is_in_force = s.in_force().any(|known| known == set);
            let mut t = *s;
            let is_usual = is_in_force || !is_primary || s.in_force().count() == 1;
            if is_usual && t.widen(set) {
                if self.rules.change_by_revision {
                    t.late = UNUSED;
                }
                out.push((Action::Widen(set), t));
            }
        }
    }

    /// A holder becomes the primary under the target.
    fn promote(&self, s: &State<N>, h: usize, out: &mut Next<N>) {
        let n = &s.nodes[h];
        if n.primary != 0 || s.epoch == 1 || n.fenced >= s.epoch {
            return;
        }
        let mut t = *s;
        let set = s.target();
        if !self.rules.old_sets_stay {
            t.narrow(set);
        }
        t.newest = s.holder;
        let m = &mut t.nodes[h];
        (m.primary, m.active, m.mark) = (t.epoch, set, m.log.len);
        (m.counted, m.upstream) = ([0; N], NOBODY);
        Self::judge(&mut t);
        out.push((Action::Promote(set), t));
    }
}
