//! Drives the pure founding (`crate::founding`) until the store holds Raft state of a group.
//!
//! Promises that the machine's durable word is on disk before anything that follows it happens, that its events are
//! taken one after the other, and that Raft's messages are accepted of the group only which the machine names.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::node::Node;
use super::view::Phase;
use super::{belong, node};
use crate::clock;
use crate::founding::{Action, Founding, Identity, PromiseAnswer, PromiseRequest, Status};
use crate::model::{GroupId, Member, MemberId};
use crate::network::{CallFailure, Kind, Target};
use crate::types::PeerNode;

/// How often the machine is told that time has passed.
const TICK: Duration = Duration::from_millis(50);
/// How long a partner may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(900);
/// Actions waiting for the driver; the machine repeats what gets lost.
const MAX_WAITING: usize = 256;

/// The machine, and the way from its questions to the driver.
#[derive(Debug)]
pub(crate) struct Founder {
    /// None: the store holds Raft state. Held while a promise is written.
    machine: tokio::sync::Mutex<Option<Founding>>,
    waiting: mpsc::Sender<Action>,
    /// The last one; for a node that lists nobody and whose store lost its group.
    invitation: Mutex<Option<Invitation>>,
}

/// "There is a group which lists you."
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// Which.
    pub(crate) group: GroupId,
    /// The address of one of its members.
    pub(crate) via: String,
}

/// "Found a group: I have no vote."
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FoundingWish {
    /// What the sender's configuration lists.
    pub(crate) partners: Vec<String>,
}

impl Founder {
    /// With the end of the queue at which the driver takes.
    pub(crate) fn new(machine: Option<Founding>) -> (Self, mpsc::Receiver<Action>) {
        let (waiting, taken) = mpsc::channel(MAX_WAITING);
        let machine = tokio::sync::Mutex::new(machine);
        (Self { machine, waiting, invitation: Mutex::default() }, taken)
    }

    /// The last invitation.
    pub(crate) fn invitation(&self) -> Option<Invitation> {
        self.invitation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The machine as it stands at the start of the process.
pub(crate) fn machine(
    config: &super::GroupConfig,
    id: MemberId,
    promise: Option<&str>,
) -> io::Result<Founding> {
    let me = Identity { id, member: config.member.clone() };
    let promise = promise.map(serde_json::from_str).transpose().map_err(io::Error::other)?;
    Ok(Founding::new(me, &config.partner_addrs, promise, clock::now()))
}

/// This node's answer to a probe.
pub(crate) async fn status(node: &Node) -> Result<Status, tonic::Status> {
    if let Some(machine) = node.founder.machine.lock().await.as_ref() {
        return Ok(machine.status());
    }
    let raft_leader_addr = node.raft_leader().and_then(|leader| node.identity.addr_of(leader));
    match node.identity.group() {
        Some(group) => Ok(Status::Member { id: node.id, group, raft_leader_addr }),
        None => Err(tonic::Status::unavailable("this member does not know its group yet")),
    }
}

/// This node's answer to a request for its promise.
pub(crate) async fn promise(node: &Node, request: &PromiseRequest) -> Result<PromiseAnswer, tonic::Status> {
    let answer = event(node, |machine| machine.asked(request, clock::now())).await;
    answer.ok_or_else(|| tonic::Status::failed_precondition("this member belongs to a group"))
}

/// A member of a group lists this node. One that belongs to a group does not listen.
pub(crate) async fn invite(node: &Node, invitation: Invitation) {
    let Invitation { group, via } = invitation.clone();
    *node.founder.invitation.lock().unwrap_or_else(PoisonError::into_inner) = Some(invitation);
    event(node, |machine| (machine.invited(group, &via, clock::now()), ())).await;
}

/// A data node without a vote wishes a founding. One that belongs to a group does not listen.
pub(crate) async fn wish(node: &Node, wish: &FoundingWish) {
    event(node, |machine| (machine.wished(&wish.partners, clock::now()), ())).await;
}

/// Lets the machine take an event: what must be durable is, the rest waits for the driver.
async fn event<T>(node: &Node, take: impl FnOnce(&mut Founding) -> (Vec<Action>, T)) -> Option<T> {
    let mut guard = node.founder.machine.lock().await;
    let machine = guard.as_mut()?;
    let (actions, answer) = take(machine);
    for action in actions {
        let written = if let Action::PersistPromise(promise) = action {
            persist(node, promise.as_ref()).await
        } else {
            if node.founder.waiting.try_send(action).is_err() {
                tracing::debug!("an action of the founding waits for its repetition");
            }
            Ok(())
        };
        if let Err(error) = written {
            node.fail(format!("cannot write the promise of the founding to the store: {error}"));
            return None;
        }
    }
    if let Err(error) = accept(node, machine.accepts()).await {
        node.fail(format!("cannot write the group's identity to the store: {error}"));
        return None;
    }
    Some(answer)
}

async fn persist(node: &Node, promise: Option<&crate::founding::Promise>) -> io::Result<()> {
    let text = promise.map(serde_json::to_string).transpose().map_err(io::Error::other)?;
    node.store.save_promise(text).await
}

/// From now on only this group's messages are accepted, after a restart, too.
pub(crate) async fn accept(node: &Node, group: Option<GroupId>) -> io::Result<()> {
    if node.store.group() != group {
        node.store.save_group(group).await?;
    }
    node.identity.expect(group);
    Ok(())
}

/// What came of an action.
enum Event {
    Probed(String, u64, Status),
    Answered(String, PromiseAnswer),
    Nothing,
}

/// Runs the machine until the store holds Raft state.
pub(crate) async fn run(node: &Arc<Node>, mut taken: mpsc::Receiver<Action>) {
    let mut calls: JoinSet<Event> = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if ended(node).await {
                    return;
                }
                let fresh = GroupId(node::random());
                event(node, |machine| (machine.tick(clock::now(), fresh), ())).await;
                show_phase(node).await;
            }
            Some(action) = taken.recv() => perform(node, action, &mut calls).await,
            Some(Ok(answer)) = calls.join_next(), if !calls.is_empty() => feed(node, answer).await,
        }
    }
}

