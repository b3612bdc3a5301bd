//! Runs scenarios and tells what came of them.

use std::fmt;
use std::io::{self, Write};

use crate::scenarios::Scenario;
use crate::search::{Found, Limits};

/// What came of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A sound scenario: no promise is broken in any state looked at.
    Holds,
    /// A mutant: a promise is broken.
    Caught,
    /// A mutant without a counterexample.
    Missed,
    /// A sound scenario with a counterexample.
    Broken,
}

impl Verdict {
    fn of(scenario: &Scenario, found: &Found) -> Self {
        match (scenario.is_mutant, found.broken.is_some()) {
            (false, false) => Self::Holds,
            (true, true) => Self::Caught,
            (true, false) => Self::Missed,
            (false, true) => Self::Broken,
        }
    }

    /// As it must be.
    pub fn is_expected(self) -> bool {
        matches!(self, Self::Holds | Self::Caught)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::Caught => "caught",
            Self::Missed => "MISSED",
            Self::Broken => "BROKEN",
        })
    }
}

/// How much is searched and told.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// States for each scenario; none: the scenario's own small bound.
    pub states: Option<usize>,
    /// Memory of one search, in bytes.
    pub bytes: usize,
    /// Counterexamples of mutants too, not only those of sound scenarios.
    pub is_verbose: bool,
}

impl Run {
    /// Small bounds.
    pub fn quick() -> Self {
        Self { states: None, bytes: 4 << 30, is_verbose: false }
    }
}

/// Runs the scenarios, one line each; the names of those which did not end as they must.
///
/// # Errors
/// When the output cannot be written.
pub fn run(scenarios: &[Scenario], run: Run, out: &mut impl Write) -> io::Result<Vec<String>> {
    let mut failed = Vec::new();
    writeln!(
        out,
        "{:<7} {:<66} {:>10} {:>10} {:>5}  ended",
        "verdict", "scenario", "bound", "states", "depth"
    )?;
    for scenario in scenarios {
        let limits = Limits { states: run.states.unwrap_or(scenario.quick), bytes: run.bytes };
        let found = (scenario.search)(limits);
        let verdict = Verdict::of(scenario, &found);
        let end = match (&found.broken, found.exhausted) {
            (Some(broken), _) => broken.promise.to_owned(),
            (None, true) => "exhausted".to_owned(),
            (None, false) => "bound reached".to_owned(),
        };
        writeln!(
            out,
            "{verdict:<7} {:<66} {:>10} {:>10} {:>5}  {end}",
            scenario.name, limits.states, found.states, found.depth
        )?;
        if let Some(broken) = found.broken.filter(|_| run.is_verbose || !verdict.is_expected()) {
            for action in &broken.actions {
                writeln!(out, "            {action}")?;
            }
            writeln!(out, "            {}", broken.state)?;
        }
        out.flush()?;
        if !verdict.is_expected() {
            failed.push(format!("{verdict} {}", scenario.name));
        }
    }
    Ok(failed)
}
