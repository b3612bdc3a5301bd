//! What a voter does: acknowledge and close.

use super::{Action, Lease, NOBODY, Next, State};

impl<const N: usize> Lease<N> {
    pub(super) fn voter_actions(&self, s: &State<N>, v: usize, out: &mut Next<N>) {
        let (n, r) = (&s.nodes[v], s.view(v));
        if !n.alive || r.holder == NOBODY {
            return;
        }
        let me = 1 << v;
        for holder in 0..N {
            for is_older in [false, true] {
                let asker = &s.nodes[holder];
                let round = if is_older { asker.older } else { asker.round };
                let is_named = r.epoch == round.epoch && r.holder == holder as u8 && round.epoch > 0;
                let is_session = r.session == asker.session || !self.rules.bound_to_session;
                let refuses_stale = !self.rules.voters_in_epoch && self.rules.refuse_stale_voters;
                let is_stale = refuses_stale && round.at + 1 < n.applied;
                let is_asked = round.voters & me != 0 && round.acks & me == 0;
                if is_asked && is_named && is_session && !is_stale && n.floor <= round.epoch {
                    let mut t = *s;
                    let m = &mut t.nodes[holder];
                    let asked = if is_older { &mut m.older } else { &mut m.round };
                    asked.acks |= me;
                    t.nodes[v].quiet = 0;
                    if self.rules.floor_on_ack {
                        t.nodes[v].floor = round.epoch;
                    }
                    out.push((Action::Acknowledge { voter: v as u8, holder: holder as u8 }, t));
                }
            }
        }
        let is_quiet = n.quiet >= r.wait.max(r.ttl) || !self.rules.close_waits;
        let is_pinned = r.pinned && self.rules.pin_refuses_closes;
        if r.voters & me != 0 && n.floor <= r.epoch && is_quiet && !is_pinned {
            let mut t = *s;
            t.nodes[v].floor = r.epoch + 1;
            out.push((Action::Close { voter: v as u8, epoch: r.epoch }, t));
        }
    }
}
