//! Somebody does something on purpose.

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::haproxy::HaProxy;
use crate::harness::workload::Workload;
use crate::harness::{clock, story, wait};
use crate::run;

async fn roles(cluster: &Cluster) -> Result<Vec<String>> {
    let mut roles: Vec<String> = cluster.rows().await?.into_iter().map(|row| row.role).collect();
    roles.sort();
    Ok(roles)
}

#[test]
fn three_nodes_come_up_and_are_listed() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        ensure!(roles(cluster).await? == ["leader", "replica", "replica"]);
        let list = cluster.ctl(&["list", &cluster.common.scope]).await?;
        for name in ["node1", "node2", "node3", "Leader"] {
            ensure!(list.contains(name), "{name} is missing in:\n{list}");
        }
        Ok(())
    });
}

#[test]
fn a_single_node_founds_alone() {
    run(Plan::of(1), async |cluster| {
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        Ok(())
    });
}

#[test]
fn a_switchover_there_and_back_loses_nothing() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let first = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let proxy = HaProxy::start_anywhere(cluster).await?;
        let mut workload = Workload::watched(cluster, Some(proxy.read_write)).await?;
        let there = story::switch_over(cluster, &workload, None).await?;
        let back = story::switch_over(cluster, &workload, Some(first)).await?;
        ensure!(there.lost + back.lost == 0, "acknowledged writes were lost: {there:?} {back:?}");
        ensure!(cluster.primary().await? == Some(first));
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn nodes_that_stop_cleanly_leave_a_writable_rest_and_come_back() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let first = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let status = cluster.node_mut(first)?.stop().await?;
        ensure!(status.success(), "the daemon ended with {status}");
        let second = cluster.wait_for_takeover(first, HEAL_LIMIT).await?;
        cluster.node_mut(second)?.stop().await?;
        // The two gave their votes back: the third has a majority by itself.
        let third = cluster.wait_for_takeover(second, HEAL_LIMIT).await?;
        ensure!(third != first);
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.start_node(first)?;
        cluster.start_node(second)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let lost = workload.lost(cluster).await?;
        ensure!(lost.is_empty(), "clean stops lost {} acknowledged writes", lost.len());
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_cluster_stopped_as_a_whole_starts_again() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        workload.finish().await?;
        cluster.stop_all().await?;
        cluster.start_all()?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let lost = workload.lost(cluster).await?;
        ensure!(lost.is_empty(), "{} acknowledged writes were lost", lost.len());
        Ok(())
    });
}

#[test]
fn the_last_node_to_stop_says_whom_it_waits_for() {
    run(Plan::of(2), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let standby = cluster.data_nodes().map(|(index, _)| index).find(|index| *index != primary);
        let standby = standby.context("a standby")?;
        // Both die: neither gave its vote back, so one alone has no majority.
        cluster.node_mut(standby)?.kill_everything()?;
        cluster.node_mut(primary)?.kill_everything()?;
        cluster.start_node(primary)?;
        let awaited = cluster.node(standby)?.name.clone();
        wait::until("the name of the awaited node in the log", HEAL_LIMIT, async || {
            let log = cluster.node(primary).map_err(|error| error.to_string())?.log_tail(20);
            if log.contains(&awaited) { Ok(()) } else { Err(log) }
        })
        .await?;
        ensure!(cluster.primary().await?.is_none(), "a node without a majority is primary");
        cluster.start_node(standby)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        Ok(())
    });
}
