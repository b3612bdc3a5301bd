//! Proposals and linearizable reads: to the Raft leader, wherever it is.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::node::Node;
use super::view::{Proposed, ReadError};
use crate::clock;
use crate::lease::BootTime;
use crate::model::{ClusterState, Command, MemberId, Outcome};
use crate::network::{CallFailure, Kind};

/// How long a proposal or a read may take, looking for the Raft leader included: longer than one election.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// The pause before the Raft leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a proposer waits for its own node to apply what was agreed on.
const APPLY_LIMIT: Duration = Duration::from_millis(500);

/// The Raft leader's answer to a forwarded proposal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    /// Committed at this log index.
    Outcome(u64, Outcome),
    /// Not appended: the asked member does not lead. Perhaps this one does.
    NotLeader(Option<MemberId>),
    /// Appended, perhaps committed.
    Unknown(String),
}

/// The Raft leader's answer to a forwarded read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ReadAnswer {
    /// Not older than the question.
    State(Box<ClusterState>),
    /// The asked member does not lead, or cannot prove it.
    NotLeader(Option<MemberId>),
}

/// Proposes here, if this node leads.
pub(crate) async fn propose_here(node: &Node, command: Command, limit: Duration) -> ProposeAnswer {
    let written = timeout(limit, node.raft.client_write(command)).await;
    match written {
        Ok(Ok(response)) => ProposeAnswer::Outcome(response.log_id.index, response.data),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
            ProposeAnswer::NotLeader(forward.leader_id.map(MemberId))
        }
        Ok(Err(error)) => ProposeAnswer::Unknown(error.to_string()),
        Err(_) => ProposeAnswer::Unknown(format!("not committed within {limit:?}")),
    }
}

/// Reads here, if this node leads and a majority confirms it.
pub(crate) async fn read_here(node: &Node, limit: Duration) -> ReadAnswer {
    let read = timeout(limit, node.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
    match read {
        Ok(Ok(_)) => ReadAnswer::State(Box::new(node.applied.borrow().state.clone())),
        Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
            ReadAnswer::NotLeader(forward.leader_id.map(MemberId))
        }
        Ok(Err(_)) | Err(_) => ReadAnswer::NotLeader(None),
    }
}

/// Proposes wherever the Raft leader is. Tries again only while it is sure that nothing was appended.
pub(crate) async fn propose(node: &Arc<Node>, command: Command) -> Proposed {
    let end = clock::now().after(LIMIT);
    let mut hint = None;
    let mut last = "no Raft leader is known".to_owned();
    while let Some(left) = remaining(end) {
        let leader = hint.take().or_else(|| node.raft_leader());
        let answer = match leader {
            None => ProposeAnswer::NotLeader(None),
            Some(id) if id == node.id => Box::pin(propose_here(node, command.clone(), left)).await,
            Some(id) => match ask(node, id, Kind::Propose, &command, left).await {
                Ok(answer) => answer,
                Err(CallFailure::Lost(reason)) => ProposeAnswer::Unknown(reason),
                Err(failure) => {
                    last = format!("the Raft leader {id} does not answer: {failure}");
                    ProposeAnswer::NotLeader(None)
                }
            },
        };
        match answer {
            ProposeAnswer::Outcome(index, outcome) => {
                await_applied(node, index, end).await;
                return Proposed::Outcome(outcome);
            }
            ProposeAnswer::Unknown(reason) => return Proposed::Unknown(reason),
            ProposeAnswer::NotLeader(next) => hint = next.filter(|next| leader != Some(*next)),
        }
        if hint.is_none() {
            tokio::time::sleep(RETRY_PAUSE.min(left)).await;
        }
    }
    Proposed::Unknown(format!("nobody could be asked within {LIMIT:?}: {last}"))
}

/// Reads wherever the Raft leader is.
pub(crate) async fn read(node: &Arc<Node>) -> Result<ClusterState, ReadError> {
    let end = clock::now().after(LIMIT);
    let mut hint = None;
    let mut reason = "no Raft leader is known".to_owned();
    while let Some(left) = remaining(end) {
        let leader = hint.take().or_else(|| node.raft_leader());
        let answer = match leader {
            None => ReadAnswer::NotLeader(None),
            Some(id) if id == node.id => Box::pin(read_here(node, left)).await,
            Some(id) => ask(node, id, Kind::Read, &(), left).await.unwrap_or_else(|failure| {
                reason = format!("the Raft leader {id} does not answer: {failure}");
                ReadAnswer::NotLeader(None)
            }),
        };
        match answer {
            ReadAnswer::State(state) => return Ok(*state),
            ReadAnswer::NotLeader(next) => hint = next.filter(|next| leader != Some(*next)),
        }
        if hint.is_none() {
            tokio::time::sleep(RETRY_PAUSE.min(left)).await;
        }
    }
    Err(ReadError { reason })
}

async fn ask<Q: Serialize, A: serde::de::DeserializeOwned>(
    node: &Node,
    leader: MemberId,
    kind: Kind,
    question: &Q,
    limit: Duration,
) -> Result<A, CallFailure> {
    let Some(target) = node.target(leader) else {
        return Err(CallFailure::NotSent("its address is not known".to_owned()));
    };
    node.peers.call(&target, node.identity.group(), kind, question, limit).await
}

/// Who proposed sees it, unless this node lags badly.
async fn await_applied(node: &Node, index: u64, end: BootTime) {
    let mut applied = node.applied.clone();
    let limit = remaining(end).unwrap_or_default().min(APPLY_LIMIT);
    let seen = timeout(limit, applied.wait_for(|applied| applied.index() >= index)).await;
    if seen.is_err() {
        tracing::debug!("entry {index} is committed and not yet applied here");
    }
}

fn remaining(end: BootTime) -> Option<Duration> {
    Some(end.since(clock::now())).filter(|left| !left.is_zero())
}
