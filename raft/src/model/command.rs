//! What may be asked of the replicated state, and what comes of it.
//!
//! Every command that touches the lease is a compare-and-set on the epoch: a proposal whose answer was lost may be
//! repeated, and a late one does nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::history::TimelineEnd;
use super::ids::{Epoch, GroupId, MemberId, MemberName, Revision, Session, SystemIdentifier, TimelineId};
use super::intent::{Intent, IntentEnd};
use super::lsn::WalPosition;
use super::member::Member;
use super::schedule::ScheduledSwitchover;
use super::synchrony::SyncSet;

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a group: its identity and its founders, who are its voters.
    Found {
        /// The group's identity.
        group: GroupId,
        /// The cluster's name (`scope`).
        scope: String,
        /// The founders.
        members: Vec<(MemberId, Member)>,
    },
    /// A member joins or changes its addresses or tags.
    PutMember {
        /// The identity of its store.
        id: MemberId,
        /// Who it is.
        member: Member,
        /// The former id of the same name, removed in the same step; its old bearer was seen not to answer.
        replaces: Option<MemberId>,
    },
    /// A member leaves for good.
    RemoveMember {
        /// Who leaves.
        id: MemberId,
    },
    /// A member that stops cleanly asks for its vote to be taken back, or one that returned asks for it again.
    SetLeaving {
        /// Who stops or returned.
        id: MemberId,
        /// True: is stopping.
        leaving: bool,
    },
    /// A new epoch of the lease.
    Grant {
        /// The epoch which this grant replaces.
        expected_epoch: Epoch,
        /// The new holder.
        to: MemberId,
        /// The life of its guard.
        session: Session,
        /// How long one renewal is good, in milliseconds.
        ttl_ms: u64,
        /// What makes the grant safe.
        basis: Basis,
    },
    /// The holder, whose PostgreSQL is stopped, gives the lease back.
    Release {
        /// The epoch given back.
        epoch: Epoch,
        /// The end of the holder's WAL as far as it is known: who lies behind it does not take the vacant lease.
        #[serde(default)]
        position: Option<WalPosition>,
    },
    /// The holder, whose PostgreSQL is stopped, hands the lease over.
    Transfer {
        /// The epoch given up.
        epoch: Epoch,
        /// The next holder.
        to: MemberId,
        /// The life of the next holder's guard.
        session: Session,
        /// The voters of the new epoch when they change with it, by one member at most.
        voters: Option<BTreeSet<MemberId>>,
    },
    /// The voters of the lease change, by one member at most, while it is vacant.
    SetVoters {
        /// The epoch of the vacant lease.
        epoch: Epoch,
        /// The new voters.
        voters: BTreeSet<MemberId>,
    },
    /// The holder has made or adopted the cluster's database system.
    SetSystemIdentifier {
        /// The holder's epoch.
        epoch: Epoch,
        /// As `pg_controldata` prints it.
        identifier: SystemIdentifier,
    },
    /// The holder is about to promote its standby: a number which no other promotion gets or has got.
    ReserveTimeline {
        /// The holder's epoch.
        epoch: Epoch,
        /// The highest timeline that the holder knows of: the number is above it.
        above: TimelineId,
    },
    /// A standby of a set in force follows nobody for the rest of the epoch; its walreceiver has ended.
    Fence {
        /// The epoch to which the fence belongs.
        epoch: Epoch,
        /// Who is fenced.
        member: MemberId,
        /// What it had flushed, read after its walreceiver had ended.
        position: WalPosition,
    },
    /// Another set comes into force beside the present ones, or one of them becomes the last: the holder's PostgreSQL is
    /// about to use it.
    WidenSync {
        /// The holder's epoch.
        epoch: Epoch,
        /// The number of changes which this one replaces.
        revision: u64,
        /// The set.
        to: SyncSet,
    },
    /// One set remains in force: the holder's PostgreSQL uses it, and as many of it as must acknowledge have flushed
    /// what the primary had written when it began to use it.
    NarrowSync {
        /// The holder's epoch.
        epoch: Epoch,
        /// The number of changes which this one replaces.
        revision: u64,
        /// The set: the last one in force.
        to: SyncSet,
    },
    /// From here on the lease is granted to these members only, since the holder may renew by their promises.
    SetFailsafe {
        /// The holder's epoch.
        epoch: Epoch,
        /// The members; none: anybody may hold the lease.
        members: Option<BTreeSet<MemberId>>,
    },
    /// Something is recorded for operators.
    Record {
        /// What happened and why.
        event: Event,
    },
    /// The holder tells which timelines the cluster has left behind.
    SetHistory {
        /// The holder's epoch.
        epoch: Epoch,
        /// All of them, the oldest first.
        history: Vec<TimelineEnd>,
    },
    /// The settings change.
    SetSettings {
        /// The revision which this change replaces.
        expected: Revision,
        /// The whole new document: a JSON object.
        document: String,
        /// Who changes them, for people.
        #[serde(default)]
        by: String,
        /// When, in milliseconds since 1970 by the proposer's wall clock, for people.
        #[serde(default)]
        at_ms: u64,
    },
    /// An operator asks for something.
    SetIntent {
        /// What.
        intent: Intent,
    },
    /// An operator asks for a switchover at a later time, in place of what was scheduled before.
    ScheduleSwitchover {
        /// What, and when.
        schedule: ScheduledSwitchover,
    },
    /// What is scheduled is not to happen.
    CancelSchedule {
        /// Only what is scheduled for this time; none: whatever it is.
        at_ms: Option<i64>,
    },
    /// The scheduled switchover is due: it becomes the pending intent.
    BeginScheduled {
        /// For which time it is scheduled.
        at_ms: i64,
    },
    /// An intent ends without a change of the holder.
    EndIntent {
        /// Which one.
        id: u64,
        /// Why.
        end: IntentEnd,
    },
}

