//! What daemon and guard say to each other: values, sent as one line of JSON each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Epoch, Session};
use serde::{Deserialize, Serialize};

use crate::ha::Process;

/// How to start the postmaster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// The `postgres` program, with its full path.
    pub program: PathBuf,
    /// Its arguments: `-D`, the data directory, and so on.
    pub args: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// The file to which standard output and standard error are appended; created when missing, mode 0600.
    pub log_file: PathBuf,
    /// The server may write: refused unless the guard is armed with a deadline which is ahead.
    pub must_be_armed: bool,
}

impl fmt::Debug for StartRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold passwords.
        f.debug_struct("StartRequest")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("log_file", &self.log_file)
            .field("must_be_armed", &self.must_be_armed)
            .finish()
    }
}

/// The signals of which the postmaster makes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PostmasterSignal {
    /// SIGTERM: smart shutdown.
    Smart,
    /// SIGINT: fast shutdown.
    Fast,
    /// SIGQUIT: immediate shutdown.
    Immediate,
    /// SIGHUP: read the configuration files again.
    Reload,
}

/// How a postmaster ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PostmasterExit {
    /// It returned this status; 0 is a clean shutdown.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It was adopted, so its status went to its parent.
    NotKnown,
}

/// The watchdog device behind the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogConfig {
    /// The device.
    pub device: PathBuf,
    /// A fifo stands in for it.
    pub is_testing: bool,
    /// A device that takes too long a timeout only is of no use.
    pub is_required: bool,
    /// What the device's timeout is shorter than the ttl; none: half of the ttl.
    pub safety_margin: Option<Duration>,
}

/// The last time the guard killed PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// How often it did in its life.
    pub count: u64,
    /// The deadline which had come; none: it was ordered.
    pub deadline: Option<BootTime>,
    /// When the first signal was sent.
    pub began: BootTime,
    /// When no process of the data directory was left; none: not yet.
    pub finished: Option<BootTime>,
}

/// What changes without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The guard process runs; once false, this handle is of no more use: [`super::Guard::ensure`] makes a new one.
    pub is_alive: bool,
    /// The postmaster.
    pub process: Process,
    /// How many postmasters ended in the guard's life.
    pub exits: u64,
    /// How the last one ended.
    pub last_exit: Option<PostmasterExit>,
    /// The last kill.
    pub last_kill: Option<Kill>,
}

/// What the guard answers after a fresh look at the machine's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The postmaster.
    pub process: Process,
    /// Every process of the data directory: the postmaster, what descends from it, and standalone servers.
    pub pids: Vec<u32>,
    /// How long the look took.
    pub took: Duration,
    /// What the guard could not get from the system, a sentence each.
    pub warnings: Vec<String>,
}

/// What the daemon asks. One connection a request, except for [`Request::Attach`], which stays open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Take charge. The connection then carries [`Push`]es; its end is the daemon's.
    Attach,
    /// Set the deadline.
    Arm {
        /// The lease's epoch.
        epoch: Epoch,
        /// When PostgreSQL must be silent.
        deadline: BootTime,
        /// No deadline may be further away than this.
        ttl: Duration,
        /// The device behind it; none: there is none.
        watchdog: Option<WatchdogConfig>,
    },
    /// Void the deadline.
    Disarm,
    /// Start the postmaster.
    Start(StartRequest),
    /// Look for a postmaster.
    Adopt,
    /// Send a signal to the postmaster.
    Signal(PostmasterSignal),
    /// Kill everything now.
    Kill,
    /// Look at the machine's processes.
    Status,
}

/// A request on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    /// [`super::page::VERSION`] of the daemon.
    pub(super) version: u64,
    /// The life of the guard which is meant: the socket's place outlives each of them. Zero for [`Request::Attach`].
    pub(super) session: Session,
    /// Which daemon asks; only the one in charge may.
    pub(super) attachment: u64,
    /// What it asks.
    pub(super) request: Request,
}

/// What the guard answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// In charge now.
    Attached {
        /// The number of the daemon in charge.
        attachment: u64,
        /// The guard's life.
        session: Session,
        /// What the guard could not get from the system.
        warnings: Vec<String>,
    },
    /// It is done.
    Done,
    /// It is armed; and what is wrong with the watchdog, if anything is.
    Armed(Option<String>),
    /// The postmaster runs.
    Postmaster(Option<u32>),
    /// What was seen.
    Status(Status),
    /// It was not done, and why.
    Refused(String),
}

/// What the guard says without being asked, on the connection of the daemon in charge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Push {
    /// The page has changed: look at it.
    Changed,
    /// Something for the daemon's log.
    Note(Note),
}

/// A sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Somebody should look into it.
    pub(super) is_warning: bool,
    /// The sentence.
    pub(super) text: String,
}

impl Note {
    /// The ordinary course of things.
    pub(super) fn info(text: String) -> Self {
        Self { is_warning: false, text }
    }

    /// Something that should not happen, or that clients notice.
    pub(super) fn warning(text: String) -> Self {
        Self { is_warning: true, text }
    }
}
