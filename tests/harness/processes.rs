//! The processes of a node, found in /proc: the daemon, its guard, the postmaster and all its children.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

/// Set in the environment of everything that a node starts.
pub(crate) const MARK: &str = "PGHERD_TEST_NODE";

/// A process that belongs to a node.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

/// All living processes of the node with this directory. PostgreSQL's overwrite their environment with the process
/// title, so they are known by their working directory, the data directory. Zombies show neither and count as gone.
pub(crate) fn of_node(directory: &Path) -> Vec<Found> {
    let mark = format!("{MARK}={}", directory.display());
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let place = entry.path();
        let is_inside = fs::read_link(place.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        let is_marked = || {
            let environment = fs::read(place.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        if is_inside || is_marked() {
            let raw = fs::read(place.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned();
            if !command.is_empty() {
                found.push(Found { pid, command });
            }
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
