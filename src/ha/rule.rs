//! The named rules. Each decision names the one that made it; every one is fired by a golden script.

use serde::{Deserialize, Serialize};

/// The rule which decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// The group is not founded or not joined yet.
    NoGroup,
    /// No living guard: PostgreSQL is neither started nor promoted without one.
    GuardMissing,
    /// The data directory belongs to another database system.
    OtherSystem,
    /// The data directory holds something else than a database system.
    ForeignDataDir,
    /// The data directory was being filled by this daemon and was not finished.
    IncompleteDataDir,
    /// PostgreSQL may be writable although the lease is not this node's.
    Demote,
    /// The guard is armed although PostgreSQL cannot be writable.
    DisarmGuard,
    /// A long action is in progress.
    JobRunning,
    /// An operator's restart of this node's PostgreSQL.
    Restart,
    /// An operator's new copy of this node's data.
    Reinitialize,
    /// Before its PostgreSQL stops, a synchronous standby waits until the primary counts on others.
    AwaitRelease,

    /// The daemon ends: PostgreSQL is stopped first.
    ShutDownStop,
    /// The daemon ends: the lease goes to a standby which has received everything.
    ShutDownHandOver,
    /// The daemon ends: the lease is given back.
    ShutDownRelease,
    /// The daemon ends: nothing is left to do.
    ShutDownDone,

    /// The lease was granted to an earlier life of this node, whose processes are gone: a new epoch is asked for.
    StrangerToEpoch,
    /// The epoch was given up: the lease is given back, whatever became of an earlier proposal.
    GivenUpEpoch,
    /// The lease is this node's; the first renewal is not won yet, or renewals do not come through.
    AwaitLicence,
    /// A voter has closed the epoch: repaired by a new one.
    RepairEpoch,
    /// The voters of the lease change by one member, as a new epoch.
    ChangeVoters,
    /// A new ttl begins with a new epoch.
    ChangeTtl,
    /// The members that may hold the lease are changed, or named for the first time: failsafe.
    ChangeFailsafe,
    /// An epoch in which the failsafe list counts is begun.
    BeginOwnEpoch,
    /// The holder makes the cluster's database system.
    Bootstrap,
    /// The holder records the cluster's system identifier.
    RecordSystem,
    /// The holder records the settings of the new cluster.
    RecordSettings,
    /// The holder has no data: the lease is given back.
    HolderWithoutData,
    /// The holder's PostgreSQL ended: started again where it is.
    RestartInPlace,
    /// The holder's standby is stopped: started, to be promoted.
    StartForPromotion,
    /// The number of the timeline that a promotion makes, or one that was made without, is agreed on.
    ReserveTimeline,
    /// The holder runs `pre_promote` before it promotes its standby.
    PrePromote,
    /// `pre_promote` failed: the promotion is cancelled and the lease given back.
    PromotionCancelled,
    /// After a failed `pre_promote` this node does not ask for the lease for a while.
    BackOff,
    /// The holder's standby is promoted.
    Promote,
    /// The holder's PostgreSQL does not become writable in time: the lease is given back.
    GiveBack,
    /// PostgreSQL runs and is of no use: it is killed and the lease is given back; or nobody could take over.
    Sick,
    /// The watchdog device which this node needs does not work: the lease is given back.
    WatchdogMissing,
    /// The guard is armed before anything may be written.
    ArmGuard,
    /// Replication slots are made or dropped.
    KeepSlots,
    /// A standby copies permanent logical slots from the primary.
    CopySlots,
    /// Another synchronous set is agreed on beside those in force.
    WidenSync,
    /// PostgreSQL is told to use an agreed synchronous set.
    ConfigureSync,
    /// One synchronous set remains in force.
    NarrowSync,
    /// The holder runs a writable PostgreSQL.
    Lead,

    /// Pause: the holder takes a pinned epoch.
    Pause,
    /// Pause: the guard of the pinned epoch is disarmed.
    DisarmInPause,
    /// Pause is over: the holder arms the guard and takes an epoch which is not pinned.
    Resume,
    /// Pause: what automation would do is left.
    Paused,
    /// An operator says that the holder is dead: the lease is asked for.
    TakeByWord,

    /// An operator's switchover: PostgreSQL is checkpointed and stopped.
    HandOverStop,
    /// An operator's switchover: the lease goes to the target.
    HandOverTransfer,
    /// An operator's switchover waits for the target to have received everything.
    HandOverWait,
    /// An operator's request cannot be done.
    HandOverRefuse,
    /// PostgreSQL takes longer to stop than `primary_stop_timeout` allows: it is stopped at once.
    StopAtOnce,
    /// An operator's scheduled switchover is due.
    ScheduledSwitchover,
    /// An operator's scheduled switchover is out of date.
    CancelSchedule,

    /// No data: waits for a primary to copy.
    AwaitPrimary,
    /// No data: copies the primary.
    Clone,
    /// The stopped standby is started.
    StartStandby,
    /// The stopped former primary is rewound.
    Rewind,
    /// A standby which went another way than the primary is stopped, to be rewound.
    Diverged,
    /// A standby which does not become consistent is stopped, to be copied anew.
    Inconsistent,
    /// The standby is pointed at the primary.
    Follow,
    /// The new copy streams: what was put aside is deleted.
    DiscardOldData,
    /// Streams from the primary.
    Standby,
    /// Empty, and nobody holds the lease: a copy is made by a method which needs no primary.
    CloneAlone,
    /// Runs in recovery but does not stream.
    CatchUp,

    /// Failsafe: neither a majority nor all members have answered for long, so that the primary becomes a replica.
    StepDown,
    /// This node promised a holder without a majority to stand back: it does not ask for the lease.
    StandBack,
    /// The holder has been silent for some renewals: the succession is prepared.
    Suspect,
    /// The old stream is ended, so that positions are final before they are compared.
    EndStream,
    /// The voters are asked how long they have heard nothing from the holder.
    AskWhetherSilent,
    /// `fencing.command` is run against the silent holder.
    CutOff,
    /// `fencing.command` has cut the holder off: the lease is asked for.
    TakeCutOff,
    /// A synchronous standby stops following, so that the old primary can acknowledge nothing.
    Fence,
    /// So many synchronous standbys are fenced that the lease can be asked for.
    TakeFenced,
    /// More synchronous standbys have to be fenced first.
    AwaitFences,
    /// This node may not be promoted.
    MayNotPromote,
    /// Another member is the better candidate.
    BetterCandidate,
    /// Members that were cut off from each other are waited for, the holder among them.
    AwaitReunion,
    /// The voters are asked whether they would close the epoch.
    AskToClose,
    /// The voters are asked to close the epoch.
    Close,
    /// With the closes of a majority, the lease is asked for.
    TakeClosed,
    /// The lease is vacant, and this node is the best candidate.
    TakeVacant,
    /// The cluster has no data yet, and another member will make it.
    AwaitBootstrap,
}
