//! Configuration files: what data nodes and witnesses share.
//!
//! ```text
//! text --yaml--> tree <-- environment
//!                 |
//!              Section        typed access; every mistake goes to the Report
//!                 v
//!          the caller's types
//! ```
//!
//! Owns typed access to the tree, the form of mistakes, and the section `raft`. Promises: a file with mistakes gives
//! all of them at once, each with key, place and cure. Must never show a password.

mod environment;
mod log;
mod problem;
mod quantity;
mod raft;
mod scalar;
mod secret;
mod section;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use environment::{
    Environment, Form, Variable, common_variables, is_configuration_variable, process_environment,
};
pub use log::read_log;
pub use problem::{ConfigErrors, Problem, Report, Severity, Warning};
pub use quantity::{Unit, integer, milliseconds};
pub use raft::{Raft, read_raft};
pub use scalar::{Shown, not_a, read_address, read_boolean, read_scope, scalar, shown_key};
pub use secret::Secret;
pub use section::Section;

use crate::yaml::{self, Map, Node, Place, Value};

/// Nobody cuts a configuration into more files.
const MAX_FILES: usize = 200;

/// The text of a configuration file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read_file(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|error| {
        let file = path.display().to_string();
        let kind = error.kind();
        let cure = if kind == ErrorKind::NotFound {
            "check the path"
        } else if kind == ErrorKind::PermissionDenied {
            "make it readable for the user who runs pgherd"
        } else if kind == ErrorKind::InvalidData {
            "save it as UTF-8"
        } else {
            "check that it is a readable file"
        };
        let what = format!("cannot read the file: {error}");
        one_error(file.clone(), Place::named(&file), what, cure.to_owned())
    })
}

/// Reads a text, lays the environment over it and lets `validate` make a value of the tree. `file` names the text in
/// messages.
///
/// # Errors
/// All mistakes at once.
pub fn from_text<T>(
    file: &str,
    text: &str,
    environment: &Environment,
    variables: &[Variable],
    validate: impl FnOnce(&Node, &Report) -> Option<T>,
) -> Result<(T, Vec<Warning>), ConfigErrors> {
    let report = Report::default();
    let root = tree(file, text, environment, variables, &report)?;
    checked(file, &root, report, validate)
}

/// The same for a directory: its files `*.yml` and `*.yaml` are read in the order of their names and laid one over the
/// other.
///
/// # Errors
/// All mistakes at once.
pub fn from_directory<T>(
    directory: &Path,
    environment: &Environment,
    variables: &[Variable],
    validate: impl FnOnce(&Node, &Report) -> Option<T>,
) -> Result<(T, Vec<Warning>), ConfigErrors> {
    let name = directory.display().to_string();
    let report = Report::default();
    let mut root =
        Node { place: Place::named(&name), value: Value::Map(Map::default()), source: String::new() };
    for path in files_of(directory)? {
        let file = path.display().to_string();
        let mut part = parsed(&file, &read_file(&path)?, &report)?;
        part.name_text(&file);
        match (&mut root.value, part.value) {
            (Value::Map(all), Value::Map(part)) => all.merge(part),
            (_, Value::Null) => {}
            (_, other) => {
                let what = format!("{} stands where a map is needed", other.kind());
                let cure = "write `key: value` lines";
                return Err(one_error(file.clone(), part.place, what, cure.to_owned()));
            }
        }
    }
    environment::overlay(&mut root, environment, variables, &report);
    checked(&name, &root, report, validate)
}

/// In the order of their names.
fn files_of(directory: &Path) -> Result<Vec<PathBuf>, ConfigErrors> {
    let name = directory.display().to_string();
    let failed = |error: std::io::Error| {
        let what = format!("cannot read the directory: {error}");
        let cure = "make it readable for the user who runs pgherd";
        one_error(name.clone(), Place::named(&name), what, cure.to_owned())
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        if is_yaml && path.is_file() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            let what = format!("has more than {MAX_FILES} files of YAML");
            return Err(one_error(
                name.clone(),
                Place::named(&name),
                what,
                "is this the right directory?".to_owned(),
            ));
        }
    }
    files.sort();
    Ok(files)
}

fn checked<T>(
    file: &str,
    root: &Node,
    report: Report,
    validate: impl FnOnce(&Node, &Report) -> Option<T>,
) -> Result<(T, Vec<Warning>), ConfigErrors> {
    let value = validate(root, &report);
    let problems = report.into_problems();
    match value {
        Some(value) if problems.iter().all(|problem| problem.severity == Severity::Warning) => {
            Ok((value, problems))
        }
        Some(_) | None => Err(ConfigErrors { file: file.to_owned(), problems }),
    }
}

/// The tree of a text with the environment laid over it; what is odd about them goes to the report.
///
/// # Errors
/// The text is not YAML.
pub fn tree(
    file: &str,
    text: &str,
    environment: &Environment,
    variables: &[Variable],
    report: &Report,
) -> Result<Node, ConfigErrors> {
    let mut root = parsed(file, text, report)?;
    environment::overlay(&mut root, environment, variables, report);
    Ok(root)
}

fn parsed(file: &str, text: &str, report: &Report) -> Result<Node, ConfigErrors> {
    let document =
        yaml::load(text).map_err(|error| one_error(file.to_owned(), error.place, error.what, error.cure))?;
    for again in &document.duplicates {
        report.warning(
            &shown_key(&again.key),
            &again.again,
            format!("is given twice in one map, first at {}; this one counts", again.first),
            "remove one of them",
        );
    }
    Ok(document.root)
}

fn one_error(file: String, place: Place, what: String, cure: String) -> ConfigErrors {
    let problem = Problem { severity: Severity::Error, key: String::new(), place, what, cure };
    ConfigErrors { file, problems: vec![problem] }
}

#[cfg(test)]
mod tests;
