//! The local PostgreSQL on real servers: bootstrap, copy, stream, promote, rewind, and what goes wrong on the way.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod adopting;
mod bootstrap;
mod harness;
mod observing;
mod replication;
mod returning;
mod secured;
