//! Commits wait for standbys: nothing acknowledged is lost, and nobody waits for the end of a lease.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::ledger::Route;
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, story, wait};
use crate::run;

/// What the log says when the standbys did not wait for the end of the lease.
const TAKEN_FENCED: &str = "(rule TakeFenced";

/// What `synchronous_standby_names` of a node is, as a new session sees it.
async fn names_of(cluster: &Cluster, node: usize) -> Result<String> {
    let session = Session::open_patiently(cluster.node(node)?.ports.postgresql).await?;
    let row = session.client.query_one("SHOW synchronous_standby_names", &[]).await?;
    Ok(row.get(0))
}

/// Waits until the primary waits for these members, as its `/cluster` and PostgreSQL's parameter say.
async fn wait_for_sets(cluster: &Cluster, primary: usize, wanted: &[usize]) -> Result<()> {
    let names: BTreeSet<&str> = wanted
        .iter()
        .map(|index| cluster.node(*index).map(|node| node.name.as_str()))
        .collect::<Result<_>>()?;
    wait::until("the synchronous standbys", HEAL_LIMIT, async || {
        let rows = cluster.rows().await.map_err(|error| error.to_string())?;
        let synchronous: BTreeSet<&str> = rows
            .iter()
            .filter(|row| row.role.starts_with("sync_") || row.role.starts_with("quorum_"))
            .map(|row| row.name.as_str())
            .collect();
        let parameter = names_of(cluster, primary).await.map_err(|error| error.to_string())?;
        let has_all = names.iter().all(|name| parameter.contains(&format!("\"{name}\"")));
        let has_others = parameter.matches("node").count() != names.len();
        if synchronous == names && has_all && !has_others {
            Ok(())
        } else {
            Err(format!("{synchronous:?}, {parameter:?}"))
        }
    })
    .await
}

