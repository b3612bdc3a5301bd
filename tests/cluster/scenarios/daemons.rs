//! The daemon dies or stops while PostgreSQL goes on.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::stage::{self, Mode};
use crate::harness::cluster::{Cluster, HEAL_LIMIT, Plan};
use crate::harness::workload::Workload;
use crate::harness::{clock, processes, tell, wait};
use crate::run;

/// Killed and started again at once: no client notices.
async fn restarted(cluster: &mut Cluster, workload: &Workload, primary: usize) -> Result<()> {
    let postmaster = cluster.node(primary)?.postmaster_pid()?;
    let daemon = cluster.node(primary)?.daemon_pid().context("no daemon")?;
    let lives = |cluster: &Cluster| -> Result<usize> {
        Ok(cluster.node(primary)?.log().matches(", the leader with the lock").count())
    };
    let before = lives(cluster)?;
    let begin = clock::now();
    cluster.node_mut(primary)?.kill_daemon()?;
    ensure!(processes::state(daemon).is_none(), "the daemon lives");
    cluster.start_node(primary)?;
    wait::until_true("the new daemon's first round", HEAL_LIMIT, async || {
        lives(cluster).is_ok_and(|count| count > before)
    })
    .await?;
    let away = begin.elapsed();
    tell(&format!("daemon killed and started: it leads again after {away:.2?}"));
    ensure!(away < stage::ttl(cluster), "the machine is too slow: the daemon was away for {away:?}");
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    // Longer than what was left of the lease that the killed daemon held: nothing comes afterwards.
    stage::write_until(workload, begin + stage::ttl(cluster)).await?;
    ensure!(cluster.primary().await? == Some(primary), "another node took over");
    ensure!(cluster.node(primary)?.daemon_pid() != Some(daemon), "it is the same daemon");
    workload.nothing_failed_on(primary, begin)?;
    ensure!(cluster.node(primary)?.postmaster_pid()? == postmaster, "PostgreSQL was restarted");
    Ok(())
}

/// With `fast_failover` on, standbys of a synchronous set wait for three renewals only, of which there is one in a
/// second at most.
#[test]
fn a_daemon_restarted_within_its_lease_is_not_noticed_in_any_mode() {
    let lines = ["synchronous_mode: 'off'", "fast_failover: 'off'"];
    let plan = Plan::of(3).map(|plan| plan.with_ttl(20).with_settings(&lines));
    run(plan, async |cluster| {
        let (primary, mut workload) = stage::bring_up(cluster, Mode::Asynchronous).await?;
        restarted(cluster, &workload, primary).await?;
        for mode in [Mode::On, Mode::Quorum] {
            stage::change_mode(cluster, primary, mode).await?;
            restarted(cluster, &workload, primary).await?;
        }
        stage::nothing_is_lost(cluster, &workload, Mode::Quorum).await?;
        workload.finish().await
    });
}

/// Killed for good: PostgreSQL is silenced by its guard, and another node takes over.
async fn killed(cluster: &mut Cluster, workload: &Workload, old: usize) -> Result<usize> {
    let postmaster = cluster.node(old)?.postmaster_pid()?;
    let begin = clock::now();
    cluster.node_mut(old)?.kill_daemon()?;
    ensure!(processes::state(postmaster).is_some(), "PostgreSQL ended with its daemon: nothing is shown");
    let new = stage::taken_over(cluster, workload, old, begin, "daemon killed").await?;
    stage::is_in_state(postmaster, None).await?;
    cluster.start_node(old)?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    Ok(new)
}

/// Stopped by SIGSTOP, and continued when another node is the primary.
async fn stopped(cluster: &mut Cluster, workload: &Workload, old: usize) -> Result<usize> {
    let postmaster = cluster.node(old)?.postmaster_pid()?;
    let daemon = cluster.node(old)?.daemon_pid().context("no daemon")?;
    let begin = clock::now();
    cluster.node(old)?.signal_daemon(Signal::STOP)?;
    stage::is_in_state(daemon, Some('T')).await?;
    let new = stage::taken_over(cluster, workload, old, begin, "daemon stopped").await?;
    stage::is_in_state(postmaster, None).await?;
    ensure!(processes::state(daemon) == Some('T'), "somebody continued the daemon");
    cluster.node(old)?.signal_daemon(Signal::CONT)?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    ensure!(cluster.primary().await? == Some(new), "the primary changed when the daemon went on");
    Ok(new)
}

/// Killed and stopped, each until another node has taken over.
fn daemon_fails(mode: Mode) {
    run(mode.plan(5), async |cluster| {
        let (first, mut workload) = stage::bring_up(cluster, mode).await?;
        let second = killed(cluster, &workload, first).await?;
        stage::wait_for_mode(cluster, second, mode).await?;
        stopped(cluster, &workload, second).await?;
        stage::nothing_is_lost(cluster, &workload, mode).await?;
        workload.finish().await
    });
}

#[test]
fn a_daemon_fails_in_asynchronous_mode() {
    daemon_fails(Mode::Asynchronous);
}

#[test]
fn a_daemon_fails_in_synchronous_mode() {
    daemon_fails(Mode::On);
}

#[test]
fn a_daemon_fails_in_quorum_mode() {
    daemon_fails(Mode::Quorum);
}
