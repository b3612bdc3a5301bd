//! What happens to a cluster in the demo, the tests and the bench, measured by its clients.

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
    /// Until one primary and all standbys were there again.
    pub(crate) whole_after: Duration,
}

/// The node dies: daemon, guard and PostgreSQL at once. It is not started again.
pub(crate) async fn lose_primary(cluster: &mut Cluster, workload: &Workload) -> Result<(Outcome, usize)> {
    let old = cluster.wait_for_primary(HEAL_LIMIT).await?;
    let lost_before = workload.lost(cluster).await?.len();
    let begin = clock::now();
    cluster.node_mut(old)?.kill_everything()?;
    cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
    let outcome = settle(cluster, workload, begin, lost_before).await?;
    Ok((outcome, old))
}

/// A dead node is started again and becomes a standby.
pub(crate) async fn return_node(cluster: &mut Cluster, workload: &Workload, node: usize) -> Result<Outcome> {
    let lost_before = workload.lost(cluster).await?.len();
    let begin = clock::now();
    cluster.start_node(node)?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    settle(cluster, workload, begin, lost_before).await
}

/// The postmaster dies, its daemon lives.
pub(crate) async fn lose_postmaster(cluster: &mut Cluster, workload: &Workload) -> Result<Outcome> {
    let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
    let lost_before = workload.lost(cluster).await?.len();
    let begin = clock::now();
    cluster.node(primary)?.kill_postmaster()?;
    workload.wait_until_writing(begin + LONGER_THAN_A_DYING_BACKEND, HEAL_LIMIT).await?;
    let mut outcome = settle(cluster, workload, begin, lost_before).await?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    outcome.whole_after = begin.elapsed();
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
    let lost_before = workload.lost(cluster).await?.len();
    let begin = clock::now();
    cluster.switchover(from, to).await?;
    cluster.wait_for_takeover(from, HEAL_LIMIT).await?;
    let mut outcome = settle(cluster, workload, begin, lost_before).await?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    outcome.whole_after = begin.elapsed();
    Ok(outcome)
}

/// Backends of a killed postmaster may answer for a moment: writes after it are the new server's.
const LONGER_THAN_A_DYING_BACKEND: Duration = Duration::from_millis(100);

/// Waits until all clients write again, then reads what they saw.
async fn settle(
    cluster: &Cluster,
    workload: &Workload,
    begin: Instant,
    lost_before: usize,
) -> Result<Outcome> {
    let healed = clock::now();
    workload.wait_until_writing(healed, HEAL_LIMIT).await?;
    let has_proxy = workload.routes().contains(&Route::Proxy);
    Ok(Outcome {
        direct: workload.ledger.longest_gap_since(Route::Direct, begin),
        proxy: has_proxy.then(|| workload.ledger.longest_gap_since(Route::Proxy, begin)),
        lost: workload.lost(cluster).await?.len().saturating_sub(lost_before),
        whole_after: begin.elapsed(),
    })
}
