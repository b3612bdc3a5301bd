//! Starting the postmaster as a child of the guard, and finding one that is not.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, Signal, getppid, getpriority_process, set_parent_process_death_signal, setpriority_process, setsid,
};

use super::hardening;
use super::message::StartRequest;
use super::procfs::{self, Exact, Stat};

/// A running postmaster.
#[derive(Debug)]
pub(super) struct Postmaster {
    /// The process.
    pub(super) process: Exact,
    /// The guard is its parent: it is reaped here, and it has a death signal.
    pub(super) is_child: bool,
}

/// Starts the postmaster: own session, SIGQUIT when the guard dies, ordinary priority, default signals.
pub(super) fn start(request: &StartRequest, oom_score_adj: &str) -> io::Result<Postmaster> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&request.log_file)?;
    let mut command = Command::new(&request.program);
    command
        .args(&request.args)
        .env_clear()
        .envs(&request.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    prepare_child(&mut command, oom_score_adj.to_owned());
    let child = command.spawn()?;
    let start_time = procfs::stat(child.id()).map(|stat| stat.start_time).unwrap_or_default();
    // A child cannot vanish before it is reaped, so this fails only when it has ended already.
    let process = Exact::hold(child.id(), start_time)
        .ok_or_else(|| io::Error::other("the postmaster ended at once; see its log file"))?;
    Ok(Postmaster { process, is_child: true })
}

#[expect(unsafe_code, reason = "pre_exec: the death signal must be asked for by the child itself")]
fn prepare_child(command: &mut Command, oom_score_adj: String) {
    let guard = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or_default());
    let prepare = move || {
        setsid()?;
        hardening::restore_signals();
        set_parent_process_death_signal(Some(Signal::QUIT))?;
        // The guard may have died before the death signal was set.
        if getppid() != guard {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Allowed in this direction; what is refused leaves the child as its parent was.
        if getpriority_process(None).is_ok_and(|nice| nice < 0) {
            setpriority_process(None, 0).ok();
        }
        write_oom_score_adj(oom_score_adj.as_bytes());
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

/// Gives the child the value which the guard had before it protected itself.
fn write_oom_score_adj(value: &[u8]) {
    use rustix::fs::{Mode, OFlags, open};
    if let Ok(file) = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        rustix::io::write(&file, value).ok();
    }
}

/// The postmaster among the servers of the data directory, if one runs: the one named by `postmaster.pid`, or, when
/// somebody removed that file, the one that is no child of another. Its command line must be a postmaster's.
pub(super) fn find(servers: &[Stat], data_dir: &Path) -> Option<Postmaster> {
    // Looked for only while no postmaster is known: waiting for a slow disk does no harm then.
    let named: Option<u32> = fs::read_to_string(data_dir.join("postmaster.pid"))
        .ok()
        .and_then(|text| text.lines().next()?.trim().parse().ok());
    let is_child = |server: &Stat| servers.iter().any(|other| other.pid == server.parent);
    let mut candidates: Vec<&Stat> =
        servers.iter().filter(|one| !is_child(one) && procfs::is_postmaster(one.pid)).collect();
    candidates.sort_by_key(|one| Some(one.pid) != named);
    let found = candidates.first()?;
    let process = Exact::hold(found.pid, found.start_time)?;
    Some(Postmaster { process, is_child: false })
}