/// What makes a grant safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// The lease is vacant.
    Vacant,
    /// A new epoch for the same holder. It voids closes and late proposals of the old one.
    Renewed {
        /// The voters of the new epoch: the old ones with one more or one less at most.
        voters: BTreeSet<MemberId>,
        /// Pause: the new epoch cannot be closed or fenced, and the guard is disarmed once it is applied.
        #[serde(default)]
        pinned: bool,
    },
    /// These voters closed the epoch durably: they acknowledge no renewal of it any more.
    Closed {
        /// Who closed.
        by: BTreeSet<MemberId>,
    },
    /// So many standbys of every set in force are fenced that the holder can acknowledge nothing.
    Fenced,
    /// An operator's `fencing.command` has cut the holder off and said so.
    CutOff,
    /// The operator's pending request says that the holder is dead.
    OperatorsWord,
}

/// What came of a command. A refusal is an ordinary outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The state changed, or already was as asked.
    Applied,
    /// A precondition did not hold; nothing changed.
    Rejected(Rejection),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    /// The group was founded already, or not yet.
    Founding,
    /// The command names an epoch which is not the present one.
    Epoch {
        /// The present epoch.
        current: Epoch,
    },
    /// The command names a revision which is not the present one.
    Revision {
        /// The present revision.
        current: Revision,
    },
    /// The lease is held, or not held, against the command's expectation.
    Tenure,
    /// Too few voters closed the epoch.
    TooFewCloses,
    /// Too few standbys of a set in force are fenced: somebody else may have what was acknowledged, or the holder may
    /// still acknowledge.
    TooFewFences,
    /// Another fenced standby has flushed more.
    BehindFence {
        /// The highest fenced position.
        highest: WalPosition,
    },
    /// The synchronous set is not in force, is too large, or too many are; or the change is late.
    Synchrony {
        /// The present number of changes.
        revision: u64,
    },
    /// The member is not one of those to which the lease may be granted while failsafe is on.
    Failsafe,
    /// The present epoch is pinned.
    Pinned,
    /// The change of voters is more than one member, empties them, or names strangers.
    Voters,
    /// No such member, or a witness where a data member is needed.
    Member {
        /// Who.
        id: MemberId,
    },
    /// The name belongs to another member.
    NameTaken {
        /// Which name.
        name: MemberName,
        /// Whose it is.
        by: MemberId,
    },
    /// The peer address belongs to another member.
    AddressTaken {
        /// Which address.
        address: String,
        /// Whose it is.
        by: MemberId,
    },
    /// The member still counts the lease.
    StillVoter {
        /// Who.
        id: MemberId,
    },
    /// The cluster has another system identifier.
    SystemIdentifier {
        /// The cluster's.
        current: SystemIdentifier,
    },
    /// Another intent is pending, or none with that number.
    Intent,
    /// A value is outside its limits.
    Limit {
        /// Which limit.
        what: String,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Founding => f.write_str("the group was founded already, or not yet"),
            Self::Epoch { current } => write!(f, "the lease is at epoch {current} by now"),
            Self::Revision { current } => write!(f, "the settings are at revision {current} by now"),
            Self::Tenure => f.write_str("the lease's holder is not the one expected"),
            Self::TooFewCloses => f.write_str("no majority of the voters has closed the epoch"),
            Self::TooFewFences => {
                f.write_str("too few synchronous standbys are fenced to know what was acknowledged")
            }
            Self::BehindFence { highest } => write!(f, "a fenced standby has flushed {highest}"),
            Self::Synchrony { revision } => write!(
                f,
                "the synchronous sets are at change {revision} by now, or too many are in force, or this one is not"
            ),
            Self::Failsafe => f.write_str("the member is not in the failsafe list"),
            Self::Pinned => f.write_str("the epoch is pinned by pause"),
            Self::Voters => f.write_str("voters change by one known member at a time and are never empty"),
            Self::Member { id } => write!(f, "{id} is not a member that can do this"),
            Self::NameTaken { name, by } => write!(f, "the name {name} belongs to member {by}"),
            Self::AddressTaken { address, by } => write!(f, "the address {address} belongs to member {by}"),
            Self::StillVoter { id } => write!(f, "{id} still counts the lease"),
            Self::SystemIdentifier { current } => {
                write!(f, "the cluster's system identifier is {current}")
            }
            Self::Intent => f.write_str("another operator's request is pending, or this one has ended"),
            Self::Limit { what } => f.write_str(what),
        }
    }
}
