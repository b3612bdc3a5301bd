//! The clean end of a daemon: PostgreSQL is stopped, a standby gets the lease, then the daemon may leave.

use std::time::Duration;

use super::action::{Action, JobKind, PgAction, StopMode};
use super::candidate::rank;
use super::decide::{SOON, is_running, is_stopped, may_be_writable};
use super::decision::{Decision, State};
use super::facts::Observation;
use super::health::is_killed;
use super::holder::{given_up, release};
use super::rule::Rule;
use super::switchover::{shut_down_cleanly, takes_too_long_to_stop, transfer, who_received_everything};

/// How long the stopped primary looks for a standby which has received everything.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn decide(o: &Observation) -> Decision {
    // A start in progress would otherwise bring PostgreSQL up after the lease was given back.
    let is_over = is_stopped(o) && o.job.is_none() || is_killed(o);
    if !is_over {
        return stop(o);
    }
    let lease = &o.cluster.lease;
    let holds = lease.holder() == Some(o.me);
    if !holds {
        let because = "PostgreSQL is stopped and the lease is not this node's";
        return Decision::new(State::Stopping, Rule::ShutDownDone, because, o.policy.loop_wait);
    }
    if o.lease.given_up >= lease.epoch {
        return given_up(o);
    }
    let ranking = rank(o, Some(o.me));
    let stopped_for = o.finished.get(&JobKind::Stop).map_or(HAND_OVER_PATIENCE, |ended| ended.age);
    let clean = shut_down_cleanly(o) && o.licence().is_some();
    if clean
        && let Some(best) = who_received_everything(o, &ranking, stopped_for)
        && let Some(session) = best.report.session
    {
        let because = format!("{} has received everything: it takes the lease", o.cluster.name_of(best.id));
        let decision = Decision::new(State::Stopping, Rule::ShutDownHandOver, because, SOON);
        return transfer(o, decision, best.id, session);
    }
    if clean && !ranking.candidates.is_empty() && stopped_for < HAND_OVER_PATIENCE {
        let because = "no standby has reported the shutdown checkpoint yet";
        return Decision::new(State::Stopping, Rule::ShutDownHandOver, because, Duration::from_millis(50))
            .act(Action::AskPeers)
            .wait("a standby to have received everything");
    }
    release(o, Decision::new(State::Stopping, Rule::ShutDownRelease, "the lease is given back", SOON))
}

fn stop(o: &Observation) -> Decision {
    let because = "the daemon was asked to end: PostgreSQL is stopped first";
    let decision =
        Decision::new(State::Stopping, Rule::ShutDownStop, because, SOON).wait("PostgreSQL to stop");
    let is_busy = o.job.as_ref().is_some_and(|job| job.kind != JobKind::Stop);
    let is_stopping = o.job.is_some() && !is_busy;
    let stopping_for = o.job.as_ref().filter(|_| is_stopping).map(|job| job.running_for);
    if let Some(because) = stopping_for.and_then(|time| takes_too_long_to_stop(o, time)) {
        let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
        return Decision { rule: Rule::StopAtOnce, because, ..decision }.act(Action::Postgres(stop));
    }
    if is_stopping || !is_running(o) && !is_busy {
        return decision;
    }
    let failed = o.finished.get(&JobKind::Stop).is_some_and(|ended| ended.error.is_some());
    let mode = if failed { StopMode::Immediate } else { StopMode::Fast };
    let checkpoint_first = may_be_writable(o) && !failed;
    decision.act(Action::Postgres(PgAction::Stop { mode, checkpoint_first }))
}
