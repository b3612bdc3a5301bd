//! A member's side of failsafe: what it promised to a holder that has no majority.
//!
//! A promise is one volatile stamp: until then this member neither asks for the lease nor counts a first renewal of an
//! epoch, by whatever way it got it. The stamp dies with the process, so its length is durable, and the start of a
//! process counts as a promise of that length. A member that never promised anything is bound by nothing.
//!
//! Why it is sound: the holder extends its licence only when every member to which the lease can be granted has promised.
//! So whoever holds the lease next has promised itself, at the earliest when the question was sent, and is silent for the
//! record's wait, which is not shorter than the ttl.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arithmetic::BootTime;
use super::message::{FailsafeQuestion, FailsafeRefusal};
use crate::model::{ClusterState, Epoch, MemberId};

/// What a member promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    me: MemberId,
    until: BootTime,
    to: Option<MemberId>,
    /// The longest promise that may be in force, for the next life of this process.
    length: Duration,
    /// The length which the store is known to hold.
    written: Duration,
    /// Up to which epoch this node's guard was armed, in whatever life of the daemon; none: not looked at yet.
    armed: Option<Epoch>,
}

/// A promise which is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingBack {
    /// For whom; none: for whomever an earlier life of this process promised it.
    pub holder: Option<MemberId>,
    /// For how much longer.
    pub remaining: Duration,
}

impl Promise {
    /// At the start of a process. `length` is what its store says.
    pub fn new(me: MemberId, length: Duration, now: BootTime) -> Self {
        Self { me, until: now.after(length), to: None, length, written: length, armed: None }
    }

    /// This node's guard is, or was, armed for this epoch; zero: it was not. Before this is known nothing is promised.
    pub fn armed_for(&mut self, epoch: Epoch) {
        self.armed = self.armed.max(Some(epoch));
    }

    /// The epoch for which the guard was armed.
    pub fn armed(&self) -> Epoch {
        self.armed.unwrap_or_default()
    }

    /// A holder asks. The promise is in force in memory at once; the length in the answer must be durable before the
    /// answer leaves, and the caller then says so with [`Promise::written`].
    ///
    /// # Errors
    /// Why this member does not promise.
    pub fn ask(
        &mut self,
        state: &ClusterState,
        request: &FailsafeQuestion,
        now: BootTime,
    ) -> Result<Option<Duration>, FailsafeRefusal> {
        let wait = self.check(state, request)?;
        if wait > self.length || now > self.until {
            self.length = wait;
        }
        self.until = self.until.max(now.after(wait));
        self.to = Some(request.holder);
        Ok((self.length != self.written).then_some(self.length))
    }

    /// For how long to stand back.
    fn check(&self, state: &ClusterState, request: &FailsafeQuestion) -> Result<Duration, FailsafeRefusal> {
        let own = state.group.unwrap_or_default();
        if state.group != Some(request.group) {
            return Err(FailsafeRefusal::OtherGroup { own });
        }
        if request.member != self.me {
            return Err(FailsafeRefusal::OtherMember { me: self.me, asked: request.member });
        }
        let armed = self.armed.ok_or(FailsafeRefusal::Unready)?;
        let known = state.lease.epoch.max(armed);
        if known > request.epoch {
            return Err(FailsafeRefusal::Superseded { known });
        }
        if known < request.epoch {
            return Err(FailsafeRefusal::Behind { known });
        }
        let asks = |tenure: &&crate::model::Tenure| {
            tenure.holder == request.holder
                && tenure.session == request.session
                && tenure.holder != self.me
                && state.lease.epoch == request.epoch
        };
        let tenure = state.lease.tenure.as_ref().filter(asks);
        let tenure = tenure.ok_or(FailsafeRefusal::Superseded { known })?;
        if tenure.pinned {
            return Err(FailsafeRefusal::Pinned);
        }
        let list = state.failsafe.as_ref().ok_or(FailsafeRefusal::Off)?;
        if !list.contains(&self.me) {
            return Err(FailsafeRefusal::NotListed);
        }
        Ok(Duration::from_millis(tenure.wait_ms))
    }

    /// The store holds this length durably.
    pub fn written(&mut self, length: Duration) {
        self.written = length;
    }

    /// Until when no first renewal of an epoch counts.
    pub fn until(&self) -> BootTime {
        self.until
    }

    /// The promise, while it is in force.
    pub fn in_force(&self, now: BootTime) -> Option<StandingBack> {
        let remaining = self.until.since(now);
        (!remaining.is_zero()).then_some(StandingBack { holder: self.to, remaining })
    }
}