/// Ends the machine when the store holds Raft state.
async fn ended(node: &Node) -> bool {
    let mut machine = node.founder.machine.lock().await;
    if machine.is_some() && node.raft.is_initialized().await.unwrap_or(false) {
        *machine = None;
    }
    machine.is_none()
}

async fn show_phase(node: &Node) {
    if let Some(machine) = node.founder.machine.lock().await.as_ref() {
        let waiting_for = machine.waiting_for();
        if machine.is_joining() {
            if !matches!(*node.phase.borrow(), Phase::Joining { .. }) {
                node.set_phase(Phase::Joining { waiting_for });
            }
        } else {
            node.set_phase(Phase::Founding { waiting_for });
        }
    }
}

async fn perform(node: &Arc<Node>, action: Action, calls: &mut JoinSet<Event>) {
    let node = Arc::clone(node);
    match action {
        Action::PersistPromise(_) => {}
        Action::Probe { addr, number } => {
            calls.spawn(async move {
                let status = probe(&node, &addr).await;
                Event::Probed(addr, number, status)
            });
        }
        Action::AskPromise { addr, request } => {
            calls.spawn(async move {
                let target = Target { addr, id: None };
                match node.peers.call(&target, None, Kind::Promise, &request, ANSWER_LIMIT).await {
                    Ok(answer) => Event::Answered(target.addr, answer),
                    Err(_) => Event::Nothing,
                }
            });
        }
        Action::Initialise { founders, .. } => initialise(&node, &founders).await,
        Action::Join { via, group } => {
            calls.spawn(async move {
                belong::ask(&node, &via, group).await;
                Event::Nothing
            });
        }
        Action::Wish { addr, partners } => {
            calls.spawn(async move {
                let target = Target { addr, id: None };
                let wish = FoundingWish { partners };
                let told: Result<(), _> =
                    node.peers.call(&target, None, Kind::Wish, &wish, ANSWER_LIMIT).await;
                if let Err(failure) = told {
                    tracing::debug!("{} does not take note of a wish: {failure}", target.addr);
                }
                Event::Nothing
            });
        }
        Action::Refuse(sentence) => node.set_phase(Phase::Refused(sentence)),
    }
}

/// How far the node at this address is.
pub(crate) async fn probe(node: &Node, addr: &str) -> Status {
    let target = Target { addr: addr.to_owned(), id: None };
    match node.peers.call(&target, None, Kind::Probe, &(), ANSWER_LIMIT).await {
        Ok(status) => status,
        Err(CallFailure::OtherScope(_)) => Status::OtherScope,
        Err(CallFailure::NotSent(_) | CallFailure::Lost(_) | CallFailure::Refused(_)) => Status::Unreachable,
    }
}

async fn feed(node: &Node, answer: Event) {
    let now = clock::now();
    match answer {
        Event::Probed(addr, number, status) => {
            event(node, |machine| (machine.probed(&addr, number, status, now), ())).await;
        }
        Event::Answered(addr, answer) => {
            event(node, |machine| (machine.answered(&addr, &answer, now), ())).await;
        }
        Event::Nothing => {}
    }
}

async fn initialise(node: &Node, founders: &[(MemberId, Member)]) {
    let nodes: BTreeMap<u64, PeerNode> =
        founders.iter().map(|(id, member)| (id.0, PeerNode::founder(member))).collect();
    if node.raft.is_initialized().await.unwrap_or(true) {
        return;
    }
    match node.raft.initialize(nodes).await {
        Ok(()) => tracing::info!("founded the cluster {} with {} members", node.config.scope, founders.len()),
        Err(error) => tracing::warn!("cannot found the cluster {} yet: {error}", node.config.scope),
    }
}
