//! The shared page: a file on tmpfs, mapped by the guard and its daemon.
//!
//! Every word is one 64-bit atomic, so that nothing is ever read half-written. The words up to the path are written
//! before the page gets its name and never change. A new guard makes a new file: a page belongs to one guard life.
//!
//! The deadline is one word: nanoseconds on CLOCK_BOOTTIME, zero when disarmed, and its highest bit is the *seal*. The
//! guard sets the seal when it begins to kill; from then on nobody can move the deadline, until the guard is armed
//! again. Extending is a compare-and-swap on that word, so an extension and the guard's seal cannot both succeed.

use std::fs::{File, OpenOptions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, fs, io};

use pgherd_raft::model::{Epoch, Session};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::clock::{self, Nanos, to_boot_time};
use super::message::{Kill, PostmasterExit, WatchdogConfig};
use super::place::fnv1a;
use super::watchdog::WatchdogState;
use crate::ha::{Process, StoppedByOthers};

/// "PGHERDGD", so that a foreign file is not taken for a page.
const MAGIC: u64 = u64::from_be_bytes(*b"PGHERDGD");
/// Of page and messages; raised with every change that an older program would misread.
pub(super) const VERSION: u64 = 3;
/// One page of memory.
const SIZE: usize = 4096;
/// Where the path begins; the words before it are room for later versions.
const PATH_AT: usize = 1024;
/// Set in the deadline while the guard kills.
const SEAL: u64 = 1 << 63;

const STOPPED: u64 = 0;
const ENDING: u64 = 1;
const CHILD: u64 = 2;
const ADOPTED: u64 = 3;

#[repr(C)]
struct Words {
    magic: AtomicU64,
    version: AtomicU64,
    boot_high: AtomicU64,
    boot_low: AtomicU64,
    guard_pid: AtomicU64,
    guard_start_time: AtomicU64,
    session: AtomicU64,
    path_len: AtomicU64,
    /// Raised with every daemon that attaches; an earlier daemon's handle is void.
    attachment: AtomicU64,
    daemon_pid: AtomicU64,
    epoch: AtomicU64,
    deadline: AtomicU64,
    ttl: AtomicU64,
    guard_heartbeat: AtomicU64,
    daemon_heartbeat: AtomicU64,
    /// What is in the upper, the pid in the lower half.
    process: AtomicU64,
    postmaster_start_time: AtomicU64,
    exits: AtomicU64,
    /// 0: unknown; else 1 << 32 | status, or 2 << 32 | signal.
    last_exit: AtomicU64,
    kills: AtomicU64,
    kill_deadline: AtomicU64,
    kill_began: AtomicU64,
    kill_finished: AtomicU64,
    watchdog: AtomicU64,
    /// Which configuration of it is in force; zero: none.
    watchdog_config: AtomicU64,
    /// When a postmaster ended which somebody else may have asked to; zero: none did since the last start.
    stopped_by_others: AtomicU64,
}

/// Who made a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// `/proc/sys/kernel/random/boot_id`: another one means that every process named here is dead.
    pub(super) boot: u128,
    /// The guard.
    pub(super) guard_pid: u32,
    /// Its start time in clock ticks (proc(5)), since pids come again.
    pub(super) guard_start_time: u64,
    /// Its random name.
    pub(super) session: Session,
    /// The data directory, canonical.
    pub(super) data_dir: PathBuf,
}

/// Why a deadline was not moved; see [`super::ExtendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmoved {
    NotArmed,
    Sealed,
}

/// A mapping of the page. Both sides use it at the same time.
pub(super) struct Page {
    words: NonNull<Words>,
}

#[expect(unsafe_code, reason = "the mapping is owned by this value and holds nothing but atomics")]
// SAFETY: the pointer is valid from any thread until `drop`, and every access goes through an atomic.
unsafe impl Send for Page {}
#[expect(unsafe_code, reason = "the mapping is owned by this value and holds nothing but atomics")]
// SAFETY: as above.
unsafe impl Sync for Page {}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("session", &self.session()).finish_non_exhaustive()
    }
}

