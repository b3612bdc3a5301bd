//! What a daemon shows of itself: one value, published by the agent after each decision and read by API and metrics.
//!
//! It is a record of the past: whether the lease is good *now* is not in it, because that is answered from the clock.

use std::time::SystemTime;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::Member;

use crate::ha::{Decision, Observation};

/// The last observation and what was decided on it.
#[derive(Clone, Debug)]
pub struct View {
    /// The cluster's name.
    pub scope: String,
    /// This node as its configuration describes it: known before the group lets it in.
    pub member: Member,
    /// How clients reach it otherwise, if the configuration says so (`postgresql.proxy_address`), with the database.
    pub proxy_url: Option<String>,
    /// What was seen.
    pub observation: Observation,
    /// What was decided.
    pub decision: Decision,
    /// The wall clock when this node last knew a Raft leader: the cluster could agree on something then. None: not
    /// since the daemon started.
    pub consensus_seen: Option<SystemTime>,
}

impl View {
    /// When the observation was complete, on this machine's clock.
    pub fn at(&self) -> BootTime {
        self.observation.now
    }
}
