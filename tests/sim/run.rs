//! The simulation with as many seeds as minutes allow; `make sim` runs more. See `pgherd_sim`.

use pgherd_sim::replay::{self, Chosen};

#[test]
fn no_seed_breaks_a_promise_and_each_comes_together() {
    match replay::run(&Chosen::default()) {
        Ok(met) => println!("{met}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_rule_that_is_switched_off_is_noticed() {
    match replay::mutants(&Chosen::default()) {
        Ok(caught) => println!("{caught}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_seed_determines_everything() {
    let trace = |seed| replay::trace("three", seed).expect("a kind of world").0;
    let first = trace(7);
    assert!(first.len() > 50, "nothing happened");
    assert_eq!(first, trace(7));
    assert_ne!(first, trace(8));
}
