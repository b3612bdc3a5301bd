//! `GET /history`: the timelines that the cluster has left behind.

use axum::http::StatusCode;
use pgherd_raft::model::{ClusterState, TimelineEnd};
use serde_json::{Value, json};

use super::reply::Reply;
use super::schedule::iso8601;

/// A list of `[timeline, position, reason, time, new leader]`, the oldest first; what is not known at the end of an entry
/// is left out.
pub(super) fn list(state: &ClusterState) -> Reply {
    let entries = state.history.iter().map(entry);
    Reply::json(StatusCode::OK, &entries.collect::<Vec<Value>>())
}

fn entry(end: &TimelineEnd) -> Value {
    let mut entry = vec![json!(end.timeline), json!(end.lsn.0), json!(end.reason)];
    if let Some(at) = end.at_ms {
        entry.push(json!(iso8601(i64::try_from(at).unwrap_or(i64::MAX))));
        if let Some(leader) = &end.leader {
            entry.push(json!(leader));
        }
    }
    Value::Array(entry)
}
