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
        let is_acknowledged = |len: &u8| count(n.active.names, |i| n.counted[i] >= *len) >= n.active.needed;
        if let Some(len) = (n.told + 1..=n.log.len).rev().find(is_acknowledged) {
            // What a primary acknowledges alone while it holds the lease may be lost with it: asynchronous.
            let is_promised = !n.active.is_asynchronous() || n.primary < s.epoch;
            if is_promised {
                let mut t = *s;
                t.nodes[p].told = len;
                Self::judge(&mut t);
                out.push((Action::TellClient(id), t));
            }
        }
        if n.primary < s.epoch {
            let mut t = *s;
            t.nodes[p].primary = 0;
            t.nodes[p].upstream = NOBODY;
            t.nodes[p].fenced = s.epoch - 1;
            out.push((Action::StopOld(id), t));
            return;
        }
        self.change(s, p, out);
        if self.is_silent {
            let mut t = *s;
            t.nodes[p].primary = 0;
            t.nodes[p].upstream = NOBODY;
            t.next = UNUSED;
            out.push((Action::Expire(id), t));
            t.vacant = true;
            out.push((Action::Release(id), t));
        }
    }

    /// The two-phase change of the synchronous set.
    fn change(&self, s: &State<N>, p: usize, out: &mut Next<N>) {
        let n = &s.nodes[p];
        if s.next == UNUSED && self.changes && s.in_force().count() == 1 {
            for set in self.usable(p).filter(|set| *set != n.active) {
                let mut t = *s;
                t.next = set;
                if !self.rules.widen_first || t.widen(set) {
                    out.push((Action::Widen(set), t));
                }
            }
        }
        if s.next == UNUSED {
            return;
        }
        if n.active != s.next {
            let mut t = *s;
            (t.nodes[p].active, t.nodes[p].mark) = (s.next, n.log.len);
            out.push((Action::Reload(s.next), t));
        }
        let uses = n.active == s.next || !self.rules.reload_before_end;
        let has_flushed = |i: usize| n.counted[i] >= n.mark;
        let is_covered = count(s.next.names, has_flushed) >= s.next.needed || !self.rules.catch_up_before_end;
        if uses && is_covered {
            let mut t = *s;
            t.narrow(s.next);
            if s.next.is_asynchronous() {
                // From here on the operator has it so that a take-over may lose commits.
                t.nodes.iter_mut().for_each(|node| node.told = 0);
            }
            if self.rules.reload_before_end {
                t.next = UNUSED;
            }
            if !s.next.is_asynchronous() && n.active == s.next {
                // From here on nothing before the change may be lost, whoever acknowledged it.
                let m = &mut t.nodes[p];
                m.told = m.told.max(n.mark);
                Self::judge(&mut t);
            }
            out.push((Action::Narrow(s.next), t));
        }
    }
}
