//! Something dies.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::haproxy::HaProxy;
use crate::harness::workload::Workload;
use crate::harness::{clock, story};
use crate::run;

async fn bring_up(cluster: &mut Cluster) -> Result<(HaProxy, Workload)> {
    cluster.start_all()?;
    cluster.wait_until_whole(BRING_UP_LIMIT).await?;
    let proxy = HaProxy::start_anywhere(cluster).await?;
    let workload = Workload::watched(cluster, Some(proxy.read_write)).await?;
    Ok((proxy, workload))
}

#[test]
fn a_lost_primary_node_is_replaced_and_comes_back_as_a_standby() {
    run(Plan::of(3), async |cluster| {
        let (_proxy, mut workload) = bring_up(cluster).await?;
        let (outcome, old) = story::lose_primary(cluster, &workload).await?;
        // The lease (5 s), an election, a promotion, HAProxy's checks: more would mean that something waited.
        ensure!(outcome.direct < Duration::from_secs(15), "nobody could write for {:?}", outcome.direct);
        let back = story::return_node(cluster, &workload, old).await?;
        ensure!(back.lost == 0, "{} acknowledged writes were lost when the old node came back", back.lost);
        ensure!(cluster.primary().await? != Some(old), "the returned node became the primary");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_killed_postmaster_is_restarted_in_place() {
    run(Plan::of(3), async |cluster| {
        let (_proxy, mut workload) = bring_up(cluster).await?;
        let before = cluster.primary().await?;
        let outcome = story::lose_postmaster(cluster, &workload).await?;
        ensure!(cluster.primary().await? == before, "another node took over though the daemon lived");
        ensure!(outcome.lost == 0, "{} acknowledged writes were lost", outcome.lost);
        ensure!(outcome.direct < Duration::from_secs(10), "nobody could write for {:?}", outcome.direct);
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_daemon_restarted_within_its_lease_is_not_noticed_by_clients() {
    run(Plan::of(3).map(|plan| plan.with_ttl(20)), async |cluster| {
        let (_proxy, mut workload) = bring_up(cluster).await?;
        let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
        let postmaster = cluster.node(primary)?.postmaster_pid()?;
        let begin = clock::now();
        cluster.node_mut(primary)?.kill_daemon()?;
        cluster.start_node(primary)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(primary), "another node took over");
        // Longer than what was left of the lease that the killed daemon held: nothing comes afterwards.
        let ttl = Duration::from_secs(cluster.common.ttl.into());
        workload.wait_until_writing(begin + ttl, HEAL_LIMIT).await?;
        workload.nothing_failed_on(primary, begin)?;
        ensure!(cluster.node(primary)?.postmaster_pid()? == postmaster, "PostgreSQL was restarted");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_cluster_whose_nodes_all_died_comes_back_with_everything() {
    run(Plan::of(3), async |cluster| {
        let (_proxy, mut workload) = bring_up(cluster).await?;
        for node in &mut cluster.nodes {
            node.kill_everything()?;
        }
        cluster.start_all()?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}
