//! What is to be done. Each action is safe to repeat and to interrupt at any point.

use std::collections::{BTreeMap, BTreeSet};

use pgherd_raft::model::{Command, Epoch, MemberId, SyncSet, TimelineId};
use serde::{Deserialize, Serialize};

use super::facts::Upstream;
use super::slot::{SlotKind, SlotStep};

/// One step towards the decided state. Performed in order by the agent, and by nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Propose a command to the replicated state.
    Propose(Command),
    /// Do something to the local PostgreSQL.
    Postgres(PgAction),
    /// Do something to the guard.
    Guard(GuardAction),
    /// Say something to the voters of the lease.
    Lease(LeaseAction),
    /// Ask the other data members for fresh reports.
    AskPeers,
}

/// An action on the local PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PgAction {
    /// Make a new database system, start it, make its users, run `post_bootstrap`, stop nothing. A job.
    Bootstrap,
    /// Start as a primary: no `standby.signal`. Crash recovery included. A job.
    StartPrimary,
    /// Start as a standby. A job.
    StartStandby {
        /// Whom to follow; none: nobody, only replay what is there.
        upstream: Option<Upstream>,
    },
    /// Stop. A job.
    Stop {
        /// How.
        mode: StopMode,
        /// Run a checkpoint first, so that the shutdown's own is short.
        checkpoint_first: bool,
    },
    /// Make a copy by an operator's method which needs no primary. A job.
    Restore,
    /// Run `pre_promote`: what it says decides about the promotion. A job.
    PrePromote,
    /// Stop, and start in the same role. A job.
    Restart {
        /// Start as a standby.
        is_standby: bool,
        /// Whom a standby is to follow.
        upstream: Option<Upstream>,
    },
    /// Stop at once, remove the data and take a base backup. A job.
    Reinitialize {
        /// The server to copy.
        source: Upstream,
    },
    /// Leave recovery; asked again each 50 ms until `pg_is_in_recovery()` is false. A job.
    Promote {
        /// The number which is reserved for the timeline that this makes.
        timeline: TimelineId,
    },
    /// Write `primary_conninfo` and reload.
    Follow {
        /// Whom to follow; none: nobody.
        upstream: Option<Upstream>,
    },
    /// Follow nobody for the rest of this epoch, durably: recorded first, then `primary_conninfo` is emptied.
    Fence {
        /// The epoch.
        epoch: Epoch,
    },
    /// Write `synchronous_standby_names` and reload.
    SetSync {
        /// What to write.
        names: SyncNames,
    },
    /// Run `pg_rewind` on the stopped data directory. A job.
    Rewind {
        /// The server to rewind to.
        source: Upstream,
    },
    /// Take a base backup; what lies in the data directory is put aside first. A job.
    Clone {
        /// The server to copy.
        source: Upstream,
    },
    /// Delete what an earlier clone put aside: the new copy streams.
    DiscardOldData,
    /// Empty a data directory which this daemon began to fill and did not finish.
    DiscardIncomplete,
    /// Make, move on and drop replication slots. What fails for one slot does not hinder the others.
    KeepSlots {
        /// What is to be done, in order.
        steps: Vec<SlotStep>,
    },
    /// Read logical slots from the primary, stop, put them into the data directory, and start again. A job.
    CopySlots {
        /// The primary.
        source: Upstream,
        /// The slots.
        slots: BTreeMap<String, SlotKind>,
    },
}

/// A value of `synchronous_standby_names`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncNames {
    /// The operator's own, from `postgresql.parameters`; nothing is promised for it.
    Own,
    /// What the group agreed on.
    Agreed {
        /// The set.
        set: SyncSet,
        /// Written as `ANY`: quorum mode.
        any: bool,
    },
}

impl SyncNames {
    /// The set in which the group's promises are counted.
    pub fn set(&self) -> SyncSet {
        match self {
            Self::Own => SyncSet::default(),
            Self::Agreed { set, .. } => set.clone(),
        }
    }

    /// Quorum mode?
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Agreed { any: true, .. })
    }
}

/// PostgreSQL's shutdown modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopMode {
    /// SIGINT: disconnect clients, checkpoint, let standbys receive everything.
    Fast,
    /// SIGQUIT: no checkpoint; recovery at the next start.
    Immediate,
}

/// The kinds of long action; at most one runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JobKind {
    /// [`PgAction::Bootstrap`]
    Bootstrap,
    /// [`PgAction::StartPrimary`]
    StartPrimary,
    /// [`PgAction::StartStandby`]
    StartStandby,
    /// [`PgAction::Stop`]
    Stop,
    /// [`PgAction::Promote`]
    Promote,
    /// [`PgAction::Rewind`]
    Rewind,
    /// [`PgAction::Clone`]
    Clone,
    /// [`PgAction::PrePromote`]
    PrePromote,
    /// [`PgAction::Restart`]
    Restart,
    /// [`PgAction::Reinitialize`]
    Reinitialize,
    /// [`PgAction::CopySlots`]
    CopySlots,
}

impl PgAction {
    /// The kind of job which this action is; none for a short one.
    pub fn job(&self) -> Option<JobKind> {
        match self {
            Self::Bootstrap => Some(JobKind::Bootstrap),
            Self::StartPrimary => Some(JobKind::StartPrimary),
            Self::StartStandby { .. } => Some(JobKind::StartStandby),
            Self::Stop { .. } => Some(JobKind::Stop),
            Self::Promote { .. } => Some(JobKind::Promote),
            Self::Rewind { .. } => Some(JobKind::Rewind),
            Self::Clone { .. } => Some(JobKind::Clone),
            Self::Restore => Some(JobKind::Clone),
            Self::PrePromote => Some(JobKind::PrePromote),
            Self::Restart { .. } => Some(JobKind::Restart),
            Self::Reinitialize { .. } => Some(JobKind::Reinitialize),
            Self::CopySlots { .. } => Some(JobKind::CopySlots),
            Self::Follow { .. }
            | Self::Fence { .. }
            | Self::SetSync { .. }
            | Self::DiscardOldData
            | Self::DiscardIncomplete
            | Self::KeepSlots { .. } => None,
        }
    }
}

/// An action on the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardAction {
    /// Make sure that a guard runs and that this daemon is attached to it.
    Ensure,
    /// Arm it with the deadline of the licence of this epoch, before anything becomes writable.
    Arm {
        /// The licence's epoch.
        epoch: Epoch,
    },
    /// Void the deadline; allowed only while PostgreSQL cannot be writable.
    Disarm,
    /// Kill every process of the data directory, as at the deadline. Nothing is waited for.
    Kill,
}

/// An action on the lease which does not go through the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseAction {
    /// Record durably that this epoch is given up: no renewal of it is sent or counted again.
    GiveUp {
        /// The epoch.
        epoch: Epoch,
    },
    /// Ask the voters whether they would close the epoch, or to close it.
    Close {
        /// The epoch.
        epoch: Epoch,
        /// Whom to ask.
        voters: BTreeSet<MemberId>,
        /// False: only the question.
        for_real: bool,
    },
    /// Run `fencing.command` against the silent holder, beside everything else.
    CutOff {
        /// The epoch in which it is silent.
        epoch: Epoch,
        /// The holder.
        member: MemberId,
    },
}
