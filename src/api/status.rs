//! The status document: what `/patroni` answers, and the body of health checks. Patroni's keys, which appear only when
//! known or true, and an object of our own that explains the last decision.

use std::time::{SystemTime, UNIX_EPOCH};

use pgherd_raft::model::Tags;
use serde_json::{Map, Value, json};

use super::standing::{Standing, SyncRole};
use crate::ha::{
    ControlState, DataDir, JobKind, Process, Server, State, is_pause_in_force, own_report, streams,
};

/// PostgreSQL's state in Patroni's words, and its number in `patroni_postgres_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostgresState {
    Unknown,
    Initialising,
    InitdbFailed,
    CreatingReplica,
    Running,
    Starting,
    StartFailed,
    Stopping,
    Stopped,
    Crashed,
}

impl PostgresState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Initialising => "initializing new cluster",
            Self::InitdbFailed => "initdb failed",
            Self::CreatingReplica => "creating replica",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::StartFailed => "start failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
        }
    }

    pub(super) fn number(self) -> i8 {
        match self {
            Self::Unknown => -1,
            Self::Initialising => 0,
            Self::InitdbFailed => 1,
            Self::CreatingReplica => 4,
            Self::Running => 5,
            Self::Starting => 6,
            Self::StartFailed => 8,
            Self::Stopping => 11,
            Self::Stopped => 12,
            Self::Crashed => 14,
        }
    }

    /// Of this node.
    pub(super) fn of(standing: &Standing) -> Self {
        let observation = &standing.view.observation;
        let job = observation.job.as_ref().map(|job| job.kind);
        match (job, observation.postgres.process.of_any_age()) {
            (Some(JobKind::Bootstrap), _) => Self::Initialising,
            (Some(JobKind::Clone), _) => Self::CreatingReplica,
            (Some(JobKind::StartPrimary | JobKind::StartStandby), _) => Self::Starting,
            (Some(JobKind::Stop), Some(Process::Running { .. } | Process::Ending)) => Self::Stopping,
            (_, Some(Process::Running { .. })) => Self::Running,
            (_, Some(Process::Ending)) => Self::Stopping,
            (_, Some(Process::Stopped)) => Self::of_stopped(standing),
            (_, None) => Self::Unknown,
        }
    }

    fn of_stopped(standing: &Standing) -> Self {
        let observation = &standing.view.observation;
        let failed = |kind| observation.finished.get(&kind).is_some_and(|end| end.error.is_some());
        let control = observation.postgres.control.of_any_age().map(|control| control.state);
        if !matches!(observation.postgres.data_dir, DataDir::Initialised { .. }) {
            return if failed(JobKind::Bootstrap) { Self::InitdbFailed } else { Self::Stopped };
        }
        match control {
            _ if failed(JobKind::StartPrimary) || failed(JobKind::StartStandby) => Self::StartFailed,
            Some(ControlState::InProduction | ControlState::InCrashRecovery) => Self::Crashed,
            _ => Self::Stopped,
        }
    }

    /// Of another member, from the word of its report.
    pub(super) fn of_word(word: &str, is_running: bool) -> Self {
        let is = |state: State| word == state.as_str();
        if is(State::Bootstrapping) {
            Self::Initialising
        } else if is(State::Cloning) {
            Self::CreatingReplica
        } else if is_running && (is(State::Stopping) || is(State::Draining) || is(State::Demoting)) {
            Self::Stopping
        } else if is_running {
            Self::Running
        } else if is(State::Starting) {
            Self::Starting
        } else {
            Self::Stopped
        }
    }
}

/// PostgreSQL's role in Patroni's words.
pub(super) fn role(standing: &Standing) -> &'static str {
    let observation = &standing.view.observation;
    match (standing.server(), standing.view.decision.state) {
        (_, State::Draining | State::Demoting) if standing.holder() == Some(observation.me) => "demoted",
        (Some(server), _) if server.is_in_recovery => "replica",
        (Some(_), _) => "primary",
        (None, _) if !matches!(observation.postgres.data_dir, DataDir::Initialised { .. }) => "uninitialized",
        (None, _) if standing.holder() == Some(observation.me) => "primary",
        (None, _) => "replica",
    }
}

