//! What was observed: one plain value, [`Observation`], from which [`super::decide`] decides.
//!
//! Absence of knowledge is a value ([`Fact::Unknown`]), never a default: each rule says what it does with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_raft::lease::{BootTime, FailsafeFacts, Licence, StandingBack};
use pgherd_raft::model::{
    ClusterState, Epoch, Lsn, MemberId, PostgresAddr, Session, SyncSet, SystemIdentifier, TimelineId,
    WalPosition,
};
use serde::{Deserialize, Serialize};

use super::action::{JobKind, SyncNames};
use super::cut_off::CutOff;
use super::health::Health;
use super::member_report::MemberReport;
use super::operations::{Operation, ScheduledRestart};
use super::policy::Policy;
use super::slot::{Slot, SlotFacts};

/// Something observed, or the reason why it is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact<T> {
    /// Observed this long ago.
    Known {
        /// What was seen.
        value: T,
        /// How old the observation is.
        age: Duration,
    },
    /// Not known, and why: a question that timed out is not an answer.
    Unknown(String),
}

impl<T> Fact<T> {
    /// A fact observed just now.
    pub fn fresh(value: T) -> Self {
        Self::Known { value, age: Duration::ZERO }
    }

    /// The value however old it is; the caller says with the name that age does not matter to it.
    pub fn of_any_age(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// The value if it is at most this old.
    pub fn within(&self, limit: Duration) -> Option<&T> {
        match self {
            Self::Known { value, age } if *age <= limit => Some(value),
            Self::Known { .. } | Self::Unknown(_) => None,
        }
    }
}

/// Everything a decision may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// This machine's clock when the observation was complete.
    pub now: BootTime,
    /// Who decides.
    pub me: MemberId,
    /// The replicated state as this node has applied it; may lag.
    pub cluster: ClusterState,
    /// What this node knows of the Raft group.
    pub consensus: Consensus,
    /// The lease as this node can prove it.
    pub lease: LeaseFacts,
    /// The local guard process.
    pub guard: Fact<GuardFacts>,
    /// The local PostgreSQL.
    pub postgres: PostgresFacts,
    /// The other data members' reports about themselves.
    pub peers: BTreeMap<MemberId, Fact<MemberReport>>,
    /// The long action in progress.
    pub job: Option<Job>,
    /// How the last long action of each kind ended.
    pub finished: BTreeMap<JobKind, Finished>,
    /// How long this daemon has known of the operator's request which is pending; zero when there is none. It counts by
    /// its own clock: no clock is read where the replicated state is made.
    pub intent_for: Duration,
    /// The daemon was asked to end (SIGTERM, SIGINT).
    pub shutting_down: bool,
    /// The wall clock in milliseconds since 1970, for what an operator scheduled and nothing else: it may step.
    #[serde(default)]
    pub wall_ms: i64,
    /// What an operator asks of this node alone.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// The restart of this node's PostgreSQL which is to begin later.
    #[serde(default)]
    pub scheduled_restart: Option<ScheduledRestart>,
    /// What is remembered of replication slots.
    #[serde(default)]
    pub slots: SlotFacts,
    /// What the configuration says about decisions.
    pub policy: Policy,
}

impl Observation {
    /// This node's name for a sentence.
    pub fn my_name(&self) -> String {
        self.cluster.name_of(self.me)
    }

    /// Do the holder's renewals come to this node, so that it notices their end? To voters, and to those that never vote.
    pub fn hears_renewals(&self) -> bool {
        self.cluster.lease.voters.contains(&self.me) || self.cluster.is_listener(self.me)
    }

    /// The licence if its deadline is ahead and it belongs to the epoch which the applied record gives to this node.
    pub fn licence(&self) -> Option<Licence> {
        let current = self.cluster.lease.epoch;
        let holder = self.cluster.lease.holder();
        self.lease
            .licence
            .filter(|won| holder == Some(self.me) && won.epoch == current && won.deadline > self.now)
    }

