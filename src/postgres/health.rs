//! The probes: can the local server be used, and the disk under it?
//!
//! Each probe has a thread of its own, because each may hang for as long as a disk does: nobody waits for them, and the
//! daemon ends without them. A probe says what it saw, with an age; what follows from it is decided elsewhere. It must
//! fail for nothing that another machine would suffer as well: a full connection table, a lock, a silent standby.
//!
//! WAL is written only where something waits to be flushed: an idle cluster writes none for the probe's sake.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::query::{Flushed, Local, Session};
use super::settings::Settings;
use crate::ha::{Health, Probe};

/// An attempt that has not come back for so long counts as failing from its beginning.
const HANGS_AFTER: Duration = Duration::from_secs(1);
/// One attempt that failed may be chance.
const FAILED_ATTEMPTS: u32 = 2;
/// How often the threads look whether anybody still wants to know.
const IDLE: Duration = Duration::from_secs(1);
/// A block of PostgreSQL's: more than a full disk has left.
const BLOCK: [u8; 8192] = [0; 8192];
/// PostgreSQL's own tools leave files with this beginning alone wherever they are.
const FILE: &str = "pgsql_tmp.pgherd-probe";
/// An SSLRequest: the one message that every child of a postmaster answers before it looks at anything else, and that
/// leaves nothing in the log when the client goes away.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What is to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Probing {
    /// Nothing.
    #[default]
    Off,
    /// The disk of a running server.
    Disk,
    /// All that a primary must be able to do.
    Primary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Accepts,
    Writes,
    Disk,
}

const LANES: [Lane; 3] = [Lane::Accepts, Lane::Writes, Lane::Disk];

/// Where and how to probe.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) settings: Arc<Settings>,
    pub(super) local: Local,
    pub(super) socket: Option<PathBuf>,
}

/// The probes of one PostgreSQL. The threads end with it, those which hang as soon as they can.
#[derive(Debug, Default)]
pub(super) struct Prober {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    tracks: [Mutex<Track>; 3],
}

#[derive(Debug, Default)]
struct Wanted {
    probing: Probing,
    limit: Duration,
    target: Option<Target>,
    /// One more whenever something else is probed: what was begun before does not count.
    generation: u64,
    has_threads: bool,
}

/// What is known of one probe.
#[derive(Debug, Default)]
struct Track {
    generation: u64,
    running_since: Option<BootTime>,
    last_success: Option<BootTime>,
    failing_since: Option<BootTime>,
    failures: u32,
    why: String,
}

impl Prober {
    /// What is wanted from now on.
    pub(super) fn direct(&self, probing: Probing, limit: Duration, target: impl FnOnce() -> Target) {
        let mut wanted = lock(&self.shared.wanted);
        wanted.limit = limit;
        if wanted.probing == probing {
            return;
        }
        wanted.probing = probing;
        wanted.generation = wanted.generation.wrapping_add(1);
        if probing != Probing::Off {
            wanted.target = Some(target());
            if !std::mem::replace(&mut wanted.has_threads, true) {
                self.start();
            }
        }
        self.shared.wake.notify_all();
    }

    fn start(&self) {
        for lane in LANES {
            let shared = Arc::downgrade(&self.shared);
            let name = format!("probe-{lane:?}").to_lowercase();
            if let Err(error) = std::thread::Builder::new().name(name).spawn(move || run(lane, &shared)) {
                tracing::warn!("a probe of PostgreSQL's health does not run: {error}");
            }
        }
    }

