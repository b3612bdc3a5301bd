//! Failsafe: without a majority, the promises of every member to which the lease could be granted.

use super::state::Ask;
use super::{Action, Command, Lease, MARGIN, Next, State};

impl<const N: usize> Lease<N> {
    pub(super) fn failsafe_actions(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        if self.bounds.failsafe == 0 {
            return;
        }
        self.change_list(s, i, out);
        self.ask(s, i, out);
        self.promise(s, i, out);
        self.win_by_promises(s, i, out);
    }

    fn change_list(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let is_unsure = |c: &Command| matches!(c, Command::SetFailsafe { .. });
        if n.proposed != 0 && n.applied + 1 == s.len && !s.pending.iter().any(is_unsure) {
            let mut t = *s;
            t.nodes[i].proposed = 0;
            out.push((Action::Learned(i as u8), t));
        }
        let Some(r) = self.acts(s, i) else { return };
        if n.by_promises && self.rules.change_list_by_majority {
            return;
        }
        for members in self.bounds.lists.into_iter().filter(|list| *list != r.failsafe && *list != 0) {
            let mut t = *s;
            let command = Command::SetFailsafe { epoch: r.epoch, members };
            t.nodes[i].proposed |= members;
            if self.rules.change_list_by_majority {
                t.nodes[i].ask = Ask::default();
            }
            if t.propose(command) {
                out.push((Action::Propose(command), t));
            }
        }
    }

    fn ask(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let Some(r) = self.acts(s, i).filter(|r| !r.pinned) else { return };
        let is_own = r.life == n.life || !self.rules.failsafe_in_own_epoch;
        let is_licensed = n.won == r.epoch || !self.rules.failsafe_only_extends;
        let of = r.failsafe | if self.rules.ask_proposed { n.proposed } else { 0 };
        let is_new = n.ask.epoch != r.epoch || n.ask.age > 0 || n.ask.of != of;
        if is_own && is_licensed && is_new {
            let mut t = *s;
            t.nodes[i].ask = Ask { epoch: r.epoch, age: 0, of, ttl: r.ttl, wait: r.wait, promised: 1 << i };
            out.push((Action::AskFailsafe(i as u8), t));
        }
    }

    fn promise(&self, s: &State<N>, member: usize, out: &mut Next<N>) {
        let n = &s.nodes[member];
        let me = 1 << member;
        for holder in 0..N {
            let ask = s.nodes[holder].ask;
            let is_asked = ask.epoch > 0 && ask.of & me != 0 && ask.promised & me == 0;
            let is_later = s.view(member).epoch > ask.epoch || n.under > ask.epoch;
            if n.alive && is_asked && !(is_later && self.rules.refuse_older_epoch) {
                let mut t = *s;
                t.nodes[holder].ask.promised |= me;
                t.nodes[member].promise = n.promise.max(ask.wait);
                out.push((Action::Promise { member: member as u8, holder: holder as u8 }, t));
            }
        }
    }

    fn win_by_promises(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let ask = n.ask;
        let missing = (ask.of & !ask.promised).count_ones();
        let is_enough = missing == 0 || missing == 1 && !self.rules.ask_everybody;
        if ask.epoch == 0 || ask.epoch <= n.given_up || !n.alive || !is_enough {
            return;
        }
        let mut t = *s;
        let m = &mut t.nodes[i];
        let deadline = ask.ttl.saturating_sub(MARGIN + ask.age);
        m.by_promises |= deadline > m.deadline;
        m.deadline = m.deadline.max(deadline);
        (m.under, m.ask) = (ask.epoch, Ask::default());
        out.push((Action::WinByPromises(i as u8), t));
    }
}
