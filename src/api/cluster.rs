//! The document about the whole cluster: `/cluster`.

use std::collections::BTreeMap;

use pgherd_raft::model::{ClusterState, Lsn, Member, MemberId, MemberKind};
use serde_json::{Map, Value, json};

use super::schedule::iso8601;
use super::standing::{Standing, SyncRole};
use super::status;
use crate::ha::{
    IN_ARCHIVE_RECOVERY, PendingParameter, PostgresState, REPORT_FRESH, STREAMING, ScheduledRestart, advice,
    is_paused, replication_state,
};

/// Everybody as this node knows them, and what is agreed on.
pub(super) fn document(standing: &Standing, agreed: &ClusterState) -> Value {
    let cluster = &standing.view.observation.cluster;
    let mut members: Vec<(MemberId, &Member)> = cluster
        .members
        .iter()
        .filter(|(_, member)| member.kind == MemberKind::Data)
        .map(|(id, member)| (*id, member))
        .collect();
    members.sort_by_key(|(_, member)| &member.name);
    let members: Vec<Value> = members.into_iter().map(|(id, member)| row(standing, id, member)).collect();
    let mut document = json!({
        "members": members,
        "scope": standing.view.scope,
        "pgherd": {
            "answered_by": standing.view.member.name,
            "system_identifier": cluster.system_identifier.map(|identifier| identifier.to_string()),
            "epoch": cluster.lease.epoch,
            "pinned": cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned),
            // More than one: a change of the synchronous standbys is under way.
            "synchronous_sets": cluster.synchrony.sets.len(),
            "raft_leader": standing.view.observation.consensus.raft_leader.map(|id| cluster.name_of(id)),
            "witnesses": cluster
                .members
                .values()
                .filter(|member| member.kind == MemberKind::Witness)
                .map(|member| member.name.as_str())
                .collect::<Vec<_>>(),
        },
    });
    let Some(object) = document.as_object_mut() else { return document };
    if let Some(advice) = advice(&standing.view.observation)
        && let Some(ours) = object.get_mut("pgherd").and_then(Value::as_object_mut)
    {
        ours.insert("warnings".to_owned(), json!([advice]));
    }
    if is_paused(&standing.view.observation) {
        object.insert("pause".to_owned(), json!(true));
    }
    if let Some(schedule) = &agreed.scheduled_switchover {
        let mut shown = json!({ "at": iso8601(schedule.at_ms) });
        for (key, member) in [("from", schedule.from), ("to", schedule.to)] {
            if let (Some(member), Some(shown)) = (member, shown.as_object_mut()) {
                shown.insert(key.to_owned(), json!(agreed.name_of(member)));
            }
        }
        object.insert("scheduled_switchover".to_owned(), shown);
    }
    document
}

/// What is known of a member's PostgreSQL, of this node or from another one's report.
#[derive(Default)]
struct Known<'a> {
    state: &'static str,
    timeline: Option<u32>,
    /// A standby's positions.
    received: Option<Lsn>,
    replayed: Option<Lsn>,
    pending_restart: Option<&'a BTreeMap<String, PendingParameter>>,
    scheduled_restart: Option<&'a ScheduledRestart>,
}

fn row(standing: &Standing, id: MemberId, member: &Member) -> Value {
    let is_leader = standing.holder() == Some(id);
    let known = if id == standing.view.observation.me { own(standing) } else { reported(standing, id) };
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| {
        row.insert(key.to_owned(), value);
    };
    put("name", json!(member.name));
    let role = match standing.sync_role(id) {
        _ if is_leader => "leader",
        Some(SyncRole::Sync) => "sync_standby",
        Some(SyncRole::Quorum) => "quorum_standby",
        None => "replica",
    };
    put("role", json!(role));
    put("state", json!(known.state));
    if let Some(url) = &member.api_url {
        put("api_url", json!(format!("{}/patroni", url.trim_end_matches('/'))));
    }
    if let Some(address) = &member.postgres {
        put("host", json!(address.host));
        put("port", json!(address.port));
    }
    if let Some(timeline) = known.timeline {
        put("timeline", json!(timeline));
    }
    if let Some(pending) = known.pending_restart.filter(|pending| !pending.is_empty()) {
        put("pending_restart", json!(true));
        put("pending_restart_reason", status::pending(pending));
    }
    if let Some(schedule) = known.scheduled_restart {
        put("scheduled_restart", status::restart(schedule));
    }
    if !member.tags.0.is_empty() {
        put("tags", status::tags(&member.tags));
    }
    if !is_leader {
        let newest = standing.holder_position();
        let (receive_lag, receive_lsn) = lag(newest, known.received);
        let (replay_lag, replay_lsn) = lag(newest, known.replayed);
        let (any_lag, any_lsn) = lag(newest, known.received.max(known.replayed));
        put("receive_lag", receive_lag);
        put("receive_lsn", receive_lsn);
        put("replay_lag", replay_lag);
        put("replay_lsn", replay_lsn);
        put("lag", any_lag);
        put("lsn", any_lsn);
    }
    Value::Object(row)
}

fn own(standing: &Standing) -> Known<'_> {
    let observation = &standing.view.observation;
    let state = PostgresState::of(observation);
    let server = standing.recent_server();
    let how = server.and_then(replication_state).filter(|_| state == PostgresState::Running);
    let control = observation.postgres.control.of_any_age();
    let timeline = server.map(|server| server.position.timeline).or(control.map(|control| control.timeline));
    Known {
        state: how.unwrap_or(state.as_str()),
        timeline: timeline.map(|timeline| timeline.0),
        received: server.map(|server| server.position.lsn),
        replayed: server.and_then(|server| server.replayed),
        pending_restart: Some(&observation.postgres.pending_restart),
        scheduled_restart: observation.scheduled_restart.as_ref(),
    }
}

fn reported(standing: &Standing, id: MemberId) -> Known<'_> {
    let observation = &standing.view.observation;
    // The daemon of a paused primary may be stopped: its PostgreSQL goes on.
    if observation.cluster.leaving.contains(&id) && observation.cluster.lease.holder() != Some(id) {
        return Known { state: PostgresState::Stopped.as_str(), ..Known::default() };
    }
    let Some(report) = observation.report(id, REPORT_FRESH) else {
        return Known { state: "unreachable", ..Known::default() };
    };
    let how = match (report.is_streaming, report.in_archive_recovery) {
        (true, _) => Some(STREAMING),
        (false, true) => Some(IN_ARCHIVE_RECOVERY),
        (false, false) => None,
    };
    let how = how.filter(|_| report.postgres == PostgresState::Running);
    let position = report.position;
    Known {
        state: how.unwrap_or(report.postgres.as_str()),
        timeline: position.map(|position| position.timeline.0),
        received: position.map(|position| position.lsn),
        replayed: report.replayed,
        pending_restart: Some(&report.pending_restart),
        scheduled_restart: report.scheduled_restart.as_ref(),
    }
}

/// How far a position lies behind, and the position: each `unknown` when it is.
fn lag(newest: Option<Lsn>, reached: Option<Lsn>) -> (Value, Value) {
    let unknown = || json!("unknown");
    let behind = newest.zip(reached).map(|(newest, reached)| json!(newest.bytes_after(reached)));
    (behind.unwrap_or_else(unknown), reached.map_or_else(unknown, |lsn| json!(lsn.to_string())))
}
