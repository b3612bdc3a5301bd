//! Failsafe mode: a primary without a majority goes on while every other data node stands back for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::ledger::Route;
use crate::harness::node::Kind;
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, rest, wait};
use crate::run;

/// More witnesses than data nodes: without them nobody has a majority.
fn plan() -> Result<Plan> {
    Plan::of(2).map(|plan| plan.with_witnesses(3))
}

fn ttl(cluster: &Cluster) -> Duration {
    Duration::from_secs(cluster.common.ttl.into())
}

/// A whole cluster in which all voters acknowledge, and both data nodes are in the list.
async fn wait_until_ready(cluster: &Cluster) -> Result<(usize, usize)> {
    let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
    let standby = cluster.data_nodes().map(|(index, _)| index).find(|index| *index != primary);
    let port = cluster.node(primary)?.ports.rest;
    let answering = format!("}} {}\n", cluster.nodes.len());
    wait::until("acknowledgements of all voters", BRING_UP_LIMIT, async || {
        let page = rest::get(port, "/metrics").await.map_err(|error| error.to_string())?.body;
        let line = page.lines().find(|line| line.starts_with("pgherd_lease_voters_answering"));
        let line = line.map(|line| format!("{line}\n")).unwrap_or_default();
        if line.ends_with(&answering) { Ok(()) } else { Err(line) }
    })
    .await?;
    Ok((primary, standby.context("a standby")?))
}

