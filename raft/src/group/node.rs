//! What the parts of a running group share, and the tasks that they own.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::founder::Founder;
use super::identity::GroupIdentity;
use super::lease_voter::LeaseVoter;
use super::marks::Marks;
use super::promises::Promises;
use super::reports::Reports;
use super::view::{GroupConfig, GroupView, Phase, StartError, Timing};
use crate::clock;
use crate::lease::BootTime;
use crate::model::{Epoch, Member, MemberId, MemberKind};
use crate::network::{Peers, Route, Shared, Target};
use crate::state_machine::Applied;
use crate::store::Store;
use crate::types::Raft;

/// A snapshot is made after so many entries; so many are kept behind it for members that lag a little.
const SNAPSHOT_AFTER: u64 = 5_000;
const KEPT_BEHIND_SNAPSHOT: u64 = 1_000;
/// Entries of one message: with the largest settings document each, a message stays below the transport's limit.
const ENTRIES_PER_MESSAGE: u64 = 16;
/// How long tasks may take to end at shutdown.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// A running part of a cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: MemberId,
    pub(crate) config: GroupConfig,
    /// What the group is to know of this node: its tags may change while it runs.
    pub(crate) member: watch::Sender<Member>,
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) identity: Arc<GroupIdentity>,
    pub(crate) applied: watch::Receiver<Arc<Applied>>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) view: watch::Sender<Arc<GroupView>>,
    pub(crate) voter: Arc<LeaseVoter>,
    pub(crate) promises: Promises,
    /// The epoch of the record when this process began to take part: an earlier one may have made proposals for it.
    pub(crate) known_at_start: OnceLock<Epoch>,
    pub(crate) reports: Reports,
    pub(crate) founder: Founder,
    /// One newcomer is decided on at a time.
    pub(crate) admission: tokio::sync::Mutex<()>,
    /// This process is giving its vote back: it does not ask for it again.
    pub(crate) leaving: AtomicBool,
    /// When messages of another group were last complained about.
    pub(crate) complained: Mutex<BootTime>,
    /// When a Raft leader was last heard in this process.
    pub(crate) heard: Mutex<Option<BootTime>>,
    pub(crate) stop: CancellationToken,
    /// The port's threads, on which all tasks run.
    pub(crate) port: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

/// What [`Node::new`] is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: GroupConfig,
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) identity: Arc<GroupIdentity>,
    pub(crate) applied: watch::Receiver<Arc<Applied>>,
    pub(crate) founder: Founder,
    pub(crate) port: Arc<Shared>,
}

impl Node {
    pub(crate) fn new(parts: Parts, phase: Phase) -> Arc<Self> {
        let Parts { config, store, raft, peers, marks, identity, applied, founder, port } = parts;
        let id = store.id();
        let first = Arc::clone(&applied.borrow());
        let view = GroupView {
            phase: phase.clone(),
            state: first.state.clone(),
            applied: first.index(),
            raft: super::view::RaftView::default(),
        };
        let voter = Arc::new(LeaseVoter::new(id, store.clone(), applied.clone()));
        let promises = Promises::new(id, store.clone(), applied.clone());
        Arc::new(Self {
            id,
            member: watch::Sender::new(config.member.clone()),
            config,
            store,
            raft,
            peers,
            marks,
            identity,
            applied,
            phase: watch::Sender::new(phase),
            view: watch::Sender::new(Arc::new(view)),
            voter,
            promises,
            known_at_start: OnceLock::new(),
            reports: Reports::default(),
            founder,
            admission: tokio::sync::Mutex::default(),
            leaving: AtomicBool::new(false),
            complained: Mutex::default(),
            heard: Mutex::default(),
            stop: CancellationToken::new(),
            port,
            tasks: Mutex::default(),
        })
    }

    /// From now on this node answers the other members.
    pub(crate) fn serve(self: &Arc<Self>) -> Result<Route, StartError> {
        self.port.add(&self.config.scope, Arc::clone(self) as _)
    }

    /// Runs a task until it ends or the group is shut down.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let task = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        };
        tasks.spawn_on(task, self.port.runtime());
    }

    /// Ends all tasks and the consensus, and waits for them.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = tokio::time::timeout(SHUTDOWN_LIMIT, async {
            while tasks.join_next().await.is_some() {}
            self.raft.shutdown().await
        });
        let ended = ended.await;
        self.marks.save(false).await;
        if let Err(error) = self.store.close().await {
            tracing::warn!("the store did not close cleanly: {error}");
        }
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("Raft ended badly: {error}"),
            Err(_) => {
                tracing::warn!("tasks of the cluster {} did not end in time", self.config.scope);
                tasks.shutdown().await;
            }
        }
    }

    /// This node's store is not to be used any more, and its next opening makes another.
    pub(crate) fn start_again(&self, reason: String) {
        tracing::error!("{reason}");
        self.phase.send_replace(Phase::StartAgain(reason));
    }

    /// This node cannot take part any more.
    pub(crate) fn fail(&self, reason: String) {
        self.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Failed(_) | Phase::StartAgain(_));
            if first {
                tracing::error!("this node can take no part in the cluster any more: {reason}");
                *phase = Phase::Failed(reason);
            }
            first
        });
    }

    /// Changes the phase unless it is a final one.
    pub(crate) fn set_phase(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let changes = !matches!(phase, Phase::Failed(_) | Phase::Refused(_) | Phase::StartAgain(_))
                && *phase != next;
            if changes {
                *phase = next;
            }
            changes
        });
    }

    /// Where a member listens, as the state says.
    pub(crate) fn target(&self, id: MemberId) -> Option<Target> {
        self.identity.addr_of(id).map(|addr| Target { addr, id: Some(id) })
    }

    /// The other data members.
    pub(crate) fn other_data_members(&self) -> Vec<(MemberId, String)> {
        let applied = self.applied.borrow();
        let others = applied
            .state
            .members
            .iter()
            .filter(|(id, member)| **id != self.id && member.kind == MemberKind::Data);
        others.map(|(id, member)| (*id, member.raft_addr.clone())).collect()
    }
}

/// A random number that is not zero.
pub(crate) fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let time = u64::try_from(clock::now().0.as_nanos()).unwrap_or(u64::MAX);
    if filled.is_ok() { u64::from_ne_bytes(bytes).max(1) } else { time }
}

/// The consensus library's settings. Its defaults are wrong for us where a value stands here.
pub(crate) fn raft_config(scope: &str, timing: Timing) -> Config {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let election_max = millis(timing.election_max);
    Config {
        cluster_name: scope.to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: election_max,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // Until the other members have said that they know this node's store.
        enable_elect: false,
        quorum_loss_probe_interval: Some(election_max.saturating_mul(5) / 2),
        allow_log_reversion: None,
        install_snapshot_timeout: 10_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
        max_in_snapshot_log_to_keep: KEPT_BEHIND_SNAPSHOT,
        replication_lag_threshold: SNAPSHOT_AFTER.saturating_mul(2),
        purge_batch_size: 256,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        ..Config::default()
    }
}
