//! The way from a won licence to the guard's deadline, on the renewer's thread.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pgherd_raft::lease::{BootTime, FailsafeQuestion, Licence};
use pgherd_raft::model::{Epoch, Member, MemberId};
use pgherd_raft::{LicenceSink, Renewer, RenewerFacts};
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::guard::Guard;
use crate::ha::{Fact, Process};

/// The present guard; another one takes its place when it dies.
#[derive(Debug, Default)]
pub struct GuardSlot {
    guard: RwLock<Option<Guard>>,
}

impl GuardSlot {
    /// The present guard, if there is one.
    pub fn get(&self) -> Option<Guard> {
        self.guard.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Surely no postmaster runs. Reads memory only.
    pub fn has_ended(&self) -> bool {
        let process = self.get().map(|guard| guard.process());
        let seen = process.as_ref().and_then(Fact::of_any_age);
        matches!(seen, Some(Process::Ending | Process::Stopped))
    }

    /// Another guard, or none for the time being.
    pub fn set(&self, guard: Option<Guard>) {
        *self.guard.write().unwrap_or_else(PoisonError::into_inner) = guard;
    }
}

/// The present renewer: one for each session of a guard.
#[derive(Debug, Default)]
pub struct RenewerSlot {
    renewer: RwLock<Option<Renewer>>,
}

impl RenewerSlot {
    /// What is known at this moment; nothing while no renewer runs.
    pub fn facts(&self) -> RenewerFacts {
        let renewer = self.renewer.read().unwrap_or_else(PoisonError::into_inner);
        renewer.as_ref().map(Renewer::facts).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.renewer.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// May a change of the failsafe list be proposed?
    pub(super) fn propose_failsafe(&self, epoch: Epoch, members: Option<&BTreeSet<MemberId>>) -> bool {
        let renewer = self.renewer.read().unwrap_or_else(PoisonError::into_inner);
        renewer.as_ref().is_some_and(|renewer| renewer.propose_failsafe(epoch, members))
    }

    pub(super) fn give_up(&self, epoch: Epoch) {
        if let Some(renewer) = self.renewer.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            renewer.give_up(epoch);
        }
    }

    /// Ends the present renewer before another takes its place.
    pub(super) fn end(&self) {
        let renewer = self.renewer.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(renewer) = renewer {
            renewer.shutdown();
        }
    }

    pub(super) fn set(&self, renewer: Renewer) {
        *self.renewer.write().unwrap_or_else(PoisonError::into_inner) = Some(renewer);
    }
}

/// How another member is asked to stand back (failsafe): over another network than the peers', if there is one.
pub trait AskMember: fmt::Debug + Send + Sync {
    /// Yes, or why not. The asker limits the time.
    fn ask(&self, member: &Member, question: &FailsafeQuestion) -> BoxFuture<'static, Result<(), String>>;
}

/// Shows the renewal thread that the agent's loop turns. Renewing needs no agent, so without it a deadlocked daemon would
/// keep a lease for ever whose primary nobody supervises and whose health checks nobody answers.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last: Mutex<Option<Turn>>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    at: BootTime,
    /// How long the next one may take while this node is the primary; none: nobody could do better.
    patience: Option<Duration>,
}

impl Pulse {
    pub(super) fn turned(&self, at: BootTime, patience: Option<Duration>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Turn { at, patience });
    }

    /// How long the loop has stood still, when that is too long.
    fn overdue(&self, now: BootTime) -> Option<Duration> {
        let last = (*self.last.lock().unwrap_or_else(PoisonError::into_inner))?;
        let still = now.since(last.at);
        last.patience.is_some_and(|patience| still > patience).then_some(still)
    }
}

/// Extends the guard's deadline as soon as a licence is won, and wakes the agent at the first one of an epoch.
#[derive(Debug)]
pub(super) struct ExtendGuard {
    pub(super) slot: Arc<GuardSlot>,
    pub(super) pulse: Arc<Pulse>,
    /// It was said that the loop stands still.
    pub(super) told: bool,
    pub(super) wake: Arc<Notify>,
    pub(super) members: Arc<dyn AskMember>,
    pub(super) last: Option<Licence>,
}

impl LicenceSink for ExtendGuard {
    fn may_renew(&mut self, now: BootTime) -> bool {
        let overdue = self.pulse.overdue(now);
        if let Some(still) = overdue.filter(|_| !self.told) {
            warn!(
                "the daemon's loop has stood still for {} s: the lease is not renewed, so that another member can take over",
                still.as_secs()
            );
        }
        self.told = overdue.is_some();
        // Without the loop the daemon shows its guard no life either.
        overdue.is_none()
            && self.slot.get().is_some_and(|guard| {
                guard.deadline().beat();
                guard.deadline().heartbeat_age() <= Guard::STALE_AFTER
            })
    }

    fn licensed(&mut self, licence: Licence) {
        if let Some(guard) = self.slot.get() {
            // Not armed, or armed for another epoch: then nothing is writable under this one yet, and arming takes
            // the deadline from the licence itself.
            if let Err(why) = guard.extend(licence.epoch, licence.deadline) {
                debug!("epoch {}: {why}", licence.epoch);
            }
        }
        let is_first =
            self.last.is_none_or(|last| last.epoch != licence.epoch || last.deadline < licence.sent);
        self.last = Some(licence);
        if is_first {
            self.wake.notify_one();
        }
    }

    fn ask_member(
        &mut self,
        member: &Member,
        question: &FailsafeQuestion,
    ) -> Option<BoxFuture<'static, Result<(), String>>> {
        Some(self.members.ask(member, question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    #[test]
    fn a_loop_that_stands_still_is_overdue_only_where_another_member_could_do_better() {
        let pulse = Pulse::default();
        assert_eq!(pulse.overdue(at(1000)), None, "it has not begun");
        pulse.turned(at(1000), Some(PATIENCE));
        assert_eq!(pulse.overdue(at(1010)), None);
        assert_eq!(pulse.overdue(at(1011)), Some(Duration::from_secs(11)));
        pulse.turned(at(1011), None);
        assert_eq!(pulse.overdue(at(5000)), None, "nobody could take over");
    }
}
