//! Makes states equal that differ in nothing which can still matter: records that everybody has applied, epochs that
//! nobody names any more, proposals that can do nothing.

use super::state::{Ask, Node, Round};
use super::{Command, Lease, State};

impl<const N: usize> Lease<N> {
    pub(super) fn settle(&self, t: &mut State<N>) {
        self.drop_late_proposals(t);
        self.drop_applied_records(t);
        let oldest = self.forget_old_epochs(t);
        if self.bounds.epochs == u8::MAX && oldest > 1 {
            lower_epochs(t, oldest - 1);
        }
    }

    /// A compare-and-set on an epoch that is gone, or on a tenure that has ended, does nothing.
    fn drop_late_proposals(&self, t: &mut State<N>) {
        if !self.rules.compare_and_set {
            return;
        }
        let last = t.last();
        for command in &mut t.pending {
            if command.epoch() != last.epoch || last.holder == super::NOBODY {
                *command = Command::Nil;
            }
        }
        t.pending.sort_unstable();
    }

    fn comes_back(&self, t: &State<N>, n: &Node) -> bool {
        n.alive || n.left || self.bounds.power && t.reboots < self.bounds.reboots
    }

    fn drop_applied_records(&self, t: &mut State<N>) {
        let s = *t;
        let least = s.nodes.iter().filter(|n| self.comes_back(&s, n)).map(|n| n.applied).min();
        // A restart may put a node's state machine one record back.
        let replays = s.restarts < self.bounds.restarts || s.reboots < self.bounds.reboots;
        let from = least.unwrap_or(0).saturating_sub(u8::from(replays));
        for n in t.nodes.iter_mut() {
            if self.comes_back(&s, n) {
                n.applied -= from;
            } else {
                n.applied = s.len - 1 - from;
            }
            n.round.at = n.round.at.saturating_sub(from);
            n.older.at = n.older.at.saturating_sub(from);
        }
        if from > 0 {
            t.len -= from;
            t.log.rotate_left(usize::from(from));
        }
        let last = t.last();
        t.log[usize::from(t.len)..].fill(last);
    }

    /// The oldest epoch which anybody may still name; below it, all values of a node mean the same.
    fn forget_old_epochs(&self, t: &mut State<N>) -> u8 {
        let named = |epoch: u8| Some(epoch).filter(|epoch| *epoch > 0);
        let mut oldest = t.log[0].epoch;
        for n in t.nodes.iter_mut() {
            for round in [&mut n.round, &mut n.older] {
                if round.epoch <= n.given_up || !n.alive {
                    *round = Round::default();
                }
            }
            if n.ask.epoch <= n.given_up || !n.alive {
                n.ask = Ask::default();
            }
            let asked = [n.round.epoch, n.older.epoch, n.ask.epoch].into_iter().filter_map(named);
            oldest = asked.fold(oldest, u8::min);
        }
        for command in t.pending.iter().filter(|command| **command != Command::Nil) {
            oldest = oldest.min(command.epoch());
        }
        for n in t.nodes.iter_mut() {
            n.floor = n.floor.max(oldest);
            n.given_up = n.given_up.max(oldest.saturating_sub(1));
            n.won = if n.won < oldest { 0 } else { n.won };
            n.resuming = if n.resuming < oldest { 0 } else { n.resuming };
            if !n.is_writable() && n.under < oldest {
                n.under = 0;
            }
            if n.mute < oldest && !n.is_zombie() {
                n.mute = 0;
            }
            if !n.alive {
                (n.quiet, n.won, n.resuming, n.promise, n.proposed) = (0, 0, 0, 0, 0);
            }
            n.by_promises &= n.deadline > 0;
            if !n.is_writable() {
                n.unlicensed = 0;
            }
        }
        // A writer of long ago: its epoch matters against its own fence only.
        for n in t.nodes.iter().filter(|n| n.is_writable() && n.under > 0) {
            oldest = oldest.min(n.under);
        }
        oldest
    }
}

/// Epochs are compared, never counted: only their differences matter.
fn lower_epochs<const N: usize>(t: &mut State<N>, by: u8) {
    let lower = |epoch: &mut u8| *epoch = epoch.saturating_sub(by);
    for record in t.log.iter_mut() {
        lower(&mut record.epoch);
    }
    for n in t.nodes.iter_mut() {
        for epoch in [
            &mut n.floor,
            &mut n.given_up,
            &mut n.won,
            &mut n.under,
            &mut n.round.epoch,
            &mut n.older.epoch,
            &mut n.mute,
            &mut n.resuming,
            &mut n.ask.epoch,
        ] {
            lower(epoch);
        }
    }
    for command in &mut t.pending {
        *command = command.lowered(by);
    }
}
