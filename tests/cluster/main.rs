//! Real clusters: real binaries, real PostgreSQL, loopback. Each scenario arranges, breaks something, waits for a
//! condition, and compares what is stored with what was acknowledged.

#![expect(clippy::expect_used, clippy::panic, reason = "a test program: a panic is how it fails")]

#[path = "../harness/mod.rs"]
mod harness;
mod scenarios;

use anyhow::Result;

use harness::cluster::{Cluster, Plan};

/// Runs a scenario on a prepared cluster; when it fails, says why, shows the logs and keeps the files.
fn run(plan: Result<Plan>, scenario: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
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
