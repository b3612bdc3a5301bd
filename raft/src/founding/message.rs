//! What nodes that look for a group say to each other. It goes over the peers' port, beside Raft.

use serde::{Deserialize, Serialize};

use crate::model::{GroupId, Member, MemberId, MemberKind};

/// A node as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The identity of its store.
    pub id: MemberId,
    /// Its name, kind, addresses and tags: its entry in the replicated state if it becomes a founder.
    pub member: Member,
}

impl Identity {
    /// Its address on the peers' port, as it gives it itself.
    pub fn addr(&self) -> &str {
        &self.member.raft_addr
    }

    /// It coordinates by itself: a witness does so only when a data node without a vote wishes it, and one without a
    /// vote never does.
    pub fn coordinates(&self) -> bool {
        self.member.kind == MemberKind::Data && self.votes()
    }

    /// It may be a founder.
    pub fn votes(&self) -> bool {
        self.member.votes
    }
}

/// A node's durable word: it takes part in this founding and in no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The founding; becomes the group's id.
    pub founding: GroupId,
    /// Who coordinates it, and the only one who can release from the promise.
    pub coordinator: MemberId,
    /// Where the coordinator is reached.
    pub coordinator_addr: String,
    /// All addresses which the coordinator knew to be listed when it asked.
    pub listed: Vec<String>,
    /// Only in the coordinator's own store: the founders, once it has decided to initialise. It can never cancel
    /// after that; a restart initialises again with the same founders.
    pub sealed: Option<Vec<(MemberId, Member)>>,
}

/// What a node answers to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It belongs to no group.
    New {
        /// Who it is.
        identity: Identity,
        /// The founding to which it has promised itself (without the list of founders).
        promise: Option<Promise>,
    },
    /// It belongs to a group: its store holds Raft state of it.
    Member {
        /// Who it is.
        id: MemberId,
        /// Which group.
        group: GroupId,
        /// The Raft leader's peer address, where one is known.
        raft_leader_addr: Option<String>,
    },
    /// It answers, but does not serve this cluster.
    OtherScope,
    /// No connection, or no answer in time. Made by the caller.
    Unreachable,
}

/// "Promise yourself to this founding."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseRequest {
    /// The founding.
    pub founding: GroupId,
    /// Who coordinates it.
    pub coordinator: Identity,
    /// All addresses which the coordinator knows to be listed.
    pub listed: Vec<String>,
}

/// The answer to a [`PromiseRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseAnswer {
    /// The founding of the question.
    pub founding: GroupId,
    /// Who answers.
    pub from: MemberId,
    /// The answer.
    pub verdict: PromiseVerdict,
}

/// Does the node promise itself?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromiseVerdict {
    /// Yes, durably.
    Promised {
        /// Who it is.
        identity: Identity,
        /// The partners which its configuration lists.
        partners: Vec<String>,
    },
    /// Not now: it is about to end, or the asker may not coordinate.
    NotYet,
    /// It is promised to another founding.
    Elsewhere {
        /// The coordinator's address of that founding.
        coordinator_addr: String,
    },
    /// It belongs to a group or knows one.
    GroupExists {
        /// A member of that group.
        via: String,
    },
}
