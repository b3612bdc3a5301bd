//! The operator's switchover, and the manual failover while there is a primary: checkpoint, stop, hand over.

use std::cmp::Reverse;
use std::time::Duration;

use pgherd_raft::model::{Command, Intent, IntentEnd, MemberId, PendingIntent};

use super::action::{Action, GuardAction, JobKind, LeaseAction, PgAction, StopMode};
use super::candidate::{Candidate, Ranking, rank};
use super::decide::{SOON, is_running, is_stopped, may_be_writable};
use super::decision::{Decision, State};
use super::facts::{ControlState, Observation};
use super::failsafe;
use super::policy::SyncMode;
use super::rule::Rule;

/// How long the stopped primary waits for the target to have received everything.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// How long the stopped primary waits for the report of a standby with a higher priority.
const PATIENCE_WITH_PRIORITY: Duration = Duration::from_secs(1);

/// A request which nobody has carried out or refused by then is ended: by the member which answers the operator long
/// before, and by every other one when that member is gone. Else it would happen later by surprise.
const INTENT_LIMIT: Duration = Duration::from_secs(60);
/// That other member waits twice `loop_wait`; who ends the request in its place waits longer.
const INTENT_LOOPS: u32 = 3;

/// The end of a request that cannot or did not come to anything, whoever should have carried it out.
pub(super) fn overdue(o: &Observation) -> Option<Action> {
    let pending = o.cluster.intent.as_ref()?;
    let is_gone = |id: &MemberId| !o.cluster.members.contains_key(id);
    let limit = INTENT_LIMIT.max(o.policy.loop_wait.saturating_mul(INTENT_LOOPS));
    let why = match pending.intent.target() {
        Some(to) if is_gone(&to) => format!("{} is no member", o.cluster.name_of(to)),
        _ if o.intent_for < limit => return None,
        Some(to) => {
            format!("{} did not take over within {} s", o.cluster.name_of(to), limit.as_secs())
        }
        None => format!("nobody took over within {} s", limit.as_secs()),
    };
    let end = IntentEnd::Refused(why);
    Some(Action::Propose(Command::EndIntent { id: pending.id, end }))
}

/// The next step of a pending request, for the holder with a licence; none: nothing is asked, or PostgreSQL must be
/// brought up first.
pub(super) fn decide(o: &Observation) -> Option<Decision> {
    let pending = o.cluster.intent.as_ref()?;
    let is_busy = |job: &super::facts::Job| job.kind != JobKind::Stop || !is_stopped(o);
    if o.job.as_ref().is_some_and(is_busy) {
        // Streams end before the postmaster does: while it is being stopped, that says nothing about a standby.
        return None;
    }
    if is_running(o)
        && may_be_writable(o)
        && let Some(rest) = failsafe::members_stand_back(o)
    {
        let because = format!(
            "the members promised to stand back, and cannot take over for {} ms more (failsafe)",
            rest.as_millis()
        );
        return Some(
            Decision::new(State::Primary, Rule::HandOverWait, because, SOON).wait("the end of the promises"),
        );
    }
    let target = match choose(o, &pending.intent) {
        Ok(target) => target,
        Err(why) => return Some(refuse(pending, why)),
    };
    let name = o.cluster.name_of(target.id);
    if is_running(o) && may_be_writable(o) {
        if !target.report.is_streaming {
            return Some(refuse(pending, format!("{name} does not stream from the primary")));
        }
        let just_now = |end: &&super::facts::Finished| end.error.is_some() && end.age < HAND_OVER_PATIENCE;
        if let Some(failed) = o.finished.get(&JobKind::Stop).filter(just_now) {
            return Some(refuse(pending, failed.error.clone().unwrap_or_default()));
        }
        let stop = PgAction::Stop { mode: StopMode::Fast, checkpoint_first: true };
        let word = match pending.intent {
            Intent::Switchover { .. } => "switchover",
            Intent::Failover { .. } => "manual failover",
        };
        return Some(
            Decision::new(
                State::Draining,
                Rule::HandOverStop,
                format!("{word}: demoting myself for {name}"),
                SOON,
            )
            .act(Action::Postgres(stop))
            .wait("PostgreSQL to stop"),
        );
    }
    if !is_stopped(o) || !shut_down_cleanly(o) {
        return None;
    }
    Some(hand_over(o, pending, &target))
}

/// Why PostgreSQL, which has been stopping for so long, is to be stopped at once. Only where a synchronous standby has
/// every acknowledged commit: the end of the WAL is not sent any more.
pub(super) fn takes_too_long_to_stop(o: &Observation, stopping_for: Duration) -> Option<String> {
    let limit = o.policy.primary_stop_timeout.filter(|limit| stopping_for >= *limit)?;
    let may = o.policy.sync.mode != SyncMode::Off && may_be_writable(o);
    may.then(|| {
        format!(
            "PostgreSQL has not stopped within {} s (primary_stop_timeout): it is stopped at once",
            limit.as_secs()
        )
    })
}