    /// What the probes say at this moment.
    pub(super) fn health(&self) -> Health {
        let now = clock::now();
        let (probing, generation) = {
            let wanted = lock(&self.shared.wanted);
            (wanted.probing, wanted.generation)
        };
        let say = |lane| match is_wanted(lane, probing) {
            true => lock(self.shared.track(lane)).say(generation, now),
            false => Probe::NotAsked,
        };
        Health {
            accepts: say(Lane::Accepts),
            writes: say(Lane::Writes),
            disk: say(Lane::Disk),
            ..Health::default()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_wanted(lane: Lane, probing: Probing) -> bool {
    match probing {
        Probing::Off => false,
        Probing::Disk => lane == Lane::Disk,
        Probing::Primary => true,
    }
}

impl Shared {
    fn track(&self, lane: Lane) -> &Mutex<Track> {
        let [accepts, writes, disk] = &self.tracks;
        match lane {
            Lane::Accepts => accepts,
            Lane::Writes => writes,
            Lane::Disk => disk,
        }
    }

    /// The next attempt, or nothing for the moment.
    fn next(&self, lane: Lane) -> Option<(Target, Duration, u64)> {
        let wanted = lock(&self.wanted);
        let wanted = if is_wanted(lane, wanted.probing) {
            wanted
        } else {
            self.wake.wait_timeout(wanted, IDLE).unwrap_or_else(PoisonError::into_inner).0
        };
        let target = wanted.target.clone().filter(|_| is_wanted(lane, wanted.probing))?;
        Some((target, wanted.limit, wanted.generation))
    }

    fn pause(&self, limit: Duration) {
        let pause = (limit / 5).clamp(Duration::from_millis(200), Duration::from_secs(2));
        let wanted = lock(&self.wanted);
        drop(self.wake.wait_timeout(wanted, pause));
    }
}

impl Track {
    fn begin(&mut self, generation: u64, now: BootTime) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        self.running_since = Some(now);
    }

    /// `None`: the server could not be asked, for a reason that says nothing about it.
    fn end(&mut self, outcome: Option<Result<(), String>>, now: BootTime) {
        let began = self.running_since.take().unwrap_or(now);
        match outcome {
            None => (self.failing_since, self.failures) = (None, 0),
            Some(Ok(())) => {
                (self.failing_since, self.failures) = (None, 0);
                self.last_success = Some(now);
            }
            Some(Err(why)) => {
                self.failing_since.get_or_insert(began);
                self.failures = self.failures.saturating_add(1);
                self.why = why;
            }
        }
    }

    fn say(&self, generation: u64, now: BootTime) -> Probe {
        let hanging = self.running_since.filter(|since| now.since(*since) >= HANGS_AFTER);
        let failed = self.failing_since.filter(|_| self.failures >= FAILED_ATTEMPTS || hanging.is_some());
        let is_present = self.generation == generation;
        match (failed.filter(|_| is_present), hanging) {
            (Some(failed), _) => Probe::Fails { since: now.since(failed), why: self.why.clone() },
            // Also one which was begun for something else: it is the same disk.
            (None, Some(since)) => {
                Probe::Fails { since: now.since(since), why: "it has not come back".to_owned() }
            }
            (None, None) => match self.last_success.filter(|_| is_present) {
                Some(at) => Probe::Succeeds { age: now.since(at) },
                None => Probe::NotAsked,
            },
        }
    }
}

fn run(lane: Lane, shared: &Weak<Shared>) {
    let mut writer = None;
    while let Some(shared) = shared.upgrade() {
        let Some((target, limit, generation)) = shared.next(lane) else {
            writer = None;
            continue;
        };
        lock(shared.track(lane)).begin(generation, clock::now());
        let outcome = match lane {
            Lane::Accepts => Some(accepts(&target, attempt_limit(limit))),
            Lane::Disk => Some(disk(&target.settings.data_dir)),
            Lane::Writes => {
                Writer::ready(&mut writer, generation).and_then(|writer| writer.write(&target, limit))
            }
        };
        lock(shared.track(lane)).end(outcome, clock::now());
        shared.pause(limit);
    }
}

fn attempt_limit(limit: Duration) -> Duration {
    (limit / 3).clamp(Duration::from_millis(500), Duration::from_secs(5))
}

/// Does anybody answer a fresh connection? Any answer will do: that the connection table is full is one.
fn accepts(target: &Target, limit: Duration) -> Result<(), String> {
    match &target.socket {
        // No server makes an encrypted connection of this one, and complains when it comes to nothing.
        Some(directory) => {
            let path = directory.join(format!(".s.PGSQL.{}", target.settings.port));
            let stream = connect_at_once(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let limited = stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit)));
            limited.map_err(|error| error.to_string())?;
            greet(stream, limit)
        }
        None => {
            let host = target.local.host();
            let addrs = (host.as_str(), target.settings.port).to_socket_addrs();
            let addrs = addrs.map_err(|error| format!("{host}: {error}"))?;
            let mut failure = format!("{host} has no address");
            for addr in addrs {
                match TcpStream::connect_timeout(&addr, limit) {
                    Ok(stream) => {
                        let limited =
                            stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit)));
                        return limited
                            .map_err(|error| error.to_string())
                            .and_then(|()| greet(stream, limit));
                    }
                    Err(error) => failure = format!("{addr}: {error}"),
                }
            }
            Err(failure)
        }
    }
}

/// A socket of a stopped server whose queue is full would make the caller wait for ever.
fn connect_at_once(path: &Path) -> std::io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn greet(mut stream: impl Read + Write, limit: Duration) -> Result<(), String> {
    let mut answer = [0_u8; 1];
    match stream.write_all(&SSL_REQUEST).and_then(|()| stream.read(&mut answer)) {
        // A connection that is closed in order was taken up by somebody, too.
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(format!("no answer within {:.1} s", limit.as_secs_f64()))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Can a file be written and flushed in the data directory, and where the WAL is?
fn disk(data_dir: &Path) -> Result<(), String> {
    write_block(&data_dir.join("global").join(FILE))?;
    let wal = data_dir.join("pg_wal");
    let device = |path: &Path| std::fs::metadata(path).map(|is| is.dev()).ok();
    if device(&wal) == device(data_dir) { Ok(()) } else { write_block(&wal.join(FILE)) }
}

fn write_block(path: &Path) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&BLOCK)?;
        file.sync_all()
    };
    let written = write();
    let removed = std::fs::remove_file(path);
    match written.and(removed) {
        Ok(()) => Ok(()),
        // The directory is being replaced: that is somebody's work, and no sickness.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The connection that is kept for writing: with a full connection table there is no other.
struct Writer {
    runtime: tokio::runtime::Runtime,
    session: Option<Session>,
    last: Option<Flushed>,
    generation: u64,
}

impl Writer {
    fn ready(writer: &mut Option<Self>, generation: u64) -> Option<&mut Self> {
        if writer.as_ref().is_none_or(|writer| writer.generation != generation) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            *writer = Some(Self { runtime, session: None, last: None, generation });
        }
        writer.as_mut()
    }

    fn write(&mut self, target: &Target, limit: Duration) -> Option<Result<(), String>> {
        let Self { runtime, session, last, .. } = self;
        runtime.block_on(async {
            if session.as_ref().is_none_or(Session::is_closed) {
                // Not being let in says nothing here: the other probe asks whether anybody answers at all.
                *session = Some(Session::local(&target.settings, &target.local).await.ok()?);
                *last = None;
            }
            let open = session.as_ref()?;
            let flushed = match open.flushed(limit).await {
                Ok(Some(flushed)) => flushed,
                Ok(None) => return None,
                Err(error) => return failure(session, &error),
            };
            let has_moved = last.as_ref().is_none_or(|last| last.flushed != flushed.flushed);
            let is_idle = flushed.inserted == flushed.flushed;
            if !has_moved
                && !is_idle
                && let Err(error) = open.flush_wal(limit).await
            {
                return failure(session, &error);
            }
            *last = Some(flushed);
            Some(Ok(()))
        })
    }
}

