//! Who belongs to a cluster, and what it agreed on, for a program that is no member and knows only somebody's peers' port.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::marks::Marks;
use super::node::Node;
use super::propose;
use super::view::CallError;
use crate::clock;
use crate::model::{ClusterState, Member, MemberId};
use crate::network::{CallFailure, Kind, PeerSecurity, Peers, Target};

/// The members as this node has applied them.
pub(super) fn members(node: &Node) -> Vec<Member> {
    node.applied.borrow().state.members.values().cloned().collect()
}

/// A member's answer to [`ask_state`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum StateAnswer {
    /// A majority confirmed it.
    State(Box<ReadState>),
    /// No majority confirmed it in time, or the group is not founded yet. Why, as a sentence.
    Unknown(String),
}

/// The replicated state as one member read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadState {
    /// Not older than the question.
    pub state: ClusterState,
    /// Who answered.
    pub by: MemberId,
    /// For how many milliseconds its own voter has heard nothing of a holder of the lease.
    pub quiet_ms: u64,
}

/// Reads the state for a stranger.
pub(super) async fn state(node: &Arc<Node>) -> StateAnswer {
    match propose::read(node).await {
        Ok(state) => {
            let quiet = node.voter.quiet_for(clock::now());
            let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
            StateAnswer::State(Box::new(ReadState { state, by: node.id, quiet_ms }))
        }
        Err(error) => StateAnswer::Unknown(error.to_string()),
    }
}

/// Asks whoever listens on the peers' port at `addr` for the members of a cluster, as far as it knows.
///
/// # Errors
/// Nobody answers there within `limit`, or the cluster is not served there.
pub async fn ask_members(
    scope: &str,
    addr: &str,
    security: &PeerSecurity,
    limit: Duration,
) -> Result<Vec<Member>, CallError> {
    ask(scope, addr, security, Kind::Members, limit).await
}

/// Asks whoever listens on the peers' port at `addr` for the replicated state, which a majority of the voters has to
/// confirm meanwhile.
///
/// # Errors
/// Nobody answers there within `limit`, or the cluster is not served there.
pub async fn ask_state(
    scope: &str,
    addr: &str,
    security: &PeerSecurity,
    limit: Duration,
) -> Result<StateAnswer, CallError> {
    ask(scope, addr, security, Kind::State, limit).await
}

async fn ask<A: DeserializeOwned>(
    scope: &str,
    addr: &str,
    security: &PeerSecurity,
    kind: Kind,
    limit: Duration,
) -> Result<A, CallError> {
    let peers = Peers::new(scope, Arc::new(Marks::stranger()), security.clone(), &Handle::current());
    let target = Target { addr: addr.to_owned(), id: None };
    peers.call(&target, None, kind, &(), limit).await.map_err(|failure| {
        let (addr, reason) = (addr.to_owned(), failure.to_string());
        match failure {
            CallFailure::NotSent(_) | CallFailure::Lost(_) => CallError::Unreachable { addr, reason },
            CallFailure::Refused(_) | CallFailure::OtherScope(_) => CallError::Refused { addr, reason },
        }
    })
}
