//! Which processes belong to a data directory, read from /proc.
//!
//! Nothing here waits for a disk: links are compared as text (`d_path`, no `stat` through the link), and a command
//! line, whose reading can wait for the other process's memory, is read only to recognise a postmaster or a guard.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The most bytes of a command line which are looked at; the flags that matter come first.
const CMDLINE_LIMIT: u64 = 4096;
/// How PostgreSQL's program is called; the second is EDB's.
const PROGRAMS: [&str; 2] = ["postgres", "edb-postgres"];
/// What the kernel appends to the link of a file that was removed or replaced.
const DELETED: &[u8] = b" (deleted)";

/// The first lines of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The process.
    pub(super) pid: u32,
    /// Its parent.
    pub(super) parent: u32,
    /// The state's letter; see [`Stat::is_alive`].
    state: u8,
    /// When it started, in clock ticks: with the pid, this names one process of one boot.
    pub(super) start_time: u64,
}

impl Stat {
    /// A zombie has ended: it runs no more code and holds no file.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The `stat` of a process; `None`: there is none, or it cannot be read.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    try_stat(pid).ok().flatten()
}

/// The `stat` of a process; `None`: there is surely none. Not to be able to look is an error: whoever asks whether
/// anything is left must not take it for a no.
fn try_stat(pid: u32) -> io::Result<Option<Stat>> {
    let mut text = [0_u8; 1024];
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut text));
    match read {
        Ok(len) => {
            let parsed = text.get(..len).and_then(|text| parse_stat(pid, text));
            parsed.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The second field, the program's name, may hold spaces and parentheses; everything after its last `)` is plain.
fn parse_stat(pid: u32, text: &[u8]) -> Option<Stat> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(close.checked_add(2)?..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22 of proc(5); the state is field 3.
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { pid, parent, state, start_time })
}

/// One exact process, which no other can be taken for.
pub(super) struct Exact {
    /// Its id.
    pub(super) pid: u32,
    /// Its start time.
    pub(super) start_time: u64,
    /// Readable once it has ended.
    pub(super) pidfd: OwnedFd,
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start_time)
    }
}

impl Exact {
    /// Takes hold of a process, if it still is the one with this start time and has not ended.
    pub(super) fn hold(pid: u32, start_time: u64) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        // Looked at after the pidfd was opened: the number cannot have changed hands in between unnoticed.
        stat(pid).filter(|seen| seen.start_time == start_time && seen.is_alive())?;
        Some(Self { pid, start_time, pidfd })
    }

    /// Sends a signal; a process which has ended is no error.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }
}

/// The processes of a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    /// Processes of `postgres` in the data directory: they can write.
    pub(super) servers: Vec<Stat>,
    /// What else descends from the postmaster: `archive_command`, for example.
    pub(super) others: Vec<Stat>,
}

impl Family {
    /// Every process.
    pub(super) fn all(&self) -> impl Iterator<Item = &Stat> {
        self.servers.iter().chain(&self.others)
    }

    /// The pids, for a sentence.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.all().map(|stat| stat.pid).collect();
        pids.sort_unstable();
        pids
    }
}

/// How to recognise the processes of a data directory.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The paths by which the data directory is known: a directory that was renamed shows its new one.
    pub(super) data_dirs: Vec<PathBuf>,
    /// This process: the children of the guard came from the postmaster.
    pub(super) guard: u32,
}

impl Look {
    /// Finds every living process of the data directory. `postmaster` belongs to it, whatever it is called.
    pub(super) fn family(&self, postmaster: Option<(u32, u64)>) -> io::Result<Family> {
        let mut living = Vec::new();
        for pid in pids()? {
            living.extend(try_stat(pid)?.filter(Stat::is_alive));
        }
        let (mut found, mut rest): (Vec<Stat>, Vec<Stat>) = living.into_iter().partition(|stat| {
            stat.pid != self.guard
                && (postmaster == Some((stat.pid, stat.start_time)) || self.is_server(stat.pid))
        });
        let servers = found.clone();
        let mut others = Vec::new();
        rest.retain(|stat| stat.pid != self.guard && stat.pid != 1);
        loop {
            let is_member =
                |stat: &Stat| stat.parent == self.guard || found.iter().any(|one| one.pid == stat.parent);
            let (more, left): (Vec<Stat>, Vec<Stat>) = rest.into_iter().partition(is_member);
            if more.is_empty() {
                return Ok(Family { servers, others });
            }
            others.extend(&more);
            found.extend(more);
            rest = left;
        }
    }

