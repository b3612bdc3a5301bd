//! The document about the whole cluster: `/cluster`.

use pgherd_raft::model::{Lsn, Member, MemberId, MemberKind};
use serde_json::{Map, Value, json};

use super::standing::{Standing, SyncRole};
use super::status::{self, PostgresState};
use crate::ha::{REPORT_FRESH, advice, is_paused, streams};

/// Everybody as this node knows them.
pub(super) fn document(standing: &Standing) -> Value {
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
    if let Some(advice) = advice(&standing.view.observation)
        && let Some(object) = document.get_mut("pgherd").and_then(Value::as_object_mut)
    {
        object.insert("warnings".to_owned(), json!([advice]));
    }
    if is_paused(&standing.view.observation)
        && let Some(object) = document.as_object_mut()
    {
        object.insert("pause".to_owned(), json!(true));
    }
    document
}

/// What is known of a member's PostgreSQL, of this node or from another one's report.
struct Known {
    state: &'static str,
    timeline: Option<u32>,
    /// A standby's positions.
    received: Option<Lsn>,
    replayed: Option<Lsn>,
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

fn own(standing: &Standing) -> Known {
    let state = PostgresState::of(standing);
    let control = standing.view.observation.postgres.control.of_any_age();
    let Some(server) = standing.server() else {
        let timeline = control.map(|control| control.timeline.0);
        return Known { state: state.as_str(), timeline, received: None, replayed: None };
    };
    let replication = status::replication_state(server).filter(|_| state == PostgresState::Running);
    Known {
        state: replication.filter(|_| streams(server)).unwrap_or(state.as_str()),
        timeline: Some(server.position.timeline.0),
        received: Some(server.position.lsn),
        replayed: server.replayed,
    }
}

fn reported(standing: &Standing, id: MemberId) -> Known {
    let observation = &standing.view.observation;
    let silent = |state| Known { state, timeline: None, received: None, replayed: None };
    if observation.cluster.leaving.contains(&id) {
        return silent(PostgresState::Stopped.as_str());
    }
    let Some(report) = observation.report(id, REPORT_FRESH) else { return silent("unreachable") };
    let state = PostgresState::of_word(&report.state, report.is_running);
    let is_streaming = report.is_streaming && state == PostgresState::Running;
    let position = report.position;
    Known {
        state: if is_streaming { "streaming" } else { state.as_str() },
        timeline: position.map(|position| position.timeline.0),
        received: position.map(|position| position.lsn),
        replayed: report.replayed,
    }
}

/// How far a position lies behind, and the position: each `unknown` when it is.
fn lag(newest: Option<Lsn>, reached: Option<Lsn>) -> (Value, Value) {
    let unknown = || json!("unknown");
    let behind = newest.zip(reached).map(|(newest, reached)| json!(newest.bytes_after(reached)));
    (behind.unwrap_or_else(unknown), reached.map_or_else(unknown, |lsn| json!(lsn.to_string())))
}
