//! The holder's side of the lease: rounds, acknowledgements, and the deadline until which PostgreSQL may be writable.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arithmetic::{self, BootTime};
use super::message::{Renewal, RenewalAnswer, RenewalVerdict};
use crate::model::{Epoch, Incarnation, Lease, MemberId, Session};

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
}

/// A right to write, proved by a majority of the voters.
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
        }
    }

    /// Starts a round if the applied record names this member, this session, and an epoch which it did not give up.
    /// The caller sends the renewal to every voter of the record, itself included.
    pub fn begin_round(&mut self, lease: &Lease, now: BootTime) -> Option<Renewal> {
        let tenure = lease.tenure.as_ref()?;
        let acts = tenure.holder == self.me && tenure.session == self.session && lease.epoch > self.given_up;
        if !acts {
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

    /// Counts an answer. Returns the licence when it got better by it.
    pub fn count(&mut self, from: MemberId, answer: &RenewalAnswer) -> Option<Licence> {
        if answer.incarnation != self.incarnation || answer.epoch <= self.given_up {
            return None;
        }
        match answer.verdict {
            RenewalVerdict::Acknowledged => {}
            RenewalVerdict::Closed => {
                self.disputed = self.disputed.max(Some(answer.epoch));
                return None;
            }
            RenewalVerdict::Superseded { .. } | RenewalVerdict::Behind | RenewalVerdict::NotAVoter => {
                return None;
            }
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
    }
}
