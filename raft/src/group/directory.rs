//! Who belongs to a cluster, for a program that is no member and knows only somebody's peers' port.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::marks::Marks;
use super::node::Node;
use super::view::CallError;
use crate::model::Member;
use crate::network::{CallFailure, Kind, PeerSecurity, Peers, Target};

/// The members as this node has applied them.
pub(super) fn members(node: &Node) -> Vec<Member> {
    node.applied.borrow().state.members.values().cloned().collect()
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
    let peers = Peers::new(scope, Arc::new(Marks::stranger()), security.clone(), &Handle::current());
    let target = Target { addr: addr.to_owned(), id: None };
    peers.call(&target, None, Kind::Members, &(), limit).await.map_err(|failure| {
        let (addr, reason) = (addr.to_owned(), failure.to_string());
        match failure {
            CallFailure::NotSent(_) | CallFailure::Lost(_) => CallError::Unreachable { addr, reason },
            CallFailure::Refused(_) | CallFailure::OtherScope(_) => CallError::Refused { addr, reason },
        }
    })
}
