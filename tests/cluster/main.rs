//! Real clusters: real binaries, real PostgreSQL, loopback. Each scenario arranges, breaks something, waits for a
//! condition, and compares what is stored with what was acknowledged.

#![expect(clippy::expect_used, clippy::panic, reason = "a test program: a panic is how it fails")]

#[path = "../harness/mod.rs"]
mod harness;
mod scenarios;

use std::sync::{PoisonError, RwLock};

use anyhow::Result;

use harness::cluster::{Cluster, Plan};
use harness::network::{Apart, apart};

/// Scenarios run beside each other, except for those which take the machine for themselves.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs a scenario on a prepared cluster; when it fails, says why, shows the logs and keeps the files.
fn run(plan: Result<Plan>, scenario: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
    let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    play(plan, scenario);
}

/// The same while no other scenario runs.
fn run_alone(plan: Result<Plan>, scenario: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    play(plan, scenario);
}

/// Runs a test in namespaces of its own, beside others.
fn run_apart(test: &str) -> Apart {
    let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    apart(test).expect("the test in namespaces of its own")
}

fn play(plan: Result<Plan>, scenario: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test's clients");
    runtime.block_on(async {
        let mut cluster = Cluster::prepare(&plan.expect("a plan")).expect("a prepared cluster");
        if let Err(error) = scenario(&mut cluster).await {
            let logs = cluster.logs(40);
            panic!("{error:#}\n{logs}\nall files are kept in {}", cluster.keep_files().display());
        }
    });
}
