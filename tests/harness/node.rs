//! One node: its directory, its configuration in Patroni's YAML, its daemon.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::ports::Place;
use super::tools::Tools;
use super::user::User;
use super::{clock, ports, processes, rest, wait};

/// A clean stop includes PostgreSQL's shutdown checkpoint.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// An immediate shutdown takes a moment.
const LAST_MOMENT: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// The superuser of the test clusters.
pub(crate) const SUPERUSER: &str = "postgres";
/// Its password; everything listens on the loopback address only.
pub(crate) const PASSWORD: &str = "demo";

/// With or without PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Witness,
}

/// The ports of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// The loopback address, unless the node has a network of its own.
    pub(crate) host: Ipv4Addr,
    pub(crate) postgresql: u16,
    pub(crate) rest: u16,
    /// Where the others reach the peers' port.
    pub(crate) raft: u16,
    /// Where the daemon listens for them: another port when a proxy stands in front of it.
    pub(crate) raft_bind: u16,
}

impl Ports {
    pub(crate) fn new(postgresql: u16, rest: u16, raft: u16) -> Self {
        Self { host: Ipv4Addr::LOCALHOST, postgresql, rest, raft, raft_bind: raft }
    }

    pub(crate) fn any() -> Result<Self> {
        Ok(Self::new(ports::free()?, ports::free()?, ports::free()?))
    }

    /// Where clients reach PostgreSQL.
    pub(crate) fn postgresql_at(&self) -> Place {
        Place { host: self.host, port: self.postgresql }
    }

    /// Where the REST API is.
    pub(crate) fn rest_at(&self) -> Place {
        Place { host: self.host, port: self.rest }
    }
}

/// A member of a test cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) ports: Ports,
    /// Everything of the node is below it.
    pub(crate) directory: PathBuf,
    /// The data directory is below this one, on a disk of its own.
    pub(crate) disk: Option<PathBuf>,
    /// The network namespace in which it lives.
    pub(crate) namespace: Option<PathBuf>,
    /// More environment of the daemon.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Where the daemon's output goes instead of its log.
    pub(crate) standard_error: Option<OwnedFd>,
    daemon: Option<Child>,
}

/// What a configuration file says beside the node itself.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) scope: String,
    /// `host:port` of every member's peers' port.
    pub(crate) raft_addrs: Vec<String>,
    /// In seconds.
    pub(crate) ttl: u32,
    pub(crate) bin_dir: PathBuf,
    /// More lines of `bootstrap.dcs`.
    pub(crate) settings: Vec<String>,
}

impl Node {
    pub(crate) fn new(
        name: &str,
        kind: Kind,
        ports: Ports,
        base: &Path,
        user: Option<&User>,
    ) -> Result<Self> {
        let directory = base.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        if let Some(user) = user {
            user.give(&directory)?;
        }
        Ok(Self {
            name: name.to_owned(),
            kind,
            ports,
            directory,
            disk: None,
            namespace: None,
            environment: Vec::new(),
            standard_error: None,
            daemon: None,
        })
    }

    pub(crate) fn raft_addr(&self) -> String {
        format!("{}:{}", self.ports.host, self.ports.raft)
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.directory.join("pgherd.yml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.disk.as_ref().unwrap_or(&self.directory).join("data")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.join("pgherd.log")
    }

    /// Everything the daemon has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all.iter().skip(all.len().saturating_sub(lines)).copied().collect::<Vec<_>>().join("\n")
    }

    /// Writes the configuration file.
    pub(crate) fn configure(&self, common: &Common) -> Result<()> {
        let text = match self.kind {
            Kind::Data => self.data_config(common),
            Kind::Witness => self.witness_config(common),
        };
        self.write_config(&text)
    }

    /// Replaces the configuration file by any text.
    pub(crate) fn write_config(&self, text: &str) -> Result<()> {
        fs::write(self.config_path(), text)
            .with_context(|| format!("writing {}", self.config_path().display()))
    }

    /// The configuration file as it is.
    pub(crate) fn read_config(&self) -> Result<String> {
        fs::read_to_string(self.config_path())
            .with_context(|| format!("reading {}", self.config_path().display()))
    }

