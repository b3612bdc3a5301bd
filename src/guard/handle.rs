//! The daemon's handle on its guard.
#![allow(clippy::unused_async, reason = "signatures first")]

use std::path::Path;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Epoch, Session};
use tokio::sync::watch;

use super::error::GuardError;
use super::message::{News, PostmasterSignal, StartRequest, Status};
use crate::ha::{Fact, GuardFacts, Process};

/// The handle on a guard process: cheap to clone, `Send + Sync`. One daemon a data directory has one at a time; a
/// later [`Guard::ensure`], also by another process, takes the guard over and voids the earlier handles.
#[derive(Clone, Debug)]
pub struct Guard {
    news: watch::Receiver<News>,
}

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
    /// Another daemon has taken the guard over.
    #[error("another daemon has taken the guard over")]
    TakenOver,
}

/// The deadline in the shared page: what the renewal thread needs. Never blocks, no system call.
#[derive(Clone, Debug)]
pub struct Deadline {}

impl Deadline {
    /// Moves the deadline of this epoch; never backwards.
    pub fn extend(&self, epoch: Epoch, deadline: BootTime) -> Result<(), ExtendError> {
        let _ = (epoch, deadline);
        Err(ExtendError::NotArmed)
    }

    /// How long ago the guard showed a heartbeat: renew nothing when it is stale.
    pub fn heartbeat_age(&self) -> Duration {
        Duration::MAX
    }
}

impl Guard {
    /// A guard whose heartbeat is older than this is stale: renew nothing.
    pub const STALE_AFTER: Duration = Duration::from_secs(1);

    /// Attaches to the living guard of the data directory, or starts one (`exe guard ...`). A guard which lives and
    /// does not answer is ended first, and PostgreSQL with it.
    pub async fn ensure(data_dir: &Path, exe: &Path) -> Result<Self, GuardError> {
        let _ = (data_dir, exe);
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// The life of this guard.
    pub fn session(&self) -> Session {
        Session(0)
    }

    /// What the page says; unknown when the guard is dead or stale.
    pub fn facts(&self) -> Fact<GuardFacts> {
        Fact::Unknown("not built yet".to_owned())
    }

    /// The postmaster; unknown when the guard is dead or stale.
    pub fn process(&self) -> Fact<Process> {
        Fact::Unknown("not built yet".to_owned())
    }

    /// Wakes on every end and start of a postmaster, on a kill, and when the guard itself dies; by the process, not
    /// by polling.
    pub fn watch(&self) -> watch::Receiver<News> {
        self.news.clone()
    }

    /// The deadline for the renewal thread.
    pub fn deadline(&self) -> Deadline {
        Deadline {}
    }

    /// What the guard could not get from the system (priority, locked memory), a sentence each: log them once.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Arms: from now on PostgreSQL is killed at `deadline` unless it is extended under the same epoch. Returns when
    /// the guard has set its timer. Refused when the deadline is past or further away than `ttl`.
    pub async fn arm(&self, epoch: Epoch, deadline: BootTime, ttl: Duration) -> Result<(), GuardError> {
        let _ = (epoch, deadline, ttl);
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// Moves the deadline; see [`Deadline::extend`].
    pub fn extend(&self, epoch: Epoch, deadline: BootTime) -> Result<(), ExtendError> {
        self.deadline().extend(epoch, deadline)
    }

    /// Voids the deadline. Allowed only while PostgreSQL cannot be writable, or while the epoch is pinned.
    pub async fn disarm(&self) -> Result<(), GuardError> {
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// Starts the postmaster as a child of the guard and returns its pid, at once: it is not ready yet. Refused while
    /// any process of the data directory is left.
    pub async fn start(&self, request: StartRequest) -> Result<u32, GuardError> {
        let _ = request;
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// Looks for a postmaster of the data directory which the guard does not know, and adopts it; its pid. The guard
    /// does the same by itself, at its start and each second while it knows of none.
    pub async fn adopt(&self) -> Result<Option<u32>, GuardError> {
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// Sends a signal to exactly the postmaster which the guard knows.
    pub async fn signal(&self, signal: PostmasterSignal) -> Result<(), GuardError> {
        let _ = signal;
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// Kills every process of the data directory now, as at the deadline; returns when none is left.
    pub async fn kill_now(&self) -> Result<(), GuardError> {
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// A fresh look at the machine's processes.
    pub async fn status(&self) -> Result<Status, GuardError> {
        Err(GuardError::NotStarted("not built yet".to_owned()))
    }

    /// Returns when no postmaster runs (at once when none does), or the guard is dead.
    pub async fn exited(&self) -> News {
        let mut news = self.watch();
        loop {
            let seen = news.borrow_and_update().clone();
            if !seen.is_alive || !matches!(seen.process, Process::Running { .. }) {
                return seen;
            }
            if news.changed().await.is_err() {
                return News { is_alive: false, ..seen };
            }
        }
    }
}
