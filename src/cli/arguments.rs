//! The command line: commands, options and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::watch::Watch;

/// The operator's tool of pgherd: shows a cluster, changes it, and explains it.
#[derive(Debug, Parser)]
#[command(name = "pgherdctl", disable_version_flag = true, subcommand_required = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command; they stand before it.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// A node's configuration, or a file with `scope` and `ctl: {restapi_addrs: [HOST:PORT, ...]}`
    /// [default: ~/.config/pgherd/pgherdctl.yaml, then ~/.config/patroni/patronictl.yaml]
    #[arg(short, long, value_name = "FILE", env = "PATRONICTL_CONFIG_FILE", hide_env_values = true)]
    pub(super) config_file: Option<PathBuf>,
    /// REST addresses of members, HOST:PORT separated by commas, instead of those in the file
    #[arg(short, long, visible_alias = "dcs", value_name = "ADDRS", env = "DCS_URL", hide_env_values = true)]
    pub(super) dcs_url: Option<String>,
    /// Do not verify the certificates of the REST API
    #[arg(short = 'k', long)]
    pub(super) insecure: bool,
    /// patronictl's option for a part of a Citus cluster: without effect
    #[arg(long, global = true, hide = true, value_name = "N")]
    pub(super) group: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the members of a cluster
    List(ListArguments),
    /// List the members as a tree: who replicates from whom
    Topology(TopologyArguments),
    /// Planned change of the primary: it is shut down cleanly and hands over
    Switchover(SwitchoverArguments),
    /// Make a standby the primary, whether there is a primary or not
    Failover(FailoverArguments),
    /// Switch automation off: nothing is started, stopped or promoted, and daemons may be stopped
    Pause(PauseArguments),
    /// Switch automation on again
    Resume(PauseArguments),
    /// Restart the PostgreSQL of members, one after the other, now or later
    Restart(RestartArguments),
    /// Make members read their configuration files again
    Reload(ReloadArguments),
    /// Make the PostgreSQL of a standby anew, as a copy of another member's
    Reinit(ReinitArguments),
    /// Withdraw what is scheduled: restarts of members, or the cluster's switchover
    Flush(FlushArguments),
    /// Print the settings that all members share
    ShowConfig(ShowConfigArguments),
    /// Change the settings that all members share
    EditConfig(EditConfigArguments),
    /// List the past changes of the primary
    History(HistoryArguments),
    /// Print host and port of a member's PostgreSQL, for libpq
    Dsn(DsnArguments),
    /// Run SQL on a member
    Query(QueryArguments),
    /// Tell what happened and why: the last change of the primary, or a range of time
    Why(WhyArguments),
    /// Tell who would take over if a member died now, and why the others would not
    WhatIf(WhatIfArguments),
    /// Read the cluster's agreed state, one key at a time
    #[command(subcommand)]
    Dcs(DcsCommand),
    /// Delete what a stopped node's disk holds of a cluster's agreed state
    Remove(RemoveArguments),
    /// Print the version of pgherdctl, and of the members of a cluster when one is named
    Version(VersionArguments),
    /// Print a script that completes commands and options in a shell
    Completions(CompletionsArguments),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(ManArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Names of clusters [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAMES")]
    pub(super) scopes: Vec<String>,
    /// Show the columns which are empty too
    #[arg(short, long)]
    pub(super) extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub(super) timestamp: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) watch: Watch,
}

#[derive(Debug, Args)]
pub(super) struct TopologyArguments {
    /// Names of clusters [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAMES")]
    pub(super) scopes: Vec<String>,
    #[command(flatten)]
    pub(super) watch: Watch,
}

/// Output formats of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
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

/// Which members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// The primary, or the leader of a standby cluster
    Leader,
    /// The primary; a standby cluster has none
    Primary,
    /// The leader of a standby cluster
    StandbyLeader,
    /// All but the leader
    Replica,
    /// The same as replica
    Standby,
    /// All
    Any,
}

impl Role {
    /// As it is written on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Primary => "primary",
            Self::StandbyLeader => "standby-leader",
            Self::Replica => "replica",
            Self::Standby => "standby",
            Self::Any => "any",
        }
    }
}

/// A cluster and some of its members.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Name of the cluster
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: String,
    /// Only these members
    #[arg(value_name = "MEMBER_NAMES")]
    pub(super) members: Vec<String>,
    /// Only members in this role
    #[arg(short, long, value_enum)]
    pub(super) role: Option<Role>,
    /// Ask nothing
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct SwitchoverArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// The present primary
    #[arg(long, visible_alias = "primary", value_name = "NAME")]
    pub(super) leader: Option<String>,
    /// The standby which takes over [default: the best one]
    #[arg(long, value_name = "NAME")]
    pub(super) candidate: Option<String>,
    /// When: now, or a time such as 2026-11-20T18:00 (local) or 2026-11-20T17:00:00+00:00
    #[arg(long, value_name = "TIME")]
    pub(super) scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct FailoverArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// The standby which takes over
    #[arg(long, value_name = "NAME")]
    pub(super) candidate: Option<String>,
    /// You know that the present primary's machine is dead or switched off: nothing else is waited for. What only it
    /// has is lost; if it lives, two nodes take writes
    #[arg(long)]
    pub(super) primary_is_dead: bool,
    /// Ask nothing
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct PauseArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// Wait until all members have noticed
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct RestartArguments {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Only one of them, whichever
    #[arg(long)]
    pub(super) any: bool,
    /// When: now, or a time such as 2026-11-20T18:00 (local) or 2026-11-20T17:00:00+00:00
    #[arg(long, value_name = "TIME")]
    pub(super) scheduled: Option<String>,
    /// Only members whose PostgreSQL is older than this, for example 15.4
    #[arg(long, value_name = "VERSION")]
    pub(super) pg_version: Option<String>,
    /// Only members with a pending restart
    #[arg(long)]
    pub(super) pending: bool,
    /// How long a start may take, for example 90 or 2min; a member which takes longer counts as failed
    #[arg(long, value_name = "TIME")]
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    pub(super) selection: Selection,
}

