//! The status document: what `/patroni` answers, and the body of health checks. Patroni's keys, which appear only when
//! known or true, and an object of our own that explains the last decision.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use pgherd_raft::model::Tags;
use pgherd_raft::telemetry;
use serde_json::{Map, Value, json};

use super::PATRONI_VERSION;
use super::schedule::iso8601;
use super::standing::{Standing, SyncRole};
use crate::ha::{
    DataDir, PendingParameter, PostgresState, ScheduledRestart, Server, State, is_pause_in_force, own_report,
    replication_state,
};

/// So many records may wait for the log's thread at any moment, as in Patroni.
const USUAL_QUEUE: usize = 2;

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

/// The document.
pub(super) fn document(standing: &Standing) -> Value {
    let observation = &standing.view.observation;
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| {
        document.insert(key.to_owned(), value);
    };
    put("state", json!(PostgresState::of(observation).as_str()));
    if let Some(server) = standing.recent_server() {
        put("postmaster_start_time", json!(as_datetime(&server.started_at)));
    }
    put("role", json!(role(standing)));
    if let Some(server) = standing.recent_server() {
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
    if !observation.postgres.pending_restart.is_empty() {
        put("pending_restart", json!(true));
        put("pending_restart_reason", pending(&observation.postgres.pending_restart));
    }
    if let Some(schedule) = &observation.scheduled_restart {
        put("scheduled_restart", restart(schedule));
    }
    put_log(telemetry::counters(), &mut put);
    let name = standing.view.member.name.as_str();
    put("patroni", json!({ "version": PATRONI_VERSION, "scope": standing.view.scope, "name": name }));
    put("pgherd", explanation(standing));
    Value::Object(document)
}

/// What the log's queue has to tell: nothing while it keeps up.
fn put_log(log: telemetry::Counters, put: &mut impl FnMut(&str, Value)) {
    if log.queue_size > USUAL_QUEUE {
        put("logger_queue_size", json!(log.queue_size));
    }
    if log.records_lost > 0 {
        put("logger_records_lost", json!(log.records_lost));
    }
}

/// What this node does, by which rule, why, and what it waits for.
fn explanation(standing: &Standing) -> Value {
    let decision = &standing.view.decision;
    let mut explanation = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": decision.state,
        "rule": decision.rule,
        "because": decision.because,
        "epoch": standing.view.observation.cluster.lease.epoch,
    });
    let Some(object) = explanation.as_object_mut() else { return explanation };
    if let Some(url) = &standing.view.proxy_url {
        object.insert("proxy_url".to_owned(), json!(url));
    }
    if let Some(waiting) = &decision.waiting_for {
        object.insert("waiting_for".to_owned(), json!(waiting));
    }
    let report = own_report(&standing.view.observation);
    if !report.slots.is_empty() {
        let slots = report.slots.iter().map(|(name, slot)| (name.clone(), json!(slot.lsn.0)));
        object.insert("slots".to_owned(), Value::Object(slots.collect()));
        object.insert("retain_slots".to_owned(), json!(report.retained_slots));
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
        "replayed_timestamp": server.replayed_at.as_deref().map(as_datetime),
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

/// Why each parameter waits for a restart.
pub(super) fn pending(parameters: &BTreeMap<String, PendingParameter>) -> Value {
    let reason = |(name, values): (&String, &PendingParameter)| {
        (name.clone(), json!({ "old_value": values.old_value, "new_value": values.new_value }))
    };
    Value::Object(parameters.iter().map(reason).collect())
}

/// A restart that is to begin later, with the filters that were given.
pub(super) fn restart(restart: &ScheduledRestart) -> Value {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| {
        document.insert(key.to_owned(), value);
    };
    put("schedule", json!(iso8601(restart.at_ms)));
    if let Some(role) = &restart.filters.role {
        put("role", json!(role));
    }
    if let Some(version) = restart.filters.postgres_version {
        put("postgres_version", json!(dotted(version)));
    }
    if restart.filters.restart_pending {
        put("restart_pending", json!(true));
    }
    if let Some(timeout) = restart.timeout_ms {
        put("timeout", json!(timeout.div_ceil(1000)));
    }
    Value::Object(document)
}

/// 150008 as `15.8`, 90603 as `9.6.3`.
fn dotted(version: u32) -> String {
    let (major, middle, minor) = (version / 10_000, version / 100 % 100, version % 100);
    if major < 10 { format!("{major}.{middle}.{minor}") } else { format!("{major}.{}", version % 10_000) }
}

/// A time as PostgreSQL prints it, with all six digits of its fraction, if it has one, and the minutes of its offset:
/// as Patroni's documents have it.
pub(super) fn as_datetime(time: &str) -> String {
    let offset_at = time.rfind(['+', '-']).filter(|at| *at > 10).unwrap_or(time.len());
    let (moment, offset) = time.split_at_checked(offset_at).unwrap_or((time, ""));
    let moment = match moment.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<6}"),
        None => moment.to_owned(),
    };
    let minutes = if offset.len() == 3 { ":00" } else { "" };
    format!("{moment}{offset}{minutes}")
}

/// Whole seconds since the epoch.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_and_a_whole_offset() {
        for (printed, shown) in [
            ("2026-11-20 17:02:11.123456+00", "2026-11-20 17:02:11.123456+00:00"),
            ("2026-11-20 17:02:11.5+00", "2026-11-20 17:02:11.500000+00:00"),
            ("2026-11-20 17:02:11+05:30", "2026-11-20 17:02:11+05:30"),
            ("2026-11-20 17:02:11-03", "2026-11-20 17:02:11-03:00"),
            ("2026-11-20", "2026-11-20"),
            ("", ""),
        ] {
            assert_eq!(as_datetime(printed), shown);
        }
    }

    #[test]
    fn versions_have_dots() {
        assert_eq!((dotted(150_008).as_str(), dotted(90_603).as_str()), ("15.8", "9.6.3"));
    }
}