    /// For which holder this node stands back at that moment, by a promise that it remembers.
    pub fn stands_back_for(&self, at: BootTime) -> Option<MemberId> {
        let promise = self.lease.stands_back.filter(|promise| promise.remaining > at.since(self.now))?;
        promise.holder
    }

    /// A peer's report, if it is young enough.
    pub fn report(&self, of: MemberId, limit: Duration) -> Option<&MemberReport> {
        self.peers.get(&of).and_then(|fact| fact.within(limit))
    }
}

/// The Raft group as seen from here. None of it is a licence to write.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Consensus {
    /// This node leads the Raft group, as far as it knows.
    pub is_raft_leader: bool,
    /// The Raft leader, as far as this node knows.
    pub raft_leader: Option<MemberId>,
    /// The Raft term.
    pub term: u64,
    /// The Raft voters of the applied membership.
    pub voters: BTreeSet<MemberId>,
    /// What this node waits for before it takes part; none: it takes part.
    pub waiting_for: Option<String>,
}

/// The lease as this node can prove it, and the succession it is preparing.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseFacts {
    /// The last licence won by this process.
    pub licence: Option<Licence>,
    /// A voter answered that this epoch is closed: repair by a new epoch.
    pub disputed: Option<Epoch>,
    /// Epochs up to this one were given up for good; durable.
    pub given_up: Epoch,
    /// The epoch of the record when this life of the daemon began to take part: an earlier life may have asked for the
    /// end of this one and of earlier ones, but of none above.
    pub known_at_start: Epoch,
    /// How long this node's own voter has heard nothing from a holder.
    pub quiet_for: Duration,
    /// The voters which acknowledged one of the last rounds of this holder.
    pub answering: BTreeSet<MemberId>,
    /// The answers to this node's requests to close the present epoch.
    pub closes: Option<Closes>,
    /// As a holder: what is known of failsafe.
    pub failsafe: FailsafeFacts,
    /// As a member: what this node promised to a holder without a majority, while it is in force.
    pub stands_back: Option<StandingBack>,
    /// What `fencing.command` does.
    #[serde(default)]
    pub cut_off: CutOff,
}

/// What the voters answered to a request to close an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Closes {
    /// The epoch asked about.
    pub epoch: Epoch,
    /// Voters which would close it.
    pub would: BTreeSet<MemberId>,
    /// Voters which closed it, durably.
    pub closed: BTreeSet<MemberId>,
    /// Voters which have heard nothing from the holder for its patience.
    pub silent: BTreeSet<MemberId>,
    /// A majority answered the last round, whatever it said.
    pub is_answered: bool,
    /// How long before the last round one found no majority that answered; none: not in this epoch.
    pub unanswered: Option<Duration>,
    /// How long ago the last round of answers came in.
    pub age: Duration,
}

impl Closes {
    /// The answers of a round after those of an earlier one: closes accumulate, since they are durable, the others do
    /// not.
    pub fn after(mut self, earlier: Option<&Self>, ago: Duration) -> Self {
        let earlier = earlier.filter(|earlier| earlier.epoch == self.epoch);
        if let Some(earlier) = earlier {
            self.closed.extend(earlier.closed.iter().copied());
        }
        self.unanswered = match earlier.and_then(|earlier| earlier.unanswered) {
            _ if !self.is_answered => Some(Duration::ZERO),
            before => before.map(|before| before.saturating_add(ago)),
        };
        self
    }
}

/// What the guard's page says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardFacts {
    /// The life of this guard.
    pub session: Session,
    /// The deadline at which it kills PostgreSQL; none: disarmed.
    pub deadline: Option<BootTime>,
    /// The epoch for which it is armed; meaningless while it is disarmed.
    pub epoch: Epoch,
    /// How long ago the guard showed a heartbeat.
    pub heartbeat_age: Duration,
    /// For how long it has been killing PostgreSQL; none: it does not.
    pub killing_for: Option<Duration>,
    /// The last postmaster ended in obedience to somebody else, as it seems: nobody here had asked it to end. None: it
    /// ended otherwise, or one was started since.
    #[serde(default)]
    pub stopped_by_others: Option<StoppedByOthers>,
    /// The watchdog device behind it.
    #[serde(default)]
    pub watchdog: WatchdogFacts,
}

