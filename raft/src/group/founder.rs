//! Founding and joining.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use serde::{Deserialize, Serialize};

use super::node::Node;
use super::view::{Phase, Proposed};
use crate::model::{Command, GroupId, Member, MemberId};
use crate::network::{Kind, Target};
use crate::types::PeerNode;

/// How long a partner may take to say who it is.
const PROBE_LIMIT: Duration = Duration::from_millis(700);
/// The pause between two rounds of probes.
const PAUSE: Duration = Duration::from_millis(150);

/// A member's answer to a probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WhoIAm {
    pub(crate) id: MemberId,
    pub(crate) member: Member,
    pub(crate) group: Option<GroupId>,
}

pub(crate) fn who_am_i(node: &Node) -> WhoIAm {
    WhoIAm { id: node.id, member: node.config.member.clone(), group: node.identity.group() }
}

/// Leads this node into the group.
pub(crate) async fn run(node: Arc<Node>) {
    if let Some(group) = node.store.group() {
        node.identity.expect(group);
    }
    let mut found = BTreeMap::from([(node.id, node.config.member.clone())]);
    loop {
        if node.applied.borrow().state.members.contains_key(&node.id) {
            node.set_phase(Phase::Member);
            return;
        }
        let leads = node.raft.server_metrics().borrow_watched().state.is_leader();
        if leads && node.applied.borrow().state.group.is_none() {
            propose_found(&node, &found).await;
            continue;
        }
        if node.identity.group().is_none() {
            let answers = probe(&node).await;
            found = BTreeMap::from([(node.id, node.config.member.clone())]);
            found.extend(answers.into_iter().map(|who| (who.id, who.member)));
            let all = found.len() > node.config.partner_addrs.len();
            let first = found.values().map(|member| &member.raft_addr).min();
            if all && first == Some(&node.config.member.raft_addr) {
                initialize(&node, &found).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn initialize(node: &Node, members: &BTreeMap<MemberId, Member>) {
    let group = GroupId(node.id.0);
    if let Err(error) = node.store.save_group(group).await {
        return node.fail(error.to_string());
    }
    node.identity.expect(group);
    let nodes: BTreeMap<u64, PeerNode> =
        members.iter().map(|(id, member)| (id.0, PeerNode::of(member))).collect();
    if let Err(error) = node.raft.initialize(nodes).await {
        tracing::warn!("cannot found the cluster {}: {error}", node.config.scope);
    }
}

async fn propose_found(node: &Arc<Node>, members: &BTreeMap<MemberId, Member>) {
    let Some(group) = node.identity.group() else { return };
    let scope = node.config.scope.clone();
    let members = members.iter().map(|(id, member)| (*id, member.clone())).collect();
    let proposed = super::propose::propose(node, Command::Found { group, scope, members }).await;
    if let Proposed::Unknown(reason) = proposed {
        tracing::warn!("the founding of the cluster is not agreed on yet: {reason}");
    }
}

async fn probe(node: &Node) -> Vec<WhoIAm> {
    let mut answers = Vec::new();
    for addr in &node.config.partner_addrs {
        let target = Target { addr: addr.clone(), id: None };
        if let Ok(who) = node.peers.call(&target, None, Kind::Probe, &(), PROBE_LIMIT).await {
            answers.push(who);
        }
    }
    answers
}
