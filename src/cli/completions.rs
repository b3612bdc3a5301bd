//! Completions for shells and manual pages, made from the definition of the command line.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Failure;
use super::arguments::Arguments;
use super::output::Output;

/// Prints the script for a shell.
pub(super) fn script(output: &mut Output, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "pgherdctl", &mut script);
    let script = String::from_utf8(script)
        .map_err(|source| Failure::because(format!("the script is no text: {source}")))?;
    output.say(script.trim_end());
    Ok(())
}

/// Writes `pgherdctl.1` and a page a command into a directory.
pub(super) fn manual(output: &mut Output, directory: &Path) -> Result<(), Failure> {
    let command = Arguments::command().version(env!("CARGO_PKG_VERSION"));
    clap_mangen::generate_to(command, directory).map_err(|source| {
        Failure::because(format!("cannot write manual pages into {}: {source}", directory.display()))
    })?;
    output.say(&format!("The manual pages are in {}", directory.display()));
    Ok(())
}
