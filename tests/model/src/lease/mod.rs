//! Lease, closes, new epochs for the same holder, release, transfer, restarts, reboots, change of voters, pause,
//! failsafe and adoption.
//!
//! The log is atomic (Raft is trusted); every node applies it at its own pace, at most [`WINDOW`] records behind. Time
//! is a global tick by which every node's clock advances, except that a clock may stand still for `slow` ticks in all
//! (difference of rates; the margin covers one). Messages are not queued: a voter may take a question, and a holder
//! its answers, at any later time. PostgreSQL is writable whenever its guard lets it be.

mod candidate;
mod failsafe;
mod faults;
mod holder;
mod rules;
mod settle;
mod state;
mod voter;

use crate::search::Model;

pub use rules::{Bounds, Rules};
use state::{Ask, Node, Record, Round};
pub use state::{Command, NOBODY, State, WINDOW};

/// What a holder gives away of each ttl, in ticks.
const MARGIN: u8 = 1;

/// What may happen.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is the name of a step of the protocol")]
pub enum Action {
    Tick,
    TickWithout(u8),
    Apply(u8),
    Send(u8),
    Acknowledge { voter: u8, holder: u8 },
    Win(u8),
    Stop { then: Command },
    Propose(Command),
    Commit(Command),
    SetVoters { without: u8 },
    Close { voter: u8, epoch: u8 },
    GrantVacant(u8),
    GrantClosed(u8),
    GrantFenced(u8),
    GrantByWord(u8),
    Disarm(u8),
    Arm(u8),
    AskFailsafe(u8),
    Promise { member: u8, holder: u8 },
    Learned(u8),
    WinByPromises(u8),
    Adopt(u8),
    StopUnlicensed(u8),
    Restart(u8),
    Reboot(u8),
    Die(u8),
    Leave(u8),
    Return(u8),
    Rejoin(u8),
}

/// Successors of a state.
type Next<const N: usize> = Vec<(Action, State<N>)>;

/// The model of `N` nodes.
#[derive(Clone, Copy, Debug)]
pub struct Lease<const N: usize> {
    /// What the protocol demands.
    pub rules: Rules,
    /// What may happen.
    pub bounds: Bounds,
}

impl<const N: usize> Lease<N> {
    /// May another epoch begin?
    fn has_room(&self, s: &State<N>) -> bool {
        s.has_room() && s.last().epoch < self.bounds.epochs
    }

    fn longest(&self) -> u8 {
        self.bounds.ttls.0.max(self.bounds.ttls.1)
    }

    /// Do the lives of daemons matter? Else they would only make states differ.
    fn counts_lives(&self) -> bool {
        self.bounds.pause || self.bounds.failsafe != 0
    }

    fn tick(&self, s: &State<N>, without: Option<usize>) -> State<N> {
        let mut t = *s;
        let longest = self.longest();
        for (i, n) in t.nodes.iter_mut().enumerate() {
            if without == Some(i) {
                continue;
            }
            n.quiet = (n.quiet + 1).min(longest);
            n.promise = n.promise.saturating_sub(1);
            for round in [&mut n.round, &mut n.older] {
                round.age += u8::from(round.epoch > 0);
                if round.age >= longest {
                    *round = Round::default();
                }
            }
            n.ask.age += u8::from(n.ask.epoch > 0);
            if n.ask.age >= longest {
                n.ask = Ask::default();
            }
            if n.unlicensed > 1 {
                n.unlicensed = (n.unlicensed + 1).min(longest + 4);
            }
            let was = n.deadline;
            n.deadline = was.saturating_sub(1);
            if was == 1 && !n.disarmed {
                n.unlicensed = 0; // the guard
            }
        }
        if t.zombie > 0 {
            t.zombie = if t.nodes.iter().any(Node::is_bounded_zombie) { t.zombie + 1 } else { 0 };
        }
        t
    }

    fn apply(&self, s: &State<N>, i: usize) -> State<N> {
        let mut t = *s;
        let old = s.view(i).epoch;
        t.nodes[i].applied += 1;
        let record = t.view(i);
        let n = &mut t.nodes[i];
        if record.epoch > old {
            if self.rules.quiet_from_learning {
                n.quiet = 0;
            } else if !self.rules.quiet_for_any_epoch {
                n.quiet = self.longest();
            }
            let is_mine = record.holder == i as u8 && record.session == n.session;
            if is_mine && !self.rules.licence_needs_renewal && n.given_up < record.epoch && n.alive {
                (n.deadline, n.under) = (record.ttl - MARGIN, record.epoch);
            }
            if n.unlicensed > 1 && record.holder != i as u8 && self.rules.stop_unlicensed {
                n.silence();
            }
        }
        t
    }

