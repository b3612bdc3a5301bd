//! The way from a won licence to the guard's deadline, on the renewer's thread.

use std::sync::{Arc, PoisonError, RwLock};

use pgherd_raft::lease::{BootTime, Licence};
use pgherd_raft::{LicenceSink, Renewer, RenewerFacts};
use tokio::sync::Notify;
use tracing::debug;

use crate::guard::Guard;

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

    pub(super) fn give_up(&self, epoch: pgherd_raft::model::Epoch) {
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

/// Extends the guard's deadline as soon as a licence is won, and wakes the agent at the first one of an epoch.
#[derive(Debug)]
pub(super) struct ExtendGuard {
    pub(super) slot: Arc<GuardSlot>,
    pub(super) wake: Arc<Notify>,
    pub(super) last: Option<Licence>,
}

impl LicenceSink for ExtendGuard {
    fn may_renew(&mut self, _now: BootTime) -> bool {
        self.slot.get().is_some_and(|guard| guard.deadline().heartbeat_age() <= Guard::STALE_AFTER)
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
}
