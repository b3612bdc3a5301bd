//! `pgherdctl`: the operator's tool, with patronictl's arguments, prompts, tables and messages.
//!
//! A client of the REST API and, for the agreed state, of the peers' port: it reads what members know and asks members
//! to act; it decides nothing itself. `arguments` defines the command line; a file a command holds what it does; only
//! `output` prints.

mod arguments;
mod client;
mod cluster;
mod completions;
mod config;
mod dcs;
mod diff;
mod dsn;
mod edit_config;
mod editor;
mod flush;
mod history;
mod interrupt;
mod keys;
mod list;
mod moment;
mod output;
mod pause;
mod query;
mod reinit;
mod reload;
mod remove;
mod restart;
mod select;
mod settings;
mod show_config;
mod succeed;
mod table;
mod topology;
mod version;
mod watch;
mod what_if;
mod why;
mod wrap;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, DcsCommand, VersionArguments};
use client::Client;
use config::Sources;
use output::Output;

use crate::tls::Checks;

/// Runs the tool with the arguments of the process, the program's name first.
///
/// The status is 0 for success, 1 for what could not be done, 2 for a wrong command line, and 3 for what nobody can tell
/// (`dcs get`).
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut output = Output::new();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&mut output, &error),
    };
    let terminal = output.terminal();
    interrupt::run_abortable(&terminal, move || carry_out(&mut output, &arguments))
}

fn carry_out(output: &mut Output, arguments: &Arguments) -> ExitCode {
    let done = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(perform(output, arguments)),
        Err(source) => Err(Failure::Error(anyhow::anyhow!("cannot start: {source}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Aborted) => {
            output.complain("Aborted!");
            ExitCode::FAILURE
        }
        Err(Failure::Error(error)) => {
            output.complain(&format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
        Err(Failure::Usage(why)) => {
            output.complain(&format!("Error: {why}"));
            ExitCode::from(USAGE)
        }
        Err(Failure::Untold(why)) => {
            output.complain(&format!("Error: {why}"));
            ExitCode::from(UNTOLD)
        }
    }
}

/// A wrong command line.
const USAGE: u8 = 2;
/// Nobody can tell: neither that there is something nor that there is nothing.
const UNTOLD: u8 = 3;

/// Help goes to standard output with status 0, mistakes to standard error with status 2.
fn usage(output: &mut Output, error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() {
        output.complain(text.trim_end());
        return ExitCode::from(USAGE);
    }
    output.say(text.trim_end());
    ExitCode::SUCCESS
}

async fn perform(output: &mut Output, arguments: &Arguments) -> Result<(), Failure> {
    if let Command::Version(VersionArguments { scope: None, .. }) = &arguments.command {
        version::own(output);
        return Ok(());
    }
    if let Command::Completions(options) = &arguments.command {
        return completions::script(output, options.shell);
    }
    if let Command::Man(options) = &arguments.command {
        return completions::manual(output, &options.directory);
    }
    let common = &arguments.common;
    if let Some(group) = common.group {
        output.complain(&format!("Warning: --group {group} has no effect: there are no Citus groups"));
    }
    let mut sources = Sources::read(common.config_file.as_deref(), common.dcs_url.as_deref())?;
    if common.insecure {
        sources.tls.checks = Checks::Nothing;
    }
    let client = Client::new(sources.credentials(), sources.tls.clone(), sources.is_tls_expected);
    let tool = Tool { output, sources: &sources, client: &client };
    tool.perform(&arguments.command).await
}

/// What every command works with.
struct Tool<'a> {
    output: &'a mut Output,
    sources: &'a Sources,
    client: &'a Client,
}

impl Tool<'_> {
    async fn perform(self, command: &Command) -> Result<(), Failure> {
        let Self { output, sources, client } = self;
        match command {
            Command::List(options) => list::run(output, sources, client, options).await,
            Command::Topology(options) => topology::run(output, sources, client, options).await,
            Command::Switchover(options) => succeed::switchover(output, sources, client, options).await,
            Command::Failover(options) => succeed::failover(output, sources, client, options).await,
            Command::Pause(options) => pause::run(output, sources, client, options, true).await,
            Command::Resume(options) => pause::run(output, sources, client, options, false).await,
            Command::Restart(options) => restart::run(output, sources, client, options).await,
            Command::Reload(options) => reload::run(output, sources, client, options).await,
            Command::Reinit(options) => reinit::run(output, sources, client, options).await,
            Command::Flush(options) => flush::run(output, sources, client, options).await,
            Command::ShowConfig(options) => show_config::run(output, sources, client, options).await,
            Command::EditConfig(options) => edit_config::run(output, sources, client, options).await,
            Command::History(options) => history::run(output, sources, client, options).await,
            Command::Dsn(options) => dsn::run(output, sources, client, options).await,
            Command::Query(options) => query::run(output, sources, client, options).await,
            Command::Why(options) => why::run(output, sources, client, options).await,
            Command::WhatIf(options) => what_if::run(output, sources, client, options).await,
            Command::Dcs(DcsCommand::Get(options)) => dcs::get(output, sources, client, options).await,
            Command::Remove(options) => remove::run(output, sources, client, options).await,
            Command::Version(options) => version::of_members(output, sources, client, options).await,
            Command::Completions(_) | Command::Man(_) => Ok(()),
        }
    }
}

/// Why the tool does not end with success.
#[derive(Debug)]
enum Failure {
    /// Everything was said already.
    Told,
    /// The operator ended a dialogue.
    Aborted,
    /// To be said.
    Error(anyhow::Error),
    /// To be said: the command line is wrong.
    Usage(String),
    /// To be said: nobody can tell what was asked for.
    Untold(String),
}

impl Failure {
    fn because(text: impl Into<String>) -> Self {
        Self::Error(anyhow::anyhow!(text.into()))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}
