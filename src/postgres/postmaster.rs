//! The edge to whoever is the parent of the postmaster: the guard in the daemon, the test itself in tests.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use futures_util::future::BoxFuture;

use crate::ha::{Fact, Process};

/// How to start the postmaster.
#[derive(Clone, PartialEq, Eq)]
pub struct PostmasterCommand {
    /// The `postgres` program, with its full path.
    pub program: PathBuf,
    /// Its arguments: `-D`, the data directory, and so on.
    pub args: Vec<String>,
    /// The whole environment; nothing else is inherited.
    pub env: BTreeMap<String, String>,
    /// The file to which standard output and standard error are appended, mode 0600.
    pub log_file: PathBuf,
    /// The server is a primary: its parent must be able to end it when it may write no longer.
    pub may_write: bool,
}

impl fmt::Debug for PostmasterCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostmasterCommand")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("log_file", &self.log_file)
            .field("may_write", &self.may_write)
            .finish_non_exhaustive()
    }
}

/// The signals of which the postmaster makes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostmasterSignal {
    /// SIGINT: fast shutdown.
    Fast,
    /// SIGQUIT: immediate shutdown.
    Immediate,
    /// SIGHUP: read the configuration files again.
    Reload,
}

/// The parent of the postmaster could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PostmasterError(pub String);

/// The parent of the postmaster. Exactly one postmaster of one data directory is meant.
pub trait Postmaster: Send + Sync + fmt::Debug {
    /// The postmaster as its parent sees it, at once; an adopted one counts as running.
    fn process(&self) -> Fact<Process>;

    /// Waits until it is known what the postmaster does: a parent that gets no time on a busy machine tells it later.
    /// Fails when the parent is gone.
    fn known(&self) -> BoxFuture<'_, Result<Process, PostmasterError>>;

    /// May the server leave recovery under this parent at this moment? Fails with the reason why not.
    fn may_write(&self) -> Result<(), PostmasterError>;

    /// Starts it and returns its process id at once: it is not ready yet.
    fn start(&self, command: PostmasterCommand) -> BoxFuture<'_, Result<u32, PostmasterError>>;

    /// Sends a signal to it.
    fn signal(&self, signal: PostmasterSignal) -> BoxFuture<'_, Result<(), PostmasterError>>;

    /// Waits until no process of the data directory is left (at once when none is) and says how the postmaster ended,
    /// for example `exit status 1`. A parent that gets no time is waited for; fails when it is gone.
    fn stopped(&self) -> BoxFuture<'_, Result<String, PostmasterError>>;
}
