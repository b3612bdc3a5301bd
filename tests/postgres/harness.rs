//! Nodes on real PostgreSQL without a guard: the test is the parent of the postmasters.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pgherd::ha::{Fact, PgAction, PostgresFacts, Process, Server, StopMode, Upstream};
use pgherd::postgres::{
    Credentials, PgError, Postgres, Postmaster, PostmasterCommand, PostmasterError, PostmasterSignal,
    Settings,
};
use pgherd_raft::model::PostgresAddr;

/// Everything here happens within this time, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test's body. PostgreSQL refuses root, so as root the test runs itself again as another user.
pub(crate) fn unprivileged(test: &str, body: impl AsyncFnOnce(Cluster)) {
    if rustix::process::geteuid().is_root() {
        return again_as_another_user(test);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(body(Cluster::new(test)));
}

fn again_as_another_user(test: &str) {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let user = ["postgres", "nobody"]
        .into_iter()
        .find(|user| passwd.lines().any(|line| line.starts_with(&format!("{user}:"))))
        .expect("a user postgres or nobody");
    // The user may not reach the build directory.
    let place = tempfile::Builder::new().prefix("pgherd-test-").tempdir_in("/tmp").expect("directory");
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("mode");
    let exe = place.path().join("test");
    std::fs::copy(std::env::current_exe().expect("own path"), &exe).expect("copy");
    std::fs::set_permissions(&exe, PermissionsExt::from_mode(0o755)).expect("mode");
    let status = Command::new("setpriv")
        .args([&format!("--reuid={user}"), "--regid", &group_of(&passwd, user), "--clear-groups"])
        .arg(&exe)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .current_dir("/tmp")
        .env("HOME", "/tmp")
        .env("TMPDIR", "/tmp")
        .status()
        .expect("setpriv (package util-linux)");
    assert!(status.success(), "the test failed as user {user}");
}

fn group_of(passwd: &str, user: &str) -> String {
    let line = passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("user");
    line.split(':').nth(3).expect("group").to_owned()
}

/// A place for the nodes of one test.
pub(crate) struct Cluster {
    root: tempfile::TempDir,
    pub(crate) sockets: PathBuf,
}

impl Cluster {
    fn new(test: &str) -> Self {
        let root = tempfile::Builder::new()
            .prefix(&format!("pgherd-{}-", test.rsplit("::").next().unwrap_or(test).get(..12).unwrap_or("t")))
            .tempdir_in("/tmp")
            .expect("directory");
        let sockets = root.path().join("s");
        std::fs::create_dir(&sockets).expect("directory");
        Self { root, sockets }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// A node with settings which the test may change first.
    pub(crate) fn node(&self, name: &str, change: impl FnOnce(&mut Settings)) -> Node {
        let port = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("port").port();
        let data_dir = self.root.path().join(name);
        let mut settings = Settings::new("test", name, &data_dir, port);
        settings.listen = vec!["127.0.0.1".to_owned()];
        settings.superuser = Credentials::new("postgres", Some("it's a \\ super:secret"));
        settings.replication = Credentials::new("replicator", Some("repl: \\ 'secret'"));
        settings.rewind = Some(Credentials::new("rewinder", Some("rewind-secret")));
        settings.slot_name = Some(name.to_owned());
        settings.parameters = [
            ("unix_socket_directories", self.sockets.display().to_string()),
            ("fsync", "off".to_owned()),
            ("shared_buffers", "16MB".to_owned()),
            ("log_statement", "all".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        settings.bin_dir =
            std::env::var_os("TEST_PG_BIN").filter(|named| !named.is_empty()).map(PathBuf::from);
        change(&mut settings);
        let postmaster = Arc::new(Direct { data_dir, child: Mutex::new(None) });
        let postgres = Postgres::new(settings.clone(), Arc::clone(&postmaster) as Arc<dyn Postmaster>);
        Node { name: name.to_owned(), settings, postgres, postmaster }
    }
}

/// A member: its settings, the handle under test, and the parent of its postmaster.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) postgres: Postgres,
    pub(crate) postmaster: Arc<Direct>,
}

impl Node {
    pub(crate) fn upstream(&self) -> Upstream {
        let addr = PostgresAddr { host: "127.0.0.1".to_owned(), port: self.settings.port };
        Upstream { name: self.name.clone(), addr }
    }

    pub(crate) async fn perform(&self, action: PgAction) {
        self.try_perform(action.clone()).await.unwrap_or_else(|error| {
            panic!("{}: {action:?}: {error}\n{}", self.name, self.log_tail());
        });
    }

    pub(crate) async fn try_perform(&self, action: PgAction) -> Result<(), PgError> {
        tokio::time::timeout(PATIENCE, self.postgres.perform(&action))
            .await
            .unwrap_or_else(|_| panic!("{}: {action:?} is late\n{}", self.name, self.log_tail()))
    }

    pub(crate) async fn stop(&self, mode: StopMode) {
        self.perform(PgAction::Stop { mode, checkpoint_first: mode == StopMode::Fast }).await;
    }

    pub(crate) async fn clone_from(&self, source: &Node) {
        self.perform(PgAction::Clone { source: source.upstream() }).await;
    }

    pub(crate) async fn follow_and_start(&self, source: &Node) {
        self.perform(PgAction::StartStandby { upstream: Some(source.upstream()) }).await;
    }

    pub(crate) async fn observe(&self) -> PostgresFacts {
        self.postgres.observe().await
    }

    /// The server's own words; waits until there are some.
    pub(crate) async fn server(&self) -> Server {
        self.wait("an answer by SQL", |facts| facts.server.of_any_age().is_some()).await;
        match self.observe().await.server {
            Fact::Known { value, .. } => value,
            Fact::Unknown(why) => panic!("{}: {why}", self.name),
        }
    }

    pub(crate) async fn wait(&self, what: &str, is_so: impl Fn(&PostgresFacts) -> bool) -> PostgresFacts {
        let waiting = async {
            loop {
                let facts = self.observe().await;
                if is_so(&facts) {
                    return facts;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(facts) => facts,
            Err(_) => {
                let facts = self.observe().await;
                panic!("{}: waited in vain for {what}: {facts:#?}\n{}", self.name, self.log_tail())
            }
        }
    }

    pub(crate) async fn wait_until_streaming(&self) {
        self.wait("streaming", |facts| facts.server.of_any_age().is_some_and(pgherd::ha::streams)).await;
    }

    /// Runs SQL as the superuser over TCP; the first column of the first row.
    pub(crate) async fn sql(&self, sql: &str) -> Option<String> {
        self.try_sql(sql).await.unwrap_or_else(|error| panic!("{}: {sql}: {error}", self.name))
    }

    pub(crate) async fn try_sql(&self, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.settings.port)
            .user(&self.settings.superuser.username)
            .dbname("postgres");
        if let Some(password) = &self.settings.superuser.password {
            config.password(password.expose());
        }
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(connection);
        let messages = client.simple_query(sql).await?;
        Ok(messages.iter().find_map(|message| {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
            row.get(0).map(str::to_owned)
        }))
    }

    pub(crate) async fn wait_for_sql(&self, sql: &str, expected: &str) {
        let waiting = async {
            while self.try_sql(sql).await.ok().flatten().as_deref() != Some(expected) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{}: {sql} never was {expected}\n{}", self.name, self.log_tail());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.settings.log_file).unwrap_or_default()
    }

    /// The end of it, for a failure's message.
    fn log_tail(&self) -> String {
        let lines: Vec<String> = self.log().lines().map(str::to_owned).collect();
        lines.split_at(lines.len().saturating_sub(40)).1.join("\n")
    }
}

/// The simplest parent of a postmaster.
#[derive(Debug)]
pub(crate) struct Direct {
    data_dir: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Direct {
    /// The processes whose working directory is the data directory: all of PostgreSQL's are there.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.data_dir)
        })
        .collect()
    }

    /// Sends a signal to all of it and does not wait for what comes of it.
    pub(crate) fn send_to_all(&self, signal: rustix::process::Signal) {
        for pid in self.pids() {
            let pid = rustix::process::Pid::from_raw(pid).expect("pid");
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// Kills all of it at once, as a power cut would.
    pub(crate) fn kill_all(&self) {
        for _ in 0..100 {
            if self.pids().is_empty() {
                return;
            }
            self.send_to_all(rustix::process::Signal::KILL);
            // The postmaster must be reaped.
            let _ = Postmaster::process(self);
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("processes of {} do not end", self.data_dir.display());
    }

    fn ended(&self) -> Option<String> {
        let mut child = self.child.lock().expect("lock");
        match child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => None,
            Some(Ok(Some(status))) => Some(status.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => Some("it was not started".to_owned()),
        }
    }
}

impl Drop for Direct {
    /// Shared memory outlives the kill of a postmaster, so it may remove its own first.
    fn drop(&mut self) {
        if self.ended().is_none() {
            let pid = self.child.lock().expect("lock").as_ref().map(Child::id);
            let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
            if let Some(pid) = pid {
                rustix::process::kill_process(pid, rustix::process::Signal::QUIT).ok();
            }
            for _ in 0..100 {
                if self.ended().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill_all();
    }
}

impl Postmaster for Direct {
    fn process(&self) -> Fact<Process> {
        let ended = self.ended().is_some();
        let pid = self.child.lock().expect("lock").as_ref().map_or(0, Child::id);
        Fact::fresh(match (ended, self.pids().is_empty()) {
            (false, _) => Process::Running { pid, is_child: true },
            (true, false) => Process::Ending,
            (true, true) => Process::Stopped,
        })
    }

    fn known(&self) -> BoxFuture<'_, Result<Process, PostmasterError>> {
        Box::pin(async move { Ok(self.process().of_any_age().expect("known").clone()) })
    }

    fn may_write(&self) -> Result<(), PostmasterError> {
        Ok(())
    }

    fn start(&self, command: PostmasterCommand) -> BoxFuture<'_, Result<u32, PostmasterError>> {
        Box::pin(async move {
            let open = || -> std::io::Result<(File, File)> {
                let file =
                    OpenOptions::new().append(true).create(true).mode(0o600).open(&command.log_file)?;
                Ok((file.try_clone()?, file))
            };
            let (out, err) = open().map_err(|error| PostmasterError(error.to_string()))?;
            let env: BTreeMap<String, String> = command.env;
            let child = Command::new(&command.program)
                .args(&command.args)
                .env_clear()
                .envs(env)
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err)
                .spawn()
                .map_err(|error| PostmasterError(error.to_string()))?;
            let pid = child.id();
            *self.child.lock().expect("lock") = Some(child);
            Ok(pid)
        })
    }

    fn signal(&self, signal: PostmasterSignal) -> BoxFuture<'_, Result<(), PostmasterError>> {
        Box::pin(async move {
            let pid = self.child.lock().expect("lock").as_ref().map(Child::id);
            let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
            let pid = pid.ok_or_else(|| PostmasterError("not started".to_owned()))?;
            let signal = match signal {
                PostmasterSignal::Fast => rustix::process::Signal::INT,
                PostmasterSignal::Immediate => rustix::process::Signal::QUIT,
                PostmasterSignal::Reload => rustix::process::Signal::HUP,
            };
            rustix::process::kill_process(pid, signal).map_err(|error| PostmasterError(error.to_string()))
        })
    }

    fn stopped(&self) -> BoxFuture<'_, Result<String, PostmasterError>> {
        Box::pin(async move {
            loop {
                if let Some(how) = self.ended().filter(|_| self.pids().is_empty()) {
                    return Ok(how);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }
}
