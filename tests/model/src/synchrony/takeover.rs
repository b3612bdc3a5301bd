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

    pub(super) fn take_over(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let id = i as u8;
        if s.epoch >= self.epochs {
            return;
        }
        let grant = || {
            let mut t = *s;
            (t.epoch, t.holder, t.vacant, t.next, t.fences) = (s.epoch + 1, id, false, UNUSED, [None; N]);
            (t.nodes[i].upstream, t.nodes[i].fenced) = (NOBODY, s.epoch);
            t
        };
        let is_silent = s.nodes[usize::from(s.holder)].primary == 0;
        if s.holder == id {
            out.push((Action::GrantToLast(id), grant()));
            return;
        }
        let highest = s.fences.iter().flatten().max();
        let needs_standbys = s.in_force().any(|set| !set.is_asynchronous());
        let is_highest = highest.is_none() || s.fences[i].as_ref() == highest || !needs_standbys;
        let has_all = self.is_every_set_fenced(s) && (is_highest || !self.rules.candidate_is_highest);
        let is_alone = s.in_force().any(|set| set.is_asynchronous()) && self.rules.alone_is_not_silenced;
        if has_all && !is_alone {
            out.push((Action::GrantFenced(id), grant()));
        }
        if is_silent && (has_all || !self.rules.fences_after_closes) {
            out.push((Action::GrantSilent(id), grant()));
        }
    }

    /// The new holder's set comes into force beside the old ones, then it is promoted.
    pub(super) fn promote(&self, s: &State<N>, out: &mut Next<N>) {
        let i = usize::from(s.holder);
        if s.vacant
            || s.nodes[i].primary != 0
            || s.next != UNUSED
            || s.epoch == 1
            || s.nodes[i].fenced >= s.epoch
        {
            return;
        }
        for set in self.usable(i) {
            let mut t = *s;
            if !self.rules.old_sets_stay {
                t.narrow(set);
            } else if !t.widen(set) {
                continue;
            } else {
                t.next = set;
            }
            let m = &mut t.nodes[i];
            (m.primary, m.active, m.mark) = (t.epoch, set, m.log.len);
            (m.counted, m.upstream) = ([0; N], NOBODY);
            Self::judge(&mut t);
            out.push((Action::Promote(set), t));
        }
    }
}
