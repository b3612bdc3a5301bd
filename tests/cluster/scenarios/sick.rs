//! Sick, not dead: the primary runs and is of no use. And what only looks like it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::deadlock::Deadlock;
use crate::harness::disk::Disk;
use crate::harness::ledger::Route;
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, processes, tell, wait};
use crate::run;

/// `primary_health_timeout` here.
const TIMEOUT: Duration = Duration::from_secs(4);
const SETTING: &str = "primary_health_timeout: 4";
/// The time-out, the attempt in progress when it ends, a kill of a second, a take-over.
const BOUND: Duration = Duration::from_secs(15);

fn plan() -> Result<Plan> {
    Ok(Plan::of(3)?.with_settings(&[SETTING]))
}

async fn bring_up(cluster: &mut Cluster) -> Result<Workload> {
    cluster.start_all()?;
    cluster.wait_until_whole(BRING_UP_LIMIT).await?;
    Workload::watched(cluster, None).await
}

/// Another node takes over, for this reason, in time; in the end the cluster is whole again.
async fn is_replaced(
    cluster: &mut Cluster,
    workload: &Workload,
    old: usize,
    begin: Instant,
    why: &str,
) -> Result<()> {
    cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
    workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
    let took = begin.elapsed();
    let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
    tell(&format!("{why}: another primary after {took:.1?}, nobody could write for {gap:.1?}"));
    ensure!(took < BOUND, "it took {took:?}");
    let log = cluster.node(old)?.log();
    ensure!(log.contains(why), "the reason is not told: {why:?}");
    Ok(())
}

