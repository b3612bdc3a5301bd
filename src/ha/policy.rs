//! What the configuration says about decisions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::slot::SlotPolicy;

/// What `synchronous_standby_names` names when every commit has to wait: no member may have this name.
pub const NOBODY: &str = "__patroni_strict_sync_replica_placeholder__";

/// What the configuration says about decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How long a renewal of the next epoch is good.
    pub ttl: Duration,
    /// The longest time between observations.
    pub loop_wait: Duration,
    /// How long a retried operation may go on.
    pub retry_timeout: Duration,
    /// The most bytes a candidate may lie behind the last known position of the primary.
    pub maximum_lag_on_failover: u64,
    /// No candidate on an older timeline than the primary's.
    pub check_timeline: bool,
    /// How long a primary may need to start before it gives the lease back; zero: at once.
    pub primary_start_timeout: Duration,
    /// How long a primary may need to stop in synchronous mode before it is stopped at once; none: as long as it takes.
    pub primary_stop_timeout: Option<Duration>,
    /// `pre_promote` is to be asked before a promotion.
    pub has_pre_promote: bool,
    /// There is a method which makes a replica without a primary.
    pub restores_alone: bool,
    /// How long a primary may be of no use before it gives the lease to another member; zero: for ever.
    pub primary_health_timeout: Duration,
    /// Automation is to be off.
    pub pause: bool,
    /// `failsafe_mode`: a primary without a majority goes on while all members stand back for it.
    pub failsafe: bool,
    /// Synchronous replication.
    pub sync: SyncPolicy,
    /// Whether a diverged former primary may be rewound.
    pub use_pg_rewind: bool,
    /// Whether physical replication slots are kept for the members.
    pub use_slots: bool,
    /// The other slots.
    #[serde(default)]
    pub slots: SlotPolicy,
    /// Why this node makes no database system for a new cluster; none: it does.
    pub makes_no_cluster: Option<String>,
    /// The settings document for a new cluster (`bootstrap.dcs`), a JSON object.
    pub bootstrap_settings: String,
}

/// What the configuration says about synchronous replication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPolicy {
    /// `synchronous_mode`.
    pub mode: SyncMode,
    /// Rather no writes than unreplicated ones.
    pub strict: bool,
    /// The wanted number of standbys that acknowledge, at least one.
    pub node_count: usize,
    /// A standby further behind the best one than this many bytes is not synchronous; none: no limit.
    pub maximum_lag: Option<u64>,
    /// What `synchronous_commit` lets commits wait for.
    pub waits_for: CommitWaitsFor,
    /// Take over as soon as the synchronous standbys are fenced, without waiting for the lease to expire.
    pub fast_failover: bool,
}

/// How commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncMode {
    /// They do not.
    Off,
    /// For each of a few chosen ones.
    On,
    /// For some of all.
    Quorum,
}

/// Up to which point a standby has processed what it acknowledges (`synchronous_commit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitWaitsFor {
    /// `on`
    Flush,
    /// `remote_apply`
    Replay,
    /// `remote_write`
    Write,
}

impl Default for SyncPolicy {
    fn default() -> Self {
        Self {
            mode: SyncMode::Off,
            strict: false,
            node_count: 1,
            maximum_lag: None,
            waits_for: CommitWaitsFor::Flush,
            fast_failover: true,
        }
    }
}
