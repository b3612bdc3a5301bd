//! The holder's side of the lease: rounds, acknowledgements, and the deadline until which PostgreSQL may be writable.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arithmetic::{self, BootTime};
use super::failsafe::{Failsafe, FailsafeFacts};
use super::message::{FailsafeQuestion, Renewal, RenewalAnswer, RenewalVerdict};
use crate::model::{ClusterState, Epoch, Incarnation, Lease, MemberId, Session};

/// Rounds whose answers may still arrive; older ones are forgotten.
const ROUNDS_KEPT: usize = 16;
/// As many missed rounds make a voter count as silent: the patience of the succession.
const ROUNDS_RECENT: usize = 3;

/// The state of one daemon life as (possible) holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    me: MemberId,
    session: Session,
    incarnation: Incarnation,
    /// No round of this epoch or an earlier one is sent or counted; durable.
    given_up: Epoch,
    last_round: u64,
    rounds: Vec<Round>,
    licence: Option<Licence>,
    /// The epoch of which a minority of voters answered that it is closed.
    disputed: Option<Epoch>,
    /// No round that was sent before then is the first of its epoch to win: this member promised so.
    stands_back_until: BootTime,
    /// The epoch for which the guard was armed when this life began: its first renewal was won by an earlier one.
    armed: Epoch,
    failsafe: Failsafe,
}

/// A right to write, proved by a majority of the voters, or extended by promises ([`Holder::ask_members`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// Under which epoch.
    pub epoch: Epoch,
    /// Until when, on this machine's clock.
    pub deadline: BootTime,
    /// When the round was sent that proved it.
    pub sent: BootTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Round {
    number: u64,
    epoch: Epoch,
    sent: BootTime,
    ttl: Duration,
    voters: BTreeSet<MemberId>,
    acknowledged: BTreeSet<MemberId>,
}

impl Holder {
    /// A holder at the start of its process. `given_up` is what its store says.
    pub fn new(me: MemberId, session: Session, incarnation: Incarnation, given_up: Epoch) -> Self {
        Self {
            me,
            session,
            incarnation,
            given_up,
            last_round: 0,
            rounds: Vec::new(),
            licence: None,
            disputed: None,
            stands_back_until: BootTime::default(),
            armed: Epoch(0),
            failsafe: Failsafe::new(),
        }
    }

    /// Starts a round if the applied record names this member, this session, and an epoch which it did not give up.
    /// The caller sends the renewal to every voter of the record, itself included.
    pub fn begin_round(&mut self, lease: &Lease, now: BootTime) -> Option<Renewal> {
        let tenure = lease.tenure.as_ref()?;
        if !self.acts(lease) {
            return None;
        }
        self.last_round += 1;
        if self.rounds.len() >= ROUNDS_KEPT {
            self.rounds.remove(0);
        }
        self.rounds.push(Round {
            number: self.last_round,
            epoch: lease.epoch,
            sent: now,
            ttl: Duration::from_millis(tenure.ttl_ms),
            voters: lease.voters.clone(),
            acknowledged: BTreeSet::new(),
        });
        Some(Renewal {
            holder: self.me,
            epoch: lease.epoch,
            session: self.session,
            incarnation: self.incarnation,
            round: self.last_round,
        })
    }

    /// Does the record give the lease to this life of the guard, in an epoch which was not given up?
    fn acts(&self, lease: &Lease) -> bool {
        let is_mine =
            |tenure: &crate::model::Tenure| tenure.holder == self.me && tenure.session == self.session;
        lease.tenure.as_ref().is_some_and(is_mine) && lease.epoch > self.given_up
    }

    /// Counts an answer. Returns the licence when it got better by it.
    pub fn count(&mut self, from: MemberId, answer: &RenewalAnswer) -> Option<Licence> {
        if answer.incarnation != self.incarnation || answer.epoch <= self.given_up {
            return None;
        }
        match answer.verdict {
            RenewalVerdict::Acknowledged => {}
            RenewalVerdict::Closed => {
                self.disputed = self.disputed.max(Some(answer.epoch));
                self.failsafe.refuse(answer.epoch);
                return None;
            }
            RenewalVerdict::Superseded { .. } => {
                self.failsafe.refuse(answer.epoch);
                return None;
            }
            RenewalVerdict::Behind | RenewalVerdict::NotAVoter => return None,
        }
        let round = self
            .rounds
            .iter_mut()
            .find(|round| round.number == answer.round && round.epoch == answer.epoch)?;
        round.acknowledged.insert(from);
        let counted = round.voters.intersection(&round.acknowledged).count();
        if counted * 2 <= round.voters.len() {
            return None;
        }
        let won = Licence {
            epoch: round.epoch,
            deadline: arithmetic::deadline(round.sent, round.ttl),
            sent: round.sent,
        };
        let is_first = self.armed != won.epoch && self.licence.is_none_or(|old| old.epoch != won.epoch);
        if is_first && won.sent < self.stands_back_until {
            return None;
        }
        self.failsafe.won_by_majority(won);
        self.improve(won)
    }

