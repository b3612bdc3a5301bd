//! What a data member says of itself to the others.

use std::collections::{BTreeMap, BTreeSet};

use pgherd_raft::model::{Epoch, Lsn, Session, SystemIdentifier, WalPosition};
use serde::{Deserialize, Serialize};

use super::cut_off::CutOffWord;
use super::facts::{PendingParameter, TimelineSwitch};
use super::operations::ScheduledRestart;
use super::postgres_state::PostgresState;
use super::slot::SlotPosition;

/// What a data member says of itself to the others, with every exchange over the peers' port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The life of its guard: a lease can be handed only to this.
    pub session: Option<Session>,
    /// The word for its state, as in [`super::State`].
    pub state: String,
    /// The system identifier of its data directory.
    pub system_identifier: Option<SystemIdentifier>,
    /// Its data directory holds a database system.
    pub has_data: bool,
    /// PostgreSQL runs and answers.
    pub is_running: bool,
    /// `pg_is_in_recovery()`; none when it does not answer.
    pub is_in_recovery: Option<bool>,
    /// Its position: written, or received, or, when stopped, what its control data says at least.
    pub position: Option<WalPosition>,
    /// A standby's replayed position.
    pub replayed: Option<Lsn>,
    /// Its walreceiver streams.
    pub is_streaming: bool,
    /// Its walreceiver is gone, and `position` was read after that: the position can only grow by replay of what is
    /// already there.
    pub stream_ended: bool,
    /// Where each earlier timeline of it ended.
    pub history: Vec<TimelineSwitch>,
    /// It stands behind the others for a while, after a promotion that did not succeed.
    pub stands_back: bool,
    /// `server_version_num`; zero when not known.
    pub version: u32,
    /// The epoch which it has applied.
    pub epoch: Epoch,
    /// It is about to end.
    pub shutting_down: bool,
    /// Up to this epoch it follows nobody.
    #[serde(default)]
    pub fenced: Epoch,
    /// It needs a watchdog device and has none that works.
    #[serde(default)]
    pub watchdog_failed: bool,
    /// Without data it makes no database system for a new cluster.
    #[serde(default)]
    pub makes_no_cluster: bool,
    /// Its `fencing.command` has cut a holder off.
    #[serde(default)]
    pub cut_off: Option<CutOffWord>,
    /// The state of its PostgreSQL, to be shown.
    #[serde(default)]
    pub postgres: PostgresState,
    /// A standby which does not stream and takes WAL from an archive.
    #[serde(default)]
    pub in_archive_recovery: bool,
    /// Its PostgreSQL is about to stop: the primary is not to count on it as a synchronous standby.
    #[serde(default)]
    pub leaves_sync: bool,
    /// The restart of its PostgreSQL which is to begin later.
    #[serde(default)]
    pub scheduled_restart: Option<ScheduledRestart>,
    /// Parameters for which its PostgreSQL has to be started again.
    #[serde(default)]
    pub pending_restart: BTreeMap<String, PendingParameter>,
    /// A primary's slots that others have to move on, its own place among them.
    #[serde(default)]
    pub slots: BTreeMap<String, SlotPosition>,
    /// A primary's slots of members that are kept while the members may be away.
    #[serde(default)]
    pub retained_slots: BTreeSet<String>,
}
