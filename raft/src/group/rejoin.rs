//! The way back of a node whose store lost something: it only joins, and never takes part in a founding, since a
//! group to which it made promises may exist.

use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::view::Phase;
use super::{belong, founder};
use crate::founding::Status;

/// The pause between two rounds through the partners.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks the partners, and whoever invites this node, for the group until it was let in.
pub(crate) async fn run(node: &Arc<Node>, lost: &str) {
    let dir = node.config.data_dir.join(&node.config.scope);
    let waiting_for = format!(
        "a member of its group among its partners, to come back under a new id: {lost}; to found a new cluster instead, stop this node and remove {}",
        dir.display()
    );
    node.set_phase(Phase::Joining { waiting_for });
    while !node.raft.is_initialized().await.unwrap_or(true) {
        let invited = node.founder.invitation().map(|invitation| invitation.via);
        for addr in node.config.partner_addrs.iter().chain(&invited) {
            if let Status::Member { group, .. } = founder::probe(node, addr).await {
                if let Err(error) = founder::accept(node, Some(group)).await {
                    return node.fail(format!("cannot write the group's identity to the store: {error}"));
                }
                belong::ask(node, addr, group).await;
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
