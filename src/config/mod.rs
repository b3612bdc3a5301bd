//! The configuration of one node: Patroni's YAML file and environment, checked and typed.
//!
//! Owns what the keys mean, their defaults and limits; [`Dynamic`] is the same for the settings which the whole
//! cluster shares. Promises: a [`Config`] is complete and consistent; a file with mistakes gives all of them, each
//! with key, place and cure. Must never show a password. (The way from text to typed access is
//! [`pgherd_raft::config`], which the witness uses too.)

mod check;
mod dynamic;
mod effective;
mod environment;
mod parameters;
mod reload;
mod slots;
mod source;
mod strict;
mod types;
mod validate;
mod yaml_out;

pub use check::{Mistakes, ParameterCheck};
pub use dynamic::{Dynamic, DynamicPostgresql, SynchronousMode, parse};
pub use effective::Effective;
pub use parameters::{Adjusted, Parameters, SHARED_PARAMETERS, effective_parameters, in_present_words};
use pgherd_raft::config::Report;
pub use pgherd_raft::config::{
    ConfigErrors, Environment, Problem, Raft, Secret, Severity, Warning, is_configuration_variable,
    process_environment,
};
use pgherd_raft::yaml::Node;
pub use reload::{ReloadQueue, ReloadRequests, ReloadRound, reload_channel};
pub use slots::{IgnoredSlots, PermanentSlot};
pub use source::Source;
pub use strict::strict_json;
pub use types::{
    Authentication, BasicAuthentication, Bootstrap, BootstrapMethod, BootstrapUser, Callbacks, Config,
    Credentials, Ctl, Fencing, Postgresql, ReplicaMethod, RestApi, ServerTokens, SharedPostgresql, TlsFiles,
    ToolOption, Watchdog, WatchdogMode,
};
pub use yaml_out::to_yaml;

/// A file with the environment laid over it, not checked: for the operator's tool, whose file may be a short one.
///
/// # Errors
/// The text is not YAML.
pub fn tree(file: &str, text: &str, environment: &Environment) -> Result<Node, ConfigErrors> {
    pgherd_raft::config::tree(file, text, environment, &environment::variables(), &Report::default())
}

#[cfg(test)]
mod tests;
