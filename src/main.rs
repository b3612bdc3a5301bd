//! `pgherd`: the daemon, and the hidden guard process which it starts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pgherd::config::{Config, process_environment};
use pgherd_raft::again::StartAgain;
use pgherd_raft::telemetry;

/// Makes PostgreSQL highly available with consensus built in: one daemon a node, no external store.
#[derive(Debug, Parser)]
#[command(name = "pgherd", version)]
struct Arguments {
    /// The configuration: Patroni's YAML with a `raft` section. The environment (PATRONI_*, PGHERD_*) is laid over it.
    config: PathBuf,
    /// Check the configuration, report every mistake, and end.
    #[arg(long)]
    validate_config: bool,
}

/// How long file work in progress may take at the daemon's end.
const LAST_FILE_WORK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "guard") {
        return pgherd::guard::run(args);
    }
    match daemon(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<StartAgain>() => {
            telemetry::report("pgherd", &error.context(StartAgain::exec()));
            ExitCode::FAILURE
        }
        Err(error) => {
            telemetry::report("pgherd", &error);
            ExitCode::FAILURE
        }
    }
}

fn daemon(arguments: &Arguments) -> anyhow::Result<()> {
    let (config, warnings) = Config::load(&arguments.config, &process_environment())?;
    telemetry::start(config.log.level)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if arguments.validate_config {
        return Ok(());
    }
    if rustix::process::geteuid().is_root() {
        anyhow::bail!(
            "pgherd does not run as root, since PostgreSQL does not: start it as the user who owns the data directory, \
             for example: runuser -u postgres -- pgherd {}",
            arguments.config.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(Box::pin(pgherd::daemon::run(config)));
    // File work that hangs with its disk is not waited for.
    runtime.shutdown_timeout(LAST_FILE_WORK);
    ended
}
