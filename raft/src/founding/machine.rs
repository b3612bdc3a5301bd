//! The state machine of one node that looks for a group.

use super::message::{Identity, Promise, PromiseAnswer, PromiseRequest, PromiseVerdict, Status};
use crate::lease::BootTime;
use crate::model::{GroupId, Member, MemberId};

/// What the driver does, strictly in order: each is finished before the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make this the promise in the store, or remove it. It is durable before anything that follows happens; if that
    /// fails the node must stop.
    PersistPromise(Option<Promise>),
    /// Ask the node at this address for its [`Status`]; feed [`Founding::probed`] with the answer, and with
    /// [`Status::Unreachable`] when there is none within a second.
    Probe {
        /// Where.
        addr: String,
        /// Returned with the answer: late answers say nothing about the present.
        number: u64,
    },
    /// Send the request; feed [`Founding::answered`] with the answer. A lost one is asked again.
    AskPromise {
        /// Where.
        addr: String,
        /// What.
        request: PromiseRequest,
    },
    /// Initialise Raft with these voters and propose `Command::Found`: the group's id is the founding's. Repeated after
    /// a restart until the store holds Raft state.
    Initialise {
        /// The group's id.
        founding: GroupId,
        /// All founders, this node included.
        founders: Vec<(MemberId, Member)>,
    },
    /// Ask the group's member at this address to be taken in. Repeated until the driver ends this machine.
    Join {
        /// Where.
        via: String,
        /// Which group: only its Raft messages are accepted from now on.
        group: GroupId,
    },
    /// This node can never take part: a sentence with the cure.
    Refuse(String),
}

/// One node that belongs to no group yet. The driver drops it when the store holds Raft state of a group.
#[derive(Clone, Debug)]
pub struct Founding {
    me: Identity,
    promise: Option<Promise>,
}

impl Founding {
    /// A node at the start of its process. `partners` is what the configuration lists, `promise` what the store says.
    pub fn new(me: Identity, _partners: &[String], promise: Option<Promise>, _now: BootTime) -> Self {
        Self { me, promise }
    }

    /// What this node answers to a probe.
    pub fn status(&self) -> Status {
        Status::New { identity: self.me.clone(), promise: self.promise.clone() }
    }

    /// The founding whose Raft messages this node accepts: the promised one.
    pub fn accepts(&self) -> Option<GroupId> {
        self.promise.as_ref().map(|promise| promise.founding)
    }

    /// A sentence for the operator: whom this node waits for, and why.
    pub fn waiting_for(&self) -> String {
        String::new()
    }

    /// Time has passed: call it at the start, and every 50 ms. `fresh` is a random number, used if a founding begins.
    pub fn tick(&mut self, _now: BootTime, _fresh: GroupId) -> Vec<Action> {
        Vec::new()
    }

    /// The outcome of a probe.
    pub fn probed(&mut self, _addr: &str, _number: u64, _status: Status, _now: BootTime) -> Vec<Action> {
        Vec::new()
    }

    /// Another node asks for this one's promise. The actions come before the answer leaves.
    pub fn asked(&mut self, request: &PromiseRequest, _now: BootTime) -> (Vec<Action>, PromiseAnswer) {
        let verdict = PromiseVerdict::NotYet;
        (Vec::new(), PromiseAnswer { founding: request.founding, from: self.me.id, verdict })
    }

    /// The answer to a request for a promise, from the node at this address.
    pub fn answered(&mut self, _addr: &str, _answer: &PromiseAnswer, _now: BootTime) -> Vec<Action> {
        Vec::new()
    }
}
