//! A node's part in one cluster: the cheap-to-clone handle [`Group`] over consensus, transport and store.
//!
//! No type of the consensus library leaves this crate. Nothing here decides who is primary: that is `ha`, from the
//! values which this module publishes.

mod admission;
mod answer;
mod belong;
mod directory;
mod follow;
mod founder;
mod identity;
mod lead;
mod lease_voter;
mod leave;
mod marks;
mod node;
mod promises;
mod propose;
mod recall;
mod rejoin;
mod reports;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use directory::{ReadState, StateAnswer, ask_members, ask_state};
pub use view::{
    CallError, GroupConfig, GroupView, LeaveOutcome, Phase, Proposed, RaftView, ReadError, ReceivedReport,
    StartError, StoreFailed, Timing,
};

pub(crate) use identity::GroupIdentity;
pub(crate) use marks::Marks;
pub(crate) use node::Node;

use crate::founding::Action;
use crate::lease::{BootTime, CloseRequest, CloseVerdict, FailsafeQuestion, FailsafeRefusal, StandingBack};
use crate::model::{ClusterState, Command, Epoch, Member, MemberId};
use crate::network::{CallFailure, ConsensusNetwork, Kind, PeerServer, Peers, Route, Shared};
use crate::state_machine::StateMachine;
use crate::store::Store;
use crate::types::Raft;
use founder::Founder;
use node::Parts;

/// How long another voter may take to answer a close.
const CLOSE_LIMIT: Duration = Duration::from_millis(800);

/// A node's part in one cluster. Clones share it; when the last one is dropped its tasks end, too.
#[derive(Clone)]
pub struct Group {
    handle: Arc<Handle>,
}

struct Handle {
    node: Arc<Node>,
    route: Mutex<Option<Route>>,
    given_up: Mutex<Epoch>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.node.stop.cancel();
    }
}

impl Group {
    /// Opens the store and returns at once; founding or joining goes on in tasks which this handle owns.
    pub async fn start(server: &PeerServer, config: GroupConfig) -> Result<Self, StartError> {
        let scope = config.scope.clone();
        let failed = |reason: String| StartError::Raft { scope, reason };
        let port = server.shared();
        let mut starting = JoinSet::new();
        starting.spawn_on(start(Arc::clone(&port), config), port.runtime());
        match starting.join_next().await {
            Some(Ok(started)) => started,
            Some(Err(error)) => Err(failed(error.to_string())),
            None => Err(failed("its task is gone".to_owned())),
        }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.handle.node
    }

    /// The identity of this node's store.
    pub fn id(&self) -> MemberId {
        self.node().id
    }

    /// What this node knows of its group; changes wake the receiver.
    pub fn watch(&self) -> watch::Receiver<Arc<GroupView>> {
        self.node().view.subscribe()
    }

    /// Asks for a change of the replicated state; bounded in time. After an outcome this node has usually applied it.
    pub async fn propose(&self, command: Command) -> Proposed {
        propose::propose(self.node(), command).await
    }

    /// The replicated state, not older than the moment of this call.
    pub async fn read(&self) -> Result<ClusterState, ReadError> {
        propose::read(self.node()).await
    }

    /// How long this node's own voter has heard nothing from a holder; nothing is said before the others know its
    /// store.
    pub fn quiet_for(&self, now: BootTime) -> Duration {
        if self.node().marks.is_trusted() { self.node().voter.quiet_for(now) } else { Duration::ZERO }
    }

    /// Asks a voter, possibly this node itself, to close an epoch.
    pub async fn ask_close(&self, to: MemberId, request: CloseRequest) -> Result<CloseVerdict, CallError> {
        let node = self.node();
        if to == node.id && !node.marks.is_trusted() {
            let reason = "this node takes no part before the others have said that they know its store";
            return Err(CallError::Refused { addr: "this node".to_owned(), reason: reason.to_owned() });
        }
        if to == node.id {
            return node.voter.close(&request).await.map_err(|error| {
                node.fail(format!("cannot write this voter's floor to the store: {error}"));
                CallError::Refused { addr: "this node".to_owned(), reason: error.to_string() }
            });
        }
        let Some(target) = node.target(to) else { return Err(CallError::UnknownMember { id: to }) };
        let answer =
            node.peers.call(&target, node.identity.group(), Kind::Close, &request, CLOSE_LIMIT).await;
        answer.map_err(|failure| {
            let (addr, reason) = (target.addr, failure.to_string());
            match failure {
                CallFailure::NotSent(_) | CallFailure::Lost(_) => CallError::Unreachable { addr, reason },
                CallFailure::Refused(_) | CallFailure::OtherScope(_) => CallError::Refused { addr, reason },
            }
        })
    }

    /// Failsafe: a holder without a majority asks this node to stand back. On success this node has promised it: it
    /// wins no first renewal of another epoch for the record's wait.
    pub async fn promise(
        &self,
        request: &FailsafeQuestion,
    ) -> Result<Result<(), FailsafeRefusal>, StoreFailed> {
        let node = self.node();
        node.promises.ask(request).await.map_err(|error| {
            let failed = StoreFailed { what: "a promise", reason: error.to_string() };
            node.fail(failed.to_string());
            failed
        })
    }

    /// What this node promised, while it is in force. The start of the process counts as a promise if there ever was one.
    pub fn stands_back(&self, now: BootTime) -> Option<StandingBack> {
        self.node().promises.in_force(now)
    }

    /// This node's guard was found armed for this epoch, or not armed at all (zero). Before this is told, nothing is
    /// promised.
    pub fn guard_was_armed_for(&self, epoch: Epoch) {
        self.node().promises.armed_for(epoch);
    }

