//! The guard as a real process, with a real PostgreSQL below it: what is left of PostgreSQL when its daemon is killed,
//! stopped, restarted, or does nothing.
//!
//! PostgreSQL refuses to run as root: then each test runs itself again as another user, from a directory which that
//! user can read.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a test program: a panic is how it fails")]

mod daemons;
mod deadline;
mod guards;
mod jobs;
mod machine;
mod postmasters;
mod stage;
mod watchdogs;

use machine::Machine;

/// Runs a scenario, as an unprivileged user.
fn run(name: &str, scenario: impl AsyncFnOnce(&Machine)) {
    if let Some(status) = stage::as_other_user(name) {
        assert!(status.success(), "{name} failed as another user: its output is above");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let machine = Machine::prepare(name);
        scenario(&machine).await;
        machine.clean().await;
    });
}
