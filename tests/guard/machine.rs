//! A machine with one data directory: a real database system, its guard, its clients.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgherd::guard::{Guard, StartRequest};
use pgherd::ha::{Fact, Process};
use pgherd_raft::lease::BootTime;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

/// Long enough for a busy machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The lease in most scenarios: the shortest that is allowed.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// The postmaster, if one runs.
pub(crate) fn running(guard: &Guard) -> Option<u32> {
    if let Fact::Known { value: Process::Running { pid, .. }, .. } = guard.process() {
        Some(pid)
    } else {
        None
    }
}

/// CLOCK_BOOTTIME, the clock of deadlines.
pub(crate) fn now() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    BootTime(Duration::new(
        u64::try_from(now.tv_sec).expect("positive"),
        u32::try_from(now.tv_nsec).expect("nanoseconds"),
    ))
}

/// Waits until the claim is true.
pub(crate) async fn until(what: &str, mut claim: impl FnMut() -> bool) {
    let began = now();
    while !claim() {
        assert!(now().since(began) < PATIENCE, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) struct Machine {
    directory: tempfile::TempDir,
    programs: PathBuf,
}

impl Machine {
    /// A fresh database system, not running. Removed when dropped.
    pub(crate) fn prepare(name: &str) -> Self {
        let directory =
            tempfile::Builder::new().prefix(&format!("pgherd-{name}-")).tempdir().expect("a directory");
        let machine = Self { directory, programs: programs() };
        let initdb = Command::new(machine.programs.join("initdb"))
            .args(["-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"])
            .arg(machine.data_dir())
            .output()
            .expect("initdb");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        machine
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        self.directory.path()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("postgres.log")
    }

    /// What PostgreSQL said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(crate) async fn guard(&self) -> Guard {
        Guard::ensure(&self.data_dir(), &super::stage::pgherd()).await.expect("a guard")
    }

    pub(crate) fn start_request(&self) -> StartRequest {
        let mut args = vec!["-D".to_owned(), self.data_dir().display().to_string()];
        for setting in [
            "listen_addresses=".to_owned(),
            "port=5432".to_owned(),
            format!("unix_socket_directories={}", self.directory.path().display()),
            "max_connections=200".to_owned(),
            "shared_buffers=16MB".to_owned(),
        ] {
            args.extend(["-c".to_owned(), setting]);
        }
        StartRequest {
            program: self.programs.join("postgres"),
            args,
            env: environment(),
            log_file: self.log_file(),
            must_be_armed: false,
        }
    }

    /// Starts PostgreSQL below the guard and waits until it answers.
    pub(crate) async fn start(&self, guard: &Guard) -> u32 {
        let pid = guard.start(self.start_request()).await.expect("started");
        self.client().await;
        pid
    }

    /// A connection; its tasks end with the runtime or the server.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let began = now();
        loop {
            match self.try_client().await {
                Ok(client) => return client,
                Err(error) => {
                    let log = self.log();
                    assert!(now().since(began) < PATIENCE, "no connection: {error}\n{log}");
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the driver's task ends with its connection")]
    async fn try_client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir()).port(5432).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            let _ended = connection.await;
        });
        Ok(client)
    }

    /// Every process whose working directory is the data directory, and which has not ended.
    pub(crate) fn servers(&self) -> Vec<u32> {
        let data_dir = self.data_dir().canonicalize().expect("the data directory");
        let entries = std::fs::read_dir("/proc").expect("/proc");
        let mut pids = Vec::new();
        for entry in entries.flatten() {
            let is_here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data_dir);
            let is_zombie = std::fs::read_to_string(entry.path().join("stat"))
                .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")));
            if let (true, false, Ok(pid)) = (is_here, is_zombie, entry.file_name().to_string_lossy().parse())
            {
                pids.push(pid);
            }
        }
        pids
    }

    /// After the guard's word that nothing is left. A process that has given up its memory can do nothing any more, but
    /// keeps its directory for another moment.
    pub(crate) async fn emptied(&self) {
        until("every process to leave the data directory", || self.servers().is_empty()).await;
    }

    /// Another process which holds the guard, as a daemon does: starts PostgreSQL when it does not run, arms for this
    /// ttl, and renews for ever.
    pub(crate) fn daemon(&self, ttl: Duration) -> Daemon {
        self.any_daemon(ttl, "")
    }

    /// The same with this fifo for a watchdog device.
    pub(crate) fn watched_daemon(&self, ttl: Duration, watchdog: &Path) -> Daemon {
        self.any_daemon(ttl, watchdog.to_str().expect("UTF-8"))
    }

    fn any_daemon(&self, ttl: Duration, watchdog: &str) -> Daemon {
        let start = serde_json::to_string(&self.start_request()).expect("JSON");
        let mut child = Command::new(std::env::current_exe().expect("the own program"))
            .args(["--exact", "daemons::body", "--ignored", "--nocapture", "--test-threads=1"])
            .env("PGHERD_GUARD_TEST_DATA", self.data_dir())
            .env("PGHERD_GUARD_TEST_START", start)
            .env("PGHERD_GUARD_TEST_WATCHDOG", watchdog)
            .env("PGHERD_GUARD_TEST_TTL_MS", ttl.as_millis().to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("a daemon");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines
            .find_map(|line| line.expect("a line").strip_prefix("held ").map(str::to_owned))
            .expect("the daemon holds the guard");
        let mut words = ready.split(' ').map(|word| word.parse::<u64>().expect("a number"));
        let mut word = || words.next().expect("a word");
        Daemon { child, session: word(), guard: word(), postmaster: word() }
    }

    /// Removes the page and the socket of this data directory's guard.
    pub(crate) fn lose_page(&self) {
        let data_dir = self.data_dir().canonicalize().expect("the data directory");
        let uid = rustix::process::geteuid().as_raw();
        let mut lost = 0;
        for entry in std::fs::read_dir(format!("/dev/shm/pgherd-{uid}")).expect("a directory").flatten() {
            let path = entry.path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            let wanted = data_dir.as_os_str().as_encoded_bytes();
            if path.extension().is_some_and(|kind| kind == "page")
                && bytes.windows(wanted.len()).any(|seen| seen == wanted)
            {
                std::fs::remove_file(path.with_extension("sock")).expect("removed");
                std::fs::remove_file(path).expect("removed");
                lost += 1;
            }
        }
        assert_eq!(lost, 1);
    }

    /// Nothing may be left behind.
    pub(crate) async fn clean(self) {
        let guard = self.guard().await;
        guard.kill_now().await.expect("killed");
        self.emptied().await;
        let pid = guard.pid();
        let files: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its descriptors")
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter(|path| path.extension().is_some_and(|kind| kind == "lock" || kind == "log"))
            .collect();
        assert_eq!(files.len(), 2);
        drop(guard);
        until("the guard ends by itself", || !is_alive(u64::from(pid))).await;
        // It takes everything with it, but for a log that tells of a kill which no daemon has heard of.
        for file in files {
            let is_removed = std::fs::remove_file(&file).is_err();
            assert!(is_removed || file.extension().is_some_and(|kind| kind == "log"), "{}", file.display());
        }
    }
}

