//! Health checks: which path is 200 when. Patroni's paths; a keyword anywhere in the path chooses the check.

use pgherd_raft::model::TagValue;

use super::query::Query;
use super::reply::shown;
use super::standing::{Standing, SyncRole};
use crate::ha::{PostgresState, replication_state};

/// The limit without `?lag=` on `/readiness` is `maximum_lag_on_failover`, on the others there is none.
const NO_LIMIT: u64 = u64::MAX;

/// Does the check which this path names hold?
///
/// # Errors
/// A parameter cannot be read; a sentence.
pub(super) fn is_well(standing: &Standing, path: &str, query: &Query) -> Result<bool, String> {
    let has = |word: &str| path.contains(word);
    if has("standby_leader") || has("standby-leader") {
        return Ok(false);
    }
    if has("leader")
        || has("master")
        || has("primary")
        || has("read-write")
        || path.trim_matches('/').is_empty()
    {
        return Ok(standing.takes_clients());
    }
    let limit = query.size("lag")?.unwrap_or(NO_LIMIT);
    if !has_tags(standing, query) {
        return Ok(false);
    }
    let replica = || is_replica(standing, query, limit);
    let in_role =
        |role: Option<SyncRole>| standing.knows_cluster() && standing.own_sync_role() == role && replica();
    Ok(if has("replica") {
        replica()
    } else if has("read-only") && !has("sync") && !has("quorum") {
        standing.takes_clients() || replica()
    } else if has("health") {
        standing.is_running() && PostgresState::of(&standing.view.observation) == PostgresState::Running
    } else {
        match path.trim_start_matches('/') {
            "sync" | "synchronous" => in_role(Some(SyncRole::Sync)),
            "quorum" => in_role(Some(SyncRole::Quorum)),
            "async" | "asynchronous" => in_role(None),
            "read-only-sync" | "read-only-synchronous" => {
                standing.takes_clients() || in_role(Some(SyncRole::Sync))
            }
            "read-only-quorum" => standing.takes_clients() || in_role(Some(SyncRole::Quorum)),
            _ => false,
        }
    })
}

/// `/readiness`: the primary, or a standby which streams and does not lie behind.
///
/// # Errors
/// A parameter cannot be read; a sentence.
pub(super) fn is_ready(standing: &Standing, query: &Query) -> Result<bool, String> {
    if standing.takes_clients() {
        return Ok(true);
    }
    let default = standing.view.observation.policy.maximum_lag_on_failover;
    let limit = query.size("lag")?.unwrap_or(default);
    let is_write = match query.get("mode") {
        None | Some("apply") => false,
        Some("write") => true,
        Some(other) => return Err(format!("mode={}: give apply or write", shown(other))),
    };
    let Some(server) = standing.streaming_server() else { return Ok(false) };
    let reached = if is_write { server.position.lsn } else { server.replayed.unwrap_or_default() };
    Ok(standing.holder_position().is_some_and(|holder| holder.bytes_after(reached) <= limit))
}

/// A running standby which streams, does not refuse to be balanced to, does not lie behind more than asked for, and gets
/// its WAL as asked for.
fn is_replica(standing: &Standing, query: &Query, limit: u64) -> bool {
    let Some(server) = standing.streaming_server() else { return false };
    let newest = standing.holder_position().unwrap_or_default().max(server.position.lsn);
    let lag = newest.bytes_after(server.replayed.unwrap_or_default());
    let wanted = query.get("replication_state").filter(|state| !state.is_empty());
    let is_as_wanted = wanted.is_none_or(|state| replication_state(server) == Some(state));
    !standing.view.member.tags.flag("noloadbalance") && lag <= limit && is_as_wanted
}

/// Every `tag_NAME=VALUE` of the query is a tag of this node; values are compared as text.
fn has_tags(standing: &Standing, query: &Query) -> bool {
    query.iter().filter_map(|(key, value)| Some((key.strip_prefix("tag_")?, value))).all(|(name, wanted)| {
        standing.view.member.tags.get(name).is_some_and(|value| match value {
            TagValue::Bool(value) => wanted == value.to_string(),
            TagValue::Integer(value) => wanted == value.to_string(),
            // With a fraction in any case, as in the status document.
            TagValue::Float(value) => wanted == format!("{value:?}"),
            TagValue::Text(text) => wanted == *text,
        })
    })
}
