//! What a primary does, also one whose lease is gone: write, tell clients, change its set, stop.

use super::state::{NOBODY, UNUSED, count};
use super::{Action, Next, State, Synchrony};

impl<const N: usize> Synchrony<N> {
    pub(super) fn primary(&self, s: &State<N>, p: usize, out: &mut Next<N>) {
        let n = &s.nodes[p];
        let id = p as u8;
        if usize::from(n.log.len) < n.log.tags.len() {
            let mut t = *s;
            t.nodes[p].log.push(n.primary);
            out.push((Action::Write(id), t));
        }
        if n.primary < s.epoch {
            let mut t = *s;
            t.nodes[p].primary = 0;
            t.nodes[p].upstream = NOBODY;
            t.nodes[p].fenced = s.epoch - 1;
            out.push((Action::StopOld(id), t));
            return;
        }
        self.configure(s, p, out);
        self.end_change(s, p, out);
        if self.is_silent {
            let mut t = *s;
            t.nodes[p].primary = 0;
            t.nodes[p].upstream = NOBODY;
            out.push((Action::Expire(id), t));
            (t.vacant, t.late) = (true, UNUSED);
            out.push((Action::Release(id), t));
        }
    }

    /// Clients are told at once: that promises the most.
    pub(super) fn tell_clients(&self, s: &mut State<N>) {
        for p in 0..N {
            let n = &s.nodes[p];
            let is_acknowledged =
                |len: &u8| count(n.active.names, |i| n.counted[i] >= *len) >= n.active.needed;
            // What a primary acknowledges alone while it holds the lease may be lost with it: asynchronous.
            let is_promised = !n.active.is_asynchronous() || n.primary < s.epoch;
            if n.primary > 0 && is_promised {
                let told = (n.told + 1..=n.log.len).rev().find(is_acknowledged);
                if let Some(len) = told {
                    s.nodes[p].told = len;
                    Self::judge(s);
                }
            }
        }
    }

    /// PostgreSQL goes to another set.
    fn configure(&self, s: &State<N>, p: usize, out: &mut Next<N>) {
        let active = s.nodes[p].active;
        let mut choices = vec![s.target()];
        if !self.rules.target_only {
            choices = s.in_force().collect();
        }
        if !self.rules.widen_first && self.changes {
            choices = self.usable(p).collect();
        }
        for set in choices.into_iter().filter(|set| *set != active) {
            let mut t = *s;
            (t.nodes[p].active, t.nodes[p].mark) = (set, t.nodes[p].log.len);
            out.push((Action::Configure(set), t));
        }
    }

    /// The second phase of a change: the old sets leave.
    fn end_change(&self, s: &State<N>, p: usize, out: &mut Next<N>) {
        let n = &s.nodes[p];
        let target = s.target();
        let uses = n.active == target || !self.rules.reload_before_end;
        let has_flushed = |i: usize| n.counted[i] >= n.mark;
        let is_covered = count(target.names, has_flushed) >= target.needed || !self.rules.catch_up_before_end;
        if uses && is_covered && s.late != target && s.in_force().count() > 1 {
            let mut t = *s;
            (t.late, t.late_mark) = (target, n.mark);
            out.push((Action::ProposeNarrow(target), t));
        }
    }
}
