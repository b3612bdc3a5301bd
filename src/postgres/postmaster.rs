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
}

impl fmt::Debug for PostmasterCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostmasterCommand")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("log_file", &self.log_file)
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

    /// Starts it and returns its process id at once: it is not ready yet.
    fn start(&self, command: PostmasterCommand) -> BoxFuture<'_, Result<u32, PostmasterError>>;

    /// Sends a signal to it.
    fn signal(&self, signal: PostmasterSignal) -> BoxFuture<'_, Result<(), PostmasterError>>;

    /// Waits until no process of the data directory is left (at once when none is) and says how the postmaster ended,
    /// for example `exit status 1`.
    fn stopped(&self) -> BoxFuture<'_, Result<String, PostmasterError>>;
}
