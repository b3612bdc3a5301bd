//! The replicated model: one value, [`ClusterState`], and one function, [`apply`].
//!
//! Pure: no clock, no I/O, no randomness; sets and maps are ordered. Every node applies the same commands in the
//! same order and gets the same state. A failed expectation is a value ([`Rejection`]), never an error.

mod apply;
mod command;
mod event;
mod history;
mod ids;
mod intent;
mod lease;
mod lsn;
mod member;
mod schedule;
mod settings;
mod state;
mod synchrony;
mod takeover;
mod timelines;

#[cfg(test)]
mod testscripts;

pub use apply::{MAX_MEMBERS, TTL_LIMITS_MS, apply};
pub use command::{Basis, Command, Outcome, Rejection};
pub use event::{CandidateNote, Event, EventKind, MAX_EVENT_BYTES, MAX_EVENTS, RecordedEvent};
pub use history::{MAX_HISTORY, MAX_HISTORY_REASON_BYTES, TimelineEnd};
pub use ids::{
    Epoch, GroupId, Incarnation, InvalidMemberName, MemberId, MemberName, Revision, Session,
    SystemIdentifier, TimelineId,
};
pub use intent::{EndedIntent, Intent, IntentEnd, PendingIntent};
pub use lease::{Lease, Tenure};
pub use lsn::{InvalidLsn, Lsn, WalPosition};
pub use member::{Member, MemberKind, PostgresAddr, TagValue, Tags, other_system};
pub use schedule::{ScheduledSwitchover, iso_time};
pub use settings::{
    MAX_DOCUMENT_BYTES, MAX_SETTINGS_BY_BYTES, MAX_SETTINGS_HISTORY, MAX_SETTINGS_HISTORY_BYTES, Settings,
    SettingsRecord,
};
pub use state::ClusterState;
pub use synchrony::{MAX_SETS, SyncSet, Synchrony};
pub use timelines::Timelines;