/// How a standby gets its WAL.
pub(super) fn replication_state(server: &Server) -> Option<&'static str> {
    server.is_in_recovery.then(|| if streams(server) { "streaming" } else { "in archive recovery" })
}

/// The document.
pub(super) fn document(standing: &Standing) -> Value {
    let observation = &standing.view.observation;
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| {
        document.insert(key.to_owned(), value);
    };
    put("state", json!(PostgresState::of(standing).as_str()));
    if let Some(server) = standing.server() {
        put("postmaster_start_time", json!(with_full_offset(&server.started_at)));
    }
    put("role", json!(role(standing)));
    if let Some(server) = standing.server() {
        put("server_version", json!(server.version));
        put("xlog", xlog(server));
        match standing.own_sync_role() {
            Some(SyncRole::Sync) => put("sync_standby", json!(true)),
            Some(SyncRole::Quorum) => put("quorum_standby", json!(true)),
            None => {}
        }
        put("timeline", json!(server.position.timeline));
        if let Some(state) = replication_state(server) {
            put("replication_state", json!(state));
        }
        if !server.senders.is_empty() {
            put("replication", replication(server));
        }
    }
    if is_pause_in_force(observation) {
        put("pause", json!(true));
    }
    if own_report(observation).watchdog_failed {
        put("watchdog_failed", json!(true));
    }
    if standing.holder().is_none() {
        put("cluster_unlocked", json!(true));
    }
    if standing.is_failsafe_active() {
        put("failsafe_mode_is_active", json!(true));
    }
    if let Some(seen) = standing.view.consensus_seen {
        put("dcs_last_seen", json!(unix_seconds(seen)));
    }
    if !standing.view.member.tags.0.is_empty() {
        put("tags", tags(&standing.view.member.tags));
    }
    let control = observation.postgres.control.of_any_age().map(|control| control.system_identifier);
    if let Some(identifier) = control.or(observation.cluster.system_identifier) {
        put("database_system_identifier", json!(identifier.to_string()));
    }
    let (name, version) = (standing.view.member.name.as_str(), env!("CARGO_PKG_VERSION"));
    put("patroni", json!({ "version": version, "scope": standing.view.scope, "name": name }));
    put("pgherd", explanation(standing));
    Value::Object(document)
}

/// What this node does, by which rule, why, and what it waits for.
fn explanation(standing: &Standing) -> Value {
    let decision = &standing.view.decision;
    let mut explanation = json!({
        "state": decision.state,
        "rule": decision.rule,
        "because": decision.because,
        "epoch": standing.view.observation.cluster.lease.epoch,
    });
    if let (Some(waiting), Some(object)) = (&decision.waiting_for, explanation.as_object_mut()) {
        object.insert("waiting_for".to_owned(), json!(waiting));
    }
    explanation
}

fn xlog(server: &Server) -> Value {
    if !server.is_in_recovery {
        return json!({ "location": server.position.lsn.0 });
    }
    json!({
        "received_location": server.position.lsn.0,
        "replayed_location": server.replayed.unwrap_or_default().0,
        "replayed_timestamp": server.replayed_at.as_deref().map(with_full_offset),
        "paused": server.replay_paused,
    })
}

fn replication(server: &Server) -> Value {
    let row = |sender: &crate::ha::Sender| {
        json!({
            "usename": sender.user,
            "application_name": sender.application_name,
            "client_addr": sender.client_addr,
            "state": sender.state,
            "sync_state": sender.sync_state,
            "sync_priority": sender.sync_priority,
        })
    };
    Value::Array(server.senders.iter().map(row).collect())
}

/// The tags as an object, in the order of the configuration.
pub(super) fn tags(tags: &Tags) -> Value {
    Value::Object(tags.0.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
}

/// PostgreSQL prints an offset of whole hours as `+00`; Patroni's documents have `+00:00`.
pub(super) fn with_full_offset(time: &str) -> String {
    let is_short = time.rfind(['+', '-']).is_some_and(|at| at > 10 && time.len() - at == 3);
    if is_short { format!("{time}:00") } else { time.to_owned() }
}

/// Whole seconds since the epoch.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
