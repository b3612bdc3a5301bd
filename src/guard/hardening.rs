//! What the guard asks of the system so that it runs when nothing else does. Each refusal is a warning, not an end.

use std::fs;
use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

/// The lowest real-time priority is above every ordinary process.
const PRIORITY: i32 = 1;

/// Closes every descriptor but the first three: what the daemon forgot to mark must not stay open with the guard.
#[expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]
pub(super) fn close_inherited() {
    // SAFETY: called first in `run`, before this process has opened anything that a value owns.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

/// Ignores the signals of a closing terminal and of a clean shutdown: PostgreSQL is stopped by its daemon or by the
/// deadline, never because somebody signalled a process group.
pub(super) fn ignore_signals() {
    set_signals(libc::SIG_IGN);
}

/// Undoes [`ignore_signals`] in a child; async-signal-safe.
pub(super) fn restore_signals() {
    set_signals(libc::SIG_DFL);
}

#[expect(unsafe_code, reason = "signal(2) has no safe wrapper")]
fn set_signals(disposition: libc::sighandler_t) {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: no handler is installed, only "ignore" or "default".
        let _ = unsafe { libc::signal(signal, disposition) };
    }
}

/// Real-time priority, locked memory, protection from the OOM killer; a sentence for each that was refused.
pub(super) fn protect() -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(error) = real_time() {
        // The next best; refused as well where the other was, most often.
        setpriority_process(None, -20).ok();
        warnings.push(format!(
            "the guard runs without real-time priority ({error}): allow it with LimitRTPRIO=1 or CAP_SYS_NICE"
        ));
    }
    if let Err(error) = lock_memory() {
        warnings.push(format!(
            "the guard's memory is not locked ({error}): allow it with LimitMEMLOCK=infinity or CAP_IPC_LOCK"
        ));
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        warnings.push(format!(
            "the guard is not protected from the OOM killer ({error}): allow it with OOMScoreAdjust=-1000 or \
             CAP_SYS_RESOURCE"
        ));
    }
    warnings
}

/// The children (the postmaster) must not inherit it: hence RESET_ON_FORK.
#[expect(unsafe_code, reason = "sched_setscheduler(2) has no safe wrapper")]
fn real_time() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameter outlives the call; 0 means this thread.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Pages are locked as they are touched: the whole program need not be in memory, and what the guard does at the
/// deadline it has rehearsed at its start.
fn lock_memory() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Memlock);
    if current != maximum {
        setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum })?;
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}
