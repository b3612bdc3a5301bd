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
            (m.upstream, m.counted) = (s.holder, [0; N]);
            (m.told, m.exempt) = (m.told.min(common), m.exempt.min(common));
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
        self.copy(s, i, out);
        self.order_fence(s, i, out);
        self.take_over(s, i, out);
    }

    /// The data directory is thrown away; the next one is a copy of another node's. Until it is complete, nothing runs.
    fn copy(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let is_named = s.in_force().any(|set| set.names & 1 << i != 0);
        let is_fenced = n.fenced >= s.epoch && self.rules.copy_obeys_fence;
        if is_fenced || s.copies >= self.copies || usize::from(s.holder) == i || n.told > 0 {
            return;
        }
        for from in (0..N).filter(|from| *from != i && s.nodes[*from].log != n.log) {
            let is_primary = usize::from(s.holder) == from && s.nodes[from].primary == s.epoch;
            if is_primary || !is_named || !self.rules.copy_of_primary {
                let mut t = *s;
                t.copies += 1;
                let m = &mut t.nodes[i];
                (m.log, m.upstream, m.flight) = (s.nodes[from].log, NOBODY, (NOBODY, 0));
                t.nodes.iter_mut().for_each(|other| other.counted[i] = 0);
                out.push((Action::Copy { to: i as u8, from: from as u8 }, t));
            }
        }
    }

    fn stream(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let n = &s.nodes[i];
        let up = &s.nodes[usize::from(n.upstream)];
        if up.primary > 0 && up.log.len > n.log.len && up.log.starts_with(&n.log) {
            let mut t = *s;
            let m = &mut t.nodes[i];
            m.log.push(up.log.tags[usize::from(n.log.len)]);
            // At once, unless an acknowledgement to another primary is still on its way.
            if m.flight.0 == NOBODY || m.flight.0 == n.upstream {
                m.flight = (n.upstream, m.log.len);
            }
            out.push((Action::Stream(i as u8), t));
        }
        let is_sent = n.flight == (n.upstream, n.log.len) || up.counted[i] >= n.log.len;
        if !is_sent && up.primary > 0 {
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
