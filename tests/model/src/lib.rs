//! Explicit-state models of the protocol that decides who may write: each looks at every state within its bounds.
//!
//! - [`search`]: breadth-first search with fingerprints, so that a counterexample is a shortest one.
//! - [`liveness`]: states from which there is no way back to a writable primary.
//! - [`lease`]: renewals, closes, new epochs, hand-over, change of voters, pause, failsafe, adoption.
//! - [`synchrony`]: synchronous sets, fences, and take-over while the old primary lives on.
//! - [`scenarios`]: what is searched, and what must come of it.
//!
//! A field of `Rules` is one sentence of the protocol. A sound scenario keeps all and must hold; a mutant turns one off
//! and must be caught, which shows what the rule is for. Bounds are small: a scenario that holds is no proof.
//!
//! `cargo test -p pgherd --test model` runs all with small bounds; `cargo run --release -p pgherd-model` takes the
//! number of states from `MODEL_STATES`, memory in GiB from `MODEL_MEMORY`, and a part of the names as its argument.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test program: a panic is how it fails; nodes, epochs and ticks are small numbers by construction"
)]

pub mod lease;
pub mod liveness;
pub mod report;
pub mod scenarios;
pub mod search;
pub mod synchrony;
