//! A node's own place in the group: it asks until the replicated state names it as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::admission::{JoinAnswer, JoinRequest};
use super::node::Node;
use super::view::Phase;
use super::{founder, propose};
use crate::founding::Status;
use crate::model::{GroupId, MemberId};
use crate::network::{CallFailure, Kind, Target};
use crate::state_machine::Applied;

/// The pause before it asks again.
const PAUSE: Duration = Duration::from_millis(400);
/// How long the Raft leader may take to decide: it may have to see that a former bearer of the name is silent.
const JOIN_LIMIT: Duration = Duration::from_secs(6);
/// How often a member makes sure that it is one: a replaced one hears nothing any more.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often one question is sent on to another member.
const MAX_HOPS: usize = 3;
/// A node which the state names, as far as it knows, asks only after so many pauses without a Raft leader: it may have
/// been replaced in the meantime.
const SILENT_TURNS: usize = 5;
/// How often a member looks at its partners: a partner that was absent at the founding gets its vote soon.
const PARTNERS_INTERVAL: Duration = Duration::from_secs(3);
/// How long a partner may take to take note of an invitation.
const INVITE_LIMIT: Duration = Duration::from_secs(1);

/// Leads this node back into its group and keeps its entry as its configuration says.
pub(crate) async fn run(node: Arc<Node>) {
    let mut applied = node.applied.clone();
    let mut server = node.view.subscribe();
    let mut member = node.member.subscribe();
    let mut turn = 0_usize;
    let mut is_up_to_date = false;
    loop {
        let now = Arc::clone(&applied.borrow_and_update());
        if is_in(&node, &now) && node.contact().is_some() {
            is_up_to_date = is_up_to_date || catches_up(&node).await;
            if !is_up_to_date {
                continue;
            }
            node.set_phase(Phase::Member);
            turn = 0;
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                moved = applied.changed() => if moved.is_err() { return },
                changed = member.changed() => if changed.is_err() { return },
            }
            continue;
        }
        show_waiting(&node, &now);
        turn = turn.wrapping_add(1);
        let silent = is_in(&node, &now) && turn <= SILENT_TURNS;
        let leaves = node.leaving.load(Ordering::Relaxed);
        if let Some(group) = now.state.group.filter(|_| !silent && !leaves)
            && let Some(via) = whom_to_ask(&node, &now, turn)
        {
            ask(&node, &via, group).await;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            moved = server.changed() => if moved.is_err() { return },
        }
    }
}

/// Has this node applied what was agreed on while it was away? Before that its own state is no basis for any decision:
/// it may name a holder of long ago.
async fn catches_up(node: &Arc<Node>) -> bool {
    let Ok(agreed) = propose::read(node).await else {
        tokio::time::sleep(PAUSE).await;
        return false;
    };
    let mut applied = node.applied.clone();
    let seen =
        applied.wait_for(|applied| applied.state == agreed || applied.state.lease.epoch > agreed.lease.epoch);
    tokio::time::timeout(PAUSE, seen).await.is_ok()
}

/// The state names this node as its configuration does, and not as one that left.
fn is_in(node: &Node, applied: &Applied) -> bool {
    let left = applied.state.leaving.contains(&node.id) && !node.leaving.load(Ordering::Relaxed);
    applied.state.members.get(&node.id) == Some(&*node.member.borrow()) && !left
}

fn show_waiting(node: &Node, applied: &Applied) {
    if *node.phase.borrow() == Phase::Member && applied.state.members.contains_key(&node.id) {
        return;
    }
    let membership = applied.membership.membership();
    let voters: BTreeSet<MemberId> = membership.voter_ids().map(MemberId).collect();
    let others: Vec<String> =
        voters.iter().filter(|id| **id != node.id).map(|id| applied.state.name_of(*id)).collect();
    if applied.state.group.is_none() {
        let waiting_for = "the first agreement of the founders".to_owned();
        node.set_phase(Phase::Founding { waiting_for });
    } else if node.contact().is_none() {
        let waiting_for = if others.is_empty() {
            "the election of this node, the only voter".to_owned()
        } else if voters.contains(&node.id) {
            format!("a majority of the voters: this node and {}; start the missing ones", others.join(", "))
        } else if !node.config.member.votes {
            format!("a majority of the voters: {}; this node has no vote", others.join(", "))
        } else {
            format!("{}: this node gave its vote back when it stopped; start those first", others.join(", "))
        };
        node.set_phase(Phase::Joining { waiting_for });
    } else if !matches!(*node.phase.borrow(), Phase::Joining { .. }) {
        node.set_phase(Phase::Joining { waiting_for: "the Raft leader, which lets it in".to_owned() });
    }
}

