//! What is searched, and what must come of it. "(earlier text)" marks mutants that an earlier wording of the protocol
//! allowed.

mod failsafe;
mod lease;
mod pause;
pub mod synchrony;

use std::fmt;

use crate::lease::{Bounds, Lease, Rules};
use crate::liveness::search_for_dead_ends;
use crate::search::{Found, Limits, search};

/// One search.
pub struct Scenario {
    /// Unique.
    pub name: &'static str,
    /// Must be caught.
    pub is_mutant: bool,
    /// The most states of the small run.
    pub quick: usize,
    /// Looks.
    pub search: Box<dyn Fn(Limits) -> Found>,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// States of the small run of a sound scenario.
const QUICK: usize = 600_000;
/// A mutant is searched until it is caught.
const MUTANT: usize = 20_000_000;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [lease::scenarios(), pause::scenarios(), failsafe::scenarios(), synchrony::scenarios()]
        .into_iter()
        .flatten()
        .collect()
}

/// The usual bounds: three nodes, of which one is a witness.
const PLAIN: Bounds = Bounds {
    holders: 0b011,
    voters: 0b111,
    epochs: 2,
    ttls: (3, 3),
    slow: 0,
    restarts: 0,
    unstable: 0xFF,
    reboots: 0,
    deaths: 0,
    power: false,
    renew: false,
    two_rounds: false,
    release: false,
    transfer: false,
    fence: false,
    pause: false,
    goodbye: false,
    failsafe: 0,
    lists: [0; 2],
    adopt: false,
    change_voters: 0,
    vacant_voters: false,
    time: true,
    prompt: 0,
};

fn sound<const N: usize>(name: &'static str, bounds: Bounds) -> Scenario {
    let model = Lease::<N> { rules: Rules::sound(), bounds };
    Scenario { name, is_mutant: false, quick: QUICK, search: Box::new(move |limits| search(&model, limits)) }
}

fn mutant<const N: usize>(name: &'static str, bounds: Bounds, change: fn(&mut Rules)) -> Scenario {
    let mut rules = Rules::sound();
    change(&mut rules);
    let model = Lease::<N> { rules, bounds };
    Scenario { name, is_mutant: true, quick: MUTANT, search: Box::new(move |limits| search(&model, limits)) }
}

/// Holds when there is a way to a writable primary from everywhere.
fn alive<const N: usize>(name: &'static str, bounds: Bounds) -> Scenario {
    let model = Lease::<N> { rules: Rules::sound(), bounds };
    let search = Box::new(move |limits| search_for_dead_ends(&model, limits));
    Scenario { name, is_mutant: false, quick: 2_000_000, search }
}
