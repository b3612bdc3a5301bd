//! PostgreSQL's state in one of Patroni's words: what documents, metrics and the reports of members show.

use serde::{Deserialize, Serialize};

use super::action::JobKind;
use super::facts::{ControlState, DataDir, Observation, Process};
use super::operations::Operation;

/// The states that are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum PostgresState {
    /// Nothing is known, or a member of another version has another word.
    #[default]
    Unknown,
    /// initdb runs.
    Initialising,
    /// initdb failed.
    InitdbFailed,
    /// A base backup is taken.
    CreatingReplica,
    /// The postmaster runs.
    Running,
    /// It is being started.
    Starting,
    /// It could not be started.
    StartFailed,
    /// An operator's restart is under way.
    Restarting,
    /// An operator's restart failed, and it does not run.
    RestartFailed,
    /// It is being stopped.
    Stopping,
    /// It does not run.
    Stopped,
    /// It ended without having been stopped.
    Crashed,
}

const ALL: [PostgresState; 12] = [
    PostgresState::Unknown,
    PostgresState::Initialising,
    PostgresState::InitdbFailed,
    PostgresState::CreatingReplica,
    PostgresState::Running,
    PostgresState::Starting,
    PostgresState::StartFailed,
    PostgresState::Restarting,
    PostgresState::RestartFailed,
    PostgresState::Stopping,
    PostgresState::Stopped,
    PostgresState::Crashed,
];

impl PostgresState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Initialising => "initializing new cluster",
            Self::InitdbFailed => "initdb failed",
            Self::CreatingReplica => "creating replica",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::StartFailed => "start failed",
            Self::Restarting => "restarting",
            Self::RestartFailed => "restart failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
        }
    }

    /// The number in `patroni_postgres_state`.
    pub fn number(self) -> i8 {
        match self {
            Self::Unknown => -1,
            Self::Initialising => 0,
            Self::InitdbFailed => 1,
            Self::CreatingReplica => 4,
            Self::Running => 5,
            Self::Starting => 6,
            Self::StartFailed => 8,
            Self::Restarting => 9,
            Self::RestartFailed => 10,
            Self::Stopping => 11,
            Self::Stopped => 12,
            Self::Crashed => 14,
        }
    }

    /// Of this node.
    pub fn of(o: &Observation) -> Self {
        let job = o.job.as_ref().map(|job| job.kind);
        // From the moment in which it was accepted: whoever waits for its end must not take the old server for the new.
        let is_being_reinitialized = matches!(o.operation, Some(Operation::Reinitialize { .. }));
        match (job, o.postgres.process.of_any_age()) {
            (Some(JobKind::Bootstrap), _) => Self::Initialising,
            (Some(JobKind::Clone | JobKind::Reinitialize), _) => Self::CreatingReplica,
            (Some(JobKind::Restart | JobKind::CopySlots), _) => Self::Restarting,
            _ if is_being_reinitialized => Self::CreatingReplica,
            (Some(JobKind::StartPrimary | JobKind::StartStandby), _) => Self::Starting,
            (Some(JobKind::Stop), Some(Process::Running { .. } | Process::Ending)) => Self::Stopping,
            (_, Some(Process::Running { .. })) => Self::Running,
            (_, Some(Process::Ending)) => Self::Stopping,
            (_, Some(Process::Stopped)) => Self::of_stopped(o),
            (_, None) => Self::Unknown,
        }
    }

    fn of_stopped(o: &Observation) -> Self {
        let failed = |kind| o.finished.get(&kind).is_some_and(|end| end.error.is_some());
        let control = o.postgres.control.of_any_age().map(|control| control.state);
        if !matches!(o.postgres.data_dir, DataDir::Initialised { .. }) {
            return if failed(JobKind::Bootstrap) { Self::InitdbFailed } else { Self::Stopped };
        }
        match control {
            _ if failed(JobKind::Restart) => Self::RestartFailed,
            _ if failed(JobKind::StartPrimary) || failed(JobKind::StartStandby) => Self::StartFailed,
            Some(ControlState::InProduction | ControlState::InCrashRecovery) => Self::Crashed,
            _ => Self::Stopped,
        }
    }
}

impl From<String> for PostgresState {
    fn from(word: String) -> Self {
        ALL.into_iter().find(|state| state.as_str() == word).unwrap_or_default()
    }
}

impl From<PostgresState> for String {
    fn from(state: PostgresState) -> Self {
        state.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for state in ALL {
            let json = serde_json::to_string(&state).expect("JSON");
            assert_eq!(serde_json::from_str::<PostgresState>(&json).expect("a state"), state, "{json}");
        }
        assert_eq!(PostgresState::from("levitating".to_owned()), PostgresState::Unknown);
    }
}