async fn wait_for_the_list(cluster: &Cluster) -> Result<()> {
    for (_, node) in cluster.data_nodes() {
        wait::until("the failsafe list", HEAL_LIMIT, async || {
            let answer = rest::get(node.ports.rest, "/failsafe").await.map_err(|error| error.to_string())?;
            let has_both = answer.body.contains("\"node1\"") && answer.body.contains("\"node2\"");
            if answer.status == 200 && has_both { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await?;
    }
    Ok(())
}

async fn wait_for_the_flag(cluster: &Cluster, index: usize, is_set: bool) -> Result<()> {
    let port = cluster.node(index)?.ports.rest;
    wait::until("failsafe_mode_is_active in the status", HEAL_LIMIT, async || {
        let body = rest::get(port, "/patroni").await.map_err(|error| error.to_string())?.body;
        if body.contains("\"failsafe_mode_is_active\":true") == is_set { Ok(()) } else { Err(body) }
    })
    .await
}

fn witnesses(cluster: &Cluster) -> Vec<usize> {
    let all = cluster.nodes.iter().enumerate();
    all.filter(|(_, node)| node.kind == Kind::Witness).map(|(index, _)| index).collect()
}

fn kill_witnesses(cluster: &mut Cluster) -> Result<()> {
    witnesses(cluster).into_iter().try_for_each(|index| cluster.node_mut(index)?.kill_daemon())
}

fn start_witnesses(cluster: &mut Cluster) -> Result<()> {
    witnesses(cluster).into_iter().try_for_each(|index| cluster.start_node(index))
}

async fn wait_for_the_end_of(session: &Session) -> Result<()> {
    wait::until_true("the end of PostgreSQL", HEAL_LIMIT, async || {
        session.client.simple_query("SELECT 1").await.is_err()
    })
    .await
}

#[test]
fn without_failsafe_mode_writing_ends_with_the_witnesses() {
    run(plan(), async |cluster| {
        cluster.start_all()?;
        let (primary, _) = wait_until_ready(cluster).await?;
        let off = rest::get(cluster.node(primary)?.ports.rest, "/failsafe").await?;
        ensure!(off.status == 502, "{off:?}");
        let warning = "data nodes are 2 of 5 voters";
        let list = cluster.ctl(&["list"]).await?;
        ensure!(list.contains(warning), "{list}");
        wait::until("the warning in the log", HEAL_LIMIT, async || {
            let log = cluster.node(primary).map_err(|error| error.to_string())?.log_tail(10);
            if log.contains(warning) { Ok(()) } else { Err(log) }
        })
        .await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql).await?;
        let begin = clock::now();
        kill_witnesses(cluster)?;
        wait_for_the_end_of(&session).await?;
        ensure!(begin.elapsed() <= ttl(cluster) + Duration::from_secs(1), "it ran for {:?}", begin.elapsed());
        start_witnesses(cluster)?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let lost = workload.lost(cluster).await?;
        ensure!(lost.is_empty(), "acknowledged writes were lost: {lost:?}");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_primary_goes_on_without_its_witnesses_while_the_standby_answers() {
    let plan = plan().map(|plan| plan.with_settings(&["failsafe_mode: true"]));
    run(plan, async |cluster| {
        cluster.start_all()?;
        let (primary, standby) = wait_until_ready(cluster).await?;
        wait_for_the_list(cluster).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let failures = workload.ledger.failures(Route::Direct);
        let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql).await?;
        let begin = clock::now();
        kill_witnesses(cluster)?;
        workload.wait_until_writing(begin + ttl(cluster) * 3, HEAL_LIMIT).await?;
        ensure!(workload.ledger.failures(Route::Direct) == failures, "a client's connection or write failed");
        wait_for_the_flag(cluster, primary, true).await?;
        wait_for_the_flag(cluster, standby, true).await?;
        ensure!(cluster.node(standby)?.health("/replica").await == Some(200), "replication has ended");
        // The standby promises nothing more: the primary stops in time.
        let begin = clock::now();
        cluster.node(standby)?.signal_daemon(Signal::STOP)?;
        wait_for_the_end_of(&session).await?;
        let ran_on = begin.elapsed();
        ensure!(ran_on <= ttl(cluster) + Duration::from_secs(1), "it ran on for {ran_on:?}");
        cluster.node(standby)?.signal_daemon(Signal::CONT)?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        start_witnesses(cluster)?;
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == primary, "the primary changed");
        wait_for_the_flag(cluster, primary, false).await?;
        wait_for_the_flag(cluster, standby, false).await?;
        let lost = workload.lost(cluster).await?;
        ensure!(lost.is_empty(), "acknowledged writes were lost: {lost:?}");
        workload.finish().await?;
        Ok(())
    });
}

/// The peers' network is cut, and the members' REST APIs can be reached: the others have a majority, and their promise.
#[test]
fn who_stands_back_does_not_take_over_from_an_isolated_primary() {
    let plan =
        Plan::of(2).map(|plan| plan.with_witness().with_links().with_settings(&["failsafe_mode: true"]));
    run(plan, async |cluster| {
        cluster.start_links().await?;
        cluster.start_all()?;
        let (primary, standby) = wait_until_ready(cluster).await?;
        wait_for_the_list(cluster).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let failures = workload.ledger.failures(Route::Direct);
        let begin = clock::now();
        cluster.links()?.isolate(primary, cluster.nodes.len());
        workload.wait_until_writing(begin + ttl(cluster) * 3, HEAL_LIMIT).await?;
        ensure!(workload.ledger.failures(Route::Direct) == failures, "a client's connection or write failed");
        wait_for_the_flag(cluster, standby, true).await?;
        ensure!(cluster.primary().await? == Some(primary), "the standby took over");
        // Nobody knows that it is dead: the last promise is kept to its end.
        let begin = clock::now();
        cluster.node_mut(primary)?.kill_everything()?;
        ensure!(cluster.wait_for_takeover(primary, HEAL_LIMIT).await? == standby);
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        let kept = ttl(cluster) - Duration::from_millis(1500);
        ensure!(gap >= kept, "it took over after {gap:?}, within its promise");
        cluster.links()?.heal();
        cluster.start_node(primary)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}

async fn epoch(cluster: &Cluster, index: usize) -> Result<u64> {
    let document = rest::get(cluster.node(index)?.ports.rest, "/cluster").await?.json()?;
    let epoch =
        document.get("pgherd").and_then(|pgherd| pgherd.get("epoch")).and_then(|epoch| epoch.as_u64());
    epoch.context("no epoch")
}

/// Who stood back before is bound by its start, but not where it goes on under the lease that it has.
#[test]
fn a_restarted_daemon_keeps_its_primary_and_can_rely_on_failsafe_again() {
    let plan =
        Plan::of(2).map(|plan| plan.with_witness().with_links().with_settings(&["failsafe_mode: true"]));
    run(plan, async |cluster| {
        cluster.start_links().await?;
        cluster.start_all()?;
        let (first, second) = wait_until_ready(cluster).await?;
        wait_for_the_list(cluster).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        cluster.links()?.isolate(first, cluster.nodes.len());
        wait_for_the_flag(cluster, second, true).await?;
        cluster.links()?.heal();
        wait_for_the_flag(cluster, first, false).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        cluster.switchover(first, second).await?;
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == second);
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let (failures, before) = (workload.ledger.failures(Route::Direct), epoch(cluster, second).await?);
        let begin = clock::now();
        cluster.node_mut(second)?.kill_daemon()?;
        cluster.start_node(second)?;
        wait::until("an epoch in which the list counts", HEAL_LIMIT, async || {
            match epoch(cluster, second).await {
                Ok(epoch) if epoch > before => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await?;
        wait_until_ready(cluster).await?;
        workload.wait_until_writing(begin + ttl(cluster) * 2, HEAL_LIMIT).await?;
        ensure!(workload.ledger.failures(Route::Direct) == failures, "the restart of the daemon was felt");
        let begin = clock::now();
        cluster.links()?.isolate(second, cluster.nodes.len());
        workload.wait_until_writing(begin + ttl(cluster) * 2, HEAL_LIMIT).await?;
        ensure!(workload.ledger.failures(Route::Direct) == failures, "failsafe did not carry the primary");
        cluster.links()?.heal();
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == second, "the primary changed");
        workload.finish().await?;
        Ok(())
    });
}
