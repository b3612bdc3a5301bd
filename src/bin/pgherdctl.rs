//! `pgherdctl`: the operator's tool. Everything is in `pgherd::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgherd::cli::run(std::env::args_os())
}
