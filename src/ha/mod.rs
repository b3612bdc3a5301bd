//! The heart: from an [`Observation`] to a [`Decision`], purely.
//!
//! Each data node decides about itself; the replicated log arbitrates. The only licence to run a writable PostgreSQL
//! is the lease: the record names this member and this life of its guard, and a majority of the record's voters
//! acknowledged a renewal whose deadline has not passed. No rule makes a node writable on a guess.
//!
//! Reading order: [`decide`] (the order of the rules), then a file a situation: `holder`, `switchover`, `shutdown` for
//! the node with the lease; `succession`, `first_lease`, `cut_off`, `standby` for the others; `operations`, `schedule` for what an operator
//! asks for; `failsafe` for a primary without a majority; `slots` for replication slots, beside whatever else is decided; `pause` for all while automation is off; `candidate` and `lineage` answer who is next and
//! who went another way. [`Rule`] lists every rule.
//!
//! Pure: no clock, no I/O, no randomness, no async; [`Observation::now`] is data.

mod action;
mod callbacks;
mod candidate;
mod cut_off;
mod decide;
mod decision;
mod evidence;
mod facts;
mod failsafe;
mod fence;
mod first_lease;
mod health;
mod health_memory;
mod history;
mod holder;
mod hook;
mod housekeeping;
mod job_memory;
mod lineage;
mod meaning;
mod member_report;
mod operations;
mod pause;
mod policy;
mod postgres_state;
mod record;
mod report;
mod rule;
mod schedule;
mod shutdown;
mod slot;
mod slot_memory;
mod slots;
mod standby;
mod stopped_by_others;
mod succession;
mod switchover;
mod sync;
#[cfg(test)]
mod testscripts;
mod what_if;

pub use action::*;
pub use callbacks::{Callback, CallbackEvent, CallbackMemory, CallbackRole};
pub use candidate::{Candidate, REPORT_FRESH, Ranking, Unfit, rank};
pub use cut_off::{CutOff, CutOffEnd, CutOffWord};
pub use decide::{GUARD_STALE, decide};
pub use decision::{Decision, State};
pub use facts::*;
pub use failsafe::advice;
pub use health::{CRASH_LOOP, CRASH_WINDOW, Condemned, Health, Probe, patience_with_holder};
pub use health_memory::{HealthMemory, may_be_standby};
pub use history::next_history;
pub use job_memory::{JobMemory, JobRun};
pub use meaning::meaning;
pub use member_report::MemberReport;
pub use operations::{Operation, RestartFilters, ScheduledRestart, does_not_match, word_of};
pub use pause::{holds_pinned, is_pause_in_force, is_paused};
pub use policy::*;
pub use postgres_state::PostgresState;
pub use record::Notebook;
pub use report::{
    IN_ARCHIVE_RECOVERY, SERVER_FRESH, STAND_BACK, STREAMING, own_report, replication_state, streams,
};
pub use rule::Rule;
pub use schedule::{Due, due};
pub use slot::*;
pub use slot_memory::SlotMemory;
pub use slots::unknown_in_use;
pub use succession::{LOST_RACE, lost_race};
pub use sync::{STRICT_ALONE, Situation, Step, is_strict_and_alone, next_step};
pub use what_if::{Forecast, Other, Wait, what_if};
