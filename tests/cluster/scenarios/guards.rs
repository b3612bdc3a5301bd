//! The guard dies, alone; and what daemon and guard together cannot prevent.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::stage::{self, Mode};
use crate::harness::cluster::{Cluster, HEAL_LIMIT, Plan};
use crate::harness::ledger::Route;
use crate::harness::{clock, processes, tell, wait};
use crate::run;

/// SIGKILL to the guard of a node; its process id.
fn kill_guard(cluster: &Cluster, index: usize) -> Result<i32> {
    let guard = cluster.node(index)?.guard_pid()?;
    processes::signal(guard, Signal::KILL)?;
    Ok(guard)
}

/// The death signal has ended this postmaster.
async fn has_ended(cluster: &Cluster, index: usize, postmaster: i32) -> Result<()> {
    let place = cluster.node(index)?.directory.clone();
    wait::until("the end of the PostgreSQL whose guard died", HEAL_LIMIT, async || {
        let left = processes::of_node(&place);
        if left.iter().any(|process| process.pid == postmaster) { Err(format!("{left:?}")) } else { Ok(()) }
    })
    .await
}

#[test]
fn a_killed_guard_takes_postgresql_with_it_and_both_are_started_again() {
    run(Mode::Quorum.plan(5), async |cluster| {
        let (primary, mut workload) = stage::bring_up(cluster, Mode::Quorum).await?;
        let postmaster = cluster.node(primary)?.postmaster_pid()?;
        let begin = clock::now();
        let guard = kill_guard(cluster, primary)?;
        has_ended(cluster, primary, postmaster).await?;
        let ended = begin.elapsed();
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let now = cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.node(primary)?.guard_pid()? != guard, "it is the same guard");
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        let who = if now == primary { "the same node" } else { "another node" };
        tell(&format!(
            "guard killed: PostgreSQL ended after {ended:.2?}, {who} writes after a gap of {gap:.2?}"
        ));
        stage::wait_for_mode(cluster, now, Mode::Quorum).await?;
        stage::nothing_is_lost(cluster, &workload, Mode::Quorum).await?;
        workload.finish().await
    });
}

#[test]
fn a_guard_killed_in_pause_takes_postgresql_with_it_and_nobody_takes_over() {
    run(Plan::of(3), async |cluster| {
        let (primary, mut workload) = stage::bring_up(cluster, Mode::Asynchronous).await?;
        cluster.ctl(&["pause", "--wait"]).await?;
        let postmaster = cluster.node(primary)?.postmaster_pid()?;
        let begin = clock::now();
        kill_guard(cluster, primary)?;
        has_ended(cluster, primary, postmaster).await?;
        wait::until("twice the ttl to pass", HEAL_LIMIT, async || match cluster.primary().await {
            Ok(Some(index)) if index != primary => {
                Ok(Err(anyhow::anyhow!("node {index} took over in pause")))
            }
            Err(error) => Ok(Err(error)),
            Ok(_) if begin.elapsed() > stage::ttl(cluster) * 2 => Ok(Ok(())),
            Ok(_) => Err("nobody else leads".to_owned()),
        })
        .await??;
        cluster.ctl(&["resume", "--wait"]).await?;
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == primary, "another node took over");
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        ensure!(workload.lost(cluster).await?.is_empty(), "acknowledged writes were lost");
        workload.finish().await
    });
}

/// The stated limit: both stopped and PostgreSQL not, which a watchdog device ends. The probes have to see it, or they
/// would see nothing at all.
#[test]
fn the_probes_see_two_writers_when_daemon_and_guard_are_stopped_together() {
    run(Plan::of(3), async |cluster| {
        let (old, mut workload) = stage::bring_up(cluster, Mode::Asynchronous).await?;
        let (daemon, guard) =
            (cluster.node(old)?.daemon_pid().context("no daemon")?, cluster.node(old)?.guard_pid()?);
        processes::signal(guard, Signal::STOP)?;
        processes::signal(daemon, Signal::STOP)?;
        let begin = clock::now();
        let probe = workload.probes.as_ref().context("no probe")?;
        wait::until("two writers", HEAL_LIMIT, async || {
            let findings = probe.findings();
            if findings.two_writers().is_zero() { Err(findings.to_string()) } else { Ok(()) }
        })
        .await?;
        processes::signal(guard, Signal::CONT)?;
        processes::signal(daemon, Signal::CONT)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let findings = probe.findings();
        tell(&format!("daemon and guard stopped, {:.1?} later: {findings}", begin.elapsed()));
        ensure!(!findings.stale_of(old).is_empty(), "the former primary's writes are not called stale");
        ensure!(workload.ledger.count_since(Route::Direct, begin) > 0);
        workload.stop().await;
        Ok(())
    });
}
