//! The part of the daemon's handle that moves the deadline.

use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::Epoch;

use super::clock::{self, from_boot_time};
use super::page::{Page, Unmoved};

/// Why the deadline was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtendError {
    /// Disarmed, or armed for another epoch.
    #[error("the guard is not armed for this epoch")]
    NotArmed,
    /// The deadline has come and PostgreSQL is being killed: only a new `arm` helps.
    #[error("the guard's deadline has come")]
    Expired,
    /// Further away than the ttl with which it was armed.
    #[error("the deadline is further away than the ttl")]
    TooFar,
    /// Another handle has taken the guard over.
    #[error("another daemon has taken the guard over")]
    TakenOver,
}

/// The deadline in the shared page: what the renewal thread needs. Never blocks, makes no system call.
#[derive(Clone, Debug)]
pub struct Deadline {
    pub(super) page: Arc<Page>,
    pub(super) attachment: u64,
}

impl Deadline {
    /// Moves the deadline of this epoch; never backwards.
    pub fn extend(&self, epoch: Epoch, deadline: BootTime) -> Result<(), ExtendError> {
        if self.page.attachment() != self.attachment {
            return Err(ExtendError::TakenOver);
        }
        let now = clock::now();
        self.page.daemon_beat(now);
        let deadline = from_boot_time(deadline);
        if self.page.epoch() == epoch && deadline > now.saturating_add(self.page.ttl()) {
            return Err(ExtendError::TooFar);
        }
        self.page.extend(epoch, deadline).map_err(|unmoved| match unmoved {
            Unmoved::NotArmed => ExtendError::NotArmed,
            Unmoved::Sealed => ExtendError::Expired,
        })
    }

    /// Shows the guard that this daemon is alive.
    pub fn beat(&self) {
        if self.page.attachment() == self.attachment {
            self.page.daemon_beat(clock::now());
        }
    }

    /// How long ago the guard showed a heartbeat: renew nothing when that is longer than [`Guard::STALE_AFTER`].
    pub fn heartbeat_age(&self) -> Duration {
        Duration::from_nanos(clock::now().saturating_sub(self.page.heartbeat()))
    }
}
