//! What an operator asks of this node alone: restart its PostgreSQL, or copy it anew.
//!
//! Nothing here makes a node writable: a restarted primary goes on under the same licence, behind an armed guard, and
//! what is copied anew comes up as a standby. A synchronous standby first asks the primary to count on others.

use std::time::Duration;

use pgherd_raft::model::MemberId;
use serde::{Deserialize, Serialize};

use super::action::{Action, GuardAction, JobKind, PgAction};
use super::decide::{SOON, is_stopped};
use super::decision::{Decision, State};
use super::facts::{DataDir, Fact, Observation, Process};
use super::report::SERVER_FRESH;
use super::rule::Rule;
use super::{standby, sync};

/// A synchronous standby waits for so many times `loop_wait` until the primary counts on others.
const RELEASE_LOOPS: u32 = 2;

/// For which servers a restart is meant; nothing named: for any.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestartFilters {
    /// `primary`, `standby_leader` or `replica`.
    #[serde(default)]
    pub role: Option<String>,
    /// Only a server whose `server_version_num` is below this one.
    #[serde(default)]
    pub postgres_version: Option<u32>,
    /// Only a server with parameters that wait for a restart.
    #[serde(default)]
    pub restart_pending: bool,
}

/// A restart at a later time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledRestart {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Looked at when it is due.
    #[serde(default)]
    pub filters: RestartFilters,
    /// How long the server may take to come up until that counts as slow.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What is to be done on this node, and how long ago it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// PostgreSQL is stopped and started in the role that it has; a stopped one is started.
    Restart {
        /// Asked for so long ago.
        asked: Duration,
    },
    /// The data directory is removed and copied anew.
    Reinitialize {
        /// Asked for so long ago.
        asked: Duration,
    },
}

impl Operation {
    fn asked(&self) -> Duration {
        match self {
            Self::Restart { asked } | Self::Reinitialize { asked } => *asked,
        }
    }
}

/// The word for a long action where it keeps another from being begun.
pub fn word_of(job: JobKind) -> &'static str {
    match job {
        JobKind::Bootstrap => "bootstrap",
        JobKind::StartPrimary | JobKind::StartStandby => "start",
        JobKind::Stop => "stop",
        JobKind::Promote | JobKind::PrePromote => "promote",
        JobKind::Rewind => "pg_rewind",
        JobKind::Clone => "bootstrap from leader",
        JobKind::Restart => "restart",
        JobKind::Reinitialize => "reinitialize",
        JobKind::CopySlots => "copy_logical_slots",
    }
}

/// Is another server than this one meant? The reason, as the end of a sentence.
pub fn does_not_match(o: &Observation, filters: &RestartFilters) -> Option<String> {
    let server = o.postgres.server.within(SERVER_FRESH);
    let role = match server {
        Some(server) if !server.is_in_recovery => "primary",
        Some(_) | None => "replica",
    };
    if let Some(wanted) = filters.role.as_ref().filter(|wanted| *wanted != role) {
        return Some(format!("{} is a {role}, and the restart is for a {wanted}", o.my_name()));
    }
    let version = server.map_or(0, |server| server.version);
    if let Some(limit) = filters.postgres_version.filter(|limit| version >= *limit) {
        return Some(format!("PostgreSQL {version} is not older than {limit}"));
    }
    let is_pending = !o.postgres.pending_restart.is_empty();
    (filters.restart_pending && !is_pending).then(|| "no restart is pending".to_owned())
}

/// Does this node ask the primary not to count on it, since its PostgreSQL is about to stop?
pub(super) fn leaves_sync(o: &Observation) -> bool {
    let is_busy = |kind| matches!(kind, JobKind::Restart | JobKind::Reinitialize);
    o.operation.is_some() || o.job.as_ref().is_some_and(|job| is_busy(job.kind))
}

/// The holder with a licence and nothing else to do. None: no restart is asked for, or something comes first.
pub(super) fn of_holder(o: &Observation) -> Option<Decision> {
    let Some(Operation::Restart { .. }) = &o.operation else { return None };
    let DataDir::Initialised { has_standby_signal: false, .. } = o.postgres.data_dir else { return None };
    if !can_be_stopped(o) {
        return None;
    }
    if let Some(decision) = sync::before_writing(o) {
        return Some(decision);
    }
    let because = "restart in progress";
    Some(
        Decision::new(State::Starting, Rule::Restart, because, SOON)
            .act(Action::Guard(GuardAction::Arm { epoch: o.cluster.lease.epoch }))
            .act(Action::Postgres(PgAction::Restart { is_standby: false, upstream: None }))
            .wait("PostgreSQL to be up again"),
    )
}

/// A standby, or a node with a stopped PostgreSQL, while `holder` (if anybody) has the lease.
pub(super) fn of_standby(o: &Observation, holder: Option<MemberId>) -> Option<Decision> {
    let operation = o.operation.as_ref()?;
    if let Some(decision) = await_release(o, holder, operation.asked()) {
        return Some(decision);
    }
    match operation {
        Operation::Restart { .. } => restart(o),
        Operation::Reinitialize { .. } => Some(reinitialize(o, holder)),
    }
}

/// What is stopped is started by the rules that start it, in the right way for what it holds.
fn restart(o: &Observation) -> Option<Decision> {
    let DataDir::Initialised { has_standby_signal: true, .. } = o.postgres.data_dir else { return None };
    if is_stopped(o) || !can_be_stopped(o) {
        return None;
    }
    let upstream = o.postgres.configured_upstream.clone();
    Some(
        Decision::new(State::Starting, Rule::Restart, "restart in progress", SOON)
            .act(Action::Postgres(PgAction::Restart { is_standby: true, upstream }))
            .wait("PostgreSQL to be up again"),
    )
}

fn reinitialize(o: &Observation, holder: Option<MemberId>) -> Decision {
    let Some(source) = standby::source_of(o, holder) else {
        let because = "reinitialize: there is no running primary to copy";
        return Decision::new(State::Waiting, Rule::Reinitialize, because, SOON).wait("a running primary");
    };
    let because = format!("reinitialize in progress: a new copy of {} is made", source.name);
    Decision::new(State::Cloning, Rule::Reinitialize, because, SOON)
        .act(Action::Postgres(PgAction::Reinitialize { source }))
}

/// Commits would wait for this standby: the primary is given time to name another.
fn await_release(o: &Observation, holder: Option<MemberId>, asked: Duration) -> Option<Decision> {
    holder?;
    let name = o.cluster.members.get(&o.me).map(|member| &member.name)?;
    let patience = o.policy.loop_wait.saturating_mul(RELEASE_LOOPS);
    if is_stopped(o) || asked >= patience || !o.cluster.synchrony.includes(name) {
        return None;
    }
    let because = "Waiting for primary to release us from synchronous standby";
    Some(
        Decision::new(State::Standby, Rule::AwaitRelease, because, SOON)
            .wait("the primary to count on other standbys"),
    )
}

fn can_be_stopped(o: &Observation) -> bool {
    matches!(o.postgres.process, Fact::Known { value: Process::Stopped | Process::Running { .. }, .. })
}
