//! The consensus library's types for this crate, named once. None of them leaves the crate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Command, Member, Outcome};
use crate::state_machine::StateMachine;

openraft::declare_raft_types!(
    /// The type configuration of pgherd's groups.
    pub(crate) TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = PeerNode,
);

/// What the Raft membership says of a node: enough to reach it before the replicated state names it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct PeerNode {
    /// `host:port` of its peers' port.
    pub(crate) addr: String,
    /// Its member name, for log lines.
    pub(crate) name: String,
    /// The whole member, if it is a founder: so that whoever leads first can propose the founding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) founder: Option<Box<Member>>,
}

impl PeerNode {
    pub(crate) fn of(member: &Member) -> Self {
        Self { addr: member.raft_addr.clone(), name: member.name.to_string(), founder: None }
    }

    pub(crate) fn founder(member: &Member) -> Self {
        Self { founder: Some(Box::new(member.clone())), ..Self::of(member) }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, String>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
