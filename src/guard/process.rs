//! The guard process: single-threaded, no async runtime, one loop over poll(2).
//!
//! It holds a lock as long as it lives, so that a data directory has one guard at a time. It ends itself when no
//! server of the data directory is left and its daemon is gone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pgherd_raft::model::Session;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{getpid, set_child_subreaper, setsid};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::clock::{self, Nanos, nanos};
use super::expiry::{Due, Expiry};
use super::hardening;
use super::message::{Answer, Envelope, Note, Push, Request, Status};
use super::page::{self, Identity, Page};
use super::place::Place;
use super::procfs::{self, Exact};
use super::server::{self, Attached, Connection, Received};
use super::supervisor::Supervisor;
use super::watchdog::{Watchdog, daemon_life};

/// How often the guard shows that it lives.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// A guard to which no daemon came ends after this time.
const UNATTACHED_LIFE: Duration = Duration::from_secs(10);
/// So long it waits for a daemon's return when nothing runs.
const DETACHED_LIFE: Duration = Duration::from_secs(2);
/// So long it waits for an earlier guard which is ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// The log begins anew at this size: it lies in memory.
const LOG_LIMIT: u64 = 256 << 10;

/// What the daemon reads when the guard is ready.
pub(super) const READY: &str = "ready";
/// The arguments, in their order.
pub(super) const DATA_DIR_ARG: &str = "--data-dir";
/// The private directory.
pub(super) const RUNTIME_DIR_ARG: &str = "--runtime-dir";

/// The main function of `pgherd guard`: `args` are the arguments after `guard`.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    hardening::close_inherited();
    match prepare(args) {
        Ok(mut guard) => {
            say(READY);
            detach_output();
            guard.serve();
            guard.end();
            ExitCode::SUCCESS
        }
        Err(reason) => {
            say(&reason);
            ExitCode::FAILURE
        }
    }
}

/// The daemon reads one line.
fn say(line: &str) {
    let mut out = io::stdout();
    // A daemon that is gone is found out by its missing connection.
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// From here on nothing may ever wait for a reader.
fn detach_output() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        rustix::stdio::dup2_stdin(&null).ok();
        rustix::stdio::dup2_stdout(&null).ok();
        rustix::stdio::dup2_stderr(&null).ok();
    }
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Place, String> {
    let mut expect = |name: &str| {
        let found = args.next().filter(|arg| arg == name).and_then(|_| args.next());
        found
            .map(PathBuf::from)
            .ok_or_else(|| format!("`pgherd guard` is started by the daemon: missing {name}"))
    };
    let data_dir = expect(DATA_DIR_ARG)?;
    let runtime_dir = expect(RUNTIME_DIR_ARG)?;
    Place::within(&data_dir, runtime_dir).map_err(|error| error.to_string())
}

fn prepare(args: impl Iterator<Item = OsString>) -> Result<Guard, String> {
    let at = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let place = parse(args)?;
    // Fails only when it leads its session already.
    setsid().ok();
    hardening::ignore_signals();
    set_child_subreaper(Some(getpid())).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let lock = lock(&place)?;
    let me = procfs::stat(std::process::id()).ok_or("cannot read /proc: mount it")?;
    let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_else(|_| "0".to_owned());
    let warnings = hardening::protect().into_iter().collect();
    let socket = place.socket();
    fs::remove_file(&socket).ok();
    let listener = UnixListener::bind(&socket).map_err(at("cannot make the guard's socket"))?;
    listener.set_nonblocking(true).map_err(at("cannot use the guard's socket"))?;
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
        .map_err(|error| format!("cannot make a timer: {error}"))?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(place.log())
        .map_err(at("cannot open the guard's log"))?;
    let identity = Identity {
        boot: page::boot_id().map_err(at("cannot read the boot id"))?,
        guard_pid: me.pid,
        guard_start_time: me.start_time,
        session: session().map_err(at("cannot get random bytes"))?,
        data_dir: place.data_dir.clone(),
    };
    let predecessor = last_deadline(&place, &identity);
    let page = Page::create(&place.page(), &identity).map_err(at("cannot make the guard's page"))?;
    let supervisor = Supervisor::new(place.data_dir.clone(), oom_score_adj);
    let mut watchdog = Watchdog::new(place.watchdog());
    watchdog.take_over(predecessor.map(|(_, ttl)| Duration::from_nanos(ttl)));
    let mut guard = Guard {
        place,
        page,
        supervisor,
        expiry: Expiry::default(),
        watchdog,
        timer,
        listener,
        connections: Vec::new(),
        attached: None,
        alone_until: clock::now().saturating_add(nanos(UNATTACHED_LIFE)),
        warnings,
        log,
        is_unheard: false,
        _lock: lock,
    };
    // A first look before anybody is told that the guard is ready.
    guard.supervisor.step(&guard.page, clock::now());
    if let Some((deadline, ttl)) = predecessor.filter(|_| !guard.supervisor.is_idle()) {
        guard.expiry.inherit(&guard.page, deadline, ttl);
    }
    Ok(guard)
}