    /// Makes durable that this node gave up all epochs up to this one.
    pub async fn record_given_up(&self, epoch: Epoch) -> Result<(), StoreFailed> {
        let node = self.node();
        let next = epoch.max(self.given_up());
        if let Err(error) = node.store.save_given_up(next).await {
            let failed = StoreFailed { what: "the epoch given up", reason: error.to_string() };
            node.fail(failed.to_string());
            return Err(failed);
        }
        let mut given_up = self.handle.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        *given_up = next.max(*given_up);
        Ok(())
    }

    /// The epoch up to which this node has given up, as its store says.
    pub fn given_up(&self) -> Epoch {
        *self.handle.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the group is to know of this node from now on: other tags or addresses. Its name, its kind and the address
    /// of its peers' port stay as they were at the start.
    pub fn describe(&self, member: Member) {
        let fixed = &self.node().config.member;
        let member = Member {
            name: fixed.name.clone(),
            kind: fixed.kind,
            raft_addr: fixed.raft_addr.clone(),
            ..member
        };
        self.node().member.send_if_modified(|known| {
            let changes = *known != member;
            *known = member;
            changes
        });
    }

    /// What the other data members are told about this one from now on.
    pub fn publish_report(&self, bytes: Vec<u8>) {
        self.node().reports.publish(bytes);
    }

    /// The last report of every other data member.
    pub fn reports(&self) -> BTreeMap<MemberId, ReceivedReport> {
        self.node().reports.received()
    }

    /// Reports are exchanged with all data members at once, in the background: what this node says matters to them, or
    /// what they say matters here.
    pub fn exchange_reports_soon(&self) {
        self.node().reports.exchange_soon();
    }

    /// Returns when a report came in since the last call. For one waiter.
    pub async fn report_received(&self) {
        self.node().reports.news().await;
    }

    /// Exchanges reports with all data members at once; returns when all answered or the time is over.
    pub async fn ask_reports(&self, within: Duration) {
        reports::exchange(self.node(), within).await;
    }

    /// A clean stop: gives the vote back if the rest keeps a majority without it.
    pub async fn leave(&self, within: Duration) -> LeaveOutcome {
        leave::leave(self.node(), within).await
    }

    /// Ends all tasks and waits for them.
    pub async fn shutdown(&self) {
        drop(self.handle.route.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.node().shutdown().await;
    }
}

/// Founds a group or finds one, and belongs to it from then on.
async fn find_a_group(node: Arc<Node>, lost: Option<String>, actions: tokio::sync::mpsc::Receiver<Action>) {
    recall::run(&node).await;
    match lost {
        Some(lost) => rejoin::run(&node, &lost).await,
        None => founder::run(&node, actions).await,
    }
    belong::run(node).await;
}

/// Starts on the port's threads.
async fn start(port: Arc<Shared>, config: GroupConfig) -> Result<Group, StartError> {
    let dir = config.data_dir.join(&config.scope);
    let store_failed =
        |error: std::io::Error| StartError::Store { dir: dir.clone(), reason: error.to_string() };
    let store = Store::open(&dir).await.map_err(store_failed)?;
    let machine = StateMachine::open(store.clone()).map_err(store_failed)?;
    let given_up = store.given_up();
    let applied = machine.watch();
    let marks = Arc::new(Marks::new(store.clone(), applied.clone()));
    let identity = Arc::new(GroupIdentity::default());
    identity.follow(applied.clone());
    let peers = || Arc::new(Peers::new(&config.scope, Arc::clone(&marks), port.security(), port.runtime()));
    let messages = peers();
    let network = ConsensusNetwork {
        messages: Arc::clone(&messages),
        snapshots: peers(),
        identity: Arc::clone(&identity),
    };
    let raft_failed = |reason: String| StartError::Raft { scope: config.scope.clone(), reason };
    let settings = node::raft_config(&config.scope, config.timing)
        .validate()
        .map_err(|error| raft_failed(error.to_string()))?;
    let raft = Box::pin(Raft::new(store.id().0, Arc::new(settings), network, store.log(), machine))
        .await
        .map_err(|error| raft_failed(error.to_string()))?;
    let is_new = !raft.is_initialized().await.map_err(|error| raft_failed(error.to_string()))?;
    let lost = store.lost().filter(|_| is_new);
    let machine = if is_new && lost.is_none() {
        Some(founder::machine(&config, store.id(), store.promise().as_deref()).map_err(store_failed)?)
    } else {
        identity.expect(store.group());
        None
    };
    let (founder, actions) = Founder::new(machine);
    let phase = Phase::Joining { waiting_for: "the first answers".to_owned() };
    let parts = Parts { config, store, raft, peers: messages, marks, identity, applied, founder, port };
    let node = Node::new(parts, phase);
    if is_new {
        recall::open(&node);
    }
    let route = match node.serve() {
        Ok(route) => route,
        Err(error) => {
            node.shutdown().await;
            return Err(error);
        }
    };
    node.spawn(follow::run(Arc::clone(&node)));
    node.spawn(recall::end_if_put_back(Arc::clone(&node)));
    node.spawn(recall::remember(Arc::clone(&node)));
    node.spawn(recall::tell(Arc::clone(&node)));
    node.spawn(find_a_group(Arc::clone(&node), lost, actions));
    node.spawn(lead::run(Arc::clone(&node)));
    node.spawn(belong::look_at_partners(Arc::clone(&node)));
    node.spawn(reports::run(Arc::clone(&node)));
    let handle = Handle { node, route: Mutex::new(Some(route)), given_up: Mutex::new(given_up) };
    Ok(Group { handle: Arc::new(handle) })
}
