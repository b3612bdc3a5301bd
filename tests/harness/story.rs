//! What happens to a cluster in the demo, the tests and the bench, measured by its clients.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::clock;
use super::cluster::{Cluster, HEAL_LIMIT};
use super::ledger::Route;
use super::workload::Workload;

/// How the clients saw one event.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Longest time without an acknowledged write of the client that knows all nodes.
    pub(crate) direct: Duration,
    /// The same through HAProxy.
    pub(crate) proxy: Option<Duration>,
    /// Acknowledged writes that are gone, of this event alone.
    pub(crate) lost: usize,
    /// Connections and writes of the client that knows all nodes which failed.
    pub(crate) failed: usize,
    /// For how long two nodes both acknowledged writes.
    pub(crate) two_writers: Duration,
    /// Until clients wrote again, or until one primary and all standbys were there again where that is waited for.
    pub(crate) whole_after: Duration,
}

/// What was acknowledged so long before an event may still be lost by it: a standby does not lag by more here.
const RECENT: Duration = Duration::from_secs(10);

/// The moment of an event, and what was known then.
#[derive(Debug)]
pub(crate) struct Before {
    begin: Instant,
    recent: Instant,
    lost: HashSet<i64>,
    failed: usize,
}

impl Before {
    pub(crate) async fn look(cluster: &Cluster, workload: &Workload) -> Result<Self> {
        let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
        let now = clock::now();
        let recent = now.checked_sub(RECENT).unwrap_or(now);
        let lost = workload.lost_since(cluster.node(primary)?, recent).await?;
        let failed = workload.ledger.failures(Route::Direct);
        Ok(Self { begin: clock::now(), recent, lost, failed })
    }

    pub(crate) fn begin(&self) -> Instant {
        self.begin
    }

    /// Waits until all clients write again, then reads what they saw.
    pub(crate) async fn settle(
        &self,
        cluster: &Cluster,
        workload: &Workload,
        primary: usize,
    ) -> Result<Outcome> {
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let has_proxy = workload.routes().contains(&Route::Proxy);
        let nodes: Vec<u16> = cluster.data_nodes().map(|(_, node)| node.ports.postgresql).collect();
        let lost = workload.lost_since(cluster.node(primary)?, self.recent).await?;
        Ok(Outcome {
            direct: workload.ledger.longest_gap_since(Route::Direct, self.begin),
            proxy: has_proxy.then(|| workload.ledger.longest_gap_since(Route::Proxy, self.begin)),
            lost: lost.difference(&self.lost).count(),
            failed: workload.ledger.failures(Route::Direct).saturating_sub(self.failed),
            two_writers: workload.ledger.two_writers_since(&nodes, self.begin),
            whole_after: self.begin.elapsed(),
        })
    }
}

/// The node dies: daemon, guard and PostgreSQL at once. It is not started again.
pub(crate) async fn lose_primary(cluster: &mut Cluster, workload: &Workload) -> Result<(Outcome, usize)> {
    let old = cluster.wait_for_primary(HEAL_LIMIT).await?;
    let before = Before::look(cluster, workload).await?;
    cluster.node_mut(old)?.kill_everything()?;
    let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
    Ok((before.settle(cluster, workload, new).await?, old))
}

/// A dead node is started again and becomes a standby.
pub(crate) async fn return_node(cluster: &mut Cluster, workload: &Workload, node: usize) -> Result<Outcome> {
    let before = Before::look(cluster, workload).await?;
    cluster.start_node(node)?;
    let primary = cluster.wait_until_whole(HEAL_LIMIT).await?;
    before.settle(cluster, workload, primary).await
}

/// The postmaster dies, its daemon lives.
pub(crate) async fn lose_postmaster(cluster: &mut Cluster, workload: &Workload) -> Result<Outcome> {
    let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
    let before = Before::look(cluster, workload).await?;
    cluster.node(primary)?.kill_postmaster()?;
    workload.wait_until_writing(before.begin() + LONGER_THAN_A_DYING_BACKEND, HEAL_LIMIT).await?;
    let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
    let mut outcome = before.settle(cluster, workload, primary).await?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    outcome.whole_after = before.begin().elapsed();
    Ok(outcome)
}

/// A planned change of the primary.
pub(crate) async fn switch_over(
    cluster: &mut Cluster,
    workload: &Workload,
    to: Option<usize>,
) -> Result<Outcome> {
    let from = cluster.wait_for_primary(HEAL_LIMIT).await?;
    let other = || cluster.data_nodes().map(|(index, _)| index).find(|index| *index != from);
    let to = to.or_else(other).context("nobody to switch over to")?;
    let before = Before::look(cluster, workload).await?;
    cluster.switchover(from, to).await?;
    let new = cluster.wait_for_takeover(from, HEAL_LIMIT).await?;
    let mut outcome = before.settle(cluster, workload, new).await?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    outcome.whole_after = before.begin().elapsed();
    Ok(outcome)
}

/// Backends of a killed postmaster may answer for a moment: writes after it are the new server's.
const LONGER_THAN_A_DYING_BACKEND: Duration = Duration::from_millis(100);