    fn raft_section(&self, common: &Common) -> String {
        let mine = self.raft_addr();
        let partners: String = common
            .raft_addrs
            .iter()
            .filter(|addr| **addr != mine)
            .map(|addr| format!("  - {addr}\n"))
            .collect();
        let partners = if partners.is_empty() {
            "  partner_addrs: []\n".to_owned()
        } else {
            format!("  partner_addrs:\n{partners}")
        };
        let directory = self.directory.join("raft");
        let bind = if self.ports.raft_bind == self.ports.raft {
            String::new()
        } else {
            format!("  bind_addr: {}:{}\n", self.ports.host, self.ports.raft_bind)
        };
        let insecure = if self.ports.host.is_loopback() { "" } else { "  insecure: true\n" };
        format!("raft:\n  self_addr: {mine}\n{insecure}{bind}  data_dir: {}\n{partners}", directory.display())
    }

    fn witness_config(&self, common: &Common) -> String {
        format!("scope: {}\nname: {}\n{}", common.scope, self.name, self.raft_section(common))
    }

    fn data_config(&self, common: &Common) -> String {
        let Ports { host, postgresql, rest, .. } = self.ports;
        let clients = if host.is_loopback() { "127.0.0.1/32" } else { super::network::CLIENTS };
        let directory = self.directory.display();
        format!(
            "scope: {scope}
name: {name}
restapi:
  listen: {host}:{rest}
  connect_address: {host}:{rest}
{raft}watchdog: {{mode: off}}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
{settings}    postgresql:
      use_pg_rewind: true
  initdb:
  - encoding: UTF8
  - data-checksums
  - auth-host: scram-sha-256
  - auth-local: trust
postgresql:
  listen: {host}:{postgresql}
  connect_address: {host}:{postgresql}
  data_dir: {directory}/data
  bin_dir: {bin_dir}
  pgpass: {directory}/pgpass
  authentication:
    superuser: {{username: {SUPERUSER}, password: {PASSWORD}}}
    replication: {{username: replicator, password: {PASSWORD}-replicator}}
    rewind: {{username: rewinder, password: {PASSWORD}-rewinder}}
  parameters:
    unix_socket_directories: {directory}
    shared_buffers: 32MB
    log_min_messages: warning
  pg_hba:
  - local all all trust
  - host all all {clients} scram-sha-256
  - host replication replicator {clients} scram-sha-256
",
            scope = common.scope,
            name = self.name,
            raft = self.raft_section(common),
            ttl = common.ttl,
            settings = common.settings.iter().map(|line| format!("    {line}\n")).collect::<String>(),
            bin_dir = common.bin_dir.display(),
        )
    }