/// A postmaster's end that nobody here had asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedByOthers {
    /// When.
    pub at: BootTime,
    /// Its exit status was 0. Otherwise the status went to somebody else: an adopted postmaster is no child of the guard,
    /// and only its control data tell whether it crashed.
    pub is_certain: bool,
}

/// The watchdog device which resets the machine when the guard itself is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WatchdogFacts {
    /// Without one this node may not be the primary.
    pub is_required: bool,
    /// Why none works, or would; a sentence. None: nothing is known against it.
    pub trouble: Option<String>,
    /// The guard was armed with another configuration of it.
    pub is_outdated: bool,
}

/// What is known of the local PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// The data directory.
    pub data_dir: DataDir,
    /// `pg_controldata`; read when the server is stopped, and now and then when it runs.
    pub control: Fact<ControlData>,
    /// The postmaster as the guard sees it.
    pub process: Fact<Process>,
    /// What the server says by SQL. A lost or hanging connection makes this unknown, never "stopped".
    pub server: Fact<Server>,
    /// Whom a standby is configured to follow (`primary_conninfo`); none: nobody, or not a standby.
    pub configured_upstream: Option<Upstream>,
    /// The timeline history of the local data directory: where each earlier timeline ended.
    pub history: Vec<TimelineSwitch>,
    /// The last postmaster which ran never said more than that it lets nobody in yet: a standby which did not become
    /// consistent.
    pub never_ready: bool,
    /// The highest timeline of which the local data directory has a history file: a standby may be about to go there.
    pub newest_history: TimelineId,
    /// An earlier clone put data aside that was not deleted yet.
    pub has_old_data: bool,
    /// What the configuration file says about `synchronous_standby_names`.
    pub sync_configured: SyncNames,
    /// The set that the running server was seen to use.
    pub sync_in_use: Option<SyncInUse>,
    /// Names that streamed from this server and do so no more, and for how long.
    pub left_stream: BTreeMap<String, Duration>,
    /// Names that stream from this server and lack what it has written, and for how long they have flushed nothing.
    pub stalled_stream: BTreeMap<String, Duration>,
    /// Up to this epoch this standby follows nobody; durable.
    pub fenced: Epoch,
    /// What the probes say.
    pub health: Health,
    /// Parameters whose new value the running server takes with its next start only.
    #[serde(default)]
    pub pending_restart: BTreeMap<String, PendingParameter>,
}

/// A synchronous set which every part of the server uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncInUse {
    /// The set.
    pub set: SyncSet,
    /// What the server had written, or had received, when every part of it used the set.
    pub since: Lsn,
}

/// The state of the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataDir {
    /// Missing or empty.
    Empty,
    /// Holds a database system.
    Initialised {
        /// A `backup_label` file is there: a base backup which was not started yet.
        has_backup_label: bool,
        /// A `standby.signal` file is there.
        has_standby_signal: bool,
    },
    /// This daemon began to fill it (initdb or base backup) and did not finish: may be emptied.
    Incomplete,
    /// Not empty and no database system: never touched. The reason names what was found.
    Foreign(String),
}

/// The fields of `pg_controldata` on which decisions depend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlData {
    /// The database system.
    pub system_identifier: SystemIdentifier,
    /// The last state of the server.
    pub state: ControlState,
    /// The timeline of the latest checkpoint, or of the minimum recovery point when that is later.
    pub timeline: TimelineId,
    /// The location of the latest checkpoint.
    pub checkpoint: Lsn,
    /// The minimum recovery ending location; zero when there is none.
    pub min_recovery_end: Lsn,
}

/// "Database cluster state" of `pg_controldata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlState {
    /// `starting up`
    StartingUp,
    /// `shut down`: a primary which ended cleanly.
    ShutDown,
    /// `shut down in recovery`: a standby which ended cleanly.
    ShutDownInRecovery,
    /// `shutting down`
    ShuttingDown,
    /// `in crash recovery`
    InCrashRecovery,
    /// `in archive recovery`: a standby.
    InArchiveRecovery,
    /// `in production`: a primary which runs or crashed.
    InProduction,
}

