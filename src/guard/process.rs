//! The guard process.

use std::ffi::OsString;
use std::process::ExitCode;

/// The main function of `pgherd guard`: `args` are the arguments after `guard`.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    drop(args);
    ExitCode::FAILURE
}
