//! `make demo`: three nodes and HAProxy on this machine, to look at and to break. With `--check` it breaks them by
//! itself and tells what the clients saw.

#![expect(clippy::print_stdout, reason = "talking to the user is its purpose")]

mod check;
#[path = "../harness/mod.rs"]
mod harness;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use harness::cluster::{BRING_UP_LIMIT, Cluster, Plan};
use harness::haproxy::HaProxy;
use harness::node::{PASSWORD, Ports, SUPERUSER};
use harness::{clock, ports};
use table::Screen;

const READ_WRITE: u16 = 5000;
const READ_ONLY: u16 = 5001;
/// Between two looks at the members.
const REFRESH: Duration = Duration::from_millis(250);
/// A dead node stays dead long enough to see the takeover, then is started again as an init system would.
const RESTART_AFTER: Duration = Duration::from_secs(15);

fn main() -> Result<ExitCode> {
    let mut is_check = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => is_check = true,
            "-h" | "--help" => {
                println!(
                    "make demo [DEMO_ARGS=--check]\n\n  --check   tell the story without a terminal, exit 0 if all went well"
                );
                return Ok(ExitCode::SUCCESS);
            }
            other => bail!("unknown argument {other}; there is only --check"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let story = async { if is_check { check::run().await } else { show().await } };
        tokio::select! {
            done = story => done,
            () = asked_to_end() => {
                println!("\nstopping and removing everything");
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

/// Ctrl-C, or the end of the terminal or of the session.
async fn asked_to_end() {
    let (Ok(mut terminate), Ok(mut hang_up)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}

/// The nodes with the ports of the manuals where they are free.
fn plan() -> Result<Plan> {
    let mut plan = Plan::of(0)?;
    plan.scope = "demo".to_owned();
    for number in 1..=3 {
        let ports = Ports::new(
            preferably(5440 + number, "PostgreSQL")?,
            preferably(8007 + number, "REST")?,
            preferably(7400 + number, "peers")?,
        );
        plan.nodes.push((format!("node{number}"), ports));
    }
    Ok(plan)
}

fn preferably(wanted: u16, what: &str) -> Result<u16> {
    let port = ports::preferably(wanted)?;
    if port != wanted {
        println!("port {wanted} ({what}) is taken, using {port}");
    }
    Ok(port)
}

/// Starts everything and shows the members until they are whole.
async fn bring_up() -> Result<(Cluster, HaProxy, Duration)> {
    let plan = plan()?;
    let (read_write, read_only) =
        (preferably(READ_WRITE, "read-write")?, preferably(READ_ONLY, "read-only")?);
    let mut cluster = Cluster::prepare(&plan)?;
    println!("{}, three nodes below {}", cluster.tools.postgresql_version, cluster.directory().display());
    if let Some(user) = &cluster.user {
        println!("everything runs as user {}: PostgreSQL does not run as root", user.name);
    }
    let begin = clock::now();
    let proxy = HaProxy::start(&cluster, read_write, read_only).await?;
    cluster.start_all()?;
    let mut screen = Screen::new();
    tokio::select! {
        whole = cluster.wait_until_whole(BRING_UP_LIMIT) => {
            whole.with_context(|| cluster.logs(15))?;
        }
        () = watch(&cluster, &mut screen, begin) => {}
    }
    let took = begin.elapsed();
    screen.draw(&cluster, begin, "whole").await;
    Ok((cluster, proxy, took))
}

/// Draws for ever; its caller ends it.
async fn watch(cluster: &Cluster, screen: &mut Screen, begin: std::time::Instant) {
    loop {
        screen.draw(cluster, begin, "starting").await;
        tokio::time::sleep(REFRESH).await;
    }
}

async fn show() -> Result<ExitCode> {
    let (mut cluster, proxy, took) = bring_up().await?;
    println!("\na primary and two streaming standbys after {:.1} s\n", took.as_secs_f64());
    let primary = cluster.primary().await?.context("a primary")?;
    println!("{}", hints(&cluster, &proxy, primary)?);
    let mut screen = Screen::new();
    let begin = clock::now();
    let mut died = vec![None; cluster.nodes.len()];
    loop {
        screen.draw(&cluster, begin, "running").await;
        for (index, died) in died.iter_mut().enumerate() {
            if cluster.node_mut(index)?.is_daemon_running() {
                *died = None;
                continue;
            }
            let since = *died.get_or_insert_with(clock::now);
            if since.elapsed() > RESTART_AFTER {
                cluster.start_node(index)?;
            }
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// What to try, as commands that can be copied.
fn hints(cluster: &Cluster, proxy: &HaProxy, primary: usize) -> Result<String> {
    let psql = |port: u16| format!("PGPASSWORD={PASSWORD} psql -h 127.0.0.1 -p {port} -U {SUPERUSER}");
    let ctl =
        format!("{}/pgherdctl -c {}", cluster.tools.ours.display(), cluster.ctl_config_path().display());
    let node = cluster.node(primary)?;
    Ok(format!(
        "Try in another terminal:

  write through HAProxy, every half second (read only: port {ro})
    {write} -c 'CREATE TABLE IF NOT EXISTS t (at timestamptz)'
    while sleep 0.5; do {write} -Atc 'INSERT INTO t VALUES (now()) RETURNING at, inet_server_port()'; done

  watch the members
    watch -n 0.5 {ctl} list {scope}

  kill the primary {name}: daemon, guard and PostgreSQL (it is started again after {restart} s)
    pkill -9 -f {directory}/

  or change it without losing anything
    {ctl} switchover {scope} --force

  read why a node does what it does
    tail -f {log}

Ctrl-C stops and removes everything.
",
        write = psql(proxy.read_write),
        ro = proxy.read_only,
        scope = cluster.common.scope,
        name = node.name,
        directory = node.directory.display(),
        log = node.log_path().display(),
        restart = RESTART_AFTER.as_secs(),
    ))
}
