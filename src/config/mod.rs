//! The configuration of one node: Patroni's YAML file and environment, checked and typed.
//!
//! ```text
//! text --yaml--> tree <--environment      raw.rs: typed access, every mistake reported
//!                 |
//!             validate/                   tree -> Config, all mistakes at once
//!                 v
//!              Config                     complete: what the rest of the program uses
//! ```
//!
//! Owns what the keys mean, their defaults and limits; [`Dynamic`] is the same for the settings which the whole
//! cluster shares. Promises: a [`Config`] is complete and consistent; a file with mistakes gives all of them, each
//! with key, place and cure. Must never show a password.

mod dynamic;
mod environment;
mod parameters;
mod problem;
mod quantity;
mod raw;
mod secret;
mod types;
mod validate;

use std::io::ErrorKind;
use std::path::Path;

use pgherd_raft::yaml::{self, Place};

pub use dynamic::{Dynamic, DynamicPostgresql, SynchronousMode, parse};
pub use environment::{Environment, is_configuration_variable, process_environment};
pub use parameters::{Adjusted, Parameters, SHARED_PARAMETERS, effective_parameters};
pub use problem::{ConfigErrors, Problem, Severity, Warning};
pub use secret::Secret;
pub use types::{
    Authentication, BasicAuthentication, Bootstrap, BootstrapMethod, BootstrapUser, Callbacks, Config,
    Credentials, Ctl, Log, Postgresql, Raft, ReplicaMethod, RestApi, TlsFiles, ToolOption, Watchdog,
    WatchdogMode,
};

use problem::Report;

impl Config {
    /// Reads a file and lays the environment over it.
    ///
    /// # Errors
    /// All mistakes of both at once.
    pub fn load(path: &Path, environment: &Environment) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_text(&file, &text, environment),
            Err(error) => {
                let kind = error.kind();
                let cure = if kind == ErrorKind::NotFound {
                    "check the path: pgherd CONFIG.yml"
                } else if kind == ErrorKind::PermissionDenied {
                    "make it readable for the user who runs pgherd"
                } else if kind == ErrorKind::InvalidData {
                    "save it as UTF-8"
                } else {
                    "check that it is a readable file"
                };
                let what = format!("cannot read the file: {error}");
                Err(one_error(file.clone(), Place::named(&file), what, cure.to_owned()))
            }
        }
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
        let mut document = yaml::load(text)
            .map_err(|error| one_error(file.to_owned(), error.place, error.what, error.cure))?;
        let report = Report::default();
        for again in &document.duplicates {
            report.warning(
                &raw::shown_key(&again.key),
                &again.again,
                format!("is given twice in one map, first at {}; this one counts", again.first),
                "remove one of them",
            );
        }
        environment::overlay(&mut document.root, environment, &report);
        let config = validate::config(&document.root, environment, &report);
        let problems = report.into_problems();
        match config {
            Some(config) if problems.iter().all(|problem| problem.severity == Severity::Warning) => {
                Ok((config, problems))
            }
            Some(_) | None => Err(ConfigErrors { file: file.to_owned(), problems }),
        }
    }
}

/// A file with the environment laid over it, not checked: for the operator's tool, whose file may be a short one.
///
/// # Errors
/// The text is not YAML.
pub fn tree(file: &str, text: &str, environment: &Environment) -> Result<yaml::Node, ConfigErrors> {
    let mut document =
        yaml::load(text).map_err(|error| one_error(file.to_owned(), error.place, error.what, error.cure))?;
    environment::overlay(&mut document.root, environment, &Report::default());
    Ok(document.root)
}

fn one_error(file: String, place: Place, what: String, cure: String) -> ConfigErrors {
    let problem = Problem { severity: Severity::Error, key: String::new(), place, what, cure };
    ConfigErrors { file, problems: vec![problem] }
}

#[cfg(test)]
mod tests;
