//! What the cluster's history of timelines is to be.
//!
//! PostgreSQL's history file says where each timeline ended and why; when, and who went on, is known to the one that was
//! promoted. What is recorded already stays as it is.

use pgherd_raft::model::{MAX_HISTORY, MAX_HISTORY_REASON_BYTES, TimelineEnd, TimelineId};

use super::facts::{Observation, TimelineSwitch};
use super::pause::holds_pinned;
use super::report::SERVER_FRESH;

/// The history as this primary knows it, when it differs from the recorded one; the newest entry may lack its time.
/// `keep`: so many of the newest; none: all.
pub fn next_history(o: &Observation, keep: Option<u64>) -> Option<Vec<TimelineEnd>> {
    let server = o.postgres.server.within(SERVER_FRESH).filter(|server| !server.is_in_recovery)?;
    if o.licence().is_none() && !holds_pinned(o) {
        return None;
    }
    let has_history = server.position.timeline > TimelineId(1);
    if has_history && o.postgres.history.is_empty() {
        // The file could not be read in time.
        return None;
    }
    let limit = keep.and_then(|keep| usize::try_from(keep).ok()).unwrap_or(MAX_HISTORY).min(MAX_HISTORY);
    let skipped = o.postgres.history.len().saturating_sub(limit);
    let switches = o.postgres.history.iter().filter(|_| has_history).skip(skipped);
    let mut history: Vec<TimelineEnd> = switches.map(|switch| known(o, switch)).collect();
    if let Some(newest) =
        history.last_mut().filter(|newest| newest.leader.is_none() && newest.at_ms.is_none())
    {
        newest.leader = o.cluster.members.get(&o.me).map(|member| member.name.clone());
    }
    (history != o.cluster.history).then_some(history)
}

fn known(o: &Observation, switch: &TimelineSwitch) -> TimelineEnd {
    let is_same = |end: &&TimelineEnd| end.timeline == switch.timeline && end.lsn == switch.lsn;
    o.cluster.history.iter().find(is_same).cloned().unwrap_or_else(|| {
        let mut reason = switch.reason.clone();
        while reason.len() > MAX_HISTORY_REASON_BYTES {
            reason.pop();
        }
        TimelineEnd { timeline: switch.timeline, lsn: switch.lsn, reason, at_ms: None, leader: None }
    })
}
