//! The daemon's handle on its guard.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Epoch, Session};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::clock::{self, to_boot_time};
use super::deadline::{Deadline, ExtendError};
use super::error::GuardError;
use super::message::{
    Answer, Envelope, News, PostmasterSignal, Request, StartRequest, Status, WatchdogConfig,
};
use super::page::{self, Page};
use super::place::Place;
use super::process;
use super::procfs::Exact;
use super::watch::Watcher;
use super::watchdog::WatchdogState;
use crate::ha::{Fact, GuardFacts, Process, WatchdogFacts};

/// A guard answers within a millisecond; a busy machine gets more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// One that has shown no heartbeat for a second is given this time to say that it was the machine.
const SILENT_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// One that has not ended PostgreSQL so long after its deadline is not asked at all.
const OVERDUE: Duration = Duration::from_millis(100);
/// Starting reads the `postgres` program from disk.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A new guard may have to wait for its predecessor's end.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// After SIGKILL; what is left then waits for a disk.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// A guard that is stopped does not reap; the end is told without its status then.
const REAP_TIMEOUT: Duration = Duration::from_millis(500);
/// A guard that ends at the moment of attaching is replaced, and so is the next.
const ENSURE_ATTEMPTS: usize = 4;
/// Before attaching: no life of a guard, no daemon in charge.
const NOBODY: (Session, u64) = (Session(0), 0);

/// The handle on a guard process: cheap to clone, `Send + Sync`. One daemon has it at a time; a later
/// [`Guard::ensure`] voids the earlier handles.
#[derive(Clone, Debug)]
pub struct Guard {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: Place,
    guard_pid: u32,
    deadline: Deadline,
    news: watch::Receiver<News>,
    warnings: Vec<String>,
    /// Aborted with the last handle.
    _watcher: Mutex<JoinSet<()>>,
}

impl Guard {
    /// A guard whose heartbeat is older than this is stale: renew nothing.
    pub const STALE_AFTER: Duration = Duration::from_secs(1);

    /// Attaches to the living guard of the data directory (which need not exist yet), or starts one (`exe guard ...`).
    /// A guard which lives and does not answer is ended first, and PostgreSQL with it.
    pub async fn ensure(data_dir: &Path, exe: &Path) -> Result<Self, GuardError> {
        let place = Place::find(data_dir)?;
        let mut child = None;
        let mut failure = None;
        for _ in 0..ENSURE_ATTEMPTS {
            match Self::attach(&place, &mut child).await? {
                Some(guard) => return Ok(guard),
                None => match Self::spawn(&place, exe).await {
                    Ok(started) => child = Some(started),
                    Err(error) => failure = Some(error),
                },
            }
        }
        Err(failure.unwrap_or_else(|| GuardError::NotStarted("it ended again and again".to_owned())))
    }

    /// Looks whether another living daemon is in charge of the data directory; starts no guard. Other troubles are left
    /// to [`Guard::ensure`].
    ///
    /// # Errors
    /// [`GuardError::Refused`], with the other daemon's pid.
    pub async fn refuse_second_daemon(data_dir: &Path) -> Result<(), GuardError> {
        let place = Place::find(data_dir)?;
        match Self::attach(&place, &mut None).await {
            Err(refused @ GuardError::Refused { .. }) => Err(refused),
            _ => Ok(()),
        }
    }

