//! How a process whose store was put back begins anew: it becomes a fresh run of itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The end of a run whose process shall begin anew; the reason was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this program could not start again by itself; start it")]
pub struct StartAgain;

impl StartAgain {
    /// Lets this program run anew in the same process, with the same arguments and environment: whoever watches over
    /// it sees no end. Everything should be closed before. Returns only if that was not possible, with the reason.
    #[must_use]
    pub fn exec() -> io::Error {
        crate::telemetry::finish();
        match std::env::current_exe() {
            Ok(exe) => Command::new(exe).args(std::env::args_os().skip(1)).exec(),
            Err(error) => error,
        }
    }
}
