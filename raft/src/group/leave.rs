//! A clean stop: the vote is given back, so that the rest counts without this node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::node::Node;
use super::view::{LeaveOutcome, Proposed};
use super::{lead, propose};
use crate::model::{Command, MemberId, Outcome};

/// Gives the vote back if the rest keeps a majority without it. The holder of a pinned epoch keeps its vote, and only
/// says that its daemon ends on purpose: see [`crate::model::ClusterState::may_fence_pinned`].
pub(crate) async fn leave(node: &Arc<Node>, within: Duration) -> LeaveOutcome {
    node.leaving.store(true, Ordering::Relaxed);
    match timeout(within, try_to_leave(node)).await {
        Ok(outcome) => outcome,
        Err(_) => LeaveOutcome::KeptVote(format!(
            "the others did not take the vote back within {within:?}; they may still do so"
        )),
    }
}

async fn try_to_leave(node: &Arc<Node>) -> LeaveOutcome {
    let state = node.applied.borrow().state.clone();
    if !state.members.contains_key(&node.id) {
        return LeaveOutcome::Left;
    }
    let voters = node.raft_view().voters;
    let counts = |voters: &std::collections::BTreeSet<MemberId>| voters.iter().any(|id| *id != node.id);
    if !counts(&voters) && voters.contains(&node.id) {
        return LeaveOutcome::KeptVote(
            "this node is the last voter; start it first when the cluster returns".to_owned(),
        );
    }
    let tenure = state.lease.tenure.as_ref().filter(|tenure| tenure.holder == node.id);
    let kept = LeaveOutcome::KeptVote("this node holds the lease".to_owned());
    match tenure {
        Some(tenure) if !tenure.pinned => return kept,
        Some(_) | None => {}
    }
    match propose::propose(node, Command::SetLeaving { id: node.id, leaving: true }).await {
        Proposed::Outcome(Outcome::Applied) => {}
        Proposed::Outcome(Outcome::Rejected(rejection)) => {
            return LeaveOutcome::KeptVote(rejection.to_string());
        }
        Proposed::Unknown(reason) => return LeaveOutcome::KeptVote(reason),
    }
    if tenure.is_some() {
        return kept;
    }
    if node.leads()
        && let Some(to) = lead::successor(node)
    {
        lead::transfer(node, to).await;
    }
    let mut view = node.view.subscribe();
    let gone = view
        .wait_for(|view| !view.state.lease.voters.contains(&node.id) && !view.raft.voters.contains(&node.id));
    match gone.await {
        Ok(_) => LeaveOutcome::Left,
        Err(_) => LeaveOutcome::KeptVote("this node's group ended".to_owned()),
    }
}