/// The same while PostgreSQL stops to hand over, which has failed then.
pub(super) fn stops_too_slowly(o: &Observation, job: JobKind, running_for: Duration) -> Option<Decision> {
    let because = takes_too_long_to_stop(o, running_for).filter(|_| job == JobKind::Stop)?;
    let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
    let decision = Decision::new(State::Draining, Rule::StopAtOnce, because.clone(), SOON)
        .act(Action::Postgres(stop))
        .wait("PostgreSQL to end");
    let Some(pending) = &o.cluster.intent else { return Some(decision) };
    let end = IntentEnd::Refused(because);
    Some(decision.act(Action::Propose(Command::EndIntent { id: pending.id, end })))
}

/// The best of those that have flushed the shutdown checkpoint of the stopped primary. Their reports come one by one:
/// one with a higher priority is waited for.
pub(super) fn who_received_everything<'a>(
    o: &Observation,
    ranking: &'a Ranking,
    stopped_for: Duration,
) -> Option<&'a Candidate> {
    let mut candidates: Vec<&Candidate> = ranking.candidates.iter().collect();
    candidates.sort_by_key(|c| (c.report.stands_back, Reverse(c.priority), o.cluster.name_of(c.id)));
    let is_patient = stopped_for < PATIENCE_WITH_PRIORITY;
    let best = candidates.iter().position(|candidate| received_everything(o, candidate))?;
    let place = candidates.get(best)?;
    let goes_first = |c: &&&Candidate| !c.report.stands_back && c.priority > place.priority;
    let awaits = is_patient && candidates.iter().take(best).any(|c| goes_first(&c));
    (!awaits).then_some(*place)
}

/// A clean shutdown: nothing comes after its checkpoint. After a crash PostgreSQL is started again first.
pub(super) fn shut_down_cleanly(o: &Observation) -> bool {
    let has_standby_signal =
        matches!(o.postgres.data_dir, super::facts::DataDir::Initialised { has_standby_signal: true, .. });
    !has_standby_signal
        && o.postgres.control.of_any_age().is_some_and(|control| control.state == ControlState::ShutDown)
}

/// Has this member flushed the shutdown checkpoint of the stopped primary?
fn received_everything(o: &Observation, candidate: &Candidate) -> bool {
    o.postgres.control.of_any_age().is_some_and(|control| {
        candidate.position.timeline == control.timeline && candidate.position.lsn > control.checkpoint
    })
}

fn hand_over(o: &Observation, pending: &PendingIntent, target: &Candidate) -> Decision {
    let name = o.cluster.name_of(target.id);
    let Some(session) = target.report.session else {
        return refuse(pending, format!("{name} has no guard"));
    };
    if !received_everything(o, target) {
        let stopped_for = match &o.job {
            // Seen to be stopped before its own end is told: what ended earlier was another stop.
            Some(_) => Duration::ZERO,
            // An earlier life of the daemon stopped it: nobody knows when, and nothing is received any more.
            None => o.finished.get(&JobKind::Stop).map_or(Duration::MAX, |end| end.age),
        };
        if stopped_for > HAND_OVER_PATIENCE {
            return refuse(pending, format!("{name} has not received the shutdown checkpoint in time"));
        }
        let because = format!("{name} has not reported the shutdown checkpoint yet");
        return Decision::new(State::Draining, Rule::HandOverWait, because, Duration::from_millis(50))
            .act(Action::AskPeers)
            .wait(format!("{name} to have received everything"));
    }
    let because = format!("{name} has received everything: it takes the lease");
    transfer(o, Decision::new(State::Draining, Rule::HandOverTransfer, because, SOON), target.id, session)
}

/// The order of the protocol: PostgreSQL is stopped; the deadline is void; given up durably; then the proposal.
pub(super) fn transfer(
    o: &Observation,
    decision: Decision,
    to: MemberId,
    session: pgherd_raft::model::Session,
) -> Decision {
    let epoch = o.cluster.lease.epoch;
    decision
        .act(Action::Guard(GuardAction::Disarm))
        .act(Action::Lease(LeaseAction::GiveUp { epoch }))
        .act(Action::Propose(Command::Transfer { epoch, to, session, voters: None }))
        .wait("the lease to be transferred")
}

/// The target of a request, or why there is none.
fn choose(o: &Observation, intent: &Intent) -> Result<Candidate, String> {
    let ranking = rank(o, Some(o.me));
    match intent.target() {
        Some(id) => {
            ranking.candidates.iter().find(|candidate| candidate.id == id).cloned().ok_or_else(|| {
                let why = ranking.unfit_reason(id).unwrap_or("is no member");
                format!("{} {why}", o.cluster.name_of(id))
            })
        }
        None => ranking
            .candidates
            .iter()
            .find(|candidate| candidate.report.is_streaming || is_stopped(o))
            .cloned()
            .ok_or_else(|| "no standby can take over".to_owned()),
    }
}

fn refuse(pending: &PendingIntent, why: String) -> Decision {
    let command = Command::EndIntent { id: pending.id, end: IntentEnd::Refused(why.clone()) };
    Decision::new(
        State::Primary,
        Rule::HandOverRefuse,
        format!("the operator's request is refused: {why}"),
        SOON,
    )
    .act(Action::Propose(command))
}