    /// Finds the living servers of the data directory, cheaply: for the looks while nothing runs.
    pub(super) fn servers(&self) -> io::Result<Vec<Stat>> {
        let mut servers = Vec::new();
        for pid in pids()?.into_iter().filter(|pid| self.is_server(*pid)) {
            servers.extend(try_stat(pid)?.filter(Stat::is_alive));
        }
        Ok(servers)
    }

    /// The process runs `postgres` and its working directory is the data directory.
    fn is_server(&self, pid: u32) -> bool {
        let Some(program) = link(pid, "exe") else { return false };
        program.file_name().is_some_and(is_program)
            && link(pid, "cwd").is_some_and(|cwd| self.data_dirs.contains(&cwd))
    }
}

/// Is this server a postmaster? A standalone one (`--single`, as pg_rewind and initdb run it, or `-C`) is not, and a
/// child has given itself a title.
pub(super) fn is_postmaster(pid: u32) -> bool {
    let args = command_line(pid);
    let Some((program, rest)) = args.split_first() else { return false };
    let is_named = Path::new(OsStr::from_bytes(program))
        .file_name()
        .is_some_and(|name| is_program(name) || name == OsStr::new("postmaster"));
    is_named && !is_standalone(rest)
}

/// Is this server one that runs without a postmaster, for example for pg_rewind?
pub(super) fn is_standalone_server(pid: u32) -> bool {
    command_line(pid).split_first().is_some_and(|(_, rest)| is_standalone(rest))
}

fn is_program(name: &OsStr) -> bool {
    PROGRAMS.iter().any(|program| name == OsStr::new(program))
}

fn is_standalone(args: &[Vec<u8>]) -> bool {
    let special: [&[u8]; 4] = [b"--single", b"--boot", b"--check", b"--describe-config"];
    args.first().is_some_and(|first| special.contains(&first.as_slice()))
        || args.iter().any(|arg| arg.as_slice() == b"-C")
}

/// The arguments of a process, the program first; empty when it cannot be read.
pub(super) fn command_line(pid: u32) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(CMDLINE_LIMIT).read_to_end(&mut text));
    if read.is_err() || text.is_empty() {
        return Vec::new();
    }
    text.strip_suffix(b"\0").unwrap_or(&text).split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Every process of this PID namespace.
pub(super) fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// The target of a link in `/proc/PID`, without the mark of a removed file.
pub(super) fn link(pid: u32, name: &str) -> Option<PathBuf> {
    let target = fs::read_link(format!("/proc/{pid}/{name}")).ok()?;
    let bytes = target.as_os_str().as_bytes();
    Some(PathBuf::from(OsStr::from_bytes(bytes.strip_suffix(DELETED).unwrap_or(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_confuse() {
        let line = b"4711 (a) (b c)) S 1 4711 4711 0 -1 4194304 0 0 0 0 1 2 0 0 20 0 1 0 987654 1 2 3";
        let seen = parse_stat(4711, line).expect("parsed");
        assert_eq!(seen, Stat { pid: 4711, parent: 1, state: b'S', start_time: 987_654 });
        assert!(seen.is_alive());
        assert_eq!(parse_stat(1, b"1 (x"), None);
        assert_eq!(parse_stat(1, b"1 (x)"), None);
        let zombie = parse_stat(1, b"1 (x) Z 1 4711 4711 0 -1 4194304 0 0 0 0 1 2 0 0 20 0 1 0 9 1 2 3");
        assert!(!zombie.expect("parsed").is_alive());
    }

    #[test]
    fn an_exact_process_is_not_held_under_a_wrong_start_time() {
        let me = stat(std::process::id()).expect("this process");
        assert!(Exact::hold(me.pid, me.start_time).is_some());
        assert!(Exact::hold(me.pid, me.start_time + 1).is_none());
        assert!(Exact::hold(0, 0).is_none());
    }

    #[test]
    fn a_zombie_is_not_held() {
        let mut child = std::process::Command::new("true").spawn().expect("true(1)");
        let seen = stat(child.id()).expect("a child that was not waited for");
        while stat(child.id()).is_some_and(|stat| stat.is_alive()) {
            std::thread::yield_now();
        }
        assert!(Exact::hold(seen.pid, seen.start_time).is_none());
        child.wait().expect("reaped");
    }

    #[test]
    fn standalone_servers_are_no_postmasters() {
        let args = |text: &str| text.split(' ').map(|arg| arg.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(is_standalone(&args("--single -F -D x template1")));
        assert!(is_standalone(&args("-D x -C data_checksums")));
        assert!(!is_standalone(&args("-D x -c port=1")));
        assert!(!command_line(std::process::id()).is_empty());
    }
}
