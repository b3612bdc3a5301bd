//! A node as a whole dies, stands still, or all of them die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::stage::{self, Mode};
use crate::harness::cluster::{Cluster, HEAL_LIMIT};
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, processes, story, tell, wait};
use crate::run;

/// A node that wakes may find its backends awake before its guard, for so long at most on a busy machine.
const SILENT_AFTER: Duration = Duration::from_millis(500);

/// Daemon, guard and PostgreSQL stand still for longer than the lease, then all go on at once.
async fn frozen(cluster: &mut Cluster, workload: &Workload, old: usize, mode: Mode) -> Result<usize> {
    let begin = clock::now();
    let pids = cluster.node(old)?.freeze()?;
    let postmaster = cluster.node(old)?.postmaster_pid()?;
    ensure!(pids.len() > 5 && pids.contains(&postmaster), "only {pids:?} were stopped");
    let new = stage::taken_over(cluster, workload, old, begin, "node frozen").await?;
    stage::write_until(workload, begin + stage::ttl(cluster) * 2).await?;
    ensure!(
        pids.iter().all(|pid| processes::state(*pid) == Some('T')),
        "something moved while it was frozen"
    );
    let thawed = clock::now();
    cluster.node(old)?.thaw()?;
    stage::is_in_state(postmaster, None).await?;
    let ended = thawed.elapsed();
    let probe = workload.probes.as_ref().context("no probe")?;
    let stale = probe.findings().stale_of(old);
    let silent_after = stale.iter().map(|write| write.at.saturating_duration_since(thawed)).max();
    tell(&format!(
        "node thawed: its PostgreSQL was gone after {ended:.3?}, {} stale acknowledgements, the last one after {:.3?}",
        stale.len(),
        silent_after.unwrap_or_default()
    ));
    ensure!(stale.iter().all(|write| write.at >= thawed), "two nodes acknowledged writes before the thaw");
    ensure!(silent_after.is_none_or(|after| after < SILENT_AFTER), "it acknowledged for {silent_after:?}");
    if mode.is_synchronous() {
        // An acknowledgement may have been on its way when the node was frozen: of a write that the standbys had before
        // they were fenced, so the new primary has it. Nothing else may be acknowledged.
        let session = Session::open_patiently(cluster.node(new)?.ports.postgresql_at()).await?;
        let lost = probe.lost(&session).await?;
        ensure!(
            stale.iter().all(|write| !lost.contains(&write.id)),
            "acknowledged after the thaw, and not there: {lost:?}"
        );
    }
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    ensure!(cluster.primary().await? == Some(new), "the primary changed when the node went on");
    Ok(new)
}

/// All nodes die at once and are started again: the cluster comes back with everything.
async fn all_die(cluster: &mut Cluster, workload: &Workload) -> Result<()> {
    let before = workload.lost(cluster).await?.len();
    let begin = clock::now();
    for node in &cluster.nodes {
        node.freeze()?;
    }
    for node in &mut cluster.nodes {
        node.kill_everything()?;
        ensure!(processes::of_node(&node.directory).is_empty(), "{} lives", node.name);
    }
    cluster.start_all()?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
    let lost = workload.lost(cluster).await?.len() - before;
    tell(&format!(
        "all nodes killed: whole again after {:.1?}, {lost} acknowledged writes lost",
        begin.elapsed()
    ));
    ensure!(lost == 0, "{lost} acknowledged writes were lost");
    Ok(())
}

fn machine_fails(mode: Mode) {
    run(mode.plan(5), async |cluster| {
        let (_, mut workload) = stage::bring_up(cluster, mode).await?;
        let (outcome, old) = story::lose_primary(cluster, &workload).await?;
        tell(&format!("node killed: nobody could write for {:.2?}, {} lost", outcome.direct, outcome.lost));
        ensure!(
            !mode.is_synchronous() || outcome.lost == 0,
            "{} acknowledged writes were lost",
            outcome.lost
        );
        story::return_node(cluster, &workload, old).await?;
        let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
        stage::wait_for_mode(cluster, primary, mode).await?;
        all_die(cluster, &workload).await?;
        let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
        stage::wait_for_mode(cluster, primary, mode).await?;
        // The probes end here: a frozen node's stale acknowledgements are judged by themselves.
        let findings = workload.probes.as_ref().context("no probe")?.findings();
        ensure!(findings.two_writers().is_zero(), "two nodes acknowledged writes: {findings}");
        frozen(cluster, &workload, primary, mode).await?;
        stage::nothing_is_lost(cluster, &workload, mode).await?;
        workload.stop().await;
        tell(&workload.probes.as_ref().context("no probe")?.findings().to_string());
        Ok(())
    });
}

#[test]
fn a_machine_fails_in_asynchronous_mode() {
    machine_fails(Mode::Asynchronous);
}

#[test]
fn a_machine_fails_in_synchronous_mode() {
    machine_fails(Mode::On);
}

#[test]
fn a_machine_fails_in_quorum_mode() {
    machine_fails(Mode::Quorum);
}

/// A store is lost with its disk: the node comes back under a new id, on a standby and on the primary.
#[test]
fn a_lost_consensus_store_is_made_anew() {
    run(Mode::Quorum.plan(5), async |cluster| {
        let (primary, mut workload) = stage::bring_up(cluster, Mode::Quorum).await?;
        let standby = *stage::others(cluster, primary).first().context("a standby")?;
        for index in [standby, primary] {
            let begin = clock::now();
            let starts = |cluster: &Cluster| -> Vec<String> {
                let log = cluster.node(index).map(crate::harness::node::Node::log).unwrap_or_default();
                log.lines().filter_map(|line| Some(line.split_once("node id ")?.1.to_owned())).collect()
            };
            let before = starts(cluster);
            cluster.node_mut(index)?.kill_everything()?;
            cluster.node(index)?.wipe_store()?;
            cluster.start_node(index)?;
            wait::until("another node id", HEAL_LIMIT, async || {
                let all = starts(cluster);
                match (before.last(), all.last()) {
                    (Some(old), Some(new)) if all.len() > before.len() && old != new => Ok(()),
                    _ => Err(format!("{all:?}")),
                }
            })
            .await?;
            let now = cluster.wait_until_whole(HEAL_LIMIT).await?;
            workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
            tell(&format!("store of node {} lost: whole after {:.1?}", index + 1, begin.elapsed()));
            stage::wait_for_mode(cluster, now, Mode::Quorum).await?;
        }
        stage::nothing_is_lost(cluster, &workload, Mode::Quorum).await?;
        workload.finish().await
    });
}
