//! Packets between the nodes are lost, by direction: all traffic, PostgreSQL's too. Each node has a network namespace
//! of its own; where there can be none, a proxy in front of every peers' port stalls what the daemons say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::stage::{self, Mode};
use crate::harness::cluster::{Cluster, HEAL_LIMIT, Plan, Row};
use crate::harness::ledger::Route;
use crate::harness::network::Apart;
use crate::harness::workload::Workload;
use crate::harness::{clock, rest, tell, wait};
use crate::{run, run_apart};

/// A standby that flushes nothing for 4 s makes room for another one, which is two changes of what is agreed on.
const STANDBY_GIVEN_UP: Duration = Duration::from_secs(15);

/// What PostgreSQL has sent before its end is read by a busy client a moment later.
const READ_LATE: Duration = Duration::from_millis(100);

/// Runs a scenario with a network, or with proxies where that is not possible.
fn partition(test: &str, mode: Mode, scenario: impl AsyncFnOnce(&mut Cluster, Mode) -> Result<()>) {
    let test = format!("{}::{test}", module_path!().split_once("::").map_or("", |(_, path)| path));
    let (plan, has_links) = match run_apart(&test) {
        Apart::Done => return,
        Apart::Here => (mode.plan(5).map(Plan::with_network), false),
        Apart::Refused(why) => {
            tell(&format!("network namespaces: not run, {why}; {test} cut the peers' ports only"));
            (mode.plan(5).map(Plan::with_links), true)
        }
    };
    run(plan, async |cluster| {
        if has_links {
            cluster.start_links().await?;
        }
        scenario(cluster, mode).await
    });
}

/// What of the primary's traffic is lost.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Both,
    /// Nothing reaches the primary.
    Towards,
    /// Nothing of what the primary sends arrives.
    From,
}

fn cut(cluster: &mut Cluster, one: usize, other: usize, lost: Lost) -> Result<()> {
    if matches!(lost, Lost::Both | Lost::From) {
        cluster.cut(one, other)?;
    }
    if matches!(lost, Lost::Both | Lost::Towards) {
        cluster.cut(other, one)?;
    }
    Ok(())
}

/// A moment's proof that packets are lost where they shall be, and nowhere else.
async fn is_cut_as_planned(cluster: &mut Cluster) -> Result<()> {
    match cluster.network() {
        Ok(network) => network.check().await,
        // Proxies are part of this program.
        Err(_) => Ok(()),
    }
}

async fn cut_off(cluster: &mut Cluster, mode: Mode) -> Result<()> {
    let (mut primary, mut workload) = stage::bring_up(cluster, mode).await?;
    for lost in [Lost::Both, Lost::Towards, Lost::From] {
        let begin = clock::now();
        for other in stage::others(cluster, primary) {
            cut(cluster, primary, other, lost)?;
        }
        is_cut_as_planned(cluster).await?;
        let what = format!("primary cut off, {lost:?}");
        let new = stage::taken_over(cluster, &workload, primary, begin, &what).await?;
        is_cut_as_planned(cluster).await?;
        cluster.heal()?;
        is_cut_as_planned(cluster).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(new), "the primary changed when the network came back");
        stage::wait_for_mode(cluster, new, mode).await?;
        primary = new;
    }
    stage::nothing_is_lost(cluster, &workload, mode).await?;
    workload.finish().await
}

#[test]
fn a_primary_cut_off_from_all_in_asynchronous_mode() {
    partition("a_primary_cut_off_from_all_in_asynchronous_mode", Mode::Asynchronous, cut_off);
}

#[test]
fn a_primary_cut_off_from_all_in_synchronous_mode() {
    partition("a_primary_cut_off_from_all_in_synchronous_mode", Mode::On, cut_off);
}

#[test]
fn a_primary_cut_off_from_all_in_quorum_mode() {
    partition("a_primary_cut_off_from_all_in_quorum_mode", Mode::Quorum, cut_off);
}

/// The same node is the primary for longer than a lease, on the same timeline, and clients write.
async fn nothing_fails_over(
    cluster: &mut Cluster,
    workload: &Workload,
    primary: usize,
    what: &str,
) -> Result<()> {
    let begin = clock::now();
    is_cut_as_planned(cluster).await?;
    wait::until(&format!("two leases of {what}"), HEAL_LIMIT, async || match cluster.primary().await {
        Ok(Some(index)) if index != primary => Ok(Err(anyhow::anyhow!("{what}: node {index} took over"))),
        Err(error) => Ok(Err(error)),
        Ok(_) if begin.elapsed() > stage::ttl(cluster) * 2 => Ok(Ok(())),
        Ok(seen) => Err(format!("primary {seen:?}")),
    })
    .await??;
    workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
    let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
    tell(&format!("{what}: longest time without a write {gap:.2?}"));
    ensure!(gap < STANDBY_GIVEN_UP, "{what}: nobody could write for {gap:?}");
    cluster.heal()?;
    is_cut_as_planned(cluster).await?;
    ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == primary, "{what}: another node took over");
    Ok(())
}

/// The standby that commits wait for, or any.
async fn synchronous_standby(cluster: &Cluster, primary: usize) -> Result<usize> {
    let rows = cluster.rows().await?;
    let is_synchronous =
        |name: &str| rows.iter().any(|row| row.name == name && row.role.ends_with("_standby"));
    let all = stage::others(cluster, primary);
    let found = all.iter().find(|index| cluster.node(**index).is_ok_and(|node| is_synchronous(&node.name)));
    found.or(all.first()).copied().context("a standby")
}

