//! The configuration of one node: Patroni's YAML file and environment, checked and typed.
//!
//! Owns what the keys mean, their defaults and limits; [`Dynamic`] is the same for the settings which the whole
//! cluster shares. Promises: a [`Config`] is complete and consistent; a file with mistakes gives all of them, each
//! with key, place and cure. Must never show a password. (The way from text to typed access is
//! [`pgherd_raft::config`], which the witness uses too.)

mod dynamic;
mod environment;
mod parameters;
mod types;
mod validate;

use std::path::Path;

pub use dynamic::{Dynamic, DynamicPostgresql, SynchronousMode, parse};
pub use parameters::{Adjusted, Parameters, SHARED_PARAMETERS, effective_parameters};
use pgherd_raft::config::Report;
pub use pgherd_raft::config::{
    ConfigErrors, Environment, Problem, Raft, Secret, Severity, Warning, is_configuration_variable,
    process_environment,
};
use pgherd_raft::yaml::Node;
pub use types::{
    Authentication, BasicAuthentication, Bootstrap, BootstrapMethod, BootstrapUser, Callbacks, Config,
    Credentials, Ctl, Fencing, Log, Postgresql, ReplicaMethod, RestApi, TlsFiles, ToolOption, Watchdog,
    WatchdogMode,
};

impl Config {
    /// Reads a file and lays the environment over it.
    ///
    /// # Errors
    /// All mistakes of both at once.
    pub fn load(path: &Path, environment: &Environment) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let text = pgherd_raft::config::read_file(path)?;
        Self::from_text(&path.display().to_string(), &text, environment)
    }

    /// The same for a text; `file` names it in messages.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_text(
        file: &str,
        text: &str,
        environment: &Environment,
    ) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let variables = environment::variables();
        pgherd_raft::config::from_text(file, text, environment, &variables, |root, report| {
            validate::config(root, environment, report)
        })
    }
}

/// A file with the environment laid over it, not checked: for the operator's tool, whose file may be a short one.
///
/// # Errors
/// The text is not YAML.
pub fn tree(file: &str, text: &str, environment: &Environment) -> Result<Node, ConfigErrors> {
    pgherd_raft::config::tree(file, text, environment, &environment::variables(), &Report::default())
}

#[cfg(test)]
mod tests;
