//! What a standby does: stream, acknowledge, fence itself, follow the next primary.

use super::state::NOBODY;
use super::{Action, Next, State, Synchrony};

impl<const N: usize> Synchrony<N> {
    pub(super) fn standby(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let id = i as u8;
        if n.upstream != NOBODY {
            self.stream(s, i, out);
        } else if n.fenced < s.epoch && s.holder != id && s.nodes[usize::from(s.holder)].primary == s.epoch {
            let mut t = *s; // rewound if it must
            let up = s.nodes[usize::from(s.holder)].log;
            let common = n.log.common(&up);
            let m = &mut t.nodes[i];
            m.log.cut(common);
            (m.upstream, m.counted, m.told) = (s.holder, [0; N], m.told.min(common));
            out.push((Action::Follow(id), t));
        }
        if !self.rules.fenced_until_next_epoch && n.fenced > 0 && n.upstream == NOBODY && s.holder != id {
            let mut t = *s; // back to the primary it was fenced from
            t.fences[i] = None;
            t.nodes[i].upstream = 0;
            out.push((Action::Unfence(id), t));
        }
        let (epoch, position) = n.ordered;
        if epoch == s.epoch && s.fences[i] != Some(position) && s.holder != id {
            let mut t = *s;
            t.fences[i] = Some(position);
            out.push((Action::CommitFence(id), t));
        }
        self.order_fence(s, i, out);
        self.take_over(s, i, out);
    }

    fn stream(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let up = &s.nodes[usize::from(n.upstream)];
        if up.primary > 0 && up.log.len > n.log.len && up.log.starts_with(&n.log) {
            let mut t = *s;
            t.nodes[i].log.push(up.log.tags[usize::from(n.log.len)]);
            out.push((Action::Stream(i as u8), t));
        }
        if n.flight != (n.upstream, n.log.len) && up.primary > 0 {
            let mut t = *s;
            t.nodes[i].flight = (n.upstream, n.log.len);
            out.push((Action::SendAck(i as u8), t));
        }
    }

    /// Also a standby whose primary is gone fences itself: what it has may be all that was acknowledged.
    fn order_fence(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let is_member = s.in_force().any(|set| set.names & 1 << i != 0);
        if is_member && s.holder != i as u8 && n.ordered.0 < s.epoch {
            let mut t = *s;
            let m = &mut t.nodes[i];
            (m.ordered, m.fenced) = ((s.epoch, n.log.position()), s.epoch);
            if self.rules.receiver_gone_first {
                m.upstream = NOBODY;
            }
            out.push((Action::OrderFence(i as u8), t));
        }
    }
}
