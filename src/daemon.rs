//! The daemon: wires configuration, consensus, PostgreSQL, guard, agent and API together, and takes them down again.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use pgherd_raft::address::HostPort;
use pgherd_raft::again::StartAgain;
use pgherd_raft::group::{GroupConfig, LeaveOutcome, Phase, Timing};
use pgherd_raft::listener;
use pgherd_raft::model::{Incarnation, Member, MemberKind, PostgresAddr, SystemIdentifier};
use pgherd_raft::service::{Service, notify};
use pgherd_raft::{Group, PeerSecurity, PeerServer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::agent::{
    Agent, Ended, FencingCommand, GuardSlot, GuardedPostmaster, LocalCheck, Parts, PolicySource, RenewerSlot,
    SlotBoard, watchdog_of,
};
use crate::api::{self, ApiSettings, ApiState, Followed, Listening, MemberClient};
use crate::config::{Config, Source};
use crate::guard::Guard;
use crate::http_client::HttpClient;
use crate::postgres::{Postgres, Postmaster};
use crate::reread::Reread;
use crate::tls::ServerTls;
use crate::twin;

/// How long a clean stop tries to give the vote back.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the daemon until it is asked to end, or cannot go on.
///
/// # Errors
/// What stands in the way, with the cure; nothing is left half done. [`StartAgain`]: it is to run anew.
pub async fn run(source: Source, config: Config) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let configs = watch::Sender::new(Arc::clone(&config));
    let (reread, reload) = Reread::new(source, configs.clone());
    let fencing = FencingCommand::of(&config).map_err(anyhow::Error::msg)?;
    ensure_data_dir(&config.postgresql.data_dir)?;
    let guard = Arc::new(GuardSlot::default());
    let renewer = Arc::new(RenewerSlot::default());
    let postmaster = Arc::new(GuardedPostmaster::new(Arc::clone(&guard)));
    let any_major = PolicySource::new(configs.subscribe(), 0, None).postgres();
    let first = Postgres::new(any_major, Arc::clone(&postmaster) as Arc<dyn Postmaster>);
    let major = first.check().await?;
    let policy = PolicySource::new(configs.subscribe(), major, first.kept_document().await);
    let postgres = Arc::new(Postgres::new(policy.postgres(), postmaster));
    postgres.sift_parameters().await;
    let tls = ServerTls::load(&config.restapi.tls)?;
    let to_members = api::to_members(&config)?;
    let security = PeerSecurity::of(&config.raft)?;
    refuse_second_node(&config, &security, &to_members).await?;
    let server = PeerServer::bind_secured(&bind_addr(&config), security).await?;
    let member = member(&config, server.local_addr().port());
    let system_identifier = postgres.system_identifier().await;
    let group = Group::start(&server, group_config(&config, &member, system_identifier)).await?;
    info!("this is {} of {}, node id {}", config.name, config.scope, group.id());
    let guard_of_api = Arc::clone(&guard);
    let members = watch::Sender::new(to_members);
    let parameters = Arc::new(LocalCheck::new(Arc::clone(&postgres)));
    let slots = Arc::new(SlotBoard::default());
    let parts = Parts {
        members: Arc::new(MemberClient::new(member.clone(), members.subscribe(), Arc::clone(&slots))),
        slots: Arc::clone(&slots),
        group: group.clone(),
        postgres,
        guard,
        renewer: Arc::clone(&renewer),
        member,
        scope: config.scope.clone(),
        data_dir: config.postgresql.data_dir.clone(),
        exe: std::env::current_exe().context("cannot find this program's own file")?,
        policy,
        reload,
        watchdog: watchdog_of(&config),
        fencing,
    };
    let (agent, view) = Agent::new(parts, incarnation()?).await;
    let settings = watch::Sender::new(Arc::new(ApiSettings::of(&config.restapi, tls.is_on()).await));
    let state = ApiState {
        view,
        renewer: Arc::new(move || renewer.facts()),
        has_ended: Arc::new(move || guard_of_api.has_ended()),
        intents: Arc::new(group.clone()),
        promises: Arc::new(group.clone()),
        slots,
        actions: agent.operator(),
        parameters,
        settings: settings.subscribe(),
        tls: tls.clone(),
    };
    let mut api = api::serve(Listening::of(&config.restapi), state)?;
    let followed = Followed { tls, settings, mover: api.take_mover(), members };
    let (stop, stopping) = watch::channel(false);
    let mut signals = JoinSet::new();
    signals.spawn(api::follow(configs.subscribe(), followed));
    signals.spawn(wait_for_signals(stop));
    signals.spawn(reread.run());
    notify(Service::Ready);
    let ended = Box::pin(agent.run(stopping)).await;
    let phase = group.watch().borrow().phase.clone();
    leave(&group, &phase).await;
    drop(api);
    group.shutdown().await;
    server.shutdown().await;
    signals.shutdown().await;
    outcome(ended, &phase)
}

