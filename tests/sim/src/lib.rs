//! A deterministic simulation: the real `decide`, `apply`, `Holder` and `Voter` on several nodes, over models of the log,
//! the network, the guard, PostgreSQL and clocks of different rates, with faults of every kind.
//!
//! The pure layers of the product are compiled here a second time, from the same files, with optimization: ten thousand
//! seeds take minutes without it, and optimizing the whole product for its tests would cost more than the seeds do.
//!
//! One seed determines everything. `cargo test --test sim` runs ten thousand; `make sim SIM_ARGS="--seeds 1000000"` runs
//! as many of each kind of world as one likes, `make sim SIM_ARGS="sync --seed 7"` shows what happens in one.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test program: a panic is how it fails"
)]

extern crate self as pgherd_raft;

#[path = "../../../src/ha/mod.rs"]
pub mod ha;
#[path = "../../../raft/src/lease/mod.rs"]
pub mod lease;
#[path = "../../../raft/src/membership.rs"]
pub mod membership;
#[path = "../../../raft/src/model/mod.rs"]
pub mod model;

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
mod reach;
pub mod replay;
mod settings;
mod streams;
mod voters;
mod world;
mod worlds;
