//! The rules of a node that does not hold the lease: get data, come back, follow.

use std::time::Duration;

use pgherd_raft::model::MemberId;

use super::action::{Action, GuardAction, JobKind, PgAction, StopMode};
use super::candidate::REPORT_FRESH;
use super::decide::{SOON, may_be_writable};
use super::decision::{Decision, State};
use super::facts::{ControlData, DataDir, Finished, Observation, Process, Server, Upstream};
use super::lineage::{History, Lineage, of_standby, of_stopped};
use super::member_report::MemberReport;
use super::report::{SERVER_FRESH, streams};
use super::rule::Rule;
use super::{operations, slots, stopped_by_others, sync};

/// After a failed start, clone or rewind the next attempt waits this much longer each time, up to the limit.
const RETRY_STEP: Duration = Duration::from_secs(2);
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// A standby that answers to nobody for so long, although it may get WAL from the primary, waits for WAL which nobody
/// has any more. Longer than the recovery of all the WAL between two checkpoints takes; meanwhile the old data is kept.
const CONSISTENCY_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What to do while `holder` (if anybody) has the lease.
pub(super) fn decide(o: &Observation, holder: Option<MemberId>) -> Decision {
    // A promotion that did not come to be is no reason to wait for what was asked about it.
    if let Some(job) = o.job.as_ref().filter(|job| job.kind != JobKind::PrePromote) {
        let state = match job.kind {
            JobKind::Clone | JobKind::Reinitialize => State::Cloning,
            JobKind::Rewind => State::Rewinding,
            JobKind::Bootstrap => State::Bootstrapping,
            JobKind::Stop | JobKind::Promote | JobKind::PrePromote => State::Demoting,
            JobKind::StartPrimary | JobKind::StartStandby | JobKind::Restart | JobKind::CopySlots => {
                State::Starting
            }
        };
        return Decision::new(state, Rule::JobRunning, job.detail.clone(), SOON).wait("the action to end");
    }
    // Armed for a later epoch than the record here: this node held it in an earlier life of its daemon, and a promotion
    // may still be on its way. The record comes up to date, or the deadline comes.
    let record = o.cluster.lease.epoch;
    let is_armed =
        o.guard.of_any_age().is_some_and(|guard| guard.deadline.is_some() && guard.epoch <= record);
    if is_armed && !may_be_writable(o) {
        return Decision::new(
            State::Starting,
            Rule::DisarmGuard,
            "the guard is disarmed: PostgreSQL cannot be writable",
            SOON,
        )
        .act(Action::Guard(GuardAction::Disarm));
    }
    if let Some(decision) = operations::of_standby(o, holder) {
        return decision;
    }
    match &o.postgres.data_dir {
        DataDir::Initialised { has_backup_label, .. } => match o.postgres.process.of_any_age() {
            Some(Process::Stopped) => stopped(o, holder, *has_backup_label),
            Some(Process::Running { .. }) => running(o, holder),
            Some(Process::Ending) | None => {
                let because = "PostgreSQL has ended, but processes of it may be left";
                Decision::new(State::Starting, Rule::StartStandby, because, SOON)
                    .wait("the processes of the data directory to be gone")
            }
        },
        DataDir::Empty | DataDir::Incomplete | DataDir::Foreign(_) => copy(o, holder),
    }
}

/// The holder's server, once the holder says that it is writable.
fn primary(o: &Observation, holder: Option<MemberId>) -> Option<(Upstream, &MemberReport)> {
    let id = holder?;
    let report = o.report(id, REPORT_FRESH)?;
    let writable = report.is_running && report.is_in_recovery == Some(false);
    writable.then(|| upstream(o, id)).flatten().map(|upstream| (upstream, report))
}

/// Whom this node can copy; none: nobody at the moment.
pub(super) fn source_of(o: &Observation, holder: Option<MemberId>) -> Option<Upstream> {
    primary(o, holder).map(|(source, _)| source)
}

/// A fenced standby follows nobody until the epoch has risen: what it acknowledged afterwards would not be counted.
fn upstream(o: &Observation, id: MemberId) -> Option<Upstream> {
    if o.postgres.fenced >= o.cluster.lease.epoch && o.postgres.fenced.0 > 0 {
        return None;
    }
    let member = o.cluster.members.get(&id)?;
    Some(Upstream { name: member.name.to_string(), addr: member.postgres.clone()? })
}

/// How long to wait before a failed action is tried again; none: now.
pub(super) fn pause_after(finished: Option<&Finished>) -> Option<(Duration, &str)> {
    let ended = finished?;
    let error = ended.error.as_deref()?;
    let pause = (RETRY_STEP * ended.failures).min(RETRY_LIMIT);
    (ended.age < pause).then(|| (pause.saturating_sub(ended.age), error))
}