/// The Raft leader, or the known addresses in turn.
fn whom_to_ask(node: &Node, applied: &Applied, turn: usize) -> Option<String> {
    let leader = node.contact().filter(|leader| *leader != node.id);
    if let Some(addr) = leader.and_then(|leader| node.identity.addr_of(leader)) {
        return Some(addr);
    }
    if node.contact() == Some(node.id) {
        return Some(node.config.member.raft_addr.clone());
    }
    let own = &node.config.member.raft_addr;
    let known = applied.state.members.values().map(|member| &member.raft_addr);
    let all: BTreeSet<&String> =
        node.config.partner_addrs.iter().chain(known).filter(|addr| *addr != own).collect();
    all.iter().nth(turn.checked_rem(all.len())?).map(|addr| (*addr).clone())
}

/// Asks a member, and whoever it names as the Raft leader, to let this node in.
pub(crate) async fn ask(node: &Arc<Node>, via: &str, group: GroupId) {
    let request = JoinRequest {
        id: node.id,
        member: node.member.borrow().clone(),
        system_identifier: node.config.system_identifier,
    };
    let mut addr = via.to_owned();
    for _ in 0..MAX_HOPS {
        let answer = if addr == node.config.member.raft_addr {
            Ok(super::admission::admit(node, &request).await)
        } else {
            let target = Target { addr: addr.clone(), id: None };
            node.peers.call(&target, Some(group), Kind::Join, &request, JOIN_LIMIT).await
        };
        match answer {
            Ok(JoinAnswer::Welcome) => return,
            Ok(JoinAnswer::NotLeader(Some(next))) if next != addr => addr = next,
            Ok(JoinAnswer::NotLeader(_)) => return,
            Ok(JoinAnswer::Wait(waiting_for)) => return node.set_phase(Phase::Joining { waiting_for }),
            Ok(JoinAnswer::Refused(sentence)) => return node.set_phase(Phase::Refused(sentence)),
            Err(CallFailure::Refused(reason)) => {
                tracing::error!("{addr} refuses this node: {reason}");
                return node.set_phase(Phase::Joining { waiting_for: format!("{addr}: {reason}") });
            }
            Err(failure) => return tracing::debug!("{addr} does not let this node in: {failure}"),
        }
    }
}

/// Looks at the partners again and again. One that is in no group is invited: it may list nobody itself, as a witness
/// may. One of another group under the same scope is complained about loudly, once; neither group changes.
pub(crate) async fn look_at_partners(node: Arc<Node>) {
    let mut foreign = BTreeMap::new();
    loop {
        tokio::time::sleep(PARTNERS_INTERVAL).await;
        let is_member = *node.phase.borrow() == Phase::Member;
        let Some(own) = node.applied.borrow().state.group.filter(|_| is_member) else { continue };
        for addr in node.config.partner_addrs.iter().filter(|addr| **addr != node.config.member.raft_addr) {
            match founder::probe(&node, addr).await {
                Status::Member { group, .. } if group == own => {
                    foreign.remove(addr);
                }
                Status::Member { group, .. } => {
                    if foreign.insert(addr.clone(), group) != Some(group) {
                        tracing::error!(
                            "{addr} belongs to another group ({group}) under the same scope {}; this one is {own}: give one of the two clusters another scope",
                            node.config.scope
                        );
                    }
                }
                // One whose store was lost belongs to no group that it knows, and answers no probe.
                Status::New { .. } | Status::Unreachable => invite(&node, addr, own).await,
                Status::OtherScope => {}
            }
        }
    }
}

async fn invite(node: &Node, addr: &str, group: GroupId) {
    let leader = node.contact().and_then(|leader| node.identity.addr_of(leader));
    let via = leader.unwrap_or_else(|| node.config.member.raft_addr.clone());
    let target = Target { addr: addr.to_owned(), id: None };
    let invitation = founder::Invitation { group, via };
    let taken: Result<(), _> =
        node.peers.call(&target, Some(group), Kind::Invite, &invitation, INVITE_LIMIT).await;
    if let Err(failure) = taken {
        tracing::debug!("{addr} was not invited: {failure}");
    }
}