impl Drop for Page {
    #[expect(unsafe_code, reason = "unmaps what `map` mapped")]
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and no reference to the words outlives `self`.
        if let Err(error) = unsafe { munmap(self.words.as_ptr().cast(), SIZE) } {
            tracing::debug!("cannot unmap the guard's page: {error}");
        }
    }
}

/// This machine's boot id.
pub(super) fn boot_id() -> io::Result<u128> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of a 128-bit number")]
fn halves(boot: u128) -> (u64, u64) {
    ((boot >> 64) as u64, boot as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half holds a 32-bit number")]
fn lower(word: u64) -> u32 {
    word as u32
}

fn digest(config: Option<&WatchdogConfig>) -> u64 {
    config.map_or(0, |config| fnv1a(format!("{config:?}").as_bytes()))
}

impl Page {
    /// Makes a new page and gives it its name, in place of an earlier one.
    pub(super) fn create(path: &Path, identity: &Identity) -> io::Result<Self> {
        let aside = path.with_extension("new");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        let data_dir = identity.data_dir.as_os_str().as_bytes();
        if data_dir.len() > SIZE - PATH_AT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the data directory's path is too long"));
        }
        // Memory is taken at once: on a full tmpfs a later first touch would be a SIGBUS.
        fallocate(&file, FallocateFlags::empty(), 0, SIZE as u64)?;
        std::os::unix::fs::FileExt::write_all_at(&file, data_dir, PATH_AT as u64)?;
        let page = Self::map(&file)?;
        let (high, low) = halves(identity.boot);
        let words = page.words();
        for (word, value) in [
            (&words.magic, MAGIC),
            (&words.version, VERSION),
            (&words.boot_high, high),
            (&words.boot_low, low),
            (&words.guard_pid, u64::from(identity.guard_pid)),
            (&words.guard_start_time, identity.guard_start_time),
            (&words.session, identity.session.0),
            (&words.path_len, data_dir.len() as u64),
            (&words.guard_heartbeat, clock::now()),
        ] {
            word.store(value, Ordering::Release);
        }
        fs::rename(&aside, path)?;
        Ok(page)
    }

    /// Maps an existing page; `Ok(None)`: there is none, or it is not a page.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if file.metadata()?.len() < SIZE as u64 {
            return Ok(None);
        }
        let page = Self::map(&file)?;
        Ok((page.words().magic.load(Ordering::Acquire) == MAGIC).then_some(page))
    }

    #[expect(unsafe_code, reason = "shared memory is what page and guard are about")]
    fn map(file: &File) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping of a file of at least SIZE bytes at an address which the kernel chooses; the
        // directory is private to this user, and this program never shortens the file.
        let address = unsafe {
            mmap(std::ptr::null_mut(), SIZE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }?;
        let words = NonNull::new(address.cast::<Words>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { words })
    }

    #[expect(unsafe_code, reason = "the words live in the mapping")]
    fn words(&self) -> &Words {
        // SAFETY: the mapping is page aligned, larger than `Words`, lives as long as `self`, and atomics are valid for
        // every bit pattern.
        unsafe { self.words.as_ref() }
    }

    /// The version which made it.
    pub(super) fn version(&self) -> u64 {
        self.words().version.load(Ordering::Acquire)
    }

    /// The guard's session.
    pub(super) fn session(&self) -> Session {
        Session(self.words().session.load(Ordering::Acquire))
    }

    /// Who made it. The path is read from the file, since it is not made of atomics.
    pub(super) fn identity(&self, path: &Path) -> io::Result<Identity> {
        let words = self.words();
        let bytes = fs::read(path)?;
        let len = usize::try_from(words.path_len.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        let end = PATH_AT.saturating_add(len);
        let data_dir = bytes.get(PATH_AT..end).ok_or(io::ErrorKind::InvalidData)?;
        let high = u128::from(words.boot_high.load(Ordering::Acquire));
        let low = u128::from(words.boot_low.load(Ordering::Acquire));
        Ok(Identity {
            boot: high << 64 | low,
            guard_pid: lower(words.guard_pid.load(Ordering::Acquire)),
            guard_start_time: words.guard_start_time.load(Ordering::Acquire),
            session: self.session(),
            data_dir: PathBuf::from(std::ffi::OsString::from_vec(data_dir.to_vec())),
        })
    }

    // The deadline.

    /// The word itself, for a compare-and-swap.
    pub(super) fn deadline_word(&self) -> u64 {
        self.words().deadline.load(Ordering::Acquire)
    }

    /// The deadline and whether it is sealed; `None`: disarmed.
    pub(super) fn deadline(&self) -> Option<(Nanos, bool)> {
        match self.deadline_word() {
            0 => None,
            word => Some((word & !SEAL, word & SEAL != 0)),
        }
    }

    /// The epoch for which the guard was last armed.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.words().epoch.load(Ordering::Acquire))
    }

    /// The ttl with which it was last armed.
    pub(super) fn ttl(&self) -> Nanos {
        self.words().ttl.load(Ordering::Acquire)
    }

    /// Guard only. The deadline comes last: whoever reads it has read the epoch which belongs to it.
    pub(super) fn arm(&self, epoch: Epoch, deadline: Nanos, ttl: Nanos) {
        let words = self.words();
        words.ttl.store(ttl, Ordering::Release);
        words.epoch.store(epoch.0, Ordering::Release);
        words.deadline.store(deadline & !SEAL, Ordering::Release);
    }

    /// Guard only.
    pub(super) fn disarm(&self) {
        self.words().deadline.store(0, Ordering::Release);
    }

    /// Guard only: nobody moves this deadline any more. False: somebody has just moved it.
    pub(super) fn seal(&self, deadline: Nanos) -> bool {
        let word = &self.words().deadline;
        word.compare_exchange(deadline, deadline | SEAL, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Guard only: puts back the last deadline that was acceptable. False: somebody has just moved it.
    pub(super) fn put_back(&self, refused: Nanos, accepted: Nanos) -> bool {
        let word = &self.words().deadline;
        word.compare_exchange(refused, accepted, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Daemon only: moves the deadline of this epoch, never backwards.
    pub(super) fn extend(&self, epoch: Epoch, deadline: Nanos) -> Result<(), Unmoved> {
        let word = &self.words().deadline;
        let mut seen = word.load(Ordering::Acquire);
        loop {
            if seen & SEAL != 0 {
                return Err(Unmoved::Sealed);
            }
            // Read after the deadline: `arm` stores them the other way round.
            if seen == 0 || self.epoch() != epoch {
                return Err(Unmoved::NotArmed);
            }
            if seen >= deadline {
                return Ok(());
            }
            match word.compare_exchange_weak(seen, deadline, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    // Who lives.

    /// Guard only: it lives.
    pub(super) fn beat(&self, now: Nanos) {
        self.words().guard_heartbeat.store(now, Ordering::Release);
    }

    /// When the guard was last seen alive.
    pub(super) fn heartbeat(&self) -> Nanos {
        self.words().guard_heartbeat.load(Ordering::Acquire)
    }

    /// PostgreSQL runs so long after the deadline, and nothing is being done about it: the guard is stopped.
    pub(super) fn is_overdue(&self, now: Nanos, by: Nanos) -> bool {
        let is_over = self.deadline().is_some_and(|(deadline, _)| now > deadline.saturating_add(by));
        let is_killing = self.last_kill().is_some_and(|kill| kill.finished.is_none());
        is_over && !is_killing && matches!(self.process(), Process::Running { .. })
    }

    /// Daemon only: it lives.
    pub(super) fn daemon_beat(&self, now: Nanos) {
        self.words().daemon_heartbeat.store(now, Ordering::Release);
    }

    /// When the daemon last showed life.
    pub(super) fn daemon_heartbeat(&self) -> Nanos {
        self.words().daemon_heartbeat.load(Ordering::Acquire)
    }

    /// Guard only: a daemon attaches; its number.
    pub(super) fn attach(&self, daemon: u32) -> u64 {
        self.words().daemon_pid.store(u64::from(daemon), Ordering::Release);
        self.words().attachment.fetch_add(1, Ordering::AcqRel).saturating_add(1)
    }

    /// The number of the daemon in charge.
    pub(super) fn attachment(&self) -> u64 {
        self.words().attachment.load(Ordering::Acquire)
    }

    // The watchdog.

    /// Guard only.
    pub(super) fn set_watchdog(&self, state: WatchdogState, config: Option<&WatchdogConfig>) {
        let word = match state {
            WatchdogState::Off => 0,
            WatchdogState::Active => 1,
            WatchdogState::Failed => 2,
        };
        self.words().watchdog.store(word, Ordering::Release);
        self.words().watchdog_config.store(digest(config), Ordering::Release);
    }

    /// The watchdog's state.
    pub(super) fn watchdog(&self) -> WatchdogState {
        match self.words().watchdog.load(Ordering::Acquire) {
            0 => WatchdogState::Off,
            1 => WatchdogState::Active,
            _ => WatchdogState::Failed,
        }
    }

    /// Is this configuration of the watchdog in force?
    pub(super) fn is_watched_by(&self, config: Option<&WatchdogConfig>) -> bool {
        self.words().watchdog_config.load(Ordering::Acquire) == digest(config)
    }

    // The postmaster.

    /// Guard only.
    pub(super) fn set_process(&self, process: &Process, start_time: u64) {
        let word = match process {
            Process::Stopped => STOPPED << 32,
            Process::Ending => ENDING << 32,
            Process::Running { pid, is_child: true } => CHILD << 32 | u64::from(*pid),
            Process::Running { pid, is_child: false } => ADOPTED << 32 | u64::from(*pid),
        };
        self.words().postmaster_start_time.store(start_time, Ordering::Release);
        self.words().process.store(word, Ordering::Release);
    }

    /// The postmaster as the guard last saw it.
    pub(super) fn process(&self) -> Process {
        let word = self.words().process.load(Ordering::Acquire);
        match word >> 32 {
            CHILD => Process::Running { pid: lower(word), is_child: true },
            ADOPTED => Process::Running { pid: lower(word), is_child: false },
            STOPPED => Process::Stopped,
            _ => Process::Ending,
        }
    }

    /// The postmaster's start time in clock ticks.
    pub(super) fn postmaster_start_time(&self) -> u64 {
        self.words().postmaster_start_time.load(Ordering::Acquire)
    }

    /// Guard only: a postmaster ended.
    pub(super) fn record_exit(&self, exit: PostmasterExit) {
        let number = |value: i32| u64::from(u32::try_from(value).unwrap_or(u32::MAX));
        let word = match exit {
            PostmasterExit::NotKnown => 0,
            PostmasterExit::Exited(status) => 1 << 32 | number(status),
            PostmasterExit::Signalled(signal) => 2 << 32 | number(signal),
        };
        self.words().last_exit.store(word, Ordering::Release);
        self.words().exits.fetch_add(1, Ordering::AcqRel);
    }

    /// Guard only: when a postmaster obeyed somebody else, as it seems; none: the last one did not, or one was started.
    pub(super) fn record_stopped_by_others(&self, at: Option<Nanos>) {
        self.words().stopped_by_others.store(at.unwrap_or_default(), Ordering::Release);
    }

    /// When the last postmaster ended, if somebody else may have asked it to.
    pub(super) fn stopped_by_others(&self) -> Option<StoppedByOthers> {
        let at = Some(self.words().stopped_by_others.load(Ordering::Acquire)).filter(|at| *at > 0)?;
        let is_certain = self.exits().1 == Some(PostmasterExit::Exited(0));
        Some(StoppedByOthers { at: to_boot_time(at), is_certain })
    }

    /// How many postmasters ended, and how the last one did.
    pub(super) fn exits(&self) -> (u64, Option<PostmasterExit>) {
        let count = self.words().exits.load(Ordering::Acquire);
        let word = self.words().last_exit.load(Ordering::Acquire);
        let number = i32::try_from(lower(word)).unwrap_or(i32::MAX);
        let exit = match word >> 32 {
            1 => PostmasterExit::Exited(number),
            2 => PostmasterExit::Signalled(number),
            _ => PostmasterExit::NotKnown,
        };
        (count, (count > 0).then_some(exit))
    }

    /// Guard only: a kill begins, for this deadline (zero: ordered).
    pub(super) fn record_kill(&self, deadline: Nanos, began: Nanos) {
        let words = self.words();
        words.kill_finished.store(0, Ordering::Release);
        words.kill_deadline.store(deadline, Ordering::Release);
        words.kill_began.store(began, Ordering::Release);
        words.kills.fetch_add(1, Ordering::AcqRel);
    }

    /// Guard only: nothing is left.
    pub(super) fn record_killed(&self, finished: Nanos) {
        self.words().kill_finished.store(finished, Ordering::Release);
    }

    /// The last kill.
    pub(super) fn last_kill(&self) -> Option<Kill> {
        let words = self.words();
        let count = words.kills.load(Ordering::Acquire);
        let time = |word: &AtomicU64| match word.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(to_boot_time(nanos)),
        };
        Some(Kill {
            count: (count > 0).then_some(count)?,
            deadline: time(&words.kill_deadline),
            began: time(&words.kill_began)?,
            finished: time(&words.kill_finished),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::guard) fn page(directory: &Path) -> (PathBuf, Page, Identity) {
        let identity = Identity {
            boot: boot_id().expect("boot id"),
            guard_pid: 42,
            guard_start_time: 4711,
            session: Session(7),
            data_dir: PathBuf::from("/data/pg"),
        };
        let path = directory.join("x.page");
        let page = Page::create(&path, &identity).expect("a page");
        (path, page, identity)
    }

    #[test]
    fn both_sides_see_the_same_page() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (path, guard, identity) = page(temp.path());
        let daemon = Page::open(&path).expect("open").expect("a page");
        assert_eq!(daemon.identity(&path).expect("identity"), identity);
        for process in [
            Process::Running { pid: 99, is_child: true },
            Process::Running { pid: u32::MAX, is_child: false },
            Process::Ending,
            Process::Stopped,
        ] {
            guard.set_process(&process, 3);
            assert_eq!(daemon.process(), process);
        }
        assert_eq!(daemon.exits(), (0, None));
        guard.record_exit(PostmasterExit::Signalled(9));
        assert_eq!(daemon.exits(), (1, Some(PostmasterExit::Signalled(9))));
        assert_eq!(daemon.stopped_by_others(), None);
        guard.record_stopped_by_others(Some(7));
        let ended = StoppedByOthers { at: to_boot_time(7), is_certain: false };
        assert_eq!(daemon.stopped_by_others(), Some(ended));
        guard.record_stopped_by_others(None);
        assert_eq!(daemon.stopped_by_others(), None);
        assert_eq!(daemon.last_kill(), None);
        guard.record_kill(0, 5);
        let kill = daemon.last_kill().expect("a kill");
        assert_eq!((kill.count, kill.deadline, kill.finished), (1, None, None));
    }

    #[test]
    fn a_foreign_or_short_file_is_no_page() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let path = temp.path().join("x.page");
        assert!(Page::open(&path).expect("open").is_none());
        fs::write(&path, "short").expect("write");
        assert!(Page::open(&path).expect("open").is_none());
        fs::write(&path, vec![0; SIZE]).expect("write");
        assert!(Page::open(&path).expect("open").is_none());
    }

    #[test]
    fn a_deadline_moves_only_forward_only_for_its_epoch_and_not_once_sealed() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        assert_eq!(page.extend(Epoch(1), 100), Err(Unmoved::NotArmed));
        page.arm(Epoch(1), 100, 50);
        assert_eq!(page.extend(Epoch(2), 120), Err(Unmoved::NotArmed));
        assert_eq!(page.extend(Epoch(1), 120), Ok(()));
        assert_eq!(page.extend(Epoch(1), 110), Ok(()));
        assert_eq!(page.deadline(), Some((120, false)));
        assert!(!page.seal(100), "it was moved");
        assert!(page.seal(120));
        assert_eq!(page.extend(Epoch(1), 130), Err(Unmoved::Sealed));
        assert_eq!(page.deadline(), Some((120, true)));
        page.arm(Epoch(1), 200, 50);
        assert_eq!(page.extend(Epoch(1), 230), Ok(()));
        page.disarm();
        assert_eq!(page.extend(Epoch(1), 240), Err(Unmoved::NotArmed));
        assert_eq!(page.deadline(), None);
    }
}
