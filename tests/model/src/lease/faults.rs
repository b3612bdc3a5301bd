//! Restarts of daemons, reboots and deaths.

use super::state::{Ask, Round};
use super::{Action, Lease, Next, State};

impl<const N: usize> Lease<N> {
    /// `replay`: the state machine begins behind where it was, and comes back with the log.
    pub(super) fn restart(&self, s: &State<N>, i: usize, replay: u8) -> State<N> {
        let mut t = *s;
        let longest = self.longest();
        let n = &mut t.nodes[i];
        n.alive = true;
        n.older = Round::default();
        (n.round, n.ask, n.won, n.resuming, n.proposed) = (Round::default(), Ask::default(), 0, 0, 0);
        n.quiet = if self.rules.quiet_from_start { 0 } else { longest };
        let promises = self.bounds.failsafe != 0 && self.rules.promise_from_start;
        n.promise = if promises { longest } else { 0 };
        n.life += u8::from(self.counts_lives());
        n.applied = n.applied.saturating_sub(replay);
        if !self.rules.durable_close {
            n.floor = 0;
        }
        t
    }

    pub(super) fn faults(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let (b, n, id) = (&self.bounds, &s.nodes[i], i as u8);
        if n.alive && s.restarts < b.restarts && b.unstable & 1 << i != 0 {
            for replay in 0..2 {
                let mut t = self.restart(s, i, replay);
                t.restarts += 1;
                out.push((Action::Restart(id), t));
            }
        }
        if (n.alive || b.power) && s.reboots < b.reboots {
            let mut t = self.restart(s, i, 1);
            t.reboots += 1;
            let n = &mut t.nodes[i];
            n.silence();
            n.session += 1;
            out.push((Action::Reboot(id), t));
        }
        if n.alive && s.deaths < b.deaths {
            let mut t = *s;
            t.deaths += 1;
            t.nodes[i].alive = false;
            if b.power {
                t.nodes[i].silence();
            }
            out.push((Action::Die(id), t));
        }
    }
}