/// A process which holds the guard.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) session: u64,
    pub(crate) guard: u64,
    pub(crate) postmaster: u64,
}

impl Daemon {
    pub(crate) fn signal(&self, signal: Signal) {
        signal_process(u64::from(self.child.id()), signal);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

pub(crate) fn signal_process(pid: u64, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("signalled");
}

/// A zombie has ended.
pub(crate) fn is_alive(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.starts_with(" Z")))
}

/// Programs that do not lie where they were built for find their libraries by `LD_LIBRARY_PATH`.
fn environment() -> BTreeMap<String, String> {
    let libraries = std::env::var("LD_LIBRARY_PATH").ok().map(|path| ("LD_LIBRARY_PATH".to_owned(), path));
    [("LC_ALL".to_owned(), "C".to_owned())].into_iter().chain(libraries).collect()
}

/// What `TEST_PG_BIN` names, else the newest PostgreSQL of Debian's places, else the one in PATH.
fn programs() -> PathBuf {
    if let Some(named) = std::env::var_os("TEST_PG_BIN").filter(|named| !named.is_empty()) {
        return named.into();
    }
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    if let Some((_, bin)) = found.pop() {
        return bin;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|bin| bin.join("initdb").exists())
        .expect("there is no PostgreSQL server; install one: apt-get install postgresql")
}
