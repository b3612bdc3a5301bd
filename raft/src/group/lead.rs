//! What the Raft leader does for the group: it proposes the founding, brings the Raft membership step by step to what
//! the state asks for, and prefers to lead on another node than the lease holder's, and on one that reaches the holder.
//!
//! Each step has a limit of its own: the consensus library would wait for an unreachable member without end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use tokio::time::timeout;

use super::node::Node;
use super::propose::{self, ProposeAnswer};
use crate::clock;
use crate::lease::BootTime;
use crate::membership::{RaftMembershipView, Step, next_step};
use crate::model::{Command, MemberId, MemberKind, Outcome};
use crate::network::Kind;
use crate::types::PeerNode;

/// How often the Raft leader looks whether something is to be done.
const INTERVAL: Duration = Duration::from_millis(200);
/// A member that was silent in so many looks is worth a line in the log.
const SILENT_LOOKS: u32 = 10;
/// How long one step may take before it is looked at again.
const STEP_LIMIT: Duration = Duration::from_secs(3);
/// A learner that lags by so many entries or less has caught up.
const CAUGHT_UP: u64 = 16;
/// The pause between two attempts to lead elsewhere.
const TRANSFER_PAUSE: Duration = Duration::from_secs(30);
/// A leader must have led so long before it goes: a young cluster has better things to do.
const TRANSFER_AFTER: Duration = Duration::from_secs(3);

/// A lease holder that has not answered the Raft leader in so many looks may be heard by somebody else.
const HOLDER_SILENT_LOOKS: u32 = 5;
/// A voter that has heard the holder within this time hears it: renewals come once a second at least.
const HEARS_THE_HOLDER: Duration = Duration::from_millis(1500);
/// How long a voter may take to say so.
const HEARS_LIMIT: Duration = Duration::from_millis(300);

/// Works while this node leads; sleeps while it does not.
pub(crate) async fn run(node: Arc<Node>) {
    let mut view = node.view.subscribe();
    loop {
        if view.wait_for(|view| view.raft.is_raft_leader).await.is_err() {
            return;
        }
        let mut calm_since = clock::now();
        let mut last = None;
        let mut silent = BTreeMap::new();
        while node.leads() {
            tell_who_is_silent(&node, &mut silent);
            lead_where_the_holder_is_heard(&node, &silent, &mut calm_since).await;
            match next(&node) {
                Some(step) => {
                    if last.as_ref() != Some(&step) {
                        tracing::info!("the membership changes: {step:?}");
                    }
                    perform(&node, &step).await;
                    last = Some(step);
                    calm_since = clock::now();
                }
                None => {
                    last = None;
                    found(&node).await;
                    prefer_another_node(&node, &mut calm_since).await;
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Says once that a member does not answer, and once that it does again; nothing of those which gave their vote back,
/// since they said so themselves. Counts in how many looks each was silent.
fn tell_who_is_silent(node: &Node, silent: &mut BTreeMap<MemberId, u32>) {
    let RaftMembershipView { reachable, voters, .. } = node.membership_view();
    let applied = Arc::clone(&node.applied.borrow());
    let has_left = |id: &MemberId| applied.state.leaving.contains(id) && !voters.contains(id);
    let mut looks = BTreeMap::new();
    for id in applied.state.members.keys().filter(|id| !has_left(id)) {
        let before = silent.get(id).copied().unwrap_or(0);
        if !reachable.contains(id) {
            looks.insert(*id, before.saturating_add(1));
            if before.saturating_add(1) == SILENT_LOOKS {
                tracing::warn!("{} does not answer the Raft leader", applied.state.name_of(*id));
            }
        } else if before >= SILENT_LOOKS {
            tracing::info!("{} answers the Raft leader again", applied.state.name_of(*id));
        }
    }
    *silent = looks;
}

impl Node {
    pub(crate) fn leads(&self) -> bool {
        self.raft_view().is_raft_leader
    }

    /// The Raft membership as this leader sees it.
    fn membership_view(&self) -> RaftMembershipView {
        let watch = self.raft.metrics();
        let metrics = watch.borrow_watched();
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.unwrap_or(0);
        let patience = self.config.timing.election_max;
        let caught_up = metrics.replication.iter().flatten().filter(|(_, matched)| {
            matched.as_ref().is_some_and(|matched| matched.index.saturating_add(CAUGHT_UP) >= last)
        });
        let reachable = metrics
            .heartbeat
            .iter()
            .flatten()
            .filter(|(_, acked)| acked.as_ref().is_some_and(|acked| clock::age(**acked) <= patience));
        let me = [self.id];
        RaftMembershipView {
            voters: membership.voter_ids().map(MemberId).collect(),
            learners: membership.learner_ids().map(MemberId).collect(),
            joint: membership.get_joint_config().len() > 1,
            caught_up: caught_up.map(|(id, _)| MemberId(*id)).chain(me).collect(),
            reachable: reachable.map(|(id, _)| MemberId(*id)).chain(me).collect(),
        }
    }
}

fn next(node: &Node) -> Option<Step> {
    let applied = node.applied.borrow().clone();
    applied.state.group?;
    next_step(&applied.state, &node.membership_view())
}

async fn perform(node: &Arc<Node>, step: &Step) {
    let change = |change, retain| async move {
        let changed = timeout(STEP_LIMIT, Box::pin(node.raft.change_membership(change, retain))).await;
        match changed {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("a change of the membership failed: {error}"),
            Err(_) => tracing::warn!("a change of the membership is not committed after {STEP_LIMIT:?}"),
        }
    };
    match step {
        Step::LeaveJoint => change(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await,
        Step::Promote(id) => change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])), true).await,
        Step::Demote(id) => change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0])), true).await,
        Step::RemoveNode(id) => change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0])), false).await,
        Step::AddLearner(id) => {
            let member = node.applied.borrow().state.members.get(id).map(PeerNode::of);
            if let Some(member) = member {
                change(ChangeMembers::AddNodes(BTreeMap::from([(id.0, member)])), true).await;
            }
        }
        Step::SetVoters { epoch, voters } => {
            let command = Command::SetVoters { epoch: *epoch, voters: voters.clone() };
            propose_logged(node, command).await;
        }
    }
}

