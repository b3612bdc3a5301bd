//! Automation is off.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::workload::Workload;
use crate::harness::{clock, wait};
use crate::run;

fn ttl(cluster: &Cluster) -> Duration {
    Duration::from_secs(cluster.common.ttl.into())
}

/// Nobody but `only` answers 200 on `/primary` until this moment.
async fn nobody_else_leads_until(cluster: &Cluster, only: usize, moment: Instant) -> Result<()> {
    wait::until("the end of a watch", HEAL_LIMIT, async || match cluster.primary().await {
        Ok(Some(index)) if index != only => Ok(Err(anyhow::anyhow!("node {index} took over in pause"))),
        Err(error) => Ok(Err(error)),
        Ok(_) if clock::now() > moment => Ok(Ok(())),
        Ok(_) => Err("nobody else leads".to_owned()),
    })
    .await?
}

#[test]
fn a_paused_primary_goes_on_without_its_daemon() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let postmaster = cluster.node(primary)?.postmaster_pid()?;
        let said = cluster.ctl(&["pause", "--wait"]).await?;
        ensure!(said.contains("Success: cluster management is paused"), "{said}");
        let list = cluster.ctl(&["list"]).await?;
        ensure!(list.contains(" Maintenance mode: on"), "{list}");
        let paused_at = clock::now();
        // A clean stop, then a kill: each longer than the lease.
        let status = cluster.node_mut(primary)?.stop_daemon().await?;
        ensure!(status.success(), "the daemon ended with {status}");
        let begin = clock::now();
        nobody_else_leads_until(cluster, primary, begin + ttl(cluster) * 3).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.start_node(primary)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        cluster.node_mut(primary)?.kill_daemon()?;
        let begin = clock::now();
        nobody_else_leads_until(cluster, primary, begin + ttl(cluster) * 3).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.start_node(primary)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        cluster.ctl(&["resume", "--wait"]).await?;
        workload.wait_until_writing(clock::now() + ttl(cluster) * 2, HEAL_LIMIT).await?;
        workload.nothing_failed_on(primary, paused_at)?;
        ensure!(cluster.node(primary)?.postmaster_pid()? == postmaster, "PostgreSQL was restarted");
        // The guard is armed again: without its daemon PostgreSQL ends with the lease.
        cluster.node_mut(primary)?.kill_daemon()?;
        cluster.wait_for_takeover(primary, HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_node_that_dies_in_pause_is_replaced_by_the_operators_word_only() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        cluster.ctl(&["pause", "--wait"]).await?;
        let candidate = cluster.data_nodes().map(|(index, _)| index).find(|index| *index != old);
        let candidate = candidate.context("a standby")?;
        let name = cluster.node(candidate)?.name.clone();
        // A word that is not true is not taken.
        let dead = ["failover", "--candidate", &name, "--primary-is-dead", "--force"];
        let said = cluster.ctl(&dead).await.err().context("a living primary was taken for dead")?;
        ensure!(said.to_string().contains("is not dead"), "{said:#}");
        cluster.node_mut(old)?.kill_everything()?;
        let begin = clock::now();
        nobody_else_leads_until(cluster, old, begin + ttl(cluster) * 3).await?;
        let plain = cluster.ctl(&["failover", "--candidate", &name, "--force"]).await;
        let said = plain.err().context("a failover ended the pin without the operator's word")?;
        ensure!(said.to_string().contains("--primary-is-dead"), "{said:#}");
        cluster.ctl(&dead).await?;
        ensure!(cluster.wait_for_takeover(old, HEAL_LIMIT).await? == candidate);
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        // What is stopped stays so until the end of the pause.
        cluster.start_node(old)?;
        wait::until("the returned node's word", HEAL_LIMIT, async || {
            let log = cluster.node(old).map_err(|error| error.to_string())?.log_tail(10);
            if log.contains("PAUSE: left as it is") { Ok(()) } else { Err(log) }
        })
        .await?;
        cluster.ctl(&["resume"]).await?;
        let primary = cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(primary == candidate, "the primary changed with the end of the pause");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_switchover_works_in_pause_and_a_stopped_postgresql_is_left() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let first = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        cluster.ctl(&["pause", "--wait"]).await?;
        let second = (first + 1) % 3;
        cluster.switchover(first, second).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(second));
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        // The new primary's epoch is pinned as well: its PostgreSQL may be stopped from outside.
        wait::until("the pause of the new primary", HEAL_LIMIT, async || {
            let port = cluster.node(second).map_err(|error| error.to_string())?.ports.rest;
            let answer =
                crate::harness::rest::get(port, "/patroni").await.map_err(|error| error.to_string())?;
            if answer.body.contains("\"pause\":true") { Ok(()) } else { Err(answer.body) }
        })
        .await?;
        cluster.node(second)?.kill_postmaster()?;
        nobody_else_leads_until(cluster, second, clock::now() + ttl(cluster) * 2).await?;
        ensure!(cluster.primary().await?.is_none(), "PostgreSQL was started in pause");
        cluster.ctl(&["resume", "--wait"]).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(second), "another node took over");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_daemon_that_was_stopped_in_pause_is_replaced_after_resume_where_commits_wait() {
    run(Plan::of(3).map(|plan| plan.with_settings(&["synchronous_mode: on"])), async |cluster| {
        let (old, _, mut workload) = super::synchronous::bring_up(cluster, 1).await?;
        cluster.ctl(&["pause", "--wait"]).await?;
        let status = cluster.node_mut(old)?.stop_daemon().await?;
        ensure!(status.success(), "the daemon ended with {status}");
        let postmaster = cluster.node(old)?.postmaster_pid()?;
        nobody_else_leads_until(cluster, old, clock::now() + ttl(cluster) * 2).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.ctl(&["resume"]).await?;
        let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
        ensure!(new != old, "the stopped daemon leads");
        ensure!(cluster.node(old)?.postmaster_pid()? == postmaster, "somebody ended the old PostgreSQL");
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.start_node(old)?;
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == new, "the primary changed again");
        workload.finish().await?;
        Ok(())
    });
}