#[test]
fn a_stopped_postmaster_is_found_out() {
    run(plan(), async |cluster| {
        let mut workload = bring_up(cluster).await?;
        let old = cluster.wait_for_primary(HEAL_LIMIT).await?;
        let begin = clock::now();
        processes::signal(cluster.node(old)?.postmaster_pid()?, Signal::STOP)?;
        is_replaced(cluster, &workload, old, begin, "has accepted no new connection").await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_deadlocked_daemon_does_not_keep_its_lease() {
    run(plan(), async |cluster| {
        let mut workload = bring_up(cluster).await?;
        let old = cluster.wait_for_primary(HEAL_LIMIT).await?;
        let begin = clock::now();
        let pid = cluster.node(old)?.daemon_pid().context("the primary's daemon does not run")?;
        let deadlock = Deadlock::of(pid, "renewer", &cluster.node(old)?.directory)?;
        is_replaced(cluster, &workload, old, begin, "the daemon's loop has stood still").await?;
        drop(deadlock);
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}

/// The primary's data directory lies on a disk of its own.
async fn with_disk(
    cluster: &mut Cluster,
    scenario: impl AsyncFnOnce(&mut Cluster, &Workload, usize, &mut Disk) -> Result<()>,
) -> Result<()> {
    let place = cluster.node(0)?.directory.join("disk");
    let mut disk = match Disk::mount(&place, cluster.user.as_ref())? {
        Ok(disk) => disk,
        Err(why) => {
            tell(&format!("not run: {why}"));
            return Ok(());
        }
    };
    let node = cluster.node_mut(0)?;
    let before = node.data_dir();
    node.disk = Some(place);
    let text = node.read_config()?;
    let (from, to) = (before.display().to_string(), node.data_dir().display().to_string());
    node.write_config(&text.replace(&format!("data_dir: {from}\n"), &format!("data_dir: {to}\n")))?;
    // The one with the disk comes first, so that it becomes the primary.
    let mut workload = bring_up(cluster).await?;
    let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
    if primary != 0 {
        cluster.switchover(primary, 0).await?;
        cluster.wait_for_takeover(primary, HEAL_LIMIT).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
    }
    let outcome = scenario(cluster, &workload, 0, &mut disk).await;
    // Before anybody waits for processes that sleep on it.
    disk.thaw()?;
    outcome?;
    workload.finish().await?;
    cluster.stop_all().await
}

#[test]
fn a_stalled_data_disk_is_found_out() {
    run(plan(), async |cluster| {
        with_disk(cluster, async |cluster, workload, old, disk| {
            let begin = clock::now();
            disk.freeze()?;
            is_replaced(cluster, workload, old, begin, "the data directory could not be written to").await?;
            disk.thaw()?;
            cluster.wait_until_whole(HEAL_LIMIT).await.map(|_| ())
        })
        .await
    });
}

#[test]
fn a_full_data_disk_is_found_out() {
    run(plan(), async |cluster| {
        with_disk(cluster, async |cluster, workload, old, disk| {
            let begin = clock::now();
            disk.fill()?;
            is_replaced(cluster, workload, old, begin, "No space left on device").await?;
            disk.make_room()?;
            cluster.wait_until_whole(HEAL_LIMIT).await.map(|_| ())
        })
        .await
    });
}

#[test]
fn a_postmaster_that_ends_again_and_again_is_not_restarted_for_ever() {
    run(plan(), async |cluster| {
        let mut workload = bring_up(cluster).await?;
        let old = cluster.wait_for_primary(HEAL_LIMIT).await?;
        let begin = clock::now();
        let mut kills = 0;
        while cluster.primary().await?.is_none_or(|primary| primary == old) {
            ensure!(kills < 10, "it was restarted after {kills} kills");
            let pid = cluster.node(old)?.postmaster_pid()?;
            processes::signal(pid, Signal::KILL)?;
            kills += 1;
            wait::until("another postmaster, or another primary", HEAL_LIMIT, async || {
                let primary = cluster.primary().await.map_err(|error| error.to_string())?;
                let restarted = cluster.node(old).and_then(|node| node.postmaster_pid());
                let is_other = restarted.is_ok_and(|now| now != pid);
                match primary {
                    Some(primary) if primary != old || is_other => Ok(()),
                    _ => Err(format!("primary {primary:?}")),
                }
            })
            .await?;
        }
        tell(&format!("another primary after {kills} kills within {:.1?}", begin.elapsed()));
        ensure!(kills >= 5, "{kills} kills are no crash loop");
        let log = cluster.node(old)?.log();
        ensure!(log.contains("has ended unexpectedly"), "the reason is not told");
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}

/// All connections there are, the superuser's reserve included.
async fn exhaust(port: u16) -> Result<Vec<Session>> {
    let mut all = Vec::new();
    loop {
        match Session::open(port).await {
            Ok(session) => all.push(session),
            Err(error) if format!("{error:#}").contains("too many clients") || !all.is_empty() => {
                return Ok(all);
            }
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn a_full_connection_table_and_stopped_standbys_are_no_sickness() {
    run(plan(), async |cluster| {
        let workload = bring_up(cluster).await?;
        let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
        let port = cluster.node(primary)?.ports.postgresql;
        let timelines = |rows: Vec<crate::harness::cluster::Row>| {
            rows.into_iter().map(|row| row.timeline).max().unwrap_or_default()
        };
        let before = timelines(cluster.rows().await?);
        let held = exhaust(port).await?;
        ensure!(held.len() > 50, "only {} connections could be made", held.len());
        // The daemon's own connections are lost, and their places taken.
        let first = held.first().context("a connection")?;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgherd'";
        first.client.batch_execute(sql).await?;
        let more = exhaust(port).await?;
        for (index, node) in cluster.data_nodes() {
            if index != primary {
                processes::signal(node.postmaster_pid()?, Signal::STOP)?;
            }
        }
        let begin = clock::now();
        wait::until("three times the time-out to pass", HEAL_LIMIT, async || {
            let state = cluster.node(primary).map_err(|error| error.to_string())?.health("/primary").await;
            if begin.elapsed() > TIMEOUT * 3 { Ok(()) } else { Err(format!("/primary says {state:?}")) }
        })
        .await?;
        for (index, node) in cluster.data_nodes() {
            if index != primary {
                processes::signal(node.postmaster_pid()?, Signal::CONT)?;
            }
        }
        tell(&format!("{} connections held for {:.1?}", held.len() + more.len(), begin.elapsed()));
        drop((held, more));
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(primary), "another node took over");
        ensure!(timelines(cluster.rows().await?) == before, "somebody was promoted");
        let log = cluster.node(primary)?.log();
        ensure!(!log.contains("rule Sick"), "it was taken for sick");
        drop(workload);
        Ok(())
    });
}

#[test]
fn a_consensus_disk_that_stalls_for_the_ttl_demotes_nobody() {
    run(Plan::of(3), async |cluster| {
        let place = cluster.node(0)?.directory.join("consensus");
        let mut disk = match Disk::mount(&place, cluster.user.as_ref())? {
            Ok(disk) => disk,
            Err(why) => {
                tell(&format!("not run: {why}"));
                return Ok(());
            }
        };
        let node = cluster.node(0)?;
        let (from, to) = (node.directory.join("raft"), place.join("raft"));
        let line = |path: &std::path::Path| format!("data_dir: {}\n", path.display());
        let text = node.read_config()?;
        ensure!(text.contains(&line(&from)), "the configuration has changed");
        node.write_config(&text.replace(&line(&from), &line(&to)))?;
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        if primary != 0 {
            cluster.switchover(primary, 0).await?;
            cluster.wait_for_takeover(primary, HEAL_LIMIT).await?;
            cluster.wait_until_whole(HEAL_LIMIT).await?;
        }
        let mut workload = Workload::watched(cluster, None).await?;
        let ttl = Duration::from_secs(cluster.common.ttl.into());
        let begin = clock::now();
        disk.freeze()?;
        let stalled = wait::until("the ttl to pass", HEAL_LIMIT, async || {
            if begin.elapsed() > ttl { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        disk.thaw()?;
        stalled?;
        // Longer than the lease: nothing comes afterwards.
        workload.wait_until_writing(begin + ttl * 2, HEAL_LIMIT).await?;
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        tell(&format!("the consensus disk hung for {ttl:?}: nobody could write for {gap:.1?}"));
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == 0, "another node took over");
        ensure!(gap < Duration::from_secs(2), "nobody could write for {gap:?}");
        workload.finish().await?;
        cluster.stop_all().await
    });
}
