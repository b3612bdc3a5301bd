//! Runs seeds without end or shows one: `cargo run --release -p pgherd-sim -- --seeds 1000000`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::process::ExitCode;

use pgherd_sim::replay::{self, Chosen};

const USAGE: &str =
    "pgherd-sim [WORLD] [--first SEED] [--seeds NUMBER]   runs seeds of one kind of world, or of each
pgherd-sim WORLD|MUTANT --seed SEED                  shows what happens in one seed
pgherd-sim mutants [MUTANT] [--first SEED]           switches rules off and finds seeds that notice";

fn main() -> ExitCode {
    match command(std::env::args().skip(1).collect()) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: Vec<String>) -> Result<String, String> {
    let (mut words, mut chosen, mut seed) = (Vec::new(), Chosen::default(), None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let number = arguments.next().and_then(|text| text.parse().ok());
            number.ok_or_else(|| format!("{argument} needs a number\n{USAGE}"))
        };
        match argument.as_str() {
            "--first" => chosen.first = value()?,
            "--seeds" => chosen.seeds = Some(value()?),
            "--seed" => seed = Some(value()?),
            option if option.starts_with('-') => return Err(USAGE.to_owned()),
            word => words.push(word.to_owned()),
        }
    }
    let mut words = words.into_iter();
    let is_mutants = words.as_slice().first().is_some_and(|word| word == "mutants");
    chosen.name = if is_mutants { words.nth(1) } else { words.next() };
    match (seed, &chosen.name) {
        (Some(seed), Some(name)) => {
            let (trace, outcome) = replay::trace(name, seed)?;
            println!("{}", trace.join("\n"));
            outcome.map(|()| "all invariants held".to_owned())
        }
        (Some(_), None) => Err(USAGE.to_owned()),
        (None, _) if is_mutants => replay::mutants(&chosen),
        (None, _) => replay::run(&chosen),
    }
}
