//! A node's part in one cluster: the cheap-to-clone handle [`Group`] over consensus, transport and store.
//!
//! No type of the consensus library leaves this crate. Nothing here decides who is primary: that is `ha`, from the
//! values which this module publishes.

mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use view::{
    CallError, GroupConfig, GroupView, LeaveOutcome, Phase, Proposed, RaftView, ReadError, ReceivedReport,
    StartError, StoreFailed, Timing,
};

use crate::lease::{BootTime, CloseRequest, CloseVerdict};
use crate::model::{ClusterState, Command, Epoch, MemberId};
use crate::network::PeerServer;

/// A node's part in one cluster. Clones share it.
#[derive(Clone, Debug)]
pub struct Group {
    id: MemberId,
    view: watch::Receiver<Arc<GroupView>>,
}

#[expect(clippy::unused_async, reason = "the signatures which the daemon compiles against")]
impl Group {
    /// Opens the store and returns at once; founding or joining goes on in tasks which this handle owns.
    pub async fn start(_server: &PeerServer, config: GroupConfig) -> Result<Self, StartError> {
        Err(StartError::Raft { scope: config.scope, reason: "not built yet".to_owned() })
    }

    /// The identity of this node's store.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// What this node knows of its group; changes wake the receiver.
    pub fn watch(&self) -> watch::Receiver<Arc<GroupView>> {
        self.view.clone()
    }

    /// Asks for a change of the replicated state; bounded in time.
    pub async fn propose(&self, _command: Command) -> Proposed {
        Proposed::Unknown(String::new())
    }

    /// The replicated state, not older than the moment of this call.
    pub async fn read(&self) -> Result<ClusterState, ReadError> {
        Err(ReadError { reason: String::new() })
    }

    /// How long this node's own voter has heard nothing from a holder.
    pub fn quiet_for(&self, _now: BootTime) -> Duration {
        Duration::ZERO
    }

    /// Asks a voter, possibly this node itself, to close an epoch.
    pub async fn ask_close(&self, to: MemberId, _request: CloseRequest) -> Result<CloseVerdict, CallError> {
        Err(CallError::UnknownMember { id: to })
    }

    /// Makes durable that this node gave up all epochs up to this one.
    pub async fn record_given_up(&self, _epoch: Epoch) -> Result<(), StoreFailed> {
        Ok(())
    }

    /// The epoch up to which this node has given up, as its store says.
    pub fn given_up(&self) -> Epoch {
        Epoch(0)
    }

    /// What the other data members are told about this one from now on.
    pub fn publish_report(&self, _bytes: Vec<u8>) {}

    /// The last report of every other data member.
    pub fn reports(&self) -> BTreeMap<MemberId, ReceivedReport> {
        BTreeMap::new()
    }

    /// Exchanges reports with all data members at once; returns when all answered or the time is over.
    pub async fn ask_reports(&self, _within: Duration) {}

    /// A clean stop: gives the vote back if the rest keeps a majority without it.
    pub async fn leave(&self, _within: Duration) -> LeaveOutcome {
        LeaveOutcome::KeptVote(String::new())
    }

    /// Ends all tasks and waits for them.
    pub async fn shutdown(&self) {}
}