/// Proposes the founding from the founders which the Raft membership names.
async fn found(node: &Arc<Node>) {
    if node.applied.borrow().state.group.is_some() {
        return;
    }
    let Some(group) = node.identity.group() else { return };
    let founders: Option<Vec<_>> = {
        let watch = node.raft.server_metrics();
        let metrics = watch.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.map(|(id, peer)| Some((MemberId(*id), peer.founder.as_deref()?.clone()))).collect()
    };
    let Some(members) = founders.filter(|members| !members.is_empty()) else { return };
    let scope = node.config.scope.clone();
    propose_logged(node, Command::Found { group, scope, members }).await;
}

async fn propose_logged(node: &Arc<Node>, command: Command) {
    match Box::pin(propose::propose_here(node, command, STEP_LIMIT)).await {
        ProposeAnswer::Outcome(_, Outcome::Applied) => {}
        ProposeAnswer::Outcome(_, Outcome::Rejected(rejection)) => {
            tracing::debug!("a step of the membership was refused: {rejection}");
        }
        ProposeAnswer::NotLeader(_) => {}
        ProposeAnswer::Unknown(reason) => tracing::warn!("a step of the membership has no outcome: {reason}"),
    }
}

/// Hands Raft's leadership to another node while this one holds the lease, so that its loss costs one election less.
async fn prefer_another_node(node: &Arc<Node>, calm_since: &mut BootTime) {
    if node.applied.borrow().state.lease.holder() != Some(node.id)
        || clock::now().since(*calm_since) < TRANSFER_AFTER
    {
        return;
    }
    if let Some(to) = successor(node) {
        tracing::debug!("Raft is led by {to} from now on, since this node holds the lease");
        transfer(node, to).await;
    }
    *calm_since = clock::now().after(TRANSFER_PAUSE);
}

/// Hands Raft's leadership to a voter that hears the lease holder while this node and the holder do not reach each
/// other. The holder renews its lease with the others and goes on; but what it proposes, such as another synchronous
/// standby, goes through the Raft leader, and what is agreed on comes from it.
async fn lead_where_the_holder_is_heard(
    node: &Arc<Node>,
    silent: &BTreeMap<MemberId, u32>,
    calm_since: &mut BootTime,
) {
    let Some(holder) = node.applied.borrow().state.lease.holder() else { return };
    let looks = silent.get(&holder).copied().unwrap_or(0);
    if looks < HOLDER_SILENT_LOOKS || clock::now() < *calm_since {
        return;
    }
    for to in successors(node) {
        let Some(target) = node.target(to) else { continue };
        let group = node.identity.group();
        let quiet_ms: Result<u64, _> = node.peers.call(&target, group, Kind::Quiet, &(), HEARS_LIMIT).await;
        if quiet_ms.is_ok_and(|quiet_ms| Duration::from_millis(quiet_ms) <= HEARS_THE_HOLDER) {
            tracing::info!("Raft is led by {to} from now on, which hears the lease's holder {holder}");
            transfer(node, to).await;
            *calm_since = clock::now().after(TRANSFER_PAUSE);
            return;
        }
    }
}

/// Who could lead at once: a witness rather than a data member.
pub(crate) fn successor(node: &Node) -> Option<MemberId> {
    successors(node).first().copied()
}

/// All who could lead at once, the best one first.
fn successors(node: &Node) -> Vec<MemberId> {
    let view = node.membership_view();
    let state = node.applied.borrow().state.clone();
    let able = view.voters.iter().filter(|id| {
        **id != node.id
            && view.reachable.contains(id)
            && view.caught_up.contains(id)
            && !state.leaving.contains(id)
    });
    let is_data = |id: &MemberId| state.members.get(id).is_none_or(|member| member.kind == MemberKind::Data);
    let mut able: Vec<MemberId> = able.copied().collect();
    able.sort_by_key(|id| (is_data(id), *id));
    able
}

/// Hands Raft's leadership over, if it goes.
pub(crate) async fn transfer(node: &Node, to: MemberId) {
    let asked = timeout(STEP_LIMIT, node.raft.trigger().transfer_leader(to.0)).await;
    if !matches!(asked, Ok(Ok(()))) {
        tracing::debug!("Raft's leadership was not handed over to {to}");
    }
}
