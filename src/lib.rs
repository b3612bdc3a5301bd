//! pgherd makes PostgreSQL highly available with consensus built in.
//!
//! ```text
//!         local PostgreSQL    peers     consensus      guard
//!               \              |            |            /
//!                +------------- observe ----------------+          I/O
//!                                  v  Observation            (plain value)
//!                           ha::decide                       pure, total, no await
//!                                  v  Decision
//!                +--------------- act ------------------+          I/O
//!               /                  |                     \
//!         PostgreSQL         propose to the log         guard
//! ```

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod guard;
pub mod ha;
pub mod metrics;
pub mod postgres;
