//! Keeps the cluster's history of timelines, beside everything else: no decision waits for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgherd_raft::Group;
use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Command, TimelineEnd, TimelineId};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::config;
use crate::ha::{self, Observation};
use crate::postgres::Postgres;

/// A takeover's own proposals go first.
const TAKEOVER_FIRST: Duration = Duration::from_millis(700);
/// A proposal that is not answered after this time may be made again.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(3);
/// The pause before it is made again.
const AGAIN: Duration = Duration::from_secs(2);

/// Owns the task that writes the history.
#[derive(Debug, Default)]
pub(super) struct Historian {
    task: JoinSet<()>,
    begun: Option<BootTime>,
}

impl Historian {
    /// Writes the history, if this node is the primary and knows more of it than is recorded.
    pub(super) fn look(&mut self, o: &Observation, group: &Group, postgres: &Arc<Postgres>) {
        while self.task.try_join_next().is_some() {}
        let is_early = self.begun.is_some_and(|begun| o.now.since(begun) < AGAIN);
        if !self.task.is_empty() || is_early {
            return;
        }
        // Most of the time there is nothing to do, which shows without reading the settings.
        if ha::next_history(o, None).is_none() {
            return;
        }
        let Some(history) = ha::next_history(o, kept(o)) else { return };
        let Some(server) = o.postgres.server.of_any_age() else { return };
        self.begun = Some(o.now);
        let (group, postgres) = (group.clone(), Arc::clone(postgres));
        self.task.spawn(write(group, postgres, o.cluster.lease.epoch, server.position.timeline, history));
    }

    pub(super) async fn end(&mut self) {
        self.task.shutdown().await;
    }
}

/// `max_timelines_history`.
fn kept(o: &Observation) -> Option<u64> {
    let document = serde_json::from_str(&o.cluster.settings.document).ok()?;
    config::parse(&document).0.max_timelines_history
}

async fn write(
    group: Group,
    postgres: Arc<Postgres>,
    epoch: pgherd_raft::model::Epoch,
    timeline: TimelineId,
    mut history: Vec<TimelineEnd>,
) {
    tokio::time::sleep(TAKEOVER_FIRST).await;
    if let Some(newest) = history.last_mut().filter(|newest| newest.at_ms.is_none()) {
        let written = postgres.history_written_at(timeline).await.unwrap_or_else(clock::wall);
        newest.at_ms = Some(milliseconds(written));
    }
    let proposal = group.propose(Command::SetHistory { epoch, history });
    match timeout(PROPOSAL_PATIENCE, proposal).await {
        Ok(proposed) => debug!("the history of timelines: {proposed:?}"),
        Err(_) => debug!("no answer in time to the proposal of the history of timelines"),
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
