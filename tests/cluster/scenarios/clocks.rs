//! The wall clock steps, and the processor is wanted by many.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::stage::{self, Mode};
use crate::harness::busy::{self, Busy};
use crate::harness::cluster::{Cluster, HEAL_LIMIT};
use crate::harness::ledger::Route;
use crate::harness::wall::Wall;
use crate::harness::workload::Workload;
use crate::harness::{clock, rest, tell, wait};
use crate::{run, run_alone};

/// Six hours.
const STEP: i64 = 6 * 3600;
/// Runnable beside the cluster: the load average is above 20 soon after a minute.
const LOOPS: usize = 48;
const STARVED: Duration = Duration::from_secs(60);
const STARVED_LOAD: f64 = 20.0;

/// What a client sees of an event that nobody shall notice.
struct Unnoticed {
    primary: usize,
    postmaster: i32,
    timeline: String,
    since: Instant,
}

async fn timeline(cluster: &Cluster) -> Result<String> {
    let rows = cluster.rows().await?;
    rows.into_iter().map(|row| row.timeline).max().context("no member")
}

impl Unnoticed {
    async fn before(cluster: &Cluster, primary: usize) -> Result<Self> {
        Ok(Self {
            primary,
            postmaster: cluster.node(primary)?.postmaster_pid()?,
            timeline: timeline(cluster).await?,
            since: clock::now(),
        })
    }

    /// The same primary, the same PostgreSQL, no failed write.
    async fn holds(&self, cluster: &Cluster, workload: &Workload) -> Result<()> {
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == self.primary, "another node took over");
        ensure!(cluster.node(self.primary)?.postmaster_pid()? == self.postmaster, "PostgreSQL was restarted");
        ensure!(timeline(cluster).await? == self.timeline, "somebody was promoted");
        workload.nothing_failed_on(self.primary, self.since)
    }
}

/// The server's wall clock in seconds since 1970.
async fn wall_of(cluster: &Cluster, index: usize) -> Result<i64> {
    let text = stage::ask(cluster, index, "SELECT extract(epoch FROM clock_timestamp())::bigint").await?;
    text.parse().with_context(|| format!("no number: {text}"))
}

/// What the daemon says of its wall clock: when it knew a leader of the consensus last.
async fn daemon_wall_of(cluster: &Cluster, index: usize) -> Result<i64> {
    let answer = rest::get(cluster.node(index)?.ports.rest_at(), "/patroni").await?.json()?;
    answer.get("dcs_last_seen").and_then(serde_json::Value::as_i64).context("no dcs_last_seen")
}

#[test]
fn steps_of_the_wall_clock_by_hours_are_not_noticed() {
    run(Mode::Quorum.plan(5), async |cluster| {
        let wall = Wall::build(cluster.directory())?;
        // The second node keeps the machine's time: clocks that differ are part of it.
        for index in [0, 2] {
            cluster.node_mut(index)?.environment = wall.environment();
        }
        let (mut primary, mut workload) = stage::bring_up(cluster, Mode::Quorum).await?;
        if primary == 1 {
            cluster.switchover(1, 0).await?;
            primary = cluster.wait_until_whole(HEAL_LIMIT).await?;
            stage::wait_for_mode(cluster, primary, Mode::Quorum).await?;
            workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        }
        let unnoticed = Unnoticed::before(cluster, primary).await?;
        for (from, to) in [(0, STEP), (STEP, -STEP), (-STEP, 0)] {
            let before = (wall_of(cluster, primary).await?, daemon_wall_of(cluster, primary).await?);
            let begin = clock::now();
            wall.step_to(to)?;
            let stepped = wall_of(cluster, primary).await? - before.0;
            ensure!((stepped - (to - from)).abs() < 60, "PostgreSQL's wall clock stepped by {stepped} s");
            stage::write_until(&workload, begin + stage::ttl(cluster) * 2).await?;
            unnoticed.holds(cluster, &workload).await?;
            let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
            tell(&format!("wall clock stepped by {stepped} s: longest time without a write {gap:.2?}"));
            let stepped = daemon_wall_of(cluster, primary).await? - before.1;
            ensure!((stepped - (to - from)).abs() < 60, "the daemon's wall clock stepped by {stepped} s");
        }
        stage::nothing_is_lost(cluster, &workload, Mode::Quorum).await?;
        workload.finish().await
    });
}

/// How long all threads of a process have waited for a processor.
fn run_delay(pid: i32) -> Result<Duration> {
    let mut waited = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        waited += text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(waited))
}

/// Nobody is demoted and nobody takes over, although the daemons hardly get a processor.
fn starved(mode: Mode) {
    run_alone(mode.plan(5), async |cluster| {
        let (primary, mut workload) = stage::bring_up(cluster, mode).await?;
        let unnoticed = Unnoticed::before(cluster, primary).await?;
        let pid = cluster.node(primary)?.daemon_pid().context("no daemon")?;
        let (begin, waited) = (clock::now(), run_delay(pid)?);
        let busy = Busy::start(LOOPS)?;
        let mut most = 0;
        let (average, _) = wait::until("a minute of load above 20", HEAL_LIMIT * 2, async || {
            let (average, running) = busy::load().map_err(|error| error.to_string())?;
            most = most.max(running);
            let is_enough = begin.elapsed() > STARVED && average > STARVED_LOAD;
            if is_enough { Ok((average, running)) } else { Err(format!("{average}, {running} want to run")) }
        })
        .await?;
        let (lasted, waited) = (begin.elapsed(), run_delay(pid)?.saturating_sub(waited));
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        drop(busy);
        tell(&format!(
            "load average {average} after {lasted:.1?}, {most} threads at once, the daemon's waited {waited:.1?} for a \
             processor; longest time without a write {gap:.2?}"
        ));
        ensure!(most > u32::try_from(LOOPS)?, "only {most} threads wanted to run");
        ensure!(waited > Duration::from_secs(1), "the daemon waited {waited:?} only: nothing is shown");
        unnoticed.holds(cluster, &workload).await?;
        workload.finish().await
    });
}

#[test]
fn a_starved_machine_demotes_nobody_in_asynchronous_mode() {
    starved(Mode::Asynchronous);
}

#[test]
fn a_starved_machine_demotes_nobody_in_quorum_mode() {
    starved(Mode::Quorum);
}
