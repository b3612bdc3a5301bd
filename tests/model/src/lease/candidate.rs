//! What a candidate does: take the lease when it is vacant, closed, fenced, or given up for dead by the operator. And
//! adoption of a primary that ran before the first grant.

use super::state::{Record, is_majority};
use super::{Action, Lease, NOBODY, Next, State};

impl<const N: usize> Lease<N> {
    fn grant(&self, s: &State<N>, to: usize) -> State<N> {
        let mut t = *s;
        let r = s.last();
        let n = s.nodes[to];
        let life = if self.counts_lives() { n.life } else { 0 };
        let holder = to as u8;
        t.push(Record {
            epoch: r.epoch + 1,
            holder,
            session: n.session,
            life,
            wait: r.ttl,
            pinned: false,
            ..r
        });
        t
    }

    pub(super) fn candidate_actions(&self, s: &State<N>, c: usize, out: &mut Next<N>) {
        self.adoption(s, c, out);
        let (n, r, last) = (&s.nodes[c], s.view(c), s.last());
        let id = c as u8;
        let may_stand =
            n.alive && self.bounds.holders & 1 << c != 0 && r.epoch == last.epoch && last.holder != id;
        let in_list = last.failsafe == 0 || last.failsafe & 1 << c != 0 || !self.rules.grant_in_list;
        if !may_stand || !in_list || !self.has_room(s) {
            return;
        }
        if last.holder == NOBODY {
            if n.unlicensed != 1 || !self.rules.adopt_before_renewal {
                out.push((Action::GrantVacant(id), self.grant(s, c)));
            }
            return;
        }
        // The pause is over: whether it is changes nothing here.
        let has_left = s.nodes[usize::from(last.holder)].left;
        let is_pinned_for = |rule: bool| last.pinned && rule;
        if is_majority(r.voters, s.closed_by(r.epoch)) && !is_pinned_for(self.rules.pin_refuses_closes) {
            out.push((Action::GrantClosed(id), self.grant(s, c)));
        } else if self.bounds.fence && (!is_pinned_for(self.rules.pin_refuses_fences) || has_left) {
            let mut t = self.grant(s, c);
            t.nodes[usize::from(last.holder)].mute = last.epoch;
            out.push((Action::GrantFenced(id), t));
        }
        let holder = &s.nodes[usize::from(last.holder)];
        if self.bounds.power && !holder.alive && !holder.is_writable() {
            out.push((Action::GrantByWord(id), self.grant(s, c)));
        }
    }

    fn adoption(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let (n, r) = (&s.nodes[i], s.view(i));
        let is_known = n.unlicensed > 1 && self.rules.adopt_once;
        if n.unlicensed == 0 || is_known || !n.alive {
            return;
        }
        let mut t = *s;
        let m = &mut t.nodes[i];
        if r.epoch == 0 {
            m.unlicensed = m.unlicensed.max(2);
            m.deadline = self.bounds.ttls.0;
            m.disarmed = !self.rules.arm_at_adoption;
            out.push((Action::Adopt(i as u8), t));
        } else if r.holder != i as u8 {
            m.silence();
            out.push((Action::StopUnlicensed(i as u8), t));
        }
    }
}
