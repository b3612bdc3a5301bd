//! The peers' port: one listener, any number of clusters; every message carries its scope.
//!
//! Owns sockets and connections. Promises: every call ends within its limit, nothing larger than a named size is
//! read, and a member answers only what is meant for it. It knows nothing of what the messages mean.

mod client;
mod consensus;
mod envelope;
mod incoming;
mod security;
mod server;

pub use security::{PeerSecurity, SecurityError};
pub use server::PeerServer;

pub(crate) use client::{CallFailure, Peers, Target};
pub(crate) use consensus::{ConsensusNetwork, SnapshotMessage};
pub(crate) use envelope::{Answer, Envelope, Kind, decode, encode};
pub(crate) use server::{Handler, Route, Shared};
