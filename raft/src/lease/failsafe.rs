//! The holder's side of failsafe: without a majority, and without a refusal, the promises of every member to which the
//! lease could be granted take the majority's place.
//!
//! - It extends a licence that a majority gave in this epoch to this life of the daemon; it is never the first one.
//! - It counts only in an epoch which no earlier life of the daemon knew: such a life may have asked for another list.
//! - Lists which this life asked for may be agreed on without its knowledge: their members are asked, too, for the rest
//!   of the epoch. The end of failsafe may let anybody hold the lease: after asking for that nobody is asked any more.
//! - A list is changed only while the licence rests on a majority; answers to an earlier question are void then.
//! - A voter that closed the epoch, or knows of another one, ends it for the epoch.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arithmetic::{self, BootTime, renewal_interval};
use super::holder::Licence;
use crate::model::{ClusterState, Epoch, MemberId};

/// The members are asked when so many rounds in a row have got no majority.
const ROUNDS_MISSED: u32 = 2;
/// A question without all answers after this part of the ttl is asked anew: in the time of a licence it can be asked
/// some times.
const QUESTIONS_PER_TTL: u32 = 5;
/// The limits of that time.
const QUESTION_LIMITS: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(2));

/// How long a member may take to answer.
pub fn question_limit(ttl: Duration) -> Duration {
    (ttl / QUESTIONS_PER_TTL).clamp(QUESTION_LIMITS.0, QUESTION_LIMITS.1)
}

/// What is known of failsafe on the holder's side.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailsafeFacts {
    /// The licence goes on by promises: no majority has acknowledged a renewal for some time.
    pub rests_on_promises: bool,
    /// Members of the lists which this life asked for in the present epoch.
    pub proposed: BTreeSet<MemberId>,
    /// This life asked for the end of failsafe in the present epoch.
    pub may_be_off: bool,
    /// Until when members that were asked may stand back; none: nobody was asked.
    pub members_stand_back_until: Option<BootTime>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failsafe {
    known_at_start: Epoch,
    /// The last licence that a majority gave.
    majority: Option<Licence>,
    refused: Option<Epoch>,
    last_number: u64,
    question: Option<Question>,
    /// The epoch of the next two.
    proposed_in: Epoch,
    proposed: BTreeSet<MemberId>,
    may_be_off: bool,
    members_stand_back_until: Option<BootTime>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Question {
    number: u64,
    epoch: Epoch,
    sent: BootTime,
    ttl: Duration,
    missing: BTreeSet<MemberId>,
}

impl Failsafe {
    pub(super) fn new() -> Self {
        Self {
            known_at_start: Epoch(u64::MAX),
            majority: None,
            refused: None,
            last_number: 0,
            question: None,
            proposed_in: Epoch(0),
            proposed: BTreeSet::new(),
            may_be_off: false,
            members_stand_back_until: None,
        }
    }

    pub(super) fn know_at_start(&mut self, epoch: Epoch) {
        self.known_at_start = epoch;
    }

    pub(super) fn won_by_majority(&mut self, licence: Licence) {
        let is_later = |old: Licence| (licence.epoch, licence.deadline) > (old.epoch, old.deadline);
        if self.majority.is_none_or(is_later) {
            self.majority = Some(licence);
        }
    }

    pub(super) fn refuse(&mut self, epoch: Epoch) {
        self.refused = self.refused.max(Some(epoch));
        self.question = None;
    }

    pub(super) fn give_up(&mut self, epoch: Epoch) {
        self.question = None;
        self.majority = self.majority.filter(|won| won.epoch > epoch);
    }

    fn proposed_in(&self, epoch: Epoch) -> (BTreeSet<MemberId>, bool) {
        if self.proposed_in == epoch {
            (self.proposed.clone(), self.may_be_off)
        } else {
            (BTreeSet::new(), false)
        }
    }

    /// The list may change now, and from here on counts as changed.
    pub(super) fn propose(
        &mut self,
        licence: Option<Licence>,
        epoch: Epoch,
        members: Option<&BTreeSet<MemberId>>,
    ) -> bool {
        let is_licensed = licence.is_some_and(|won| won.epoch == epoch);
        if !is_licensed || self.rests_on_promises(licence) {
            return false;
        }
        let (mut proposed, may_be_off) = self.proposed_in(epoch);
        proposed.extend(members.into_iter().flatten());
        (self.proposed_in, self.proposed) = (epoch, proposed);
        self.may_be_off = may_be_off || members.is_none();
        self.question = None;
        true
    }

    pub(super) fn rests_on_promises(&self, licence: Option<Licence>) -> bool {
        licence.is_some_and(|won| {
            self.majority.is_none_or(|by| (by.epoch, by.deadline) < (won.epoch, won.deadline))
        })
    }

    pub(super) fn facts(&self, licence: Option<Licence>) -> FailsafeFacts {
        let (proposed, may_be_off) = licence.map(|won| self.proposed_in(won.epoch)).unwrap_or_default();
        FailsafeFacts {
            rests_on_promises: self.rests_on_promises(licence),
            proposed,
            may_be_off,
            members_stand_back_until: self.members_stand_back_until,
        }
    }

    /// Whom to ask, if it is time to: the number of the question and the other members. The caller has checked that
    /// the record gives the lease to this life of the guard.
    pub(super) fn begin(
        &mut self,
        me: MemberId,
        state: &ClusterState,
        now: BootTime,
    ) -> Option<(u64, BTreeSet<MemberId>)> {
        let epoch = state.lease.epoch;
        let tenure = state.lease.tenure.as_ref().filter(|tenure| !tenure.pinned)?;
        let ttl = Duration::from_millis(tenure.ttl_ms);
        let list = state.failsafe.as_ref().filter(|list| list.contains(&me))?;
        let (proposed, may_be_off) = self.proposed_in(epoch);
        if may_be_off || epoch <= self.known_at_start || self.refused >= Some(epoch) {
            return None;
        }
        let majority = self.majority.filter(|won| won.epoch == epoch)?;
        if now.since(majority.sent) < renewal_interval(ttl) * ROUNDS_MISSED {
            return None;
        }
        let is_open =
            |question: &Question| question.epoch == epoch && now.since(question.sent) < question_limit(ttl);
        if self.question.as_ref().is_some_and(is_open) {
            return None;
        }
        self.last_number += 1;
        let mut missing: BTreeSet<MemberId> = list | &proposed;
        missing.remove(&me);
        let question = Question { number: self.last_number, epoch, sent: now, ttl, missing: missing.clone() };
        self.question = Some(question);
        let wait = Duration::from_millis(tenure.wait_ms);
        self.members_stand_back_until = Some(now.after(question_limit(ttl)).after(wait));
        Some((self.last_number, missing))
    }

    /// A member promised. The licence, if all have.
    pub(super) fn count(&mut self, from: MemberId, number: u64) -> Option<Licence> {
        let question = self.question.as_mut().filter(|question| question.number == number)?;
        question.missing.remove(&from);
        self.complete()
    }

    /// The licence of a question to which nobody's answer is missing.
    pub(super) fn complete(&mut self) -> Option<Licence> {
        let question = self.question.take_if(|question| question.missing.is_empty())?;
        let deadline = arithmetic::deadline(question.sent, question.ttl);
        Some(Licence { epoch: question.epoch, deadline, sent: question.sent })
    }

    /// A member did not promise: the question cannot be answered by all any more.
    pub(super) fn fail(&mut self, number: u64) {
        self.question.take_if(|question| question.number == number);
    }
}
