//! How long nobody can write: a class of faults, again and again on one cluster.

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::classes::{Class, Fault, Mode};
use crate::harness::clock;
use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT};
use crate::harness::haproxy::HaProxy;
use crate::harness::ledger::Route;
use crate::harness::story::{self, Before, Outcome};
use crate::harness::workload::Workload;
use crate::results::{Results, Sample};

/// A cluster with clients.
struct Stage {
    cluster: Cluster,
    _proxy: HaProxy,
    workload: Workload,
    class: &'static Class,
}

/// Runs a class; the results are printed by the caller.
pub(crate) async fn run(class: &'static Class, repeat: usize, keeps_files: bool) -> Result<Results> {
    let begin = clock::now();
    let mut results = Results::begin(class)?;
    let mut stage = Stage::set(class).await?;
    results.postgresql.clone_from(&stage.cluster.tools.postgresql_version);
    for number in 1..=repeat {
        let sample = match stage.round().await {
            Ok(sample) => sample,
            Err(error) => {
                let files = stage.cluster.keep_files().display().to_string();
                return Err(error.context(format!("{}, round {number}: files are in {files}", class.name)));
            }
        };
        println!("  {}: {number} of {repeat}: {}", class.name, sample.describe());
        results.samples.push(sample);
    }
    results.lost_in_all = stage.workload.lost(&stage.cluster).await?.len();
    stage.workload.stop().await;
    if keeps_files {
        println!("  files are kept in {}", stage.cluster.keep_files().display());
    }
    results.end(begin.elapsed())?;
    Ok(results)
}

impl Stage {
    async fn set(class: &'static Class) -> Result<Self> {
        let plan = class.plan()?;
        let mut cluster = Cluster::prepare(&plan)?;
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let proxy = HaProxy::start_anywhere(&cluster).await?;
        let mut workload = Workload::start(&cluster, Some(proxy.read_write)).await?;
        if class.asks_for_two_writers() {
            workload.probe(&cluster);
        }
        let stage = Self { cluster, _proxy: proxy, workload, class };
        stage.wait_until_ready().await?;
        Ok(stage)
    }

    /// Waits until the next fault meets a cluster as it should be.
    async fn wait_until_ready(&self) -> Result<usize> {
        let primary = match self.class.mode {
            Mode::Async => self.cluster.wait_until_whole(HEAL_LIMIT).await?,
            Mode::On | Mode::Quorum => {
                self.cluster.wait_until_synchronous(self.class.mode.standbys(), HEAL_LIMIT).await?
            }
        };
        self.workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        Ok(primary)
    }

    /// One fault, and everything back in place.
    async fn round(&mut self) -> Result<Sample> {
        let old = self.wait_until_ready().await?;
        let outcome = self.strike(old).await?;
        let healing = clock::now();
        self.restore(old)?;
        self.wait_until_ready().await?;
        let second = self.workload.ledger.longest_gap_since(Route::Direct, healing);
        Ok(Sample::of(&outcome, second, healing.elapsed()))
    }

    async fn strike(&mut self, old: usize) -> Result<Outcome> {
        let (cluster, workload) = (&mut self.cluster, &self.workload);
        match self.class.fault {
            Fault::Postmaster => return story::lose_postmaster(cluster, workload).await,
            Fault::Switchover => return story::switch_over(cluster, workload, None).await,
            Fault::Node => return Ok(story::lose_primary(cluster, workload).await?.0),
            Fault::DaemonRestarted
            | Fault::DaemonKilled
            | Fault::DaemonStopped
            | Fault::Partition
            | Fault::AllNodes => {}
        }
        let before = Before::look(cluster, workload).await?;
        let new = match self.class.fault {
            Fault::DaemonRestarted => {
                cluster.node_mut(old)?.kill_daemon()?;
                cluster.start_node(old)?;
                // Longer than the lease that the killed daemon held: nothing comes afterwards.
                workload.wait_until_writing(before.begin() + self.class.ttl(), HEAL_LIMIT).await?;
                cluster.wait_for_primary(HEAL_LIMIT).await?
            }
            Fault::AllNodes => {
                for node in &mut cluster.nodes {
                    node.kill_everything()?;
                }
                let dead = clock::now();
                cluster.start_all()?;
                workload.wait_until_writing(dead, HEAL_LIMIT).await?;
                cluster.wait_for_primary(HEAL_LIMIT).await?
            }
            Fault::DaemonKilled => {
                cluster.node_mut(old)?.kill_daemon()?;
                cluster.wait_for_takeover(old, HEAL_LIMIT).await?
            }
            Fault::DaemonStopped => {
                cluster.node(old)?.signal_daemon(Signal::STOP)?;
                cluster.wait_for_takeover(old, HEAL_LIMIT).await?
            }
            Fault::Partition => {
                for other in (0..cluster.nodes.len()).filter(|other| *other != old) {
                    cluster.cut(old, other)?;
                    cluster.cut(other, old)?;
                }
                let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
                cluster.network()?.check().await?;
                new
            }
            Fault::Postmaster | Fault::Switchover | Fault::Node => old,
        };
        before.settle(cluster, workload, new).await
    }

    fn restore(&mut self, old: usize) -> Result<()> {
        match self.class.fault {
            Fault::Node | Fault::DaemonKilled | Fault::DaemonStopped => {
                self.cluster.node_mut(old)?.kill_everything()?;
                self.cluster.start_node(old).context("starting the old primary")
            }
            Fault::Partition => self.cluster.heal(),
            Fault::Postmaster | Fault::DaemonRestarted | Fault::Switchover | Fault::AllNodes => Ok(()),
        }
    }
}
