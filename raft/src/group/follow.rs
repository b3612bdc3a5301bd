//! The published view: applied state, Raft's own view and the phase brought into one value.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;

use super::node::Node;
use super::view::{GroupView, Phase, RaftView};
use crate::clock;
use crate::model::MemberId;

/// After so many of the longest election timeouts without contact a Raft leader is none.
pub(super) const CONTACT_TIMES: u32 = 3;
/// How often the view is looked at again although nothing moved: contact ends without an event.
const REFRESH: Duration = Duration::from_secs(1);

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
            () = tokio::time::sleep(REFRESH) => true,
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
    // The phase first: a state beside it is not older than the one with which the phase began.
    let phase = node.phase.borrow().clone();
    let applied = Arc::clone(&node.applied.borrow());
    if phase == Phase::Member {
        node.known_at_start.get_or_init(|| applied.state.lease.epoch);
    }
    let next =
        GroupView { phase, state: applied.state.clone(), applied: applied.index(), raft: node.raft_view() };
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
    /// A Raft leader was heard.
    pub(crate) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
    }

    /// The Raft group as seen from here. The consensus library goes on to name a leader that is long gone, and an
    /// isolated leader itself: only one in contact counts. The only voter is in contact with itself, although nobody
    /// acknowledges anything to it.
    pub(crate) fn raft_view(&self) -> RaftView {
        let watch = self.raft.metrics();
        let metrics = watch.borrow_watched();
        let limit = self.config.timing.election_max * CONTACT_TIMES;
        let acked = metrics.last_quorum_acked.as_ref().is_none_or(|acked| clock::age(**acked) <= limit);
        let voters: BTreeSet<MemberId> =
            metrics.membership_config.membership().voter_ids().map(MemberId).collect();
        let is_alone = voters.iter().eq([&self.id]);
        let is_raft_leader = metrics.state.is_leader() && (acked || is_alone);
        let known = metrics.current_leader.map(MemberId);
        RaftView {
            is_raft_leader,
            raft_leader: known.filter(|id| if *id == self.id { is_raft_leader } else { self.hears(limit) }),
            term: metrics.current_term,
            voters,
        }
    }

    /// Was a Raft leader heard so recently?
    pub(crate) fn hears(&self, limit: Duration) -> bool {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|at| clock::now().since(at) <= limit)
    }

    /// The Raft leader which the consensus library names, perhaps long gone: whom to ask first.
    pub(crate) fn raft_leader(&self) -> Option<MemberId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(MemberId)
    }

    /// A Raft leader in contact.
    pub(crate) fn contact(&self) -> Option<MemberId> {
        self.raft_view().raft_leader
    }
}
