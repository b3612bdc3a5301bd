//! The Raft group of pgherd: what the members of a cluster agree on, and how.

pub mod address;
pub mod again;
pub mod clock;
pub mod config;
pub mod founding;
pub mod group;
pub mod lease;
pub mod listener;
mod mark;
pub mod membership;
pub mod model;
pub mod network;
pub mod renewer;
pub mod service;
mod state_machine;
mod store;
pub mod telemetry;
mod types;
pub mod yaml;

pub use group::Group;
pub use network::{PeerSecurity, PeerServer};
pub use renewer::{LicenceSink, Renewer, RenewerFacts};
