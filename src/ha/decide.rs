//! The order in which the rules are asked. Total: every observation gets a decision.

use std::time::Duration;

use pgherd_raft::model::other_system;

use super::action::{Action, GuardAction, PgAction, StopMode};
use super::decision::{Decision, State};
use super::facts::{DataDir, Fact, GuardFacts, Observation, Process};
use super::rule::Rule;
use super::{holder, pause, shutdown, slots, standby, succession, switchover};

/// A guard whose heartbeat is older than this is not counted on.
pub const GUARD_STALE: Duration = Duration::from_secs(1);
/// A guard that shows its heartbeat and has not ended PostgreSQL so long after its deadline has been stopped meanwhile.
/// Well within the margin, which is meant for the end of PostgreSQL.
const GUARD_OVERDUE: Duration = Duration::from_millis(100);
/// A guard shows its heartbeat several times in this time: one that does not is looked at soon.
const GUARD_LATE: Duration = Duration::from_millis(300);
/// How soon to look again when something is under way that may bring no event.
pub(super) const SOON: Duration = Duration::from_millis(200);

/// While the primary is being changed on purpose it waits for what the others report, and nothing wakes them when
/// their stream ends.
const CHANGE_IS_NEAR: Duration = Duration::from_millis(50);

/// Decides what this node does next.
///
/// Safety comes first: a PostgreSQL that may be writable without a lease is stopped before anything else is looked at.
pub fn decide(o: &Observation) -> Decision {
    let mut decision = slots::beside(o, with_overdue_intent(o, first_rule(o)));
    if pause::is_paused(o) {
        decision.because.insert_str(0, "PAUSE: ");
    }
    if let Some(left) = succession::patience_left(o) {
        decision = decision.again_in(left);
    }
    if is_change_near(o) {
        decision = decision.again_in(CHANGE_IS_NEAR);
    }
    match look_at_guard_in(o) {
        Some(soon) => decision.again_in(soon),
        None => decision,
    }
}

/// The guard ends PostgreSQL in time; when the guard itself is stopped, nobody wakes this node but its own clock.
fn look_at_guard_in(o: &Observation) -> Option<Duration> {
    let guard = o.guard.of_any_age().filter(|guard| guard.deadline.is_some() && may_be_writable(o))?;
    if guard.heartbeat_age >= GUARD_LATE {
        return Some(SOON);
    }
    let overdue = guard.deadline?.after(GUARD_OVERDUE).since(o.now);
    // Renewals put it off; without them it comes, and the node looks around each second anyway.
    (!overdue.is_zero() && overdue <= Duration::from_secs(1)).then_some(overdue)
}

/// For how long the guard has not done what it is there for.
fn guard_overdue(o: &Observation, guard: &GuardFacts) -> Option<Duration> {
    let late = o.now.since(guard.deadline?);
    let is_idle = guard.killing_for.is_none() && may_be_writable(o);
    (is_idle && late > GUARD_OVERDUE).then_some(late)
}

/// A request that came to nothing is ended beside whatever else is decided, which goes first.
fn with_overdue_intent(o: &Observation, decision: Decision) -> Decision {
    let is_busy = decision.actions.iter().any(|action| matches!(action, Action::Propose(_)));
    match switchover::overdue(o) {
        Some(end) if !is_busy && o.cluster.group.is_some() => decision.act(end),
        Some(_) | None => decision,
    }
}

/// An operator's request is pending, or the holder is about to end.
fn is_change_near(o: &Observation) -> bool {
    let holder = o.cluster.lease.holder().filter(|holder| *holder != o.me);
    let is_ending = holder.is_some_and(|holder| {
        o.peers.get(&holder).and_then(Fact::of_any_age).is_some_and(|report| report.shutting_down)
    });
    o.cluster.intent.is_some() || is_ending
}

fn first_rule(o: &Observation) -> Decision {
    if let Some(decision) = without_a_licence_nobody_writes(o) {
        return decision;
    }
    if o.cluster.group.is_none() {
        // Whatever an earlier life of this daemon left running ends with the lease, and nobody else sees to that.
        if is_armed(o)
            && let Some(decision) = guard_missing(o)
        {
            return decision;
        }
        return if o.shutting_down { shutdown::decide(o) } else { no_group(o) };
    }
    if let Some(decision) = guard_missing(o).or_else(|| wrong_data(o)) {
        return decision;
    }
    if o.shutting_down {
        return pause::of_shutdown(o).unwrap_or_else(|| shutdown::decide(o));
    }
    match o.cluster.lease.holder() {
        Some(holder) if holder == o.me => holder::decide(o),
        holder if pause::is_paused(o) => holder
            .and_then(|holder| pause::by_operators_word(o, holder))
            .unwrap_or_else(|| pause::of_other(o, holder)),
        Some(holder) => pause::by_operators_word(o, holder)
            .or_else(|| succession::of_silent_holder(o, holder))
            .unwrap_or_else(|| standby::decide(o, Some(holder))),
        None => succession::of_vacant_lease(o),
    }
}

