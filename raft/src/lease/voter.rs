//! A voter of the lease: one durable integer, the floor, and one volatile stamp, quiet since.
//!
//! Why it is sound: the majority behind any renewal and the majority of closes share a voter. If that voter
//! acknowledged first, it closed at least ttl after the round was sent, when the holder's deadline had passed. If it
//! closed first, it never acknowledged.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arithmetic::BootTime;
use super::message::{CloseRequest, CloseVerdict, Renewal, RenewalVerdict};
use crate::model::{Epoch, Lease, Tenure};

/// The voter's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    floor: Epoch,
    /// The floor which the store is known to hold. While it is lower than `floor` a write is under way, and no answer
    /// that rests on the floor may leave: not the one which raised it, and no other either.
    written: Epoch,
    quiet_since: BootTime,
    learned: Epoch,
}

/// An answer, and what must be durable before it may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// Must be durable before `verdict` leaves this node; the caller then says so with [`Voter::written`]. It may ask
    /// for a write which another task has begun already. None: nothing to write.
    pub floor: Option<Epoch>,
    /// The answer.
    pub verdict: T,
}

impl Voter {
    /// A voter at the start of its process. `floor` is what its store says.
    pub fn new(floor: Epoch, now: BootTime) -> Self {
        Self { floor, written: floor, quiet_since: now, learned: Epoch(0) }
    }

    /// No epoch below this one is acknowledged.
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// The store holds this floor, or a higher one, durably.
    pub fn written(&mut self, floor: Epoch) {
        self.written = self.written.max(floor.min(self.floor));
    }

    /// How long it has heard nothing: since its last acknowledgement of any epoch, its start, and the moment at which
    /// it learned of the present epoch.
    pub fn quiet_for(&self, now: BootTime) -> Duration {
        now.since(self.quiet_since)
    }

    /// The applied record may have moved: call it after each apply, and before each question.
    pub fn learn(&mut self, lease: &Lease, now: BootTime) {
        if lease.epoch > self.learned {
            self.learned = lease.epoch;
            self.quiet_since = self.quiet_since.max(now);
        }
    }

    /// A renewal reached one that does not vote: it says only that the holder is there.
    pub fn overhear(&mut self, lease: &Lease, request: &Renewal, now: BootTime) {
        self.learn(lease, now);
        if is_of_the_holder(lease, request) {
            self.quiet_since = self.quiet_since.max(now);
        }
    }

    /// Answers a renewal against the applied record.
    ///
    /// The floor is raised in memory at once, so that nothing contradicts the answer while it is being written.
    pub fn renewal(&mut self, lease: &Lease, request: &Renewal, now: BootTime) -> Answer<RenewalVerdict> {
        self.learn(lease, now);
        let refuse = |verdict| Answer { floor: None, verdict };
        if request.epoch > lease.epoch {
            return refuse(RenewalVerdict::Behind);
        }
        if !is_of_the_holder(lease, request) {
            return refuse(RenewalVerdict::Superseded { epoch: lease.epoch });
        }
        if request.epoch < self.floor {
            return refuse(RenewalVerdict::Closed);
        }
        self.quiet_since = self.quiet_since.max(now);
        self.floor = self.floor.max(request.epoch);
        Answer { floor: self.to_write(), verdict: RenewalVerdict::Acknowledged }
    }

    /// Answers a close, or the question whether it would close.
    pub fn close(&mut self, lease: &Lease, request: &CloseRequest, now: BootTime) -> Answer<CloseVerdict> {
        self.learn(lease, now);
        let plain = |verdict| Answer { floor: None, verdict };
        let Some(tenure) = lease.tenure.as_ref().filter(|tenure| !tenure.pinned) else {
            return plain(CloseVerdict::Mismatch { epoch: lease.epoch });
        };
        if lease.epoch != request.epoch {
            return plain(CloseVerdict::Mismatch { epoch: lease.epoch });
        }
        if self.floor > request.epoch {
            return Answer { floor: self.to_write(), verdict: CloseVerdict::Closed };
        }
        let remaining = Duration::from_millis(tenure.wait_ms).saturating_sub(self.quiet_for(now));
        if !remaining.is_zero() {
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let quiet_ms = millis(self.quiet_for(now));
            return plain(CloseVerdict::NotYet { remaining_ms: millis(remaining).max(1), quiet_ms });
        }
        if !request.for_real {
            return plain(CloseVerdict::Would);
        }
        self.floor = request.epoch.next();
        Answer { floor: self.to_write(), verdict: CloseVerdict::Closed }
    }

    fn to_write(&self) -> Option<Epoch> {
        (self.floor > self.written).then_some(self.floor)
    }
}

/// Does the record name the sender in this epoch?
fn is_of_the_holder(lease: &Lease, request: &Renewal) -> bool {
    let names = |tenure: &Tenure| tenure.holder == request.holder && tenure.session == request.session;
    lease.epoch == request.epoch && lease.tenure.as_ref().is_some_and(names)
}
