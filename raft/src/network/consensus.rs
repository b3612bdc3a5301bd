//! The consensus library's messages over the peers' port.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::client::{CallFailure, Peers, Target};
use super::envelope::Kind;
use crate::group::GroupIdentity;
use crate::model::MemberId;
use crate::types::{PeerNode, Snapshot, SnapshotMeta, TypeConfig, Vote};

/// The pause before an unreachable member is tried again: constant, so that a returning member is found at once.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A whole snapshot with the vote of the leader that sends it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotMessage {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) document: String,
}

/// Makes connections for the consensus library. Snapshots have their own, so that they never delay a heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct ConsensusNetwork {
    pub(crate) messages: Arc<Peers>,
    pub(crate) snapshots: Arc<Peers>,
    pub(crate) identity: Arc<GroupIdentity>,
}

impl ConsensusNetwork {
    fn connection(&self, peers: &Arc<Peers>, target: u64, node: &PeerNode) -> Connection {
        Connection {
            peers: Arc::clone(peers),
            identity: Arc::clone(&self.identity),
            id: MemberId(target),
            fallback: node.addr.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for ConsensusNetwork {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Connection {
        self.connection(&self.messages, target, node)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Connection {
        self.connection(&self.snapshots, target, node)
    }
}

/// The way to one member.
#[derive(Debug)]
pub(crate) struct Connection {
    peers: Arc<Peers>,
    identity: Arc<GroupIdentity>,
    id: MemberId,
    fallback: String,
}

impl Connection {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: Kind,
        question: &Q,
        limit: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let addr = self.identity.addr_of(self.id).unwrap_or_else(|| self.fallback.clone());
        let target = Target { addr, id: Some(self.id) };
        self.peers.call(&target, self.identity.group(), kind, question, limit).await.map_err(|failure| {
            match &failure {
                CallFailure::NotSent(_) | CallFailure::Refused(_) | CallFailure::OtherScope(_) => {
                    RPCError::Unreachable(Unreachable::new(&failure))
                }
                CallFailure::Lost(_) => RPCError::Network(NetworkError::new(&failure)),
            }
        })
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = String;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::Append, &rpc, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::Vote, &rpc, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::PreVote, &rpc, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let message = SnapshotMessage { vote, meta: snapshot.meta, document: snapshot.snapshot };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.call(Kind::Snapshot, &message, option.hard_ttl()) => answer.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::TransferLeader, &request, option.hard_ttl()).await
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY_PAUSE)))
    }
}
