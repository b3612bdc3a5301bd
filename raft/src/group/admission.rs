//! The Raft leader's side of joining: who may be a member under which name and address.
//!
//! Promises that a name or an address which a living member bears is refused before the newcomer gets any vote, and
//! that a former id of the same name goes only after its bearer was seen not to answer.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::node::Node;
use super::propose::{self, ProposeAnswer};
use crate::founding::Status;
use crate::model::{
    ClusterState, Command, Member, MemberId, Outcome, Rejection, SystemIdentifier, other_system,
};
use crate::network::{CallFailure, Kind, Target};

/// How often, and how long each time, a former bearer of a name is asked before it counts as silent.
const SILENCE: (usize, Duration) = (3, Duration::from_millis(700));
/// How long one of the commands may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);

/// "Let me in."
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) id: MemberId,
    pub(crate) member: Member,
    /// Of its data directory; none: it holds no database system, or the sender's version does not say.
    #[serde(default)]
    pub(crate) system_identifier: Option<SystemIdentifier>,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// It is a member; its vote follows.
    Welcome,
    /// Ask the Raft leader, perhaps at this address.
    NotLeader(Option<String>),
    /// Ask again; a sentence that says what for.
    Wait(String),
    /// Never as things stand; a sentence with the cure.
    Refused(String),
}

/// Decides as Raft leader.
pub(crate) async fn admit(node: &Arc<Node>, request: &JoinRequest) -> JoinAnswer {
    let leader = node.contact();
    if leader != Some(node.id) {
        return JoinAnswer::NotLeader(leader.and_then(|leader| node.identity.addr_of(leader)));
    }
    let _one_at_a_time = node.admission.lock().await;
    let state = node.applied.borrow().state.clone();
    if state.group.is_none() {
        return JoinAnswer::Wait("the first agreement of the founders".to_owned());
    }
    let JoinRequest { id, member, system_identifier: own } = request;
    if let (Some(cluster), Some(own)) = (state.system_identifier, *own)
        && cluster != own
    {
        return JoinAnswer::Refused(other_system(&member.name, cluster, own));
    }
    if state.members.get(id) != Some(member) {
        match make_room(node, &state, *id, member).await {
            Ok(replaces) => {
                let command = Command::PutMember { id: *id, member: member.clone(), replaces };
                if let Err(answer) = command_applied(node, command).await {
                    return answer;
                }
                tracing::info!("{} ({id}) is a member at {}", member.name, member.raft_addr);
            }
            Err(answer) => return answer,
        }
    }
    if state.leaving.contains(id) {
        let command = Command::SetLeaving { id: *id, leaving: false };
        if let Err(answer) = command_applied(node, command).await {
            return answer;
        }
    }
    JoinAnswer::Welcome
}

/// Is the name free, and the address? Names the former id which the newcomer replaces.
async fn make_room(
    node: &Arc<Node>,
    state: &ClusterState,
    id: MemberId,
    member: &Member,
) -> Result<Option<MemberId>, JoinAnswer> {
    let others = || state.members.iter().filter(|(other, _)| **other != id);
    if let Some((_, other)) =
        others().find(|(_, other)| other.raft_addr == member.raft_addr && other.name != member.name)
    {
        return Err(JoinAnswer::Refused(format!(
            "the address {} belongs to the member '{}'; set another raft.self_addr, or remove that member first",
            member.raft_addr, other.name
        )));
    }
    let Some((old, bearer)) = others().find(|(_, other)| other.name == member.name) else { return Ok(None) };
    if state.members.contains_key(&id) {
        return Err(JoinAnswer::Refused(format!(
            "the name '{}' belongs to another member; a member's new name must be free",
            member.name
        )));
    }
    if *old == node.id || answers(node, *old, &bearer.raft_addr).await {
        return Err(JoinAnswer::Refused(format!(
            "there is already a node named '{}' running at {}: stop it, or give this node another name",
            member.name, bearer.raft_addr
        )));
    }
    if state.lease.holder() == Some(*old) {
        return Err(JoinAnswer::Wait(
            "the lease which its former id holds to go to another member".to_owned(),
        ));
    }
    if state.lease.voters.contains(old) {
        if !state.leaving.contains(old) {
            command_applied(node, Command::SetLeaving { id: *old, leaving: true }).await?;
        }
        return Err(JoinAnswer::Wait("its former id to lose its vote".to_owned()));
    }
    Ok(Some(*old))
}

/// Does the bearer of this id answer? A refusal by somebody else at its address means that it is gone.
async fn answers(node: &Node, id: MemberId, addr: &str) -> bool {
    let target = Target { addr: addr.to_owned(), id: Some(id) };
    for _ in 0..SILENCE.0 {
        match node.peers.call::<_, Status>(&target, None, Kind::Probe, &(), SILENCE.1).await {
            Ok(_) => return true,
            Err(CallFailure::NotSent(_) | CallFailure::Refused(_) | CallFailure::OtherScope(_)) => {
                return false;
            }
            Err(CallFailure::Lost(_)) => {}
        }
    }
    false
}

async fn command_applied(node: &Arc<Node>, command: Command) -> Result<(), JoinAnswer> {
    match Box::pin(propose::propose_here(node, command, COMMAND_LIMIT)).await {
        ProposeAnswer::Outcome(_, Outcome::Applied) => Ok(()),
        ProposeAnswer::Outcome(_, Outcome::Rejected(rejection @ Rejection::Limit { .. })) => {
            Err(JoinAnswer::Refused(rejection.to_string()))
        }
        ProposeAnswer::Outcome(_, Outcome::Rejected(rejection)) => {
            Err(JoinAnswer::Wait(rejection.to_string()))
        }
        ProposeAnswer::NotLeader(_) => Err(JoinAnswer::NotLeader(None)),
        ProposeAnswer::Unknown(reason) => Err(JoinAnswer::Wait(reason)),
    }
}