/// May the local PostgreSQL be writable? PostgreSQL removes `standby.signal` before it leaves recovery.
pub(super) fn may_be_writable(o: &Observation) -> bool {
    let running = !matches!(o.postgres.process, Fact::Known { value: Process::Stopped, .. });
    let has_standby_signal =
        matches!(o.postgres.data_dir, DataDir::Initialised { has_standby_signal: true, .. });
    let says_writable = o.postgres.server.of_any_age().is_some_and(|server| !server.is_in_recovery);
    let has_data = matches!(o.postgres.data_dir, DataDir::Initialised { .. });
    running && has_data && (says_writable || !has_standby_signal)
}

pub(super) fn is_stopped(o: &Observation) -> bool {
    matches!(o.postgres.process, Fact::Known { value: Process::Stopped, .. })
}

pub(super) fn is_running(o: &Observation) -> bool {
    matches!(o.postgres.process, Fact::Known { value: Process::Running { .. }, .. })
}

/// The lease names somebody else, or nobody: whatever may be writable here is stopped at once. Before the first grant
/// ever, a PostgreSQL that was there already is left alone: it is about to be adopted.
fn without_a_licence_nobody_writes(o: &Observation) -> Option<Decision> {
    let lease = &o.cluster.lease;
    let mine = lease.holder() == Some(o.me);
    let never_granted = lease.epoch.0 == 0;
    if mine || never_granted || !may_be_writable(o) || !is_running(o) {
        return None;
    }
    let because = match lease.holder() {
        Some(holder) => format!("the lease is held by {}, not by this node", o.cluster.name_of(holder)),
        None => "the lease is vacant".to_owned(),
    };
    let because = format!("demoting self because I do not have the lock and I was a leader: {because}");
    let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
    Some(
        Decision::new(State::Demoting, Rule::Demote, because, SOON)
            .act(Action::Postgres(stop))
            .wait("PostgreSQL to end"),
    )
}

fn is_armed(o: &Observation) -> bool {
    o.guard.of_any_age().is_some_and(|guard| guard.deadline.is_some())
}

fn no_group(o: &Observation) -> Decision {
    let because = "this node does not take part in a Raft group yet";
    let waiting =
        o.consensus.waiting_for.as_deref().unwrap_or("the group to be founded, or to let this node in");
    Decision::new(State::Waiting, Rule::NoGroup, because, o.policy.loop_wait).wait(waiting)
}

fn guard_missing(o: &Observation) -> Option<Decision> {
    let because = match &o.guard {
        Fact::Known { value, .. } if value.heartbeat_age > GUARD_STALE => {
            format!("the guard has shown no heartbeat for {} ms", value.heartbeat_age.as_millis())
        }
        Fact::Known { value, .. } => match guard_overdue(o, value) {
            Some(late) => format!(
                "the guard has not ended PostgreSQL, although its deadline passed {} ms ago",
                late.as_millis()
            ),
            None => return None,
        },
        Fact::Unknown(why) => format!("there is no guard: {why}"),
    };
    if pause::holds_pinned(o) {
        // One that does not answer is ended, and PostgreSQL with it, before another takes its place.
        let ends = o.shutting_down.then(|| pause::of_shutdown(o)).flatten();
        return Some(ends.unwrap_or_else(|| pause::left(o, &because)));
    }
    let state = if may_be_writable(o) { State::Demoting } else { State::Waiting };
    Some(
        Decision::new(state, Rule::GuardMissing, because, SOON)
            .act(Action::Guard(GuardAction::Ensure))
            .wait("a new guard"),
    )
}

/// Data that is not this cluster's is never touched.
fn wrong_data(o: &Observation) -> Option<Decision> {
    let stuck = |rule, because: String| Some(Decision::new(State::Stuck, rule, because, o.policy.loop_wait));
    match &o.postgres.data_dir {
        DataDir::Foreign(found) => stuck(
            Rule::ForeignDataDir,
            format!(
                "the data directory is not empty and holds no database system ({found}): empty it, or name another one"
            ),
        ),
        DataDir::Incomplete if o.job.is_none() && !pause::is_paused(o) => Some(
            Decision::new(
                State::Waiting,
                Rule::IncompleteDataDir,
                "the data directory is only partly filled: it is emptied",
                SOON,
            )
            .act(Action::Postgres(PgAction::DiscardIncomplete)),
        ),
        DataDir::Initialised { .. } => {
            let own = o.postgres.control.of_any_age()?.system_identifier;
            let cluster = o.cluster.system_identifier.filter(|cluster| *cluster != own)?;
            let because = other_system(&o.my_name(), cluster, own);
            if pause::is_paused(o) {
                return Some(pause::left(o, &because));
            }
            stuck(Rule::OtherSystem, because)
        }
        DataDir::Empty | DataDir::Incomplete => None,
    }
}