/// Only the disk's own failures count, and silence.
fn failure(session: &mut Option<Session>, error: &super::query::WriteError) -> Option<Result<(), String>> {
    use super::query::WriteError;
    match error {
        WriteError::Late | WriteError::Disk(_) => {
            if matches!(error, WriteError::Late) {
                *session = None;
            }
            Some(Err(error.to_string()))
        }
        WriteError::Other => {
            *session = None;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    #[test]
    fn one_failed_attempt_is_chance_and_two_count_from_the_first() {
        let mut track = Track::default();
        track.begin(1, at(10));
        track.end(Some(Err("full".to_owned())), at(10));
        assert_eq!(track.say(1, at(11)), Probe::NotAsked);
        track.begin(1, at(12));
        track.end(Some(Err("full".to_owned())), at(12));
        let fails = Probe::Fails { since: Duration::from_secs(5), why: "full".to_owned() };
        assert_eq!(track.say(1, at(15)), fails);
        track.begin(1, at(15));
        track.end(Some(Ok(())), at(15));
        assert_eq!(track.say(1, at(16)), Probe::Succeeds { age: Duration::from_secs(1) });
    }

    #[test]
    fn an_attempt_that_does_not_come_back_fails_whatever_it_was_begun_for() {
        let mut track = Track::default();
        track.begin(1, at(10));
        assert_eq!(track.say(1, at(10)), Probe::NotAsked);
        assert!(
            matches!(track.say(2, at(14)), Probe::Fails { since, .. } if since == Duration::from_secs(4))
        );
        track.end(Some(Ok(())), at(20));
        assert_eq!(track.say(2, at(20)), Probe::NotAsked);
    }

    #[test]
    fn what_cannot_be_asked_says_nothing() {
        let mut track = Track::default();
        for second in [1, 2, 3] {
            track.begin(1, at(second));
            track.end(Some(Err("late".to_owned())), at(second));
        }
        track.begin(1, at(4));
        track.end(None, at(4));
        assert_eq!(track.say(1, at(30)), Probe::NotAsked);
    }

    #[test]
    fn a_listener_that_accepts_nothing_is_found_out_and_any_answer_will_do() {
        let temp = tempfile::tempdir().expect("directory");
        let target = Target {
            settings: Arc::new(Settings::new("s", "m", Path::new("/d"), 5432)),
            local: Local::Socket(temp.path().to_owned()),
            socket: Some(temp.path().to_owned()),
        };
        let limit = Duration::from_millis(100);
        assert!(accepts(&target, limit).is_err(), "nobody listens");
        let listener = UnixListener::bind(temp.path().join(".s.PGSQL.5432")).expect("listener");
        assert!(accepts(&target, limit).is_err(), "nobody accepts");
        let answering = std::thread::spawn(move || {
            // The first one in the queue has gone away.
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("a connection");
                stream.read_exact(&mut [0; 8]).expect("the request");
                stream.write_all(b"E").ok();
            }
        });
        assert_eq!(accepts(&target, Duration::from_secs(10)), Ok(()));
        answering.join().expect("answered");
    }

    #[test]
    fn a_disk_that_takes_nothing_is_found_out_and_a_missing_directory_is_not() {
        let temp = tempfile::tempdir().expect("directory");
        assert_eq!(disk(temp.path()), Ok(()), "no global directory: being replaced");
        std::fs::create_dir(temp.path().join("global")).expect("directory");
        std::fs::create_dir(temp.path().join("pg_wal")).expect("directory");
        assert_eq!(disk(temp.path()), Ok(()));
        let left = std::fs::read_dir(temp.path().join("global")).expect("readable").count();
        assert_eq!(left, 0, "the probe's file is removed");
        std::fs::create_dir(temp.path().join("global").join(FILE)).expect("directory");
        assert!(disk(temp.path()).is_err());
    }
}