/// Nobody holds the lease, and an operator's method makes a copy without a primary. What it makes is a standby that
/// follows nobody, and behind the last known position no candidate.
fn restore(o: &Observation) -> Option<Decision> {
    let is_wanted = o.policy.restores_alone && o.cluster.lease.tenure.is_none();
    if !is_wanted || o.cluster.system_identifier.is_none() {
        return None;
    }
    if let Some((pause, error)) = pause_after(o.finished.get(&JobKind::Clone)) {
        let because = format!("failed to bootstrap (without leader): {error}");
        return Some(
            Decision::new(State::Cloning, Rule::CloneAlone, because, pause).wait("the next attempt"),
        );
    }
    let because = "trying to bootstrap (without leader)";
    Some(
        Decision::new(State::Cloning, Rule::CloneAlone, because, SOON)
            .act(Action::Postgres(PgAction::Restore)),
    )
}

fn copy(o: &Observation, holder: Option<MemberId>) -> Decision {
    let Some((source, _)) = primary(o, holder) else {
        if let Some(decision) = restore(o) {
            return decision;
        }
        let because = "waiting for leader to bootstrap";
        return Decision::new(State::Waiting, Rule::AwaitPrimary, because, SOON)
            .wait("a running primary to copy");
    };
    if let Some((pause, error)) = pause_after(o.finished.get(&JobKind::Clone)) {
        let because = format!("the copy of {} failed: {error}", source.name);
        return Decision::new(State::Cloning, Rule::Clone, because, pause).wait("the next attempt");
    }
    let because = format!("trying to bootstrap from leader '{}'", source.name);
    Decision::new(State::Cloning, Rule::Clone, because, SOON)
        .act(Action::Postgres(PgAction::Clone { source }))
}

fn stopped(o: &Observation, holder: Option<MemberId>, has_backup_label: bool) -> Decision {
    let Some(control) = o.postgres.control.of_any_age() else {
        let because = "the control data of the data directory cannot be read";
        return Decision::new(State::Stuck, Rule::StartStandby, because, o.policy.loop_wait)
            .wait("readable control data");
    };
    let was_primary = control.state.was_primary() && !has_backup_label;
    let Some((source, report)) = primary(o, holder) else {
        if was_primary {
            let because = "this node was the primary: whether its data diverged is told by the next one";
            return Decision::new(State::Waiting, Rule::AwaitPrimary, because, SOON)
                .wait("a running primary");
        }
        return start(o, holder.and_then(|id| upstream(o, id)));
    };
    match lineage(o, control, has_backup_label, report) {
        Lineage::Ancestor if was_never_consistent(o) => {
            clone_instead(o, source, &format!("this standby did not become consistent within {}", minutes()))
        }
        Lineage::Ancestor => start(o, Some(source)),
        Lineage::Diverged => rewind(o, source),
        Lineage::SameTimelineTwice => clone_instead(
            o,
            source,
            "another server made the same timeline, which pg_rewind cannot tell apart",
        ),
    }
}

fn lineage(
    o: &Observation,
    control: &ControlData,
    has_backup_label: bool,
    primary: &MemberReport,
) -> Lineage {
    match primary.position {
        Some(position) => {
            let history = History { timeline: position.timeline, switches: &primary.history };
            of_stopped(control, has_backup_label, &o.postgres.history, history)
        }
        None => Lineage::Ancestor,
    }
}

fn start(o: &Observation, upstream: Option<Upstream>) -> Decision {
    if let Some((pause, error)) = pause_after(o.finished.get(&JobKind::StartStandby)) {
        let because = format!("failed to start postgres: {error}");
        return Decision::new(State::Starting, Rule::StartStandby, because, pause).wait("the next attempt");
    }
    let because = match &upstream {
        Some(upstream) => format!("starting as a secondary, following {}", upstream.name),
        None => "starting as a secondary, following nobody".to_owned(),
    };
    let start = Decision::new(State::Starting, Rule::StartStandby, because, SOON);
    stopped_by_others::put_off(o, start.act(Action::Postgres(PgAction::StartStandby { upstream })))
}

fn rewind(o: &Observation, source: Upstream) -> Decision {
    if !o.policy.use_pg_rewind {
        return clone_instead(
            o,
            source,
            "reinitializing due to diverged timelines, since use_pg_rewind is off",
        );
    }
    if let Some(failed) = o.finished.get(&JobKind::Rewind).and_then(|ended| ended.error.clone()) {
        return clone_instead(o, source, &format!("pg_rewind failed ({failed})"));
    }
    let because = format!("running pg_rewind from {}: this former primary diverged", source.name);
    Decision::new(State::Rewinding, Rule::Rewind, because, SOON)
        .act(Action::Postgres(PgAction::Rewind { source }))
}

fn clone_instead(o: &Observation, source: Upstream, why: &str) -> Decision {
    if let Some((pause, error)) = pause_after(o.finished.get(&JobKind::Clone)) {
        let because = format!("the copy of {} failed: {error}", source.name);
        return Decision::new(State::Cloning, Rule::Clone, because, pause).wait("the next attempt");
    }
    let because = format!("{why}: a new copy of {} is made, the old data is put aside", source.name);
    Decision::new(State::Cloning, Rule::Clone, because, SOON)
        .act(Action::Postgres(PgAction::Clone { source }))
}

