//! What can go wrong between the daemon and its guard.

use std::path::PathBuf;

/// An operation on the guard which failed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// No directory for page and socket.
    #[error("cannot use {} for the guard's page: {reason}", path.display())]
    RuntimeDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and the cure.
        reason: String,
    },
    /// The data directory's path cannot be used.
    #[error("cannot resolve the data directory {}: {source}", path.display())]
    DataDir {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The page is there but unusable.
    #[error("the guard's page {} is not usable: {reason}", path.display())]
    Page {
        /// The page.
        path: PathBuf,
        /// Why, and the cure.
        reason: String,
    },
    /// The guard process did not start.
    #[error("the guard process did not start: {0}")]
    NotStarted(String),
    /// The guard did not answer.
    #[error("the guard (pid {pid}) did not answer {request}: {reason}")]
    NoAnswer {
        /// The guard.
        pid: u32,
        /// What was asked.
        request: &'static str,
        /// Why.
        reason: String,
    },
    /// The guard answered that it will not.
    #[error("the guard refused {request}: {reason}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// Why.
        reason: String,
    },
    /// A guard of another version is in charge.
    #[error(
        "the guard in charge of the data directory speaks version {found} and this pgherd speaks {expected}; stop \
         PostgreSQL with the pgherd which started it, then start this one"
    )]
    Version {
        /// What the page says.
        found: u64,
        /// What this program speaks.
        expected: u64,
    },
    /// The kill was sent and processes are left, most likely in uninterruptible sleep.
    #[error("processes of the data directory are left {0:?} after SIGKILL; the disk may not answer")]
    StillDying(std::time::Duration),
}
