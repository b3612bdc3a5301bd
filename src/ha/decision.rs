//! The outcome of a decision: what to do, and why, in words that log, API and tests share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::rule::Rule;

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// A word for humans and metrics; computed, not stored.
    pub state: State,
    /// The rule that decided.
    pub rule: Rule,
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// One sentence: what and why.
    pub because: String,
    /// What has to happen before the next step; none: nothing is awaited.
    pub waiting_for: Option<String>,
    /// Decide again after this time at the latest, although nothing happened.
    pub wake_in: Duration,
}

impl Decision {
    /// A decision without actions, to be looked at again after `wake_in` at the latest.
    pub(super) fn new(state: State, rule: Rule, because: impl Into<String>, wake_in: Duration) -> Self {
        Self { state, rule, actions: Vec::new(), because: because.into(), waiting_for: None, wake_in }
    }

    /// With one more action.
    pub(super) fn act(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    /// Waiting for something.
    pub(super) fn wait(mut self, what: impl Into<String>) -> Self {
        self.waiting_for = Some(what.into());
        self
    }

    /// To be looked at again sooner.
    pub(super) fn again_in(mut self, time: Duration) -> Self {
        self.wake_in = self.wake_in.min(time);
        self
    }
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No lease, no data: waits for the cluster to be initialised.
    Waiting,
    /// Makes the cluster's database system.
    Bootstrapping,
    /// Fetches a base backup.
    Cloning,
    /// Starts PostgreSQL.
    Starting,
    /// Follows the primary.
    Standby,
    /// Runs PostgreSQL in recovery, but does not stream.
    CatchingUp,
    /// Asks for the lease.
    Candidate,
    /// Holds the lease and leaves recovery.
    Promoting,
    /// Holds the lease and runs a writable PostgreSQL.
    Primary,
    /// Hands the lease over.
    Draining,
    /// Stops a PostgreSQL which may not be writable any more.
    Demoting,
    /// Rewinds a diverged data directory.
    Rewinding,
    /// Cannot go on without an operator.
    Stuck,
    /// Automation is off, and something is left as it is.
    Paused,
    /// Ends.
    Stopping,
}

impl State {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Bootstrapping => "bootstrapping",
            Self::Cloning => "cloning",
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::CatchingUp => "catching-up",
            Self::Candidate => "candidate",
            Self::Promoting => "promoting",
            Self::Primary => "primary",
            Self::Draining => "draining",
            Self::Demoting => "demoting",
            Self::Rewinding => "rewinding",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
        }
    }
}
