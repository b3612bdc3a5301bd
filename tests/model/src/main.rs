//! Runs the models with bounds from the environment: `MODEL_STATES`, `MODEL_MEMORY` in GiB. The argument is a part of
//! the names of the scenarios; `-v` shows the counterexamples of mutants.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use pgherd_model::report::{Run, run};
use pgherd_model::scenarios;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut bounds = Run::quick();
    bounds.is_verbose = arguments.iter().any(|argument| argument == "-v");
    if let Ok(states) = std::env::var("MODEL_STATES") {
        bounds.states = Some(states.parse()?);
    }
    if let Ok(memory) = std::env::var("MODEL_MEMORY") {
        bounds.bytes = memory.parse::<usize>()? << 30;
    }
    let part = arguments.iter().find(|argument| *argument != "-v").map_or("", String::as_str);
    let mut chosen = scenarios::all();
    chosen.retain(|scenario| scenario.name.contains(part));
    let failed = run(&chosen, bounds, &mut io::stdout().lock())?;
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