    fn improve(&mut self, won: Licence) -> Option<Licence> {
        let better = self.licence.is_none_or(|old| (won.epoch, won.deadline) > (old.epoch, old.deadline));
        better.then(|| {
            self.licence = Some(won);
            won
        })
    }

    /// The last licence won, whether or not its deadline has passed.
    pub fn licence(&self) -> Option<Licence> {
        self.licence
    }

    /// The voters which acknowledged one of the last few rounds: who is there, for a change of voters.
    pub fn answering(&self) -> BTreeSet<MemberId> {
        let recent = self.rounds.iter().rev().take(ROUNDS_RECENT);
        recent.flat_map(|round| round.acknowledged.iter().copied()).collect()
    }

    /// The epoch which some voter has closed: to be repaired by a new one.
    pub fn disputed(&self) -> Option<Epoch> {
        self.disputed
    }

    /// The epoch up to which nothing is sent or counted any more.
    pub fn given_up(&self) -> Epoch {
        self.given_up
    }

    /// Gives an epoch up: no round of it is sent or counted again. The caller has stopped PostgreSQL, voids the
    /// guard's deadline, and makes it durable before it proposes anything.
    pub fn give_up(&mut self, epoch: Epoch) {
        self.given_up = self.given_up.max(epoch);
        self.rounds.retain(|round| round.epoch > epoch);
        if self.licence.is_some_and(|licence| licence.epoch <= epoch) {
            self.licence = None;
        }
        self.failsafe.give_up(epoch);
    }

    /// This member promised to stand back until then. To be told before each [`Holder::count`].
    pub fn stand_back(&mut self, until: BootTime) {
        self.stands_back_until = self.stands_back_until.max(until);
    }

    /// The guard was armed for this epoch when this life of the daemon found it.
    pub fn armed_for(&mut self, epoch: Epoch) {
        self.armed = epoch;
    }

    /// The epoch of the record when this life of the daemon began to take part. Before it is told, no member is asked.
    pub fn know_at_start(&mut self, epoch: Epoch) {
        self.failsafe.know_at_start(epoch);
    }

    /// Failsafe: when no majority answers and nobody refused, the question to every other member of the list. With
    /// nobody else in the list there is no question, but the licence at once.
    pub fn ask_members(
        &mut self,
        state: &ClusterState,
        now: BootTime,
    ) -> (Vec<FailsafeQuestion>, Option<Licence>) {
        let group = state.group.filter(|_| self.acts(&state.lease));
        let begun = group.and_then(|group| Some((group, self.failsafe.begin(self.me, state, now)?)));
        let Some((group, (round, members))) = begun else { return (Vec::new(), None) };
        let (holder, session, incarnation) = (self.me, self.session, self.incarnation);
        let epoch = state.lease.epoch;
        let request = |member| FailsafeQuestion { group, member, holder, epoch, session, incarnation, round };
        let requests = members.into_iter().map(request).collect();
        let licence = self.failsafe.complete().and_then(|won| self.improve(won));
        (requests, licence)
    }

    /// Counts a promise. Returns the licence when it got better by it.
    pub fn count_promise(&mut self, request: &FailsafeQuestion) -> Option<Licence> {
        if request.incarnation != self.incarnation || request.epoch <= self.given_up {
            return None;
        }
        let won = self.failsafe.count(request.member, request.round)?;
        self.improve(won)
    }

    /// A member did not promise: the question is void, and may be asked anew.
    pub fn count_no_promise(&mut self, request: &FailsafeQuestion) {
        self.failsafe.fail(request.round);
    }

    /// Failsafe: may a change of the list be proposed? From then on it counts as done and as not done, so that this is
    /// to be called before each proposal. Only while the licence rests on a majority.
    pub fn propose_failsafe(&mut self, epoch: Epoch, members: Option<&BTreeSet<MemberId>>) -> bool {
        self.failsafe.propose(self.licence, epoch, members)
    }

    /// What is known of failsafe.
    pub fn failsafe(&self) -> FailsafeFacts {
        self.failsafe.facts(self.licence)
    }
}
