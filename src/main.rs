//! `pgherd`: the daemon, and the hidden guard process which it starts.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "guard") {
        return pgherd::guard::run(args);
    }
    ExitCode::FAILURE
}
