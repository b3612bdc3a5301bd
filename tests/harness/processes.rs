//! The processes of a node, found in /proc: the daemon, its guard, the postmaster and all its children.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

/// Programs that a node runs, or that a node's programs run.
const PROGRAMS: &[&str] =
    &["pgherd", "pgherd-witness", "postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_ctl"];

/// A process that belongs to a node.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) pid: i32,
    /// The file name of its executable.
    pub(crate) program: String,
    pub(crate) command: String,
}

/// All living processes of the node with this directory: those which work inside it, as PostgreSQL's do whatever
/// title they show, and our programs which were told a path inside it, as the guard. Zombies show neither and count as
/// gone.
pub(crate) fn of_node(directory: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let place = entry.path();
        let program = fs::read_link(place.join("exe")).unwrap_or_default();
        let program = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !PROGRAMS.contains(&program) {
            continue;
        }
        let raw = fs::read(place.join("cmdline")).unwrap_or_default();
        let is_inside = fs::read_link(place.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        let mut arguments =
            raw.split(|byte| *byte == 0).map(|argument| Path::new(OsStr::from_bytes(argument)));
        if is_inside || arguments.any(|argument| argument.starts_with(directory)) {
            let command = String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned();
            found.push(Found { pid, program: program.to_owned(), command });
        }
    }
    found
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The state letter of a process in /proc; none: it is gone.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// SIGSTOP to everything of a node, until nothing is left that is not stopped.
pub(crate) fn freeze_all(directory: &Path) -> Result<Vec<i32>> {
    loop {
        let all = of_node(directory);
        let moving: Vec<_> = all.iter().filter(|process| state(process.pid) != Some('T')).collect();
        if moving.is_empty() {
            return Ok(all.iter().map(|process| process.pid).collect());
        }
        for process in moving {
            signal(process.pid, Signal::STOP)?;
        }
    }
}

/// SIGCONT to everything of a node, PostgreSQL first.
pub(crate) fn thaw_all(directory: &Path) -> Result<()> {
    let mut all = of_node(directory);
    all.sort_by_key(|process| process.program != "postgres");
    for process in all {
        signal(process.pid, Signal::CONT)?;
    }
    Ok(())
}

/// SIGKILL to everything of a node, as when the machine dies: all are stopped first, so that none can answer the end
/// of another.
pub(crate) fn kill_all(directory: &Path) -> Result<()> {
    for process in of_node(directory) {
        signal(process.pid, Signal::STOP)?;
    }
    // Those which were started meanwhile are found by the next look.
    loop {
        let processes = of_node(directory);
        if processes.is_empty() {
            return Ok(());
        }
        for process in processes {
            signal(process.pid, Signal::KILL)?;
        }
    }
}
