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
//!
//! One way, one loop, one place that acts; every arrow is a value. Layers, from the top; each imports only what stands
//! below it (`tests/tidy` checks that):
//!
//! - `main`, `bin/pgherdctl`, [`daemon`], `cli`: programs; they wire and print.
//! - [`api`]: REST, answered from the last published view. Writes operators' wishes into the log, never acts.
//! - [`agent`]: the loop.
//! - [`postgres`], [`guard`]: the local PostgreSQL, and the process that ends its writing at the end of the lease. They
//!   produce facts and perform actions, and do not know each other.
//! - [`ha`]: the decisions. Start reading here.
//! - `pgherd_raft`: the replicated model and the lease (both pure), the group, the peers' port, founding and joining.
//! - `pgherd_storage`: log, vote, snapshot and floor on disk.
//!
//! [`config`] and [`metrics`] are leaves, [`tls`] and [`http_client`] nearly so: certificates, and calls to members. The witness (`witness/`) uses `pgherd_raft` alone.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
#[cfg(all(fuzzing, not(test)))]
pub mod fuzzing;
#[cfg(test)]
pub mod fuzzing;
pub mod generate;
pub mod guard;
pub mod ha;
pub mod http_client;
pub mod metrics;
pub mod postgres;
mod reread;
pub mod tls;
mod twin;
pub mod validate;
