//! The published view: applied state, Raft's own view and the phase brought into one value.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;

use super::node::Node;
use super::view::{GroupView, RaftView};
use crate::model::MemberId;

/// Publishes a new view whenever one of its parts moved; ends when Raft did.
pub(crate) async fn run(node: Arc<Node>) {
    let mut applied = node.applied.clone();
    let mut server = node.raft.server_metrics();
    let mut phase = node.phase.subscribe();
    let mut store = node.store.failed();
    loop {
        node.voter.learn(&applied.borrow_and_update().state.lease);
        publish(&node);
        let alive = tokio::select! {
            moved = applied.changed() => moved.is_ok(),
            moved = server.changed() => moved.is_ok(),
            moved = phase.changed() => moved.is_ok(),
            failed = store.wait_for(Option::is_some) => {
                let reason = failed.ok().and_then(|reason| reason.clone());
                node.fail(reason.map_or_else(|| "the store ended".to_owned(), |reason| reason.to_string()));
                false
            }
        };
        if !alive {
            node.fail(why_raft_ended(&node));
            publish(&node);
            return;
        }
    }
}

fn publish(node: &Node) {
    let applied = Arc::clone(&node.applied.borrow());
    let next = GroupView {
        phase: node.phase.borrow().clone(),
        state: applied.state.clone(),
        applied: applied.index(),
        raft: node.raft_view(),
    };
    node.view.send_if_modified(|view| {
        let changes = **view != next;
        if changes {
            *view = Arc::new(next);
        }
        changes
    });
}

fn why_raft_ended(node: &Node) -> String {
    let metrics = node.raft.metrics();
    let state = &metrics.borrow_watched().running_state;
    match state {
        Ok(()) => "Raft ended".to_owned(),
        Err(error) => format!("Raft ended: {error}; restart the daemon"),
    }
}

impl Node {
    /// The Raft group as the consensus library sees it now.
    pub(crate) fn raft_view(&self) -> RaftView {
        let metrics = self.raft.server_metrics();
        let server = metrics.borrow_watched();
        RaftView {
            is_raft_leader: server.state.is_leader(),
            raft_leader: server.current_leader.map(MemberId),
            term: server.vote.leader_id.term,
            voters: server.membership_config.membership().voter_ids().map(MemberId).collect(),
        }
    }

    /// The Raft leader, as far as this node knows.
    pub(crate) fn raft_leader(&self) -> Option<MemberId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(MemberId)
    }
}
