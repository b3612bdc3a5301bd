//! What the holder does: renew, give up, propose new epochs, pause and resume.

use super::state::{Record, Round, is_majority};
use super::{Action, Command, Lease, MARGIN, NOBODY, Next, State};

impl<const N: usize> Lease<N> {
    /// The record under which this daemon may act as holder.
    pub(super) fn acts(&self, s: &State<N>, i: usize) -> Option<Record> {
        let (n, r) = (&s.nodes[i], s.view(i));
        let is_mine =
            n.alive && r.holder == i as u8 && (r.session == n.session || !self.rules.bound_to_session);
        (is_mine && n.given_up < r.epoch).then_some(r)
    }

    fn life(&self, s: &State<N>, i: usize) -> u8 {
        if self.counts_lives() { s.nodes[i].life } else { 0 }
    }

    pub(super) fn holder_actions(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        let id = i as u8;
        let n = &s.nodes[i];
        self.win(s, i, s.nodes[i].round, out);
        self.win(s, i, s.nodes[i].older, out);
        let r = s.view(i);
        if self.acts(s, i).is_some() && (n.round.epoch != r.epoch || n.round.age > 0) {
            let mut t = *s;
            let at = if self.rules.voters_in_epoch { 0 } else { n.applied };
            if self.bounds.two_rounds && n.round.epoch != r.epoch {
                t.nodes[i].older = n.round;
            }
            t.nodes[i].round = Round { epoch: r.epoch, age: 0, voters: r.voters, ttl: r.ttl, acks: 0, at };
            out.push((Action::Send(id), t));
        }
        if !n.alive || r.holder != id {
            return;
        }
        if r.session == n.session || !self.rules.bound_to_session {
            self.hand_over(s, i, r, out);
        }
        if r.session != n.session && self.bounds.release {
            let mut t = *s; // another boot: the processes of the old session are dead, nothing need be given up
            let command = Command::Release { epoch: r.epoch };
            if t.propose(command) {
                out.push((Action::Propose(command), t));
            }
        }
        self.renewals(s, i, r, out);
    }

    fn win(&self, s: &State<N>, i: usize, round: Round, out: &mut Next<N>) {
        let n = &s.nodes[i];
        if round.epoch == 0 || round.epoch <= n.given_up || !n.alive || !is_majority(round.voters, round.acks)
        {
            return;
        }
        let is_first = n.won != round.epoch && n.under != round.epoch;
        if is_first && n.promise > 0 && self.rules.promise_stops_first_renewal {
            return;
        }
        let margin = if self.rules.margin { MARGIN } else { 0 };
        let age = if self.rules.count_from_send { round.age } else { 0 };
        let mut t = *s;
        let m = &mut t.nodes[i];
        (m.won, m.under, m.older) = (round.epoch, round.epoch, Round::default());
        if round == m.round {
            m.round = Round::default();
        }
        let deadline = round.ttl.saturating_sub(margin + age);
        m.by_promises &= deadline < m.deadline;
        m.deadline = m.deadline.max(deadline);
        if m.deadline > 0 {
            m.unlicensed = 0;
        }
        if t.zombie == 0 && s.nodes.iter().any(|o| o.is_zombie()) && round.epoch > n.mute {
            t.zombie = 1;
        }
        out.push((Action::Win(i as u8), t));
    }

    /// Release and Transfer: PostgreSQL is stopped first, and the epoch is given up.
    fn hand_over(&self, s: &State<N>, i: usize, r: Record, out: &mut Next<N>) {
        let b = &self.bounds;
        let mut commands = Vec::new();
        if b.release {
            commands.push(Command::Release { epoch: r.epoch });
        }
        if b.transfer {
            let others = (0..N as u8).filter(|to| usize::from(*to) != i && b.holders & 1 << to != 0);
            for to in others {
                commands.push(Command::Transfer { epoch: r.epoch, to, voters: r.voters });
                let without = r.voters & !(1 << i);
                if b.vacant_voters && b.change_voters & 1 << i != 0 && without != r.voters && without != 0 {
                    commands.push(Command::Transfer { epoch: r.epoch, to, voters: without });
                }
            }
        }
        for command in commands {
            let mut t = *s;
            let m = &mut t.nodes[i];
            if self.rules.transfer_voids_deadline || matches!(command, Command::Release { .. }) {
                m.silence();
            }
            if self.rules.give_up_recorded {
                (m.given_up, m.round, m.older) = (r.epoch, Round::default(), Round::default());
            }
            if t.propose(command) {
                out.push((Action::Stop { then: command }, t));
            }
        }
    }

