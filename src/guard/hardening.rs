//! What the guard asks of the system so that it runs when nothing else does. A refusal is a warning, not an end.

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

/// Real-time priority, locked memory, protection from the OOM killer; one sentence for all that was refused.
pub(super) fn protect() -> Option<String> {
    let real_time = real_time();
    if real_time.is_err() {
        // The next best; refused as well where the other was, most often.
        setpriority_process(None, -20).ok();
    }
    let memory = lock_memory();
    let oom = fs::write("/proc/self/oom_score_adj", "-1000");
    missing(&[
        ("real-time priority", real_time.err(), "LimitRTPRIO=1"),
        ("locked memory", memory.err(), "LimitMEMLOCK=infinity"),
        ("protection from the OOM killer", oom.err(), "OOMScoreAdjust=-1000 (or CAP_SYS_RESOURCE)"),
    ])
}

fn missing(parts: &[(&str, Option<io::Error>, &str)]) -> Option<String> {
    let refused = || parts.iter().filter_map(|(what, error, cure)| Some((what, error.as_ref()?, cure)));
    let what: Vec<String> = refused().map(|(what, error, _)| format!("{what} ({error})")).collect();
    let cures: Vec<String> = refused().map(|(.., cure)| (*cure).to_owned()).collect();
    (!what.is_empty()).then(|| {
        format!(
            "it runs without {}: a starved machine can delay it; allow it in the service with {}",
            what.join(", "),
            cures.join(", ")
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sentence_names_all_that_is_missing_and_the_cures() {
        let refused = || Some(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(missing(&[("a", None, "A=1"), ("b", None, "B=1")]), None);
        let sentence = missing(&[("a", refused(), "A=1"), ("b", None, "B=1"), ("c", refused(), "C=1")]);
        assert_eq!(
            sentence.as_deref(),
            Some(
                "it runs without a (Operation not permitted (os error 1)), c (Operation not permitted (os error 1)): a \
                 starved machine can delay it; allow it in the service with A=1, C=1"
            )
        );
    }
}