fn outcome(ended: Ended, phase: &Phase) -> anyhow::Result<()> {
    match ended {
        Ended::Fatal(_) if matches!(phase, Phase::StartAgain(_)) => Err(StartAgain.into()),
        Ended::Stopped => {
            info!("stopped");
            Ok(())
        }
        Ended::Fatal(why) => bail!("{why}"),
    }
}

/// Gives this node's vote back, so that the others keep a majority without it.
async fn leave(group: &Group, phase: &Phase) {
    if *phase == Phase::Member
        && let LeaveOutcome::KeptVote(why) = group.leave(LEAVE_PATIENCE).await
    {
        warn!("this node keeps its vote while it is down: {why}");
    }
}

/// Before this node joins a group: it would be a member, with a vote, that can never run a PostgreSQL.
async fn refuse_second_node(
    config: &Config,
    security: &PeerSecurity,
    to_members: &HttpClient,
) -> anyhow::Result<()> {
    if let Some(url) = twin::running(config, security, to_members).await {
        bail!("Can't start; there is already a node named '{}' running at {url}", config.name);
    }
    ensure_free(config)?;
    let data_dir = &config.postgresql.data_dir;
    let refused = Guard::refuse_second_daemon(data_dir).await;
    refused.with_context(|| format!("cannot use the data directory {}", data_dir.display()))
}

async fn wait_for_signals(stop: watch::Sender<bool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("signals cannot be received: stop this daemon over its REST API, or by SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => info!("received SIGTERM: stopping"),
        _ = interrupt.recv() => info!("received SIGINT: stopping"),
    }
    notify(Service::Stopping);
    stop.send_replace(true);
    std::future::pending().await
}

fn incarnation() -> anyhow::Result<Incarnation> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("cannot get random bytes from the system")?;
    Ok(Incarnation(u64::from_ne_bytes(bytes)))
}

/// The guard names its page by the canonical path, so the directory must be there before the first initdb or copy.
fn ensure_data_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
        format!(
            "cannot create the data directory {}: check postgresql.data_dir and who owns it",
            path.display()
        )
    })
}

/// A port in use must be noticed before this node joins a group. PostgreSQL's is looked at only while there is no data:
/// the server that runs on it may be this node's own.
fn ensure_free(config: &Config) -> anyhow::Result<()> {
    for socket in config.restapi.listen.sockets() {
        if let Err(error) = listener::listen(&socket)
            && error.kind() == std::io::ErrorKind::AddrInUse
        {
            return Err(api::ApiError::PortInUse { addr: socket }.into());
        }
    }
    if !config.postgresql.data_dir.join("PG_VERSION").exists() {
        for socket in config.postgresql.listen.sockets() {
            if let Err(error) = listener::listen(&socket)
                && error.kind() == std::io::ErrorKind::AddrInUse
            {
                bail!(
                    "cannot use {socket} for PostgreSQL: the address is in use; stop the program which uses it or set \
                     another postgresql.listen"
                );
            }
        }
    }
    Ok(())
}

/// Where the peers' port is opened. A node without `raft.self_addr` listens on a port which the system chooses, where its
/// partners reach it.
fn bind_addr(config: &Config) -> String {
    let listen = config.raft.bind_addr.as_ref().and_then(|listen| listen.sockets().into_iter().next());
    match (listen, &config.raft.self_addr) {
        (Some(socket), _) => socket,
        (None, Some(addr)) => addr.to_string(),
        (None, None) => raft_addr(config, 0),
    }
}

/// Where the others reach this node's peers' port.
fn raft_addr(config: &Config, port: u16) -> String {
    if let Some(addr) = &config.raft.self_addr {
        return addr.to_string();
    }
    let is_local = config.raft.partner_addrs.iter().all(HostPort::is_loopback);
    let host = if is_local { "127.0.0.1".to_owned() } else { config.restapi.connect_address.host.clone() };
    HostPort { host, port }.to_string()
}

fn member(config: &Config, port: u16) -> Member {
    let postgres = &config.postgresql.connect_address;
    let raft_addr = raft_addr(config, port);
    let votes = config.raft.self_addr.is_some();
    if !votes {
        info!("this node has no vote, since raft.self_addr is missing: the others reach it at {raft_addr}");
    }
    Member {
        name: config.name.clone(),
        kind: MemberKind::Data,
        raft_addr,
        votes,
        api_url: Some(config.restapi.url()),
        postgres: Some(PostgresAddr { host: postgres.host.clone(), port: postgres.port }),
        tags: config.tags.published(),
    }
}

fn group_config(
    config: &Config,
    member: &Member,
    system_identifier: Option<SystemIdentifier>,
) -> GroupConfig {
    GroupConfig {
        scope: config.scope.clone(),
        member: member.clone(),
        partner_addrs: config.raft.partner_addrs.iter().map(ToString::to_string).collect(),
        system_identifier,
        data_dir: config.raft.data_dir.clone(),
        timing: Timing::default(),
    }
}
