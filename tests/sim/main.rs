//! A deterministic simulation: the real `decide`, `apply`, `Holder` and `Voter` on three nodes, over models of the log,
//! the network, the guard, PostgreSQL and clocks of different rates, with faults of every kind.
//!
//! One seed determines everything. `PGHERD_SIM_SEEDS` sets the number of seeds, `PGHERD_SIM_SEED` runs a single one and
//! prints what happened.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test program: a panic is how it fails"
)]

mod agent;
mod daemon;
mod faults;
mod invariants;
mod ledger;
mod liveness;
mod model_guard;
mod model_log;
mod model_postgres;
mod model_sync;
mod mutants;
mod network;
mod node;
mod random;
mod replay;
mod streams;
mod world;