    /// Starts the daemon; its output is appended to the log.
    pub(crate) fn start(&mut self, tools: &Tools, user: Option<&User>) -> Result<()> {
        if self.is_daemon_running() {
            bail!("{} runs already", self.name);
        }
        let program = match self.kind {
            Kind::Data => "pgherd",
            Kind::Witness => "pgherd-witness",
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .with_context(|| format!("opening {}", self.log_path().display()))?;
        let log = match &self.standard_error {
            Some(output) => fs::File::from(output.try_clone().context("another descriptor")?),
            None => log,
        };
        let program = tools.ours.join(program);
        let mut command = match &self.namespace {
            None => Command::new(&program),
            Some(namespace) => inside(namespace, user, &program),
        };
        command
            .arg(self.config_path())
            .current_dir(&self.directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)))
            .env("HOME", &self.directory)
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A terminal's Ctrl-C is for the demo, which stops its nodes itself.
            .process_group(0);
        // Only root enters a namespace: nsenter changes the user after that.
        if let (Some(user), None) = (user, &self.namespace) {
            user.run(&mut command);
        }
        let child = command.spawn();
        let what = || format!("starting {} for {}", program.display(), self.name);
        self.daemon = Some(child.with_context(what)?);
        Ok(())
    }

    pub(crate) fn daemon_pid(&self) -> Option<i32> {
        self.daemon.as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }

    /// The exit status, once the daemon has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    pub(crate) fn is_daemon_running(&mut self) -> bool {
        self.daemon.is_some() && self.ended().is_none()
    }

    /// The postmaster's process id, from its pid file.
    pub(crate) fn postmaster_pid(&self) -> Result<i32> {
        let path = self.data_dir().join("postmaster.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .context("no process id in postmaster.pid")
    }

    /// SIGKILL to daemon, guard and PostgreSQL together.
    pub(crate) fn kill_everything(&mut self) -> Result<()> {
        processes::kill_all(&self.directory)?;
        if let Some(mut child) = self.daemon.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Ends all for good. Shared memory outlives the kill of a postmaster, so it may remove its own first.
    fn end(&mut self) -> Result<()> {
        self.kill_daemon()?;
        let running =
            || processes::of_node(&self.directory).into_iter().filter(|it| it.program == "postgres");
        let postmaster = self.postmaster_pid().ok();
        if let Some(postmaster) = running().find(|process| Some(process.pid) == postmaster) {
            processes::signal(postmaster.pid, Signal::QUIT)?;
            let begin = clock::now();
            while running().next().is_some() && begin.elapsed() < LAST_MOMENT {
                std::thread::sleep(LOOK);
            }
        }
        self.kill_everything()
    }

    /// SIGKILL to the daemon alone.
    pub(crate) fn kill_daemon(&mut self) -> Result<()> {
        if let Some(mut child) = self.daemon.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGKILL to the postmaster alone.
    pub(crate) fn kill_postmaster(&self) -> Result<()> {
        processes::signal(self.postmaster_pid()?, Signal::KILL)
    }

    /// SIGSTOP to daemon, guard and PostgreSQL: the machine does nothing any more.
    pub(crate) fn freeze(&self) -> Result<Vec<i32>> {
        processes::freeze_all(&self.directory)
    }

    /// SIGCONT to everything, PostgreSQL first: the worst order.
    pub(crate) fn thaw(&self) -> Result<()> {
        processes::thaw_all(&self.directory)
    }

    /// The guard's process id.
    pub(crate) fn guard_pid(&self) -> Result<i32> {
        let daemon = self.daemon_pid();
        let all = processes::of_node(&self.directory);
        let guard = all
            .iter()
            .find(|it| it.program == "pgherd" && it.command.contains(" guard") && Some(it.pid) != daemon);
        guard.map(|process| process.pid).with_context(|| format!("{} has no guard", self.name))
    }

    /// Loses the consensus store of a dead node.
    pub(crate) fn wipe_store(&self) -> Result<()> {
        let store = self.directory.join("raft");
        ensure!(store.exists(), "{} does not exist", store.display());
        fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))
    }

    pub(crate) fn signal_daemon(&self, signal: Signal) -> Result<()> {
        self.daemon_pid().map_or(Ok(()), |pid| processes::signal(pid, signal))
    }

    /// SIGTERM, and waits until nothing of the node is left.
    pub(crate) async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal_daemon(Signal::TERM)?;
        let status = self.wait_for_end(STOP_LIMIT).await?;
        let directory = self.directory.clone();
        wait::until("the end of the stopped node's processes", STOP_LIMIT, async || {
            let left = processes::of_node(&directory);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await?;
        Ok(status)
    }

    /// SIGTERM, and waits for the end of the daemon alone.
    pub(crate) async fn stop_daemon(&mut self) -> Result<ExitStatus> {
        self.signal_daemon(Signal::TERM)?;
        self.wait_for_end(STOP_LIMIT).await
    }

    /// Waits for the daemon's end.
    pub(crate) async fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let status = wait::until(&format!("the end of {name}'s daemon"), limit, async || {
            self.ended().ok_or_else(|| "it runs".to_owned())
        })
        .await?;
        self.daemon = None;
        Ok(status)
    }

    /// The status code of a health check; none: no answer.
    pub(crate) async fn health(&self, path: &str) -> Option<u16> {
        rest::get(self.ports.rest_at(), path).await.ok().map(|answer| answer.status)
    }
}

/// The program in a network namespace, as this user.
fn inside(namespace: &Path, user: Option<&User>, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    let mut net = OsString::from("--net=");
    net.push(namespace);
    command.arg(net);
    if let Some(user) = user {
        command.args(["--setuid", &user.uid.to_string(), "--setgid", &user.gid.to_string()]);
    }
    command.arg("--").arg(program);
    command
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("{} could not be ended: {error:#}", self.name);
        }
    }
}
