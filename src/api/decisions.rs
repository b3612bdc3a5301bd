//! What happened and why (`/decisions`), and what would happen (`/what-if`).
//!
//! Both are answered from the last view: the events are replicated, so any data node tells them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use pgherd_raft::model::{MAX_EVENTS, RecordedEvent};
use serde_json::{Value, json};

use super::query::Query;
use super::reply::{Reply, shown};
use super::standing::Standing;
use crate::ha;

/// Which events are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    since_ms: u64,
    until_ms: u64,
    limit: usize,
}

/// The recorded events by time, the newest last.
pub(super) fn list(standing: &Standing, query: &Query) -> Reply {
    let range = match range(query) {
        Ok(range) => range,
        Err(why) => return Reply::text(StatusCode::BAD_REQUEST, why),
    };
    let events = &standing.view.observation.cluster.events;
    let is_wanted =
        |recorded: &&RecordedEvent| (range.since_ms..=range.until_ms).contains(&recorded.event.at_ms);
    let mut wanted: Vec<&RecordedEvent> = events.iter().filter(is_wanted).collect();
    // What happened while nothing could be agreed on was recorded afterwards.
    wanted.sort_by_key(|recorded| (recorded.event.at_ms, recorded.id));
    let skipped = wanted.len().saturating_sub(range.limit);
    let documents: Vec<Value> = wanted.into_iter().skip(skipped).map(document).collect();
    Reply::json(StatusCode::OK, &documents)
}

fn document(recorded: &RecordedEvent) -> Value {
    let event = &recorded.event;
    json!({
        "id": recorded.id,
        "at": rfc3339(event.at_ms),
        "at_ms": event.at_ms,
        "by": event.by,
        "kind": event.kind,
        "epoch": event.epoch,
        "rule": event.rule,
        "meaning": ha::meaning(&event.rule),
        "because": event.because,
        "facts": event.facts,
        "candidates": event.candidates,
    })
}

fn rfc3339(at_ms: u64) -> Option<String> {
    let time: SystemTime = UNIX_EPOCH.checked_add(Duration::from_millis(at_ms))?;
    let time = jiff::Timestamp::try_from(time).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn range(query: &Query) -> Result<Range, String> {
    let mut range = Range { since_ms: 0, until_ms: u64::MAX, limit: MAX_EVENTS };
    for (key, value) in query.iter() {
        match key {
            "since" => range.since_ms = moment(key, value)?,
            "until" => range.until_ms = moment(key, value)?,
            "limit" => {
                let limit = value.parse::<usize>().ok().filter(|limit| *limit > 0);
                range.limit =
                    limit.ok_or(format!("limit={}: give a number of events, at least 1", shown(value)))?;
            }
            _ => return Err(format!("unknown parameter {}: give since, until or limit", shown(key))),
        }
    }
    Ok(range)
}

/// Milliseconds since 1970 of a time stamp or of seconds since 1970.
fn moment(key: &str, value: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{key}={}: give a time such as 2026-11-20T17:02:00Z or 2026-11-20T18:02:00+01:00 \
             (a plus sign is %2B in a URL), or seconds since 1970",
            shown(value)
        )
    };
    if let Ok(seconds) = value.parse::<u64>() {
        return seconds.checked_mul(1000).ok_or_else(wrong);
    }
    let time: jiff::Timestamp = value.parse().map_err(|_| wrong())?;
    u64::try_from(time.as_millisecond()).map_err(|_| wrong())
}

/// Who would take over if `member` died at this moment.
pub(super) fn what_if(standing: &Standing, query: &Query) -> Reply {
    let names: Vec<(&str, &str)> = query.iter().collect();
    let [(key, name)] = names.as_slice() else {
        return Reply::text(StatusCode::BAD_REQUEST, "give one member: /what-if?member=NAME");
    };
    if *key != "member" || name.is_empty() {
        return Reply::text(StatusCode::BAD_REQUEST, "give one member: /what-if?member=NAME");
    }
    match ha::what_if(&standing.view.observation, name) {
        Some(forecast) => Reply::json(StatusCode::OK, &forecast),
        None => Reply::text(StatusCode::NOT_FOUND, format!("{} is not a member of the cluster", shown(name))),
    }
}