/// The standby that leads Raft, as the primary knows it.
async fn raft_leader(cluster: &Cluster, primary: usize) -> Result<Option<usize>> {
    let document = rest::get(cluster.node(primary)?.ports.rest_at(), "/cluster").await?.json()?;
    let name = document.pointer("/pgherd/raft_leader").and_then(serde_json::Value::as_str);
    let all = stage::others(cluster, primary);
    Ok(all.into_iter().find(|index| cluster.node(*index).is_ok_and(|node| Some(node.name.as_str()) == name)))
}

/// Cut off from one: a majority of the voters is left, and a standby to wait for.
async fn cut_from_one(cluster: &mut Cluster, mode: Mode) -> Result<()> {
    let (primary, mut workload) = stage::bring_up(cluster, mode).await?;
    let timelines = |rows: Vec<Row>| rows.into_iter().map(|row| row.timeline).max();
    let before = timelines(cluster.rows().await?);
    let rounds = [(Lost::Both, false), (Lost::Both, true), (Lost::Towards, true), (Lost::From, true)];
    for (lost, from_leader) in rounds {
        let standby = match raft_leader(cluster, primary).await? {
            Some(leader) if from_leader => leader,
            _ => synchronous_standby(cluster, primary).await?,
        };
        cut(cluster, primary, standby, lost)?;
        let who = if from_leader { "the Raft leader" } else { "a standby" };
        let what = format!("primary cut off from {who}, {lost:?}");
        nothing_fails_over(cluster, &workload, primary, &what).await?;
        stage::wait_for_mode(cluster, primary, mode).await?;
    }
    if cluster.network().is_ok() {
        let standby = synchronous_standby(cluster, primary).await?;
        let port = cluster.node(primary)?.ports.postgresql;
        cluster.network()?.cut_port(standby, primary, port)?;
        nothing_fails_over(cluster, &workload, primary, "replication link cut").await?;
        stage::wait_for_mode(cluster, primary, mode).await?;
    } else {
        tell("replication link cut: not run, PostgreSQL's traffic does not pass the proxies");
    }
    ensure!(timelines(cluster.rows().await?) == before, "somebody was promoted");
    stage::nothing_is_lost(cluster, &workload, mode).await?;
    workload.finish().await
}

#[test]
fn a_primary_cut_off_from_one_in_asynchronous_mode() {
    partition("a_primary_cut_off_from_one_in_asynchronous_mode", Mode::Asynchronous, cut_from_one);
}

#[test]
fn a_primary_cut_off_from_one_in_synchronous_mode() {
    partition("a_primary_cut_off_from_one_in_synchronous_mode", Mode::On, cut_from_one);
}

#[test]
fn a_primary_cut_off_from_one_in_quorum_mode() {
    partition("a_primary_cut_off_from_one_in_quorum_mode", Mode::Quorum, cut_from_one);
}

/// Everybody is cut off from everybody: nobody may write until the network comes back.
async fn majority_lost(cluster: &mut Cluster, mode: Mode) -> Result<()> {
    let (primary, mut workload) = stage::bring_up(cluster, mode).await?;
    let postmaster = cluster.node(primary)?.postmaster_pid()?;
    let begin = clock::now();
    let all: Vec<usize> = cluster.data_nodes().map(|(index, _)| index).collect();
    for one in &all {
        for other in all.iter().filter(|other| *other != one) {
            cluster.cut(*one, *other)?;
        }
    }
    is_cut_as_planned(cluster).await?;
    stage::is_in_state(postmaster, None).await?;
    let silenced = begin.elapsed();
    let quiet = clock::now();
    // The lease ends for every node, and nobody makes use of it.
    wait::until("two leases to pass", HEAL_LIMIT, async || match cluster.primary().await {
        Ok(None) if quiet.elapsed() > stage::ttl(cluster) * 2 => Ok(Ok(())),
        Ok(None) => Err("nobody leads".to_owned()),
        Ok(Some(index)) => Ok(Err(anyhow::anyhow!("node {index} leads without a majority"))),
        Err(error) => Ok(Err(error)),
    })
    .await??;
    let last = workload.ledger.last(Route::Direct).context("no write at all")?;
    let late = last.saturating_duration_since(quiet);
    ensure!(late < READ_LATE, "a write was acknowledged {late:?} after the end of PostgreSQL");
    let healed = clock::now();
    cluster.heal()?;
    is_cut_as_planned(cluster).await?;
    let now = cluster.wait_until_whole(HEAL_LIMIT).await?;
    workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
    tell(&format!(
        "majority lost: last acknowledgement after {:.2?}, PostgreSQL ended after {silenced:.2?}; whole again {:.2?} after the heal, {}",
        last.saturating_duration_since(begin),
        healed.elapsed(),
        if now == primary { "with the same primary" } else { "with another primary" }
    ));
    ensure!(silenced < stage::ttl(cluster), "the primary wrote for {silenced:?} without a majority");
    stage::wait_for_mode(cluster, now, mode).await?;
    ensure!(workload.lost(cluster).await?.is_empty(), "acknowledged writes were lost");
    workload.finish().await
}

#[test]
fn a_lost_majority_silences_the_primary_until_it_is_regained_in_asynchronous_mode() {
    let test = "a_lost_majority_silences_the_primary_until_it_is_regained_in_asynchronous_mode";
    partition(test, Mode::Asynchronous, majority_lost);
}

#[test]
fn a_lost_majority_silences_the_primary_until_it_is_regained_in_quorum_mode() {
    let test = "a_lost_majority_silences_the_primary_until_it_is_regained_in_quorum_mode";
    partition(test, Mode::Quorum, majority_lost);
}