    /// `None`: no guard lives.
    async fn attach(place: &Place, child: &mut Option<Child>) -> Result<Option<Self>, GuardError> {
        let path = place.page();
        let unusable = |reason: String| GuardError::Page { path: path.clone(), reason };
        let Some(page) = Page::open(&path).map_err(|error| unusable(error.to_string()))? else {
            return Ok(None);
        };
        let boot = page::boot_id().map_err(|error| unusable(format!("cannot read the boot id: {error}")))?;
        let identity = page.identity(&path).map_err(|error| unusable(format!("{error}; remove it")))?;
        if identity.boot != boot {
            return Ok(None);
        }
        let Some(process) = Exact::hold(identity.guard_pid, identity.guard_start_time) else {
            return Ok(None);
        };
        if page.version() != page::VERSION {
            return Err(GuardError::Version { found: page.version(), expected: page::VERSION });
        }
        if identity.data_dir != place.data_dir {
            let other = identity.data_dir.display();
            return Err(unusable(format!(
                "it belongs to {other}, whose path has the same hash: move one of them"
            )));
        }
        if page.is_overdue(clock::now(), clock::nanos(OVERDUE)) {
            tracing::warn!(
                "the guard (pid {}) has not ended PostgreSQL at its deadline: it is ended, and PostgreSQL with it",
                process.pid
            );
            super::watch::end(process).await;
            return Ok(None);
        }
        let is_silent = clock::now().saturating_sub(page.heartbeat()) > clock::nanos(Self::STALE_AFTER);
        let limit = if is_silent { SILENT_ANSWER_TIMEOUT } else { ANSWER_TIMEOUT };
        match Self::take_charge(place, &process, limit).await {
            Ok((stream, attachment, warnings)) => {
                let deadline = Deadline { page: Arc::new(page), attachment };
                Ok(Some(Self::watched(place, process, stream, deadline, warnings, child.take())?))
            }
            Err(GuardError::NoAnswer { pid, reason, .. }) => {
                tracing::warn!(
                    "the guard (pid {pid}) does not answer ({reason}): it is ended, and PostgreSQL with it"
                );
                super::watch::end(process).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn take_charge(
        place: &Place,
        process: &Exact,
        limit: Duration,
    ) -> Result<(BufReader<UnixStream>, u64, Vec<String>), GuardError> {
        let (answer, stream) = ask(place, process.pid, "attach", NOBODY, Request::Attach, limit).await?;
        if let Answer::Attached { attachment, warnings, .. } = answer {
            Ok((stream, attachment, warnings))
        } else {
            Err(unexpected("attach", answer))
        }
    }

    fn watched(
        place: &Place,
        process: Exact,
        stream: BufReader<UnixStream>,
        deadline: Deadline,
        warnings: Vec<String>,
        child: Option<Child>,
    ) -> Result<Self, GuardError> {
        let guard_pid = process.pid;
        let (watcher, news) = Watcher::new(Arc::clone(&deadline.page), process, stream, child)
            .map_err(|error| GuardError::NotStarted(format!("cannot watch it: {error}")))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(watcher.run());
        let inner =
            Inner { place: place.clone(), guard_pid, deadline, news, warnings, _watcher: Mutex::new(tasks) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts a guard and waits until it is ready. It gets nothing of the daemon: no environment (passwords), no
    /// descriptors, no working directory.
    async fn spawn(place: &Place, exe: &Path) -> Result<Child, GuardError> {
        let not_started = |reason: String| GuardError::NotStarted(reason);
        let mut child = Command::new(exe)
            .arg0("pgherd")
            .arg("guard")
            .arg(process::DATA_DIR_ARG)
            .arg(&place.data_dir)
            .arg(process::RUNTIME_DIR_ARG)
            .arg(&place.directory)
            .env_clear()
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .map_err(|error| not_started(format!("cannot run {}: {error}", exe.display())))?;
        let stdout = child.stdout.take().ok_or_else(|| not_started("no standard output".to_owned()))?;
        let mut line = String::new();
        match timeout(READY_TIMEOUT, BufReader::new(stdout).read_line(&mut line)).await {
            Ok(Ok(_)) if line.trim_end() == process::READY => Ok(child),
            Ok(Ok(_)) => Err(not_started(format!("it said {:?}", line.trim_end()))),
            Ok(Err(error)) => Err(not_started(error.to_string())),
            Err(_) => {
                // Not ready and not needed: the next attempt must not find it half-way.
                child.kill().await.ok();
                Err(not_started(format!("it was not ready within {READY_TIMEOUT:?}")))
            }
        }
    }

    /// The life of this guard.
    pub fn session(&self) -> Session {
        self.inner.deadline.page.session()
    }

    /// The guard's process id.
    pub fn pid(&self) -> u32 {
        self.inner.guard_pid
    }

    /// The guard process runs and this handle is in charge of it.
    pub fn is_alive(&self) -> bool {
        self.inner.news.borrow().is_alive && self.page().attachment() == self.inner.deadline.attachment
    }

    /// What the page says; unknown when the guard is dead. A stale heartbeat is the reader's to judge.
    pub fn facts(&self) -> Fact<GuardFacts> {
        if !self.is_alive() {
            return Fact::Unknown("the guard is dead".to_owned());
        }
        Fact::fresh(GuardFacts {
            session: self.session(),
            deadline: self.page().deadline().map(|(deadline, _)| to_boot_time(deadline)),
            epoch: self.page().epoch(),
            heartbeat_age: self.inner.deadline.heartbeat_age(),
            watchdog: WatchdogFacts::default(),
            killing_for: self
                .page()
                .last_kill()
                .filter(|kill| kill.finished.is_none())
                .map(|kill| to_boot_time(clock::now()).since(kill.began)),
            stopped_by_others: self.page().stopped_by_others(),
        })
    }

    /// The postmaster; unknown when the guard is dead or stale.
    pub fn process(&self) -> Fact<Process> {
        let age = self.inner.deadline.heartbeat_age();
        if !self.is_alive() {
            return Fact::Unknown("the guard is dead".to_owned());
        }
        if age > Self::STALE_AFTER {
            return Fact::Unknown(format!("the guard has shown no heartbeat for {:.1} s", age.as_secs_f64()));
        }
        let news = self.inner.news.borrow();
        // The watcher sees a postmaster's end by itself, possibly before the guard does.
        let process = match (self.page().process(), &news.process) {
            (Process::Running { .. }, Process::Ending) => Process::Ending,
            (seen, _) => seen,
        };
        Fact::fresh(process)
    }

    /// Wakes on every start and end of a postmaster, on a kill, and when the guard itself dies; by the processes, not
    /// by polling.
    pub fn watch(&self) -> watch::Receiver<News> {
        self.inner.news.clone()
    }

    /// The deadline for the renewal thread.
    pub fn deadline(&self) -> Deadline {
        self.inner.deadline.clone()
    }

    /// What the guard could not get from the system (priority, locked memory), a sentence each: log them once.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Arms: from now on PostgreSQL is killed at `deadline` unless it is extended under the same epoch. Returns when
    /// the guard has taken it over. Refused when the deadline is past, nearer than 0.3 s, or further away than `ttl`.
    pub async fn arm(&self, epoch: Epoch, deadline: BootTime, ttl: Duration) -> Result<(), GuardError> {
        self.arm_watched(epoch, deadline, ttl, None).await.map(|_| ())
    }

    /// The same with a watchdog device behind the guard. The answer is what is wrong with the device, if anything is: the
    /// guard is armed all the same.
    pub async fn arm_watched(
        &self,
        epoch: Epoch,
        deadline: BootTime,
        ttl: Duration,
        watchdog: Option<WatchdogConfig>,
    ) -> Result<Option<String>, GuardError> {
        let request = Request::Arm { epoch, deadline, ttl, watchdog };
        let answer = self.request("arm", request, ANSWER_TIMEOUT).await?;
        if let Answer::Armed(trouble) = answer { Ok(trouble) } else { Err(unexpected("arm", answer)) }
    }

    /// A watchdog device counts behind this guard.
    pub fn is_watched(&self) -> bool {
        self.page().watchdog() == WatchdogState::Active
    }

    /// The watchdog device behind this guard does not work.
    pub fn has_watchdog_failed(&self) -> bool {
        self.page().watchdog() == WatchdogState::Failed
    }

    /// Is this configuration of the watchdog in force?
    pub fn is_watched_by(&self, config: Option<&WatchdogConfig>) -> bool {
        self.page().is_watched_by(config)
    }

    /// Moves the deadline; see [`Deadline::extend`].
    pub fn extend(&self, epoch: Epoch, deadline: BootTime) -> Result<(), ExtendError> {
        self.inner.deadline.extend(epoch, deadline)
    }

    /// Is PostgreSQL killed at a deadline which is ahead?
    pub fn is_armed(&self) -> bool {
        self.is_alive() && self.page().deadline().is_some_and(|(deadline, _)| deadline > clock::now())
    }

    /// Voids the deadline. Allowed only while PostgreSQL cannot be writable, or while the epoch is pinned.
    pub async fn disarm(&self) -> Result<(), GuardError> {
        self.order("disarm", Request::Disarm).await
    }

    /// Starts the postmaster as a child of the guard and returns its pid, at once: it is not ready yet. Refused while
    /// any server of the data directory is left, and when a server which may write would have no deadline.
    pub async fn start(&self, request: StartRequest) -> Result<u32, GuardError> {
        let exits = self.page().exits().0;
        let answer = self.request("start", Request::Start(request), START_TIMEOUT).await?;
        let Answer::Postmaster(Some(pid)) = answer else { return Err(unexpected("start", answer)) };
        // Whoever asks next must not be told of the time before.
        let runs = Process::Running { pid, is_child: true };
        let is_told = |news: &News| !news.is_alive || news.exits > exits || news.process == runs;
        timeout(REAP_TIMEOUT, self.watch().wait_for(is_told)).await.ok();
        Ok(pid)
    }

    /// Looks for a postmaster of the data directory which the guard does not know, and adopts it; its pid. The guard
    /// does the same by itself, at its start and each second while it knows of none.
    pub async fn adopt(&self) -> Result<Option<u32>, GuardError> {
        let answer = self.request("adopt", Request::Adopt, ANSWER_TIMEOUT).await?;
        if let Answer::Postmaster(pid) = answer { Ok(pid) } else { Err(unexpected("adopt", answer)) }
    }

    /// Sends a signal to exactly the postmaster which the guard knows.
    pub async fn signal(&self, signal: PostmasterSignal) -> Result<(), GuardError> {
        self.order("signal", Request::Signal(signal)).await
    }

    /// Orders the kill and does not wait for it.
    pub async fn order_kill(&self) -> Result<(), GuardError> {
        self.order("kill", Request::Kill).await
    }

    /// Kills every process of the data directory now, as at the deadline, and disarms; returns when none is left.
    pub async fn kill_now(&self) -> Result<(), GuardError> {
        let mut news = self.watch();
        let before = self.page().last_kill().map(|kill| kill.count);
        self.order("kill", Request::Kill).await?;
        let killed = async {
            loop {
                let seen = news.borrow_and_update().clone();
                // A kill that was under way already is as good.
                let is_done = self.page().last_kill().is_some_and(|kill| {
                    kill.finished.is_some()
                        && (Some(kill.count) != before || seen.process == Process::Stopped)
                });
                if is_done || !seen.is_alive || news.changed().await.is_err() {
                    return is_done;
                }
            }
        };
        match timeout(KILL_TIMEOUT, killed).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.no_answer("kill", "it died")),
            Err(_) => Err(GuardError::StillDying(KILL_TIMEOUT)),
        }
    }

    /// A fresh look at the machine's processes.
    pub async fn status(&self) -> Result<Status, GuardError> {
        let answer = self.request("status", Request::Status, ANSWER_TIMEOUT).await?;
        if let Answer::Status(status) = answer { Ok(status) } else { Err(unexpected("status", answer)) }
    }

    /// Returns when no postmaster runs (at once when none does), or the guard is dead.
    pub async fn exited(&self) -> News {
        let mut news = self.watch();
        loop {
            let seen = news.borrow_and_update().clone();
            if !seen.is_alive {
                return seen;
            }
            let is_over = !matches!(seen.process, Process::Running { .. });
            // The watcher may see the end before the guard has reaped it and knows the status: worth a moment.
            let is_confirmed = is_over && !matches!(self.page().process(), Process::Running { .. });
            if is_confirmed {
                return self.news_of_page(seen);
            }
            let limit = if is_over { REAP_TIMEOUT } else { Duration::MAX };
            match timeout(limit, news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return News { is_alive: false, ..seen },
                Err(_) => return seen,
            }
        }
    }

    /// Returns when no server of the data directory is left (at once when none is), or the guard is dead.
    pub async fn stopped(&self) -> News {
        let mut news = self.watch();
        loop {
            let seen = news.borrow_and_update().clone();
            if !seen.is_alive {
                return seen;
            }
            // The page is ahead of the news.
            if self.page().process() == Process::Stopped {
                return self.news_of_page(seen);
            }
            if news.changed().await.is_err() {
                return News { is_alive: false, ..seen };
            }
        }
    }

    fn news_of_page(&self, seen: News) -> News {
        let (exits, last_exit) = self.page().exits();
        News { exits, last_exit, process: self.page().process(), last_kill: self.page().last_kill(), ..seen }
    }

    fn page(&self) -> &Page {
        &self.inner.deadline.page
    }

    fn no_answer(&self, request: &'static str, reason: &str) -> GuardError {
        GuardError::NoAnswer { pid: self.inner.guard_pid, request, reason: reason.to_owned() }
    }

    async fn order(&self, name: &'static str, request: Request) -> Result<(), GuardError> {
        let answer = self.request(name, request, ANSWER_TIMEOUT).await?;
        if let Answer::Done = answer { Ok(()) } else { Err(unexpected(name, answer)) }
    }

    async fn request(
        &self,
        name: &'static str,
        request: Request,
        limit: Duration,
    ) -> Result<Answer, GuardError> {
        let asker = (self.session(), self.inner.deadline.attachment);
        let (answer, _) = ask(&self.inner.place, self.inner.guard_pid, name, asker, request, limit).await?;
        Ok(answer)
    }
}

fn unexpected(request: &'static str, answer: Answer) -> GuardError {
    let reason =
        if let Answer::Refused(reason) = answer { reason } else { format!("it answered {answer:?}") };
    GuardError::Refused { request, reason }
}

/// One request on a connection of its own, which is handed back.
async fn ask(
    place: &Place,
    pid: u32,
    name: &'static str,
    (session, attachment): (Session, u64),
    request: Request,
    limit: Duration,
) -> Result<(Answer, BufReader<UnixStream>), GuardError> {
    let exchange = async {
        let mut stream = UnixStream::connect(place.socket()).await?;
        let envelope = Envelope { version: page::VERSION, session, attachment, request };
        let mut line = serde_json::to_vec(&envelope)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let answer: Answer = serde_json::from_str(&line)?;
        Ok::<_, std::io::Error>((answer, stream))
    };
    let no_answer = |reason: String| GuardError::NoAnswer { pid, request: name, reason };
    match timeout(limit, exchange).await {
        Ok(Ok(answered)) => Ok(answered),
        Ok(Err(error)) => Err(no_answer(error.to_string())),
        Err(_) => Err(no_answer(format!("no answer within {:.1} s", limit.as_secs_f64()))),
    }
}