/// A cluster of three in this mode, whole and synchronous, with a writer.
pub(super) async fn bring_up(cluster: &mut Cluster, count: usize) -> Result<(usize, Vec<usize>, Workload)> {
    cluster.start_all()?;
    let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
    let others: Vec<usize> =
        cluster.data_nodes().map(|(index, _)| index).filter(|index| *index != primary).collect();
    wait::until("synchronous standbys", HEAL_LIMIT, async || {
        let rows = cluster.rows().await.map_err(|error| error.to_string())?;
        let found = rows.iter().filter(|row| row.role.ends_with("_standby")).count();
        // Until then the primary might still acknowledge alone, and nobody can fence it.
        let log = cluster.node(primary).map_err(|error| error.to_string())?.log();
        let is_settled = log.contains("(rule NarrowSync");
        if found == count && is_settled { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await?;
    let workload = Workload::watched(cluster, None).await?;
    Ok((primary, others, workload))
}

async fn lose_the_primary(cluster: &mut Cluster, count: usize) -> Result<()> {
    let (_, _, mut workload) = bring_up(cluster, count).await?;
    for round in 1..=2 {
        let (outcome, old) = story::lose_primary(cluster, &workload).await?;
        ensure!(outcome.lost == 0, "round {round}: {} acknowledged writes were lost", outcome.lost);
        let new = cluster.wait_for_primary(HEAL_LIMIT).await?;
        ensure!(cluster.node(new)?.log().contains(TAKEN_FENCED), "round {round}: nobody was fenced");
        let back = story::return_node(cluster, &workload, old).await?;
        ensure!(back.lost == 0, "round {round}: {} writes were lost when the node came back", back.lost);
        ensure!(outcome.direct < Duration::from_secs(15), "nobody could write for {:?}", outcome.direct);
    }
    workload.finish().await?;
    Ok(())
}

#[test]
fn a_lost_primary_in_quorum_mode_loses_nothing_and_is_replaced_by_fences() {
    let plan = Plan::of(3).map(|plan| plan.with_settings(&["synchronous_mode: quorum"]));
    run(plan, async |cluster| lose_the_primary(cluster, 2).await);
}

#[test]
fn a_lost_primary_in_synchronous_mode_loses_nothing_and_is_replaced_by_fences() {
    let plan = Plan::of(3).map(|plan| plan.with_settings(&["synchronous_mode: on"]));
    run(plan, async |cluster| lose_the_primary(cluster, 1).await);
}

#[test]
fn without_fast_failover_the_lease_expires_first() {
    let lines = ["synchronous_mode: quorum", "fast_failover: off"];
    run(Plan::of(3).map(|plan| plan.with_settings(&lines)), async |cluster| {
        let (_, _, mut workload) = bring_up(cluster, 2).await?;
        let (outcome, _) = story::lose_primary(cluster, &workload).await?;
        ensure!(outcome.lost == 0, "{} acknowledged writes were lost", outcome.lost);
        let ttl = Duration::from_secs(cluster.common.ttl.into());
        // The last renewal may have been half a second before the death.
        ensure!(outcome.direct > ttl - Duration::from_secs(1), "writing went on after {:?}", outcome.direct);
        workload.finish().await?;
        Ok(())
    });
}

/// Writes on one node alone until something fails; when it was acknowledged last.
async fn write_alone(session: &Session, first: i64) -> Option<Instant> {
    let mut last = None;
    for id in first.. {
        let statement = format!("INSERT INTO ledger VALUES ({id})");
        match tokio::time::timeout(HEAL_LIMIT, session.client.simple_query(&statement)).await {
            Ok(Ok(_)) => last = Some(clock::now()),
            Ok(Err(_)) | Err(_) => return last,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    last
}

/// The first acknowledgement of any of these nodes, which are standbys until one takes over.
async fn first_write(ports: &[u16], first: i64) -> Result<Instant> {
    let mut ids = first..;
    wait::until("a write on another node", HEAL_LIMIT, async || {
        for port in ports {
            let id = ids.next().unwrap_or(i64::MAX);
            let session = Session::open(*port).await.map_err(|error| error.to_string())?;
            let statement = format!("INSERT INTO ledger VALUES ({id})");
            if session.client.simple_query(&statement).await.is_ok() {
                return Ok(clock::now());
            }
        }
        Err("all are standbys".to_owned())
    })
    .await
}

#[test]
fn an_isolated_primary_acknowledges_nothing_once_another_is_primary() {
    let plan = Plan::of(3).map(|plan| plan.with_links().with_settings(&["synchronous_mode: quorum"]));
    run(plan, async |cluster| {
        cluster.start_links().await?;
        let (old, others, mut workload) = bring_up(cluster, 2).await?;
        let session = Session::open_patiently(cluster.node(old)?.ports.postgresql).await?;
        let begin = clock::now();
        cluster.links()?.isolate(old, cluster.nodes.len());
        let ports: Vec<u16> = others
            .iter()
            .map(|index| cluster.node(*index).map(|n| n.ports.postgresql))
            .collect::<Result<_>>()?;
        let (last, first) = tokio::join!(write_alone(&session, 1 << 60), first_write(&ports, 1 << 61));
        let (last, first) = (last.context("the isolated primary acknowledged nothing at all")?, first?);
        ensure!(last > begin, "the isolated primary acknowledged nothing after the cut");
        ensure!(last < first, "two writers for {:?}", last - first);
        let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
        ensure!(cluster.node(new)?.log().contains(TAKEN_FENCED), "nobody was fenced");
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        ensure!(gap < Duration::from_secs(20), "nobody could write for {gap:?}");
        cluster.links()?.heal();
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(workload.lost(cluster).await?.is_empty(), "acknowledged writes were lost");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_daemon_stopped_for_a_moment_leaves_a_whole_cluster() {
    let plan = Plan::of(3).map(|plan| plan.with_settings(&["synchronous_mode: quorum"]));
    run(plan, async |cluster| {
        let (primary, others, mut workload) = bring_up(cluster, 2).await?;
        let fenced = |cluster: &Cluster| -> Result<bool> {
            let logs = others.iter().map(|index| cluster.node(*index).map(crate::harness::node::Node::log));
            Ok(logs.collect::<Result<Vec<_>>>()?.iter().any(|log| log.contains("(rule Fence")))
        };
        cluster.node(primary)?.signal_daemon(Signal::STOP)?;
        wait::until("a fence against the silent holder", HEAL_LIMIT, async || match fenced(cluster) {
            Ok(true) => Ok(Ok(())),
            Ok(false) => Err("nobody fenced itself".to_owned()),
            Err(error) => Ok(Err(error)),
        })
        .await??;
        cluster.node(primary)?.signal_daemon(Signal::CONT)?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        ensure!(workload.lost(cluster).await?.is_empty(), "acknowledged writes were lost");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_lost_synchronous_standby_is_replaced_and_comes_back() {
    let plan = Plan::of(3).map(|plan| plan.with_settings(&["synchronous_mode: on"]));
    run(plan, async |cluster| {
        let (primary, others, mut workload) = bring_up(cluster, 1).await?;
        let names = names_of(cluster, primary).await?;
        let chosen = |index: &&usize| {
            cluster.node(**index).is_ok_and(|node| names.contains(&format!("\"{}\"", node.name)))
        };
        let lost = *others.iter().find(chosen).context("no synchronous standby is configured")?;
        let other = *others.iter().find(|index| **index != lost).context("no other standby")?;
        let begin = clock::now();
        cluster.node_mut(lost)?.kill_everything()?;
        wait_for_sets(cluster, primary, &[other]).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        ensure!(gap < Duration::from_secs(10), "commits waited for {gap:?}");
        // Nobody is left: not strict, so the primary goes on alone.
        cluster.node_mut(other)?.stop().await?;
        wait_for_sets(cluster, primary, &[]).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        cluster.start_node(lost)?;
        wait_for_sets(cluster, primary, &[lost]).await?;
        cluster.start_node(other)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(primary), "the primary changed");
        ensure!(workload.lost(cluster).await?.is_empty(), "acknowledged writes were lost");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn strict_mode_acknowledges_nothing_without_a_standby() {
    let lines = ["synchronous_mode: quorum", "synchronous_mode_strict: true"];
    let plan = Plan::of(2).map(|plan| plan.with_witness().with_settings(&lines));
    run(plan, async |cluster| {
        let (primary, others, mut workload) = bring_up(cluster, 1).await?;
        let standby = *others.first().context("no standby")?;
        cluster.node_mut(standby)?.kill_everything()?;
        // Longer than any patience with a broken stream: nothing is given up meanwhile.
        let waited = clock::now() + Duration::from_secs(8);
        wait::until_true("the time in which nothing is acknowledged", HEAL_LIMIT, async || {
            clock::now() > waited
        })
        .await?;
        let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql).await?;
        let write = session.client.simple_query("INSERT INTO ledger VALUES (-1)");
        ensure!(
            tokio::time::timeout(Duration::from_secs(2), write).await.is_err(),
            "a commit was acknowledged without a standby"
        );
        ensure!(
            workload.ledger.count_since(Route::Direct, waited - Duration::from_secs(7)) == 0,
            "commits were acknowledged without a standby"
        );
        cluster.start_node(standby)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        wait_for_sets(cluster, primary, &[standby]).await?;
        ensure!(workload.lost(cluster).await?.is_empty(), "acknowledged writes were lost");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_switchover_in_quorum_mode_loses_nothing() {
    let plan = Plan::of(3).map(|plan| plan.with_settings(&["synchronous_mode: quorum"]));
    run(plan, async |cluster| {
        let (primary, _, mut workload) = bring_up(cluster, 2).await?;
        let outcome = story::switch_over(cluster, &workload, None).await?;
        ensure!(outcome.lost == 0, "{} acknowledged writes were lost", outcome.lost);
        let new = cluster.wait_for_primary(HEAL_LIMIT).await?;
        ensure!(new != primary, "nobody took over");
        let others: Vec<usize> = (0..cluster.nodes.len()).filter(|index| *index != new).collect();
        wait_for_sets(cluster, new, &others).await?;
        ensure!(!cluster.node(new)?.log().contains(TAKEN_FENCED), "the switchover went by fences");
        workload.finish().await?;
        Ok(())
    });
}