    fn commit(&self, s: &State<N>, which: usize) -> State<N> {
        let mut t = *s;
        let command = std::mem::replace(&mut t.pending[which], Command::Nil);
        t.pending.sort_unstable();
        let r = t.last();
        if self.rules.compare_and_set && command.epoch() != r.epoch || r.holder == NOBODY {
            return t;
        }
        let may_hold = |to: u8| r.failsafe == 0 || r.failsafe & 1 << to != 0 || !self.rules.grant_in_list;
        let next = Record { epoch: r.epoch + 1, pinned: false, ..r };
        match command {
            Command::Nil => {}
            Command::Release { .. } => t.push(Record { holder: NOBODY, pinned: false, ..r }),
            Command::Transfer { to, voters, .. } if self.has_room(s) && may_hold(to) => {
                let session = t.nodes[usize::from(to)].session;
                t.push(Record { holder: to, session, life: NOBODY, voters, wait: r.ttl, ..next });
            }
            Command::Renew { to, session, life, voters, ttl, pinned, .. }
                if self.has_room(s) && r.holder == to && may_hold(to) =>
            {
                let wait = if self.rules.old_ttl_counts { r.ttl.max(ttl) } else { ttl };
                t.push(Record { session, life, voters, ttl, wait, pinned, ..next });
            }
            Command::SetFailsafe { members, .. } if members & 1 << r.holder != 0 => {
                t.push(Record { failsafe: members, ..r });
            }
            Command::Transfer { .. } | Command::Renew { .. } | Command::SetFailsafe { .. } => {}
        }
        t
    }

    /// Changes of voters that no proposal of a holder carries.
    fn set_voters(&self, s: &State<N>, out: &mut Next<N>) {
        let last = s.last();
        let vacant = self.bounds.vacant_voters && last.holder == NOBODY;
        if !s.has_room() || !vacant && self.rules.voters_in_epoch {
            return;
        }
        for j in (0..N).filter(|j| self.bounds.change_voters & 1 << j != 0) {
            let voters = last.voters ^ 1 << j;
            if voters != 0 {
                let mut t = *s;
                t.push(Record { voters, ..last });
                out.push((Action::SetVoters { without: voters }, t));
            }
        }
    }
}

impl<const N: usize> Model for Lease<N> {
    type State = State<N>;
    type Action = Action;

    fn init(&self) -> State<N> {
        let b = &self.bounds;
        let ttl = b.ttls.0;
        let empty = Record {
            epoch: 0,
            holder: NOBODY,
            session: 0,
            life: 0,
            voters: b.voters,
            ttl,
            wait: ttl,
            pinned: false,
            failsafe: b.failsafe,
        };
        let node = Node {
            alive: true,
            applied: 0,
            quiet: self.longest(),
            floor: 0,
            given_up: 0,
            session: 0,
            life: 0,
            won: 0,
            under: 0,
            deadline: 0,
            disarmed: false,
            round: Round::default(),
            older: Round::default(),
            mute: 0,
            left: false,
            resuming: 0,
            promise: 0,
            proposed: 0,
            ask: Ask::default(),
            by_promises: false,
            unlicensed: 0,
        };
        let mut s = State {
            log: [empty; WINDOW],
            len: 1,
            nodes: [node; N],
            pending: [Command::Nil; 2],
            zombie: 0,
            slow: 0,
            restarts: 0,
            reboots: 0,
            deaths: 0,
        };
        if b.adopt {
            (s.nodes[0].disarmed, s.nodes[0].unlicensed) = (true, 1);
        } else {
            s.push(Record { epoch: 1, holder: 0, ..empty });
        }
        s
    }

    fn next(&self, s: &State<N>, out: &mut Next<N>) {
        if self.bounds.time {
            out.push((Action::Tick, self.tick(s, None)));
        }
        for i in 0..N {
            let id = i as u8;
            if s.slow < self.bounds.slow {
                let mut t = self.tick(s, Some(i));
                t.slow += 1;
                out.push((Action::TickWithout(id), t));
            }
            if s.nodes[i].alive && s.nodes[i].applied + 1 < s.len {
                out.push((Action::Apply(id), self.apply(s, i)));
            }
            self.holder_actions(s, i, out);
            self.pause_actions(s, i, out);
            self.failsafe_actions(s, i, out);
            self.voter_actions(s, i, out);
            self.candidate_actions(s, i, out);
            self.faults(s, i, out);
        }
        for which in 0..2 {
            if s.pending[which] != Command::Nil && s.has_room() {
                out.push((Action::Commit(s.pending[which]), self.commit(s, which)));
            }
        }
        self.set_voters(s, out);
        for (_, t) in out.iter_mut() {
            for i in (0..N).filter(|i| self.bounds.prompt & 1 << i != 0) {
                while t.nodes[i].applied + 1 < t.len {
                    *t = self.apply(t, i);
                }
            }
            self.settle(t);
        }
    }

    fn broken(&self, s: &State<N>) -> Option<&'static str> {
        let acknowledges = |n: &&Node| n.is_writable() && !n.is_zombie() && n.unlicensed == 0;
        if s.nodes.iter().filter(acknowledges).count() > 1 {
            return Some("two nodes accept writes");
        }
        if s.zombie > self.longest() + 1 {
            return Some("a fenced primary outlives the ttl");
        }
        let names_another = |i: usize| s.view(i).epoch > 0 && s.view(i).holder != i as u8;
        for (i, n) in s.nodes.iter().enumerate().filter(|(_, n)| n.unlicensed > 1) {
            if n.unlicensed > 2 + self.longest() {
                return Some("an unlicensed primary outlives its bound");
            }
            if names_another(i) {
                return Some("an unlicensed primary runs although the lease names another node");
            }
        }
        None
    }

    fn is_good(&self, s: &State<N>) -> bool {
        s.last().epoch >= self.bounds.epochs || s.nodes.iter().any(Node::is_writable)
    }
}
