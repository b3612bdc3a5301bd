//! The clocks, for the shell around the pure layers.

pub use pgherd_raft::clock::{now, wall};
