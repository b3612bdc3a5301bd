//! Data nodes without a vote: they have no `raft.self_addr`, and the witness alone decides.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::stage;
use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::node::Kind;
use crate::harness::workload::Workload;
use crate::harness::{clock, rest, wait};
use crate::run;

/// Two data nodes without a vote, which list the witness; it lists nobody.
pub(super) fn plan() -> Result<Plan> {
    Plan::of(2).map(Plan::with_witness)
}

pub(super) fn take_the_votes(cluster: &Cluster) -> Result<()> {
    let witness = cluster.nodes.iter().find(|node| node.kind == Kind::Witness).context("a witness")?;
    for node in &cluster.nodes {
        let text = node.read_config()?;
        let (head, rest) = text.split_once("raft:\n").context("a raft section")?;
        let tail = rest.find("watchdog:").map_or("", |at| rest.get(at..).unwrap_or_default());
        let directory = node.directory.join("raft");
        let data_dir = format!("  data_dir: {}\n", directory.display());
        let section = match node.kind {
            Kind::Witness => format!("  self_addr: {}\n{data_dir}  partner_addrs: []\n", node.raft_addr()),
            Kind::Data => format!("{data_dir}  partner_addrs:\n  - {}\n", witness.raft_addr()),
        };
        node.write_config(&format!("{head}raft:\n{section}{tail}"))?;
    }
    Ok(())
}

/// What the Raft voters are, as a data node's metrics say.
async fn raft_voters(cluster: &Cluster, index: usize) -> Result<String> {
    let page = rest::get(cluster.node(index)?.ports.rest_at(), "/metrics").await?.body;
    let line = page.lines().find(|line| line.starts_with("pgherd_raft_voters")).map(str::to_owned);
    line.and_then(|line| line.rsplit(' ').next().map(str::to_owned)).context("pgherd_raft_voters")
}

#[test]
fn data_nodes_without_a_vote_found_a_cluster_take_over_and_come_back() {
    run(plan(), async |cluster| {
        take_the_votes(cluster)?;
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        ensure!(raft_voters(cluster, old).await? == "1", "only the witness votes");
        let mut workload = Workload::watched(cluster, None).await?;
        let begin = clock::now();
        cluster.node_mut(old)?.kill_everything()?;
        let new =
            stage::taken_over(cluster, &workload, old, begin, "a node without a vote was killed").await?;
        // It listens on another port than before.
        cluster.start_node(old)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(raft_voters(cluster, new).await? == "1", "only the witness votes");
        cluster.switchover(new, old).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        workload.finish().await?;
        cluster.stop_all().await
    });
}

async fn wait_for_the_flag(cluster: &Cluster, index: usize, is_set: bool) -> Result<()> {
    let at = cluster.node(index)?.ports.rest_at();
    wait::until("failsafe_mode_is_active in the status", HEAL_LIMIT, async || {
        let body = rest::get(at, "/patroni").await.map_err(|error| error.to_string())?.body;
        if body.contains("\"failsafe_mode_is_active\":true") == is_set { Ok(()) } else { Err(body) }
    })
    .await
}

#[test]
fn with_the_witness_stopped_failsafe_mode_carries_nodes_without_a_vote() {
    run(plan().map(|plan| plan.with_settings(&["failsafe_mode: true"])), async |cluster| {
        take_the_votes(cluster)?;
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let standby = 1 - primary;
        wait::until("both in the failsafe list", HEAL_LIMIT, async || {
            let node = cluster.node(primary).map_err(|error| error.to_string())?;
            let answer = rest::get(node.ports.rest_at(), "/failsafe").await.map_err(|e| e.to_string())?;
            let has_both = answer.body.contains("\"node1\"") && answer.body.contains("\"node2\"");
            if has_both { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let witness = cluster.nodes.iter().position(|node| node.kind == Kind::Witness).context("one")?;
        cluster.node(witness)?.signal_daemon(Signal::STOP)?;
        wait_for_the_flag(cluster, primary, true).await?;
        workload.wait_until_writing(clock::now() + Duration::from_secs(15), HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(primary), "the primary changed");
        // Without the standby's word it ends.
        cluster.node_mut(standby)?.kill_everything()?;
        wait::until("the end of the primary", HEAL_LIMIT, async || match cluster.primary().await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        cluster.node(witness)?.signal_daemon(Signal::CONT)?;
        cluster.start_node(standby)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        wait_for_the_flag(cluster, primary, false).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}
