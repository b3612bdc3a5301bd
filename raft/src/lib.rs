//! The Raft group of pgherd: what the members of a cluster agree on, and how.

pub mod lease;
pub mod model;
