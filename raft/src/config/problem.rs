//! What is wrong with a configuration: each mistake with its key, place and cure.

use std::cell::RefCell;
use std::fmt;

use crate::yaml::Place;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but something in it does not do what its author may think.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The path of the key, like `postgresql.listen`; empty for the file as a whole.
    pub key: String,
    /// Where it was written.
    pub place: Place,
    /// What is wrong. Never holds a password.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{} ({}); {}", self.what, self.place, self.cure)
    }
}

/// A mistake which does not stop the daemon.
pub type Warning = Problem;

/// All mistakes of a configuration, warnings included: a mistyped key explains the missing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, as it was named.
    pub file: String,
    /// In the order of the file; at least one is an error.
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// How many of the problems are errors.
    pub fn error_count(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.error_count();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "cannot use the configuration {}: {count} mistake{plural}", self.file)?;
        for problem in &self.problems {
            f.write_str("\n")?;
            write_problem(f, &self.file, problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// `FILE:LINE:COLUMN: KEY: WHAT` and the cure below it: editors and terminals jump to the place.
fn write_problem(f: &mut fmt::Formatter<'_>, file: &str, problem: &Problem) -> fmt::Result {
    match &problem.place {
        Place::Text { line, column } => write!(f, "{file}:{line}:{column}: ")?,
        Place::Named(name) => write!(f, "{name}: ")?,
    }
    if problem.severity == Severity::Warning {
        f.write_str("warning: ")?;
    }
    if !problem.key.is_empty() {
        write!(f, "{}: ", problem.key)?;
    }
    write!(f, "{}\n    {}", problem.what, problem.cure)
}

/// Collects the problems of one reading.
#[derive(Debug, Default)]
pub struct Report(RefCell<Vec<Problem>>);

impl Report {
    /// Notes a mistake which makes the configuration unusable.
    pub fn error(&self, key: &str, place: &Place, what: impl Into<String>, cure: impl Into<String>) {
        self.add(Severity::Error, key, place, what.into(), cure.into());
    }

    /// Notes something which does not do what its author may think.
    pub fn warning(&self, key: &str, place: &Place, what: impl Into<String>, cure: impl Into<String>) {
        self.add(Severity::Warning, key, place, what.into(), cure.into());
    }

    fn add(&self, severity: Severity, key: &str, place: &Place, what: String, cure: String) {
        let problem = Problem { severity, key: key.to_owned(), place: place.clone(), what, cure };
        let mut problems = self.0.borrow_mut();
        // An alias brings the same mistake to several keys; one report of a place and key is enough.
        if !problems.contains(&problem) && problems.len() < MAX_PROBLEMS {
            problems.push(problem);
        }
    }

    /// All problems in the order of the text.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        problems
    }
}

/// Nobody reads more, and a file of a megabyte could hold a hundred thousand unknown keys.
const MAX_PROBLEMS: usize = 200;