fn running(o: &Observation, holder: Option<MemberId>) -> Decision {
    let Some(server) = o.postgres.server.within(SERVER_FRESH) else {
        return without_answer(o, holder);
    };
    let Some(id) = holder else {
        let because = format!("no action. I am ({}), a secondary, and nobody holds the lease", o.my_name());
        return Decision::new(State::CatchingUp, Rule::CatchUp, because, SOON).wait("a new primary");
    };
    if let Some((source, report)) = primary(o, holder) {
        if let Some(decision) = diverged(o, server, &source, report) {
            return decision;
        }
        if o.postgres.configured_upstream.as_ref() != Some(&source) {
            let because = format!("following {}", source.name);
            return Decision::new(State::CatchingUp, Rule::Follow, because, SOON)
                .act(Action::Postgres(PgAction::Follow { upstream: Some(source) }));
        }
    }
    let name = o.cluster.name_of(id);
    let me = o.my_name();
    if !streams(server) {
        let because =
            format!("no action. I am ({me}), a secondary, and not streaming from leader ({name}) yet");
        return Decision::new(State::CatchingUp, Rule::CatchUp, because, SOON)
            .wait(format!("replication from {name}"));
    }
    if let Some(decision) = sync::for_standby(o) {
        return decision;
    }
    if o.postgres.has_old_data {
        let because = "the new copy streams: the data put aside before it is deleted";
        return Decision::new(State::Standby, Rule::DiscardOldData, because, SOON)
            .act(Action::Postgres(PgAction::DiscardOldData));
    }
    let copies = primary(o, holder).and_then(|(source, report)| slots::copy(o, server, &source, report));
    if let Some(decision) = copies {
        return decision;
    }
    let because = format!("no action. I am ({me}), a secondary, and following a leader ({name})");
    Decision::new(State::Standby, Rule::Standby, because, o.policy.loop_wait)
}

/// Before its WAL is consistent, a standby answers to nobody. It may need WAL from the primary for that.
fn without_answer(o: &Observation, holder: Option<MemberId>) -> Decision {
    let decision = |rule, because: &str| Decision::new(State::CatchingUp, rule, because, SOON);
    let silent = "PostgreSQL runs, but does not answer by SQL";
    if !o.postgres.never_ready {
        return decision(Rule::CatchUp, silent).wait("an answer by SQL");
    }
    let Some((source, _)) = primary(o, holder) else {
        return decision(Rule::CatchUp, silent).wait("a consistent state, and a primary to get WAL from");
    };
    if o.postgres.configured_upstream.as_ref() != Some(&source) {
        let because = format!("following {}: PostgreSQL has no consistent state yet", source.name);
        return decision(Rule::Follow, &because)
            .act(Action::Postgres(PgAction::Follow { upstream: Some(source) }));
    }
    if started_before(o).is_some_and(|age| age >= CONSISTENCY_PATIENCE) {
        let because = format!(
            "PostgreSQL has not become consistent within {} although {} is there: it needs a new copy",
            minutes(),
            source.name
        );
        let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
        return decision(Rule::Inconsistent, &because).act(Action::Postgres(stop)).wait("PostgreSQL to stop");
    }
    decision(Rule::CatchUp, silent)
        .wait(format!("a consistent state, or a new copy {} after its start", minutes()))
}

fn minutes() -> String {
    format!("{} min", CONSISTENCY_PATIENCE.as_secs() / 60)
}

/// How long ago the server was started as a standby.
fn started_before(o: &Observation) -> Option<Duration> {
    o.finished.get(&JobKind::StartStandby).filter(|ended| ended.error.is_none()).map(|ended| ended.age)
}

/// Was the server stopped because it did not become consistent? What stopped it earlier says nothing.
fn was_never_consistent(o: &Observation) -> bool {
    let stopped_before = o.finished.get(&JobKind::Stop).filter(|end| end.error.is_none()).map(|end| end.age);
    o.postgres.never_ready
        && started_before(o)
            .zip(stopped_before)
            .is_some_and(|(started, stopped)| started.saturating_sub(stopped) >= CONSISTENCY_PATIENCE)
}

/// A running standby that received what the primary does not have.
fn diverged(o: &Observation, server: &Server, source: &Upstream, report: &MemberReport) -> Option<Decision> {
    let position = report.position?;
    let history = History { timeline: position.timeline, switches: &report.history };
    // A report of an earlier epoch says nothing about the timeline on which the primary is by now.
    let may_be_outdated = report.epoch < o.cluster.lease.epoch;
    if (position.timeline < server.position.timeline && may_be_outdated) || streams(server) {
        return None;
    }
    match of_standby(server.position, &o.postgres.history, history) {
        Lineage::Ancestor => None,
        Lineage::Diverged | Lineage::SameTimelineTwice => {
            let because = format!("this standby received what {} does not have", source.name);
            let stop = PgAction::Stop { mode: StopMode::Fast, checkpoint_first: false };
            Some(
                Decision::new(State::Demoting, Rule::Diverged, because, SOON)
                    .act(Action::Postgres(stop))
                    .wait("PostgreSQL to stop"),
            )
        }
    }
}
