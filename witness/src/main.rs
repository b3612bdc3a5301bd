//! `pgherd-witness CONFIG.yml`: a voter of one or several clusters, without PostgreSQL and without a REST API.

mod config;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use config::Config;
use pgherd_raft::again::StartAgain;
use pgherd_raft::config::process_environment;
use pgherd_raft::group::{GroupConfig, LeaveOutcome, Phase, Timing};
use pgherd_raft::model::{Member, MemberKind, Tags};
use pgherd_raft::service::{Service, notify};
use pgherd_raft::{Group, PeerSecurity, PeerServer, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Where lines go below `log.dir`: a data node may use the same directory.
const LOG_FILE: &str = "pgherd-witness.log";
/// How long a clean stop tries to give the votes back.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// A voter of pgherd clusters without PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "pgherd-witness", version, after_long_help = AFTERWORD)]
struct Arguments {
    /// The configuration: YAML with `scopes`, `name` and `raft`. The environment (PATRONI_*, PGHERD_*) is laid over it.
    #[arg(required_unless_present = "man")]
    config: Option<PathBuf>,
    /// Check the configuration, report every mistake, and end.
    #[arg(long)]
    validate_config: bool,
    /// Print the manual page, and end.
    #[arg(long, hide = true)]
    man: bool,
}

/// What is to be known beside the options.
const AFTERWORD: &str = "\
Signals: SIGTERM and SIGINT end the witness, which gives its votes back before.

Exit status: 0 after an end that was asked for, 1 when the configuration is wrong or the witness cannot go on.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(config) = arguments.config.as_deref().filter(|_| !arguments.man) else {
        return manual();
    };
    let code = match witness(config, arguments.validate_config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<StartAgain>() => {
            telemetry::report("pgherd-witness", &error.context(StartAgain::exec()));
            ExitCode::FAILURE
        }
        Err(error) => {
            telemetry::report("pgherd-witness", &error);
            ExitCode::FAILURE
        }
    };
    telemetry::finish();
    code
}

fn manual() -> ExitCode {
    let page = clap_mangen::Man::new(Arguments::command());
    if page.render(&mut std::io::stdout()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn witness(file: &Path, is_check: bool) -> anyhow::Result<()> {
    let (config, warnings) = Config::load(file, &process_environment())?;
    telemetry::start(&config.log, LOG_FILE)?;
    for warning in &warnings {
        warn!("{warning}");
    }
    if is_check {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(Box::pin(run(config)))
}

/// Votes until it is asked to end, or a group cannot go on.
async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let security = PeerSecurity::of(&config.raft)?;
    let server = PeerServer::bind_secured(&bind_addr(&config), security).await?;
    let mut groups = Vec::new();
    let mut ends = JoinSet::new();
    for scope in &config.scopes {
        let group = Group::start(&server, group_config(&config, scope)).await?;
        info!("this is {}, a witness of {scope}, node id {}", config.name, group.id());
        ends.spawn(end_of(scope.clone(), group.clone()));
        groups.push((scope.clone(), group));
    }
    notify(Service::Ready);
    let ended = tokio::select! {
        _ = terminate.recv() => { info!("received SIGTERM: stopping"); None }
        _ = interrupt.recv() => { info!("received SIGINT: stopping"); None }
        Some(Ok(why)) = ends.join_next() => Some(why),
    };
    notify(Service::Stopping);
    ends.shutdown().await;
    stop(groups).await;
    server.shutdown().await;
    match ended {
        None => {
            info!("stopped");
            Ok(())
        }
        Some(End::StartAgain) => Err(StartAgain.into()),
        Some(End::Fatal(why)) => anyhow::bail!("{why}"),
    }
}

/// Why a group ended.
enum End {
    /// Its store was put back from an older copy, and this program is to run anew.
    StartAgain,
    /// It cannot go on, for this reason.
    Fatal(String),
}

/// The sentence with which a group says that it cannot go on. One group's end ends the process: whoever starts it
/// again sees the reason in its log, and the other clusters lose a voter for a moment only.
async fn end_of(scope: String, group: Group) -> End {
    let mut view = group.watch();
    loop {
        let phase = view.borrow_and_update().phase.clone();
        if let Phase::StartAgain(_) = phase {
            return End::StartAgain;
        }
        if let Phase::Refused(why) | Phase::Failed(why) = phase {
            return End::Fatal(format!("cannot go on in {scope}: {why}"));
        }
        if view.changed().await.is_err() {
            return End::Fatal(format!("cannot go on in {scope}: its group has ended"));
        }
    }
}

/// Gives all votes back at the same time: one cluster without a majority must not use up the patience of the others.
async fn stop(groups: Vec<(String, Group)>) {
    let mut leaving = JoinSet::new();
    for (scope, group) in groups {
        leaving.spawn(async move {
            let is_member = matches!(group.watch().borrow().phase, Phase::Member);
            if is_member && let LeaveOutcome::KeptVote(why) = group.leave(LEAVE_PATIENCE).await {
                warn!("this witness keeps its vote in {scope} while it is down: {why}");
            }
            group.shutdown().await;
        });
    }
    while leaving.join_next().await.is_some() {}
}

fn bind_addr(config: &Config) -> String {
    let bind = config.raft.bind_addr.as_ref().and_then(|listen| listen.sockets().into_iter().next());
    bind.unwrap_or_else(|| config.self_addr.to_string())
}

fn group_config(config: &Config, scope: &str) -> GroupConfig {
    GroupConfig {
        scope: scope.to_owned(),
        member: Member {
            name: config.name.clone(),
            kind: MemberKind::Witness,
            raft_addr: config.self_addr.to_string(),
            votes: true,
            api_url: None,
            postgres: None,
            tags: Tags::default(),
        },
        partner_addrs: config.raft.partner_addrs.iter().map(ToString::to_string).collect(),
        system_identifier: None,
        data_dir: config.raft.data_dir.clone(),
        timing: Timing::default(),
    }
}