#[derive(Debug, Args)]
pub(super) struct ReinitArguments {
    /// Name of the cluster
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: String,
    /// The standbys [default: ask]
    #[arg(value_name = "MEMBER_NAMES")]
    pub(super) members: Vec<String>,
    /// Copy the primary, not another standby
    #[arg(long)]
    pub(super) from_leader: bool,
    /// Wait until the copies run
    #[arg(long)]
    pub(super) wait: bool,
    /// Ask nothing, and cancel what the members are doing
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct FlushArguments {
    /// Name of the cluster
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: String,
    /// Members, for scheduled restarts, and at last what to withdraw: restart or switchover
    #[arg(value_name = "MEMBER_NAMES|restart|switchover", required = true)]
    pub(super) words: Vec<String>,
    /// Only members in this role
    #[arg(short, long, value_enum)]
    pub(super) role: Option<Role>,
    /// Ask nothing
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowConfigArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// List the past revisions instead: number, time, and who changed the settings
    #[arg(long)]
    pub(super) history: bool,
}

#[derive(Debug, Args)]
pub(super) struct EditConfigArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// Do not show what changes
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Set a key, for example ttl=20 or postgresql.use_slots=true; null takes the key away
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Set a parameter of PostgreSQL, for example max_connections=200; null takes it away
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(super) pg: Vec<String>,
    /// Merge the YAML of this file into the settings; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) apply: Option<String>,
    /// Put the YAML of this file in the place of all settings; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    pub(super) replace: Option<String>,
    /// Go back to an earlier revision (show-config --history lists them) [default: the one before the present]
    #[arg(long, value_name = "REVISION", num_args = 0..=1, default_missing_value = "",
        conflicts_with_all = ["set", "pg", "apply", "replace"])]
    pub(super) rollback: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct DsnArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// A member in this role [default: leader]
    #[arg(short, long, value_enum)]
    pub(super) role: Option<Role>,
    /// This member
    #[arg(short, long, value_name = "NAME")]
    pub(super) member: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// How to print the rows
    #[arg(long, value_enum, default_value_t = Format::Tsv)]
    pub(super) format: Format,
    /// The SQL is in this file; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<String>,
    /// The SQL
    #[arg(short, long, value_name = "SQL")]
    pub(super) command: Option<String>,
    /// Ask for the password; PGPASSWORD and the password file of libpq are used without it
    #[arg(long)]
    pub(super) password: bool,
    /// Log in as this user [default: PGUSER, or the name of the operating system's user]
    #[arg(short = 'U', long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// Log in to this database [default: PGDATABASE, or the name of the user]
    #[arg(short, long, value_name = "NAME")]
    pub(super) dbname: Option<String>,
    /// On a member in this role [default: leader]
    #[arg(short, long, value_enum)]
    pub(super) role: Option<Role>,
    /// On this member
    #[arg(short, long, value_name = "NAME")]
    pub(super) member: Option<String>,
    /// What stands between the columns of tsv [default: a tab]
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    pub(super) delimiter: String,
    #[command(flatten)]
    pub(super) watch: Watch,
}

#[derive(Debug, Args)]
pub(super) struct WhyArguments {
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// Everything from this time on: 2026-11-20T17:02:00Z, '2026-11-20 18:02' (local), seconds since 1970, or 2h (ago)
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Everything up to this time
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    /// The last so many events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) last: Option<u16>,
    /// How to print
    #[arg(short, long, visible_alias = "format", value_enum, default_value_t = Form::Pretty)]
    pub(super) output: Form,
}

#[derive(Debug, Args)]
pub(super) struct WhatIfArguments {
    /// The member that would die
    #[arg(value_name = "MEMBER_NAME")]
    pub(super) member: String,
    /// Name of the cluster [default: `scope` of the configuration]
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// How to print
    #[arg(short, long, visible_alias = "format", value_enum, default_value_t = Form::Pretty)]
    pub(super) output: Form,
}

/// Output formats of what is told in sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Sentences
    Pretty,
    /// The document of the REST API
    Json,
    /// The same as YAML
    #[value(alias = "yml")]
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(super) enum DcsCommand {
    /// Print the value of a key as Patroni keeps it in its store
    ///
    /// The status is 0 when there is a value, 1 when there is no such key, and 3 when nobody can tell, since no majority
    /// of the voters answers. A witness can be asked while no data node runs.
    Get(DcsGetArguments),
}

#[derive(Debug, Args)]
pub(super) struct DcsGetArguments {
    /// Name of the cluster
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: String,
    /// leader, initialize, config, sync, failover, failsafe, history, status, or members/NAME
    #[arg(value_name = "KEY")]
    pub(super) key: String,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    /// Name of the cluster
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: String,
    /// How to print the members
    #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct VersionArguments {
    /// Name of the cluster
    #[arg(value_name = "CLUSTER_NAME")]
    pub(super) scope: Option<String>,
    /// Only these members
    #[arg(value_name = "MEMBER_NAMES")]
    pub(super) members: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// An existing directory
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
}