/// The deadline of a guard which was killed in this boot: an adopted postmaster has no death signal and may live on.
fn last_deadline(place: &Place, identity: &Identity) -> Option<(Nanos, Nanos)> {
    let path = place.page();
    let page = Page::open(&path).ok().flatten().filter(|page| page.version() == page::VERSION)?;
    let last = page.identity(&path).ok()?;
    let is_ours = last.boot == identity.boot && last.data_dir == identity.data_dir;
    page.deadline().filter(|_| is_ours).map(|(deadline, _)| (deadline, page.ttl()))
}

/// One guard a data directory. A guard which lives without its page (somebody emptied the private directory) cannot
/// be reached by any daemon; it is ended, and its death ends PostgreSQL.
fn lock(place: &Place) -> Result<File, String> {
    let path = place.lock();
    let open =
        || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let patience = clock::now().saturating_add(nanos(LOCK_PATIENCE));
    loop {
        let rivals = rivals(place);
        let file = open().map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        let is_mine = rivals.is_empty() && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // A guard that ends removes the file: what was opened before must not be taken for the lock.
        let is_there = || Ok::<_, io::Error>(file.metadata()?.ino() == fs::metadata(&path)?.ino());
        if is_mine && is_there().unwrap_or(false) {
            return Ok(file);
        }
        let now = clock::now();
        if now >= patience {
            let pids: Vec<u32> = rivals.iter().map(|rival| rival.pid).collect();
            for rival in rivals {
                rival.signal(rustix::process::Signal::KILL).ok();
            }
            return Err(format!(
                "another guard of the data directory lives (pids {pids:?}); it was ended, start again"
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Other guards of the same data directory, also those whose files are gone.
fn rivals(place: &Place) -> Vec<Exact> {
    use std::os::unix::ffi::OsStrExt;
    let me = std::process::id();
    let data_dir = place.data_dir.as_os_str().as_bytes();
    let is_rival = |pid: u32| match procfs::command_line(pid).as_slice() {
        [_, verb, flag, dir, ..] => {
            verb == b"guard" && flag == DATA_DIR_ARG.as_bytes() && dir.as_slice() == data_dir
        }
        _ => false,
    };
    procfs::pids()
        .unwrap_or_default()
        .into_iter()
        .filter(|pid| *pid != me && is_rival(*pid))
        .filter_map(|pid| Exact::hold(pid, procfs::stat(pid)?.start_time))
        .collect()
}

fn session() -> io::Result<Session> {
    let mut bytes = [0_u8; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(Session(u64::from_ne_bytes(bytes)))
}

struct Guard {
    place: Place,
    page: Page,
    supervisor: Supervisor,
    expiry: Expiry,
    watchdog: Watchdog,
    timer: std::os::fd::OwnedFd,
    listener: UnixListener,
    connections: Vec<Connection>,
    attached: Option<Attached>,
    /// When it ends, if nothing runs and no daemon comes.
    alone_until: Nanos,
    warnings: Vec<String>,
    log: File,
    /// The log tells of something that no daemon has heard.
    is_unheard: bool,
    _lock: File,
}

impl Guard {
    fn serve(&mut self) {
        loop {
            let now = clock::now();
            self.page.beat(now);
            self.expire(now);
            if self.supervisor.step(&self.page, now) {
                self.expiry.disarm(&self.page);
            }
            self.watch(now);
            self.tell(now);
            if self.may_end(now) {
                return;
            }
            // After the duties: a daemon that asks without pause must not keep the guard from them.
            self.hear(now);
            self.wait(clock::now());
        }
    }

    /// The daemon's process may live and do nothing: what counts is what it does.
    fn daemon_lives(&self, now: Nanos) -> bool {
        let silent = Duration::from_nanos(now.saturating_sub(self.page.daemon_heartbeat()));
        self.attached.is_some() && silent <= daemon_life(Duration::from_nanos(self.page.ttl()))
    }

    fn watch(&mut self, now: Nanos) {
        let (deadline, daemon_lives) = (self.expiry.deadline(), self.daemon_lives(now));
        self.watchdog.step(deadline, self.supervisor.is_kill_sent(), daemon_lives, now);
        self.show_watchdog();
    }

    fn show_watchdog(&self) {
        self.page.set_watchdog(self.watchdog.state(), self.watchdog.config());
    }

    fn expire(&mut self, now: Nanos) {
        match self.expiry.check(&self.page, now) {
            Due::Nothing => {}
            Due::Quit(deadline) => self.supervisor.begin_quit(&self.page, deadline, now),
            Due::Kill(deadline) => self.supervisor.begin_kill(&self.page, deadline, now),
        }
    }

    /// Sleeps until something happens.
    fn wait(&self, now: Nanos) {
        let heartbeat = now.saturating_add(nanos(HEARTBEAT));
        let wake_at = [self.expiry.wake_at(), self.supervisor.wake_at()];
        let wake_at = wake_at.into_iter().flatten().fold(heartbeat, Nanos::min).max(1);
        let timespec = |time: Nanos| Timespec {
            tv_sec: i64::try_from(time / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(time % 1_000_000_000).unwrap_or(0),
        };
        let once = Itimerspec { it_interval: timespec(0), it_value: timespec(wake_at) };
        let is_set = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once).is_ok();
        let mut fds =
            vec![PollFd::new(&self.timer, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(postmaster) = self.supervisor.postmaster() {
            fds.push(PollFd::new(&postmaster.process.pidfd, PollFlags::IN));
        }
        if let Some(attached) = &self.attached {
            fds.push(PollFd::new(&attached.stream, PollFlags::IN));
        }
        for connection in &self.connections {
            fds.push(PollFd::new(&connection.stream, PollFlags::IN));
        }
        // Without a timer, wake up often rather than never.
        let fallback = (!is_set).then_some(Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
        poll(&mut fds, fallback.as_ref()).ok();
    }

    fn hear(&mut self, now: Nanos) {
        server::accept(&self.listener, &mut self.connections, now);
        if self.attached.as_mut().is_some_and(Attached::has_left) {
            self.attached = None;
            self.alone_until = now.saturating_add(nanos(DETACHED_LIFE));
        }
        for mut connection in std::mem::take(&mut self.connections) {
            match connection.receive() {
                Received::Nothing => self.connections.push(connection),
                Received::Closed => {}
                Received::Request(envelope) => self.handle(*envelope, connection),
            }
        }
    }

    fn handle(&mut self, envelope: Envelope, mut connection: Connection) {
        if envelope.version != page::VERSION {
            let reason = format!("it speaks version {}", page::VERSION);
            return connection.answer(&Answer::Refused(reason));
        }
        if matches!(envelope.request, Request::Attach) {
            return self.attach(connection);
        }
        if envelope.session != self.page.session() {
            return connection.answer(&Answer::Refused("another life of the guard is meant".to_owned()));
        }
        let is_in_charge = self.attached.as_ref().is_some_and(|one| one.attachment == envelope.attachment);
        let answer = if is_in_charge {
            self.perform(&envelope.request, clock::now()).unwrap_or_else(Answer::Refused)
        } else {
            Answer::Refused("another daemon is in charge".to_owned())
        };
        // What the request changed is in the page before its answer is sent.
        connection.answer(&answer);
    }

    fn perform(&mut self, request: &Request, now: Nanos) -> Result<Answer, String> {
        match request {
            Request::Attach => Err("attached already".to_owned()),
            Request::Arm { epoch, deadline, ttl, watchdog } => {
                if self.supervisor.is_killing() {
                    return Err("PostgreSQL is being killed".to_owned());
                }
                let deadline = clock::from_boot_time(*deadline);
                self.expiry.arm(&self.page, *epoch, deadline, nanos(*ttl), now)?;
                let trouble = self.watchdog.arm(watchdog.as_ref(), *ttl);
                self.show_watchdog();
                Ok(Answer::Armed(trouble))
            }
            Request::Disarm => {
                if self.supervisor.is_killing() {
                    return Err("the deadline has come and PostgreSQL is being killed".to_owned());
                }
                self.expiry.disarm(&self.page);
                self.watchdog.disarm();
                self.show_watchdog();
                Ok(Answer::Done)
            }
            Request::Start(start) => {
                let is_armed = self.page.deadline().is_some_and(|(deadline, _)| deadline > now);
                if start.must_be_armed && !is_armed {
                    return Err("PostgreSQL could write, and the guard is not armed".to_owned());
                }
                self.supervisor.start(&self.page, start).map(|pid| Answer::Postmaster(Some(pid)))
            }
            Request::Adopt => self.supervisor.adopt(&self.page, now).map(Answer::Postmaster),
            Request::Signal(signal) => self.supervisor.signal(*signal).map(|()| Answer::Done),
            Request::Kill => {
                self.supervisor.begin_kill(&self.page, 0, now);
                Ok(Answer::Done)
            }
            Request::Status => {
                let (process, pids) = self.supervisor.look()?;
                let took = Duration::from_nanos(clock::now().saturating_sub(now));
                Ok(Answer::Status(Status { process, pids, took, warnings: self.warnings.clone() }))
            }
        }
    }

    /// A second daemon is refused while the first lives; the same process may attach again.
    fn attach(&mut self, mut connection: Connection) {
        if let Some(other) =
            self.attached.as_ref().filter(|one| one.peer != connection.peer && one.is_alive())
        {
            let reason = format!(
                "the daemon with pid {} is in charge of this data directory; end it first",
                other.peer
            );
            return connection.answer(&Answer::Refused(reason));
        }
        let attachment = self.page.attach(connection.peer);
        self.page.daemon_beat(clock::now());
        let (session, warnings) = (self.page.session(), self.warnings.clone());
        connection.answer(&Answer::Attached { attachment, session, warnings });
        self.attached = Some(Attached { stream: connection.stream, peer: connection.peer, attachment });
    }

    /// Into the log, and to the daemon.
    fn tell(&mut self, now: Nanos) {
        let refused = self.expiry.take_refused();
        let mut notes: Vec<Note> = refused
            .into_iter()
            .map(|deadline| {
                Note::warning(format!(
                    "refused the deadline {deadline}: behind the accepted one, or beyond the ttl"
                ))
            })
            .collect();
        notes.extend(self.supervisor.take_notes());
        notes.extend(self.watchdog.take_notes());
        for note in notes {
            self.write_log(&note.text, now);
            self.is_unheard |= note.is_warning && self.attached.is_none();
            if let Some(attached) = &mut self.attached {
                attached.push(&Push::Note(note));
            }
        }
        if self.supervisor.take_changed()
            && let Some(attached) = &mut self.attached
        {
            attached.push(&Push::Changed);
        }
    }

    fn write_log(&mut self, note: &str, now: Nanos) {
        if self.log.metadata().is_ok_and(|log| log.len() > LOG_LIMIT) {
            self.log.set_len(0).ok();
        }
        let seconds = Duration::from_nanos(now).as_secs_f64();
        // A full tmpfs costs the log, nothing else.
        writeln!(self.log, "[{seconds:.3}] {note}").ok();
    }

    /// Nothing runs, and no daemon needs the session.
    fn may_end(&self, now: Nanos) -> bool {
        let is_alone = self.attached.is_none() && now >= self.alone_until;
        is_alone && self.supervisor.is_idle() && self.supervisor.is_nothing_left()
    }

    /// Leaves nothing, except for the log when it tells of something that no daemon has heard.
    fn end(&mut self) {
        self.write_log("no server is left and no daemon came: the guard ends", clock::now());
        let log = (!self.is_unheard).then(|| self.place.log());
        // The lock last: until then nobody else can take the place.
        let files = [Some(self.place.page()), Some(self.place.socket()), log, Some(self.place.lock())];
        for file in files.into_iter().flatten() {
            fs::remove_file(file).ok();
        }
    }
}
