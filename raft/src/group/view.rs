//! What a group shows of itself, and what it answers: plain values.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::lease::BootTime;
use crate::model::{ClusterState, Member, MemberId, Outcome, SystemIdentifier};

/// How to start a node's part in one cluster.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The cluster's name.
    pub scope: String,
    /// Who this node is; `raft_addr` is the address under which the others reach its peers' port.
    pub member: Member,
    /// `host:port` of the other members' peers' ports. Empty: this node founds the cluster alone.
    pub partner_addrs: Vec<String>,
    /// What the data directory holds at the start; none: no database system. A group of another one refuses this node.
    pub system_identifier: Option<SystemIdentifier>,
    /// The directory under which the store `data_dir/SCOPE` is kept.
    pub data_dir: PathBuf,
    /// Raft's pace.
    pub timing: Timing,
}

/// Raft's pace. A new Raft leader stands `election_max` to `election_max + election_max` after the death of the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often the Raft leader shows itself.
    pub heartbeat: Duration,
    /// The shortest election timeout.
    pub election_min: Duration,
    /// The longest election timeout.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
        }
    }
}

/// How far this node is in belonging to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No group exists yet as far as this node knows.
    Founding {
        /// A sentence for the operator.
        waiting_for: String,
    },
    /// A group exists, or existed, and this node is not yet in it again.
    Joining {
        /// A sentence for the operator.
        waiting_for: String,
    },
    /// This node takes part, and has applied everything that was agreed on before it came back.
    Member,
    /// The cluster does not want this node, and asking again would not help; a sentence with the cure.
    Refused(String),
    /// The store was found to be put back from an older copy; a sentence for the operator. The same process may end
    /// this part and start it again: it comes back under a new id.
    StartAgain(String),
    /// The store or Raft died: this process cannot take part any more; a sentence with the cure.
    Failed(String),
}

/// What this node knows of its group. May lag behind what was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Does this node belong to the group?
    pub phase: Phase,
    /// The replicated state as applied here.
    pub state: ClusterState,
    /// The log index of the last applied entry; zero before the first.
    pub applied: u64,
    /// The Raft group as seen from here.
    pub raft: RaftView,
}

/// The Raft group as seen from one node. None of it is a licence to write.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RaftView {
    /// This node leads the Raft group, as far as it knows.
    pub is_raft_leader: bool,
    /// The Raft leader, as far as this node knows.
    pub raft_leader: Option<MemberId>,
    /// The Raft term.
    pub term: u64,
    /// The Raft voters of the effective membership.
    pub voters: BTreeSet<MemberId>,
}

/// What came of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// It was committed and applied, with this outcome.
    Outcome(Outcome),
    /// The answer was lost, or nobody could be asked, for this reason: it may have been applied, or may be yet.
    Unknown(String),
}

/// Another data member's report about itself: opaque to this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedReport {
    /// When it arrived, on this machine's clock.
    pub at: BootTime,
    /// What was published there.
    pub bytes: Vec<u8>,
}

/// How a clean stop went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveOutcome {
    /// The vote was given back: the rest goes on without counting this node.
    Left,
    /// This node keeps its vote, for this reason: the rest counts it as missing.
    KeptVote(String),
}

/// Why a group or its port could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {addr} for peers: the address is in use; stop the program which uses it or set another raft.bind_addr or raft.self_addr"
    )]
    PortInUse {
        /// The address.
        addr: String,
    },
    /// Any other reason why it cannot listen.
    #[error("cannot listen on {addr} for peers; check raft.bind_addr or raft.self_addr: {source}")]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port serves this scope already.
    #[error("the cluster {scope} is already served on this port; give each cluster its own scope")]
    ScopeInUse {
        /// The cluster's name.
        scope: String,
    },
    /// The store cannot be opened.
    #[error("cannot open the store in {dir}: {reason}")]
    Store {
        /// Its directory.
        dir: PathBuf,
        /// What is wrong, with the cure.
        reason: String,
    },
    /// The consensus library refused to start.
    #[error("cannot start Raft for the cluster {scope}: {reason}")]
    Raft {
        /// The cluster's name.
        scope: String,
        /// What it said.
        reason: String,
    },
}

/// Why a linearizable read failed; it may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the agreed state: {reason}; it needs a majority of the voters")]
pub struct ReadError {
    /// What was tried last.
    pub reason: String,
}

/// Why another member could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It is not in the replicated state.
    #[error("there is no member {id}")]
    UnknownMember {
        /// Who.
        id: MemberId,
    },
    /// No connection, or no answer in time: the question may have arrived.
    #[error("no answer from {addr}: {reason}")]
    Unreachable {
        /// Where.
        addr: String,
        /// What happened.
        reason: String,
    },
    /// It answered that it does not talk to us.
    #[error("{addr} refused the call: {reason}")]
    Refused {
        /// Where.
        addr: String,
        /// Why.
        reason: String,
    },
}

/// Why something could not be made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot write {what} to the store: {reason}; this node must stop")]
pub struct StoreFailed {
    /// What.
    pub what: &'static str,
    /// What the store said.
    pub reason: String,
}
