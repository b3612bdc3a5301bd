//! `pgherdctl`: the operator's tool, with patronictl's arguments, prompts, tables and messages.
//!
//! A client of the REST API: it reads what a member knows and asks members to act; it decides nothing itself. This file
//! holds the definition of the command line; a file a command holds what it does; only `output` prints.

mod client;
mod cluster;
mod config;
mod list;
mod output;
mod pause;
mod succeed;
mod table;
mod version;
mod what_if;
mod why;
mod wrap;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use client::Client;
use config::Sources;
use output::Output;

use crate::tls::Checks;

/// The operator's tool of pgherd: shows a cluster and changes its primary.
#[derive(Debug, Parser)]
#[command(name = "pgherdctl", disable_version_flag = true, subcommand_required = true)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Common {
    /// A node's configuration, or a file with `scope` and `ctl: {restapi_addrs: [HOST:PORT, ...]}`
    /// [default: ~/.config/pgherd/pgherdctl.yaml, then ~/.config/patroni/patronictl.yaml]
    #[arg(short, long, value_name = "FILE", env = "PATRONICTL_CONFIG_FILE", hide_env_values = true)]
    config_file: Option<PathBuf>,
    /// REST addresses of members, HOST:PORT separated by commas, instead of those in the file
    #[arg(short, long, visible_alias = "dcs", value_name = "ADDRS", env = "DCS_URL", hide_env_values = true)]
    dcs_url: Option<String>,
    /// Do not verify the certificates of the REST API
    #[arg(short = 'k', long)]
    insecure: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the members of a cluster
    List(ListArguments),
    /// Planned change of the primary: it is shut down cleanly and hands over
    Switchover(SwitchoverArguments),
    /// Make a standby the primary, whether there is a primary or not
    Failover(FailoverArguments),
    /// Switch automation off: nothing is started, stopped or promoted, and daemons may be stopped
    Pause(PauseArguments),
    /// Switch automation on again
    Resume(PauseArguments),
    /// Tell what happened and why: the last change of the primary, or a range of time
    Why(WhyArguments),
    /// Tell who would take over if a member died now, and why the others would not
    WhatIf(WhatIfArguments),
    /// Print the version of pgherdctl, and of the members of a cluster when one is named
    Version(VersionArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Names of clusters [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAMES")]
    scopes: Vec<String>,
    /// Show the columns which are empty too
    #[arg(short, long)]
    extended: bool,
    /// Print the time first
    #[arg(short, long)]
    timestamp: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
    /// Print again every two seconds
    #[arg(short = 'W')]
    watch_two: bool,
    /// Print again every so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    watch: Option<u64>,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table
    Pretty,
    /// Values separated by tabs
    Tsv,
    /// One line
    Json,
    /// A list
    #[value(alias = "yml")]
    Yaml,
}

#[derive(Debug, Args)]
struct SwitchoverArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    scope: Option<String>,
    /// The present primary
    #[arg(long, visible_alias = "primary", value_name = "NAME")]
    leader: Option<String>,
    /// The standby which takes over [default: the best one]
    #[arg(long, value_name = "NAME")]
    candidate: Option<String>,
    /// When; only `now` in this version
    #[arg(long, value_name = "TIME")]
    scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct FailoverArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    scope: Option<String>,
    /// The standby which takes over
    #[arg(long, value_name = "NAME")]
    candidate: Option<String>,
    /// You know that the present primary's machine is dead or switched off: nothing else is waited for. What only it
    /// has is lost; if it lives, two nodes take writes
    #[arg(long)]
    primary_is_dead: bool,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct PauseArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    scope: Option<String>,
    /// Wait until all members have noticed
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
struct WhyArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    scope: Option<String>,
    /// Everything from this time on: 2026-11-20T17:02:00Z, '2026-11-20 18:02' (local), seconds since 1970, or 2h (ago)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Everything up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The last so many events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    last: Option<u16>,
    /// How to print
    #[arg(short, long, visible_alias = "format", value_enum, default_value_t = Form::Pretty)]
    output: Form,
}

#[derive(Debug, Args)]
struct WhatIfArguments {
    /// The member that would die
    #[arg(value_name = "MEMBER_NAME")]
    member: String,
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    scope: Option<String>,
    /// How to print
    #[arg(short, long, visible_alias = "format", value_enum, default_value_t = Form::Pretty)]
    output: Form,
}

/// Output formats of what is told in sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Sentences
    Pretty,
    /// The document of the REST API
    Json,
    /// The same as YAML
    #[value(alias = "yml")]
    Yaml,
}

#[derive(Debug, Args)]
struct VersionArguments {
    /// Name of the cluster
    #[arg(value_name = "CLUSTER_NAME")]
    scope: Option<String>,
    /// Only these members
    #[arg(value_name = "MEMBER_NAMES")]
    members: Vec<String>,
}

/// Runs the tool with the arguments of the process, the program's name first.
///
/// The status is 0 for success, 1 for what could not be done, 2 for a wrong command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut output = Output::new();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&mut output, &error),
    };
    let done = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(perform(&mut output, &arguments)),
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
    }
}

/// Help goes to standard output with status 0, mistakes to standard error with status 2.
fn usage(output: &mut Output, error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() {
        output.complain(text.trim_end());
        return ExitCode::from(2);
    }
    output.say(text.trim_end());
    ExitCode::SUCCESS
}

async fn perform(output: &mut Output, arguments: &Arguments) -> Result<(), Failure> {
    if let Command::Version(VersionArguments { scope: None, .. }) = &arguments.command {
        version::own(output);
        return Ok(());
    }
    let common = &arguments.common;
    let mut sources = Sources::read(common.config_file.as_deref(), common.dcs_url.as_deref())?;
    if common.insecure {
        sources.tls.checks = Checks::Nothing;
    }
    let client = Client::new(sources.credentials(), sources.tls.clone(), sources.is_tls_expected);
    match &arguments.command {
        Command::List(list) => list::run(output, &sources, &client, list).await,
        Command::Switchover(options) => succeed::switchover(output, &sources, &client, options).await,
        Command::Failover(options) => succeed::failover(output, &sources, &client, options).await,
        Command::Pause(options) => pause::run(output, &sources, &client, options, true).await,
        Command::Resume(options) => pause::run(output, &sources, &client, options, false).await,
        Command::Why(options) => why::run(output, &sources, &client, options).await,
        Command::WhatIf(options) => what_if::run(output, &sources, &client, options).await,
        Command::Version(options) => version::of_members(output, &sources, &client, options).await,
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
