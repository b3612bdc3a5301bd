//! `pgherd`: the daemon, and the hidden guard process which it starts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use pgherd::config::{Environment, Source, process_environment};
use pgherd_raft::again::StartAgain;
use pgherd_raft::telemetry::{self, TelemetryError};

/// Makes PostgreSQL highly available with consensus built in: one daemon a node, no external store.
#[derive(Debug, Parser)]
#[command(name = "pgherd", version, after_long_help = AFTERWORD)]
struct Arguments {
    /// The configuration: Patroni's YAML with a `raft` section, a file or a directory of them. The environment (PATRONI_*,
    /// PGHERD_*) is laid over it. Without it the environment is the configuration. When one is generated: where to write it.
    config: Option<PathBuf>,
    /// Check the configuration, report every mistake, and end.
    #[arg(long, group = "mode")]
    validate_config: bool,
    /// With --validate-config: do not try whether the ports are free, as while the daemon runs.
    #[arg(short, long, requires = "validate_config")]
    ignore_listen_port: bool,
    /// With --validate-config: print the configuration with the environment laid over it, without its passwords.
    #[arg(short, long, requires = "validate_config")]
    print: bool,
    /// Write a sample for this machine, and end.
    #[arg(long, group = "mode")]
    generate_sample_config: bool,
    /// Write a configuration for the PostgreSQL which runs on this machine, and end.
    #[arg(long, group = "mode")]
    generate_config: bool,
    /// With --generate-config: how to connect, as libpq's connection string or URI. Otherwise PGHOST and the like.
    #[arg(long, requires = "generate_config")]
    dsn: Option<String>,
    /// Print the manual page, and end.
    #[arg(long, group = "mode", hide = true)]
    man: bool,
}

/// What is to be known beside the options.
const AFTERWORD: &str = "\
Signals: SIGTERM and SIGINT end the daemon: PostgreSQL is shut down, a primary hands over, and the node's vote is given back; \
while the cluster is paused PostgreSQL goes on. SIGHUP: the configuration is read again.

Exit status: 0 after an end that was asked for, and when what was asked for was done; 1 when the configuration is wrong or the \
daemon cannot go on; 5 when the log cannot be written.

Environment: PATRONI_CONFIGURATION holds a whole configuration, and PATRONI_SCOPE, PATRONI_RESTAPI_LISTEN and the like one \
key each; the same with PGHERD_ win over them. PG_MALLOC_ARENA_MAX becomes MALLOC_ARENA_MAX of PostgreSQL.";

/// Where lines go below `log.dir`: what collects logs knows Patroni's name.
const LOG_FILE: &str = "patroni.log";
/// The exit status when the log cannot be written.
const LOGGING_BROKEN: u8 = 5;
/// How long file work in progress may take at the daemon's end.
const LAST_FILE_WORK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "guard") {
        return pgherd::guard::run(args);
    }
    let arguments = Arguments::parse();
    if arguments.man {
        return manual();
    }
    let code = match daemon(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<StartAgain>() => {
            telemetry::report("pgherd", &error.context(StartAgain::exec()));
            ExitCode::FAILURE
        }
        Err(error) => {
            telemetry::report("pgherd", &error);
            if error.is::<TelemetryError>() { ExitCode::from(LOGGING_BROKEN) } else { ExitCode::FAILURE }
        }
    };
    telemetry::finish();
    code
}

fn manual() -> ExitCode {
    let page = clap_mangen::Man::new(Arguments::command());
    if page.render(&mut std::io::stdout()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn daemon(arguments: &Arguments) -> anyhow::Result<()> {
    let environment = process_environment();
    if arguments.generate_config || arguments.generate_sample_config {
        return generate(arguments, &environment);
    }
    let source = Source::new(arguments.config.as_deref(), environment);
    if arguments.validate_config {
        return validate(arguments, &source);
    }
    let (config, warnings) = source.read()?;
    telemetry::start(&config.log, LOG_FILE)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if rustix::process::geteuid().is_root() {
        anyhow::bail!(
            "pgherd does not run as root, since PostgreSQL does not: start it as the user who owns the data directory, \
             for example: runuser -u postgres -- pgherd {}",
            arguments.config.as_deref().unwrap_or(Path::new("CONFIG.yml")).display()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(Box::pin(pgherd::daemon::run(source, config)));
    // File work that hangs with its disk is not waited for.
    runtime.shutdown_timeout(LAST_FILE_WORK);
    ended
}

fn generate(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = if arguments.generate_config {
        let ask = || Ok(pgherd::generate::ask_password()?);
        runtime.block_on(pgherd::generate::from_running(arguments.dsn.as_deref(), environment, ask))?
    } else {
        runtime.block_on(pgherd::generate::sample(environment))?
    };
    pgherd::generate::write(arguments.config.as_deref(), &text)
}

fn validate(arguments: &Arguments, source: &Source) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(pgherd::validate::run(source, !arguments.ignore_listen_port, arguments.print))
}