impl ControlState {
    /// Was the server writable when it wrote this? Crash recovery is a former primary's.
    pub fn was_primary(self) -> bool {
        match self {
            Self::ShutDown | Self::ShuttingDown | Self::InCrashRecovery | Self::InProduction => true,
            Self::StartingUp | Self::ShutDownInRecovery | Self::InArchiveRecovery => false,
        }
    }
}

/// The postmaster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Process {
    /// No process of the data directory is left on this machine.
    Stopped,
    /// The postmaster has ended, but processes of the data directory are left.
    Ending,
    /// The postmaster runs.
    Running {
        /// Its process id.
        pid: u32,
        /// The guard is its parent; an adopted one has no death signal.
        is_child: bool,
    },
}

/// What the server says of itself by SQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `pg_is_in_recovery()`.
    pub is_in_recovery: bool,
    /// A primary's write position; a standby's received position (flushed), or the replayed one where it is ahead.
    pub position: WalPosition,
    /// A standby's replayed position.
    pub replayed: Option<Lsn>,
    /// When the last replayed transaction was committed, as PostgreSQL prints it.
    pub replayed_at: Option<String>,
    /// Replay is paused.
    pub replay_paused: bool,
    /// A `restore_command` is set: a standby that does not stream takes WAL from an archive.
    #[serde(default)]
    pub has_archive: bool,
    /// The walreceiver, if one runs.
    pub receiver: Option<Receiver>,
    /// `pg_stat_replication`.
    pub senders: Vec<Sender>,
    /// The replication slots which are not temporary.
    pub slots: Vec<Slot>,
    /// `wal_level` is `logical`.
    #[serde(default)]
    pub is_logical: bool,
    /// `server_version_num`, for example 150018.
    pub version: u32,
    /// `pg_postmaster_start_time()`, as PostgreSQL prints it.
    pub started_at: String,
}

/// `pg_stat_wal_receiver`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// The status, for example `streaming`.
    pub status: String,
    /// The server it receives from, when PostgreSQL says.
    pub from: Option<PostgresAddr>,
    /// `application_name` slot in use.
    pub slot: Option<String>,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// `application_name`: the member's name.
    pub application_name: String,
    /// `client_addr`; none for a local socket.
    pub client_addr: Option<String>,
    /// `usename`.
    pub user: String,
    /// `state`, for example `streaming`.
    pub state: String,
    /// `sync_state`.
    pub sync_state: String,
    /// `sync_priority`.
    pub sync_priority: i32,
    /// `write_lsn`.
    pub written: Option<Lsn>,
    /// `flush_lsn`.
    pub flushed: Option<Lsn>,
    /// `replay_lsn`.
    pub replayed: Option<Lsn>,
}

/// A server to follow, to clone, or to rewind from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The member's name.
    pub name: String,
    /// Its PostgreSQL.
    pub addr: PostgresAddr,
}

/// A line of a timeline history file: where a timeline ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineSwitch {
    /// The timeline which ended.
    pub timeline: TimelineId,
    /// Where.
    pub lsn: Lsn,
    /// PostgreSQL's reason, for example `no recovery target specified`.
    pub reason: String,
}

/// A parameter of a running server which waits for a restart; in PostgreSQL's units for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingParameter {
    /// What it runs with.
    pub old_value: String,
    /// What it will run with; `?` when that cannot be told.
    pub new_value: String,
}

/// The long action in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What is being done.
    pub kind: JobKind,
    /// For how long.
    pub running_for: Duration,
    /// What it is about, for a sentence: the upstream's name, for example.
    pub detail: String,
}

/// How a long action ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The error's text, also when a stop cut it short; none: it succeeded.
    pub error: Option<String>,
    /// How long ago.
    pub age: Duration,
    /// How long it took.
    pub took: Duration,
    /// How often in a row it failed.
    pub failures: u32,
    /// Under which epoch it was begun.
    pub epoch: Epoch,
}
