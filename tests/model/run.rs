//! The protocol's models with small bounds: every sound scenario holds, every mutant is caught.
//!
//! `MODEL_STATES` raises the bound of each scenario (`MODEL_STATES=200000000` takes hours and gigabytes: see
//! `pgherd_model`). What large runs said is kept in `verdicts.txt`.

#![expect(clippy::expect_used, reason = "a test program: a panic is how it fails")]

mod agreement;

use std::io::{self, Write};

use pgherd_model::report::{Run, run};
use pgherd_model::scenarios;

fn check(group: &str) {
    let mut scenarios = scenarios::all();
    scenarios.retain(|scenario| scenario.name.starts_with(group));
    assert!(scenarios.len() > 2, "no scenarios of {group}");
    let mut bounds = Run::quick();
    if let Ok(states) = std::env::var("MODEL_STATES") {
        bounds.states = Some(states.parse().expect("MODEL_STATES is a number of states"));
    }
    let mut table = Vec::new();
    let failed = run(&scenarios, bounds, &mut table).expect("memory can be written");
    // Past the capture of passed tests: the table is what one wants to see.
    io::stdout().write_all(&table).expect("standard output");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn lease() {
    check("lease");
}

#[test]
fn voters() {
    check("voters");
}

#[test]
fn adoption() {
    check("adoption");
}

#[test]
fn pause() {
    check("pause");
}

#[test]
fn failsafe() {
    check("failsafe");
}

#[test]
fn synchrony() {
    check("synchrony");
}
