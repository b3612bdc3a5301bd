//! Programs of others, unchanged, in front of and beside a cluster: HAProxy, keepalived, check_patroni, Prometheus' text
//! format, psql; and Patroni itself, whose cluster is taken over. Each is the real one; `tests/setup/thirdparty.sh` installs them.

#![expect(clippy::expect_used, clippy::panic, reason = "a test program: a panic is how it fails")]

mod check_patroni;
mod haproxy;
#[path = "../harness/mod.rs"]
mod harness;
mod keepalived;
mod patroni;
mod programs;
mod prometheus;
mod psql;

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