    /// New epochs for the same holder.
    fn renewals(&self, s: &State<N>, i: usize, r: Record, out: &mut Next<N>) {
        let (b, n) = (&self.bounds, &s.nodes[i]);
        if !self.has_room(s) {
            return;
        }
        let renew = |voters: u8, ttl: u8, pinned: bool| Command::Renew {
            epoch: r.epoch,
            to: i as u8,
            session: n.session,
            life: self.life(s, i),
            voters,
            ttl,
            pinned,
        };
        let mut commands = Vec::new();
        if b.renew {
            commands.push(renew(r.voters, r.ttl, r.pinned));
        }
        if b.ttls.0 != b.ttls.1 {
            commands.push(renew(r.voters, b.ttls.0 + b.ttls.1 - r.ttl, r.pinned));
        }
        let settled = n.won == r.epoch || !self.rules.change_after_renewal;
        for change in
            (1..1u8 << N).filter(|c| c & !b.change_voters == 0 && settled && self.rules.voters_in_epoch)
        {
            let is_single = change.count_ones() == 1 || !self.rules.one_voter_at_a_time;
            if is_single && r.voters ^ change != 0 {
                commands.push(renew(r.voters ^ change, r.ttl, r.pinned));
            }
        }
        if b.pause && !r.pinned && self.acts(s, i).is_some() {
            commands.push(renew(r.voters, r.ttl, true));
        }
        let is_armed = n.resuming == r.epoch && !n.disarmed || !self.rules.arm_before_resume;
        if b.pause && r.pinned && is_armed {
            commands.push(renew(r.voters, r.ttl, false));
        }
        for command in commands {
            let mut t = *s;
            if t.propose(command) {
                if !self.rules.disarm_when_applied && matches!(command, Command::Renew { pinned: true, .. }) {
                    t.nodes[i].disarmed = true;
                }
                out.push((Action::Propose(command), t));
            }
        }
    }

    /// A daemon that was stopped in pause starts again: it stops what runs beside another holder, else it is a member as
    /// before.
    fn come_back(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        if !s.nodes[i].left {
            return;
        }
        if !s.nodes[i].alive {
            out.push((Action::Return(i as u8), self.restart(s, i, 0)));
            return;
        }
        let mut t = *s;
        let is_superseded = s.nodes[i].applied + 1 == s.len && s.view(i).holder != i as u8;
        if is_superseded {
            t.nodes[i].silence();
        }
        if is_superseded || !s.nodes[i].is_zombie() {
            t.nodes[i].left = false;
            out.push((Action::Rejoin(i as u8), t));
        }
    }

    /// Pause: the guard is disarmed when the pinned epoch is seen. Resume: it is armed, then the pin ends.
    pub(super) fn pause_actions(&self, s: &State<N>, i: usize, out: &mut Next<N>) {
        self.come_back(s, i, out);
        let Some(r) = self.acts(s, i).filter(|r| r.pinned && r.holder != NOBODY) else { return };
        let n = &s.nodes[i];
        let is_own = r.life == n.life || !self.rules.disarm_in_own_epoch;
        let stays = n.resuming == r.epoch && self.rules.stay_armed;
        if !n.disarmed && is_own && !stays {
            let mut t = *s;
            let m = &mut t.nodes[i];
            m.disarmed = true;
            m.under = m.under.max(r.epoch);
            out.push((Action::Disarm(i as u8), t));
        }
        if self.bounds.goodbye && n.disarmed && !n.left && s.last().epoch == r.epoch {
            let mut t = *s;
            (t.nodes[i].alive, t.nodes[i].left) = (false, true);
            out.push((Action::Leave(i as u8), t));
        }
        if n.won == r.epoch && n.resuming != r.epoch {
            let mut t = *s;
            let m = &mut t.nodes[i];
            (m.resuming, m.disarmed) = (r.epoch, false);
            out.push((Action::Arm(i as u8), t));
        }
    }
}
