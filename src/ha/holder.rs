//! The rules of the node to which the lease is granted.

use std::collections::BTreeSet;
use std::time::Duration;

use pgherd_raft::membership::lease_voters_wanted;
use pgherd_raft::model::{Basis, Command, Epoch, MemberId, TimelineId, WalPosition};

use super::action::{Action, GuardAction, JobKind, LeaseAction, PgAction, StopMode};
use super::candidate::{REPORT_FRESH, rank};
use super::decide::{SOON, is_running, is_stopped, may_be_writable};
use super::decision::{Decision, State};
use super::facts::{DataDir, Observation, Process};
use super::health::is_silenced;
use super::housekeeping::keep;
use super::report::{SERVER_FRESH, own_report, watchdog_trouble};
use super::rule::Rule;
use super::{
    failsafe, first_lease, health, hook, operations, pause, schedule, slots, stopped_by_others, switchover,
    sync,
};

/// After this many failed starts in a row the lease is given to a standby, if there is one.
const START_ATTEMPTS: u32 = 3;

/// With less of the licence left PostgreSQL is not started: the guard stops it 0.3 s before the deadline.
const TOO_LATE_TO_START: Duration = Duration::from_millis(500);

/// How long PostgreSQL may take to become writable where `primary_start_timeout` does not say: its default.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// The long actions by which PostgreSQL becomes writable: they have `primary_start_timeout` for it.
const BECOMING: [JobKind; 5] =
    [JobKind::PrePromote, JobKind::Promote, JobKind::StartPrimary, JobKind::StartStandby, JobKind::Restart];

pub(super) fn decide(o: &Observation) -> Decision {
    if let Some(decision) = before_acting(o).or_else(|| pause::of_holder(o)) {
        return decision;
    }
    let next = if let Some(decision) = failsafe::step_down(o) {
        decision
    } else if o.licence().is_none() {
        await_licence(o)
    } else if let Some(sick) = health::decide(o) {
        return sick;
    } else {
        health::told(o, switchover::decide(o).unwrap_or_else(|| with_a_licence(o)))
    };
    let next = match change_of_epoch(o) {
        Some(change) if next.actions.is_empty() => change,
        Some(change) if next.actions.iter().all(|action| !proposes(action)) => {
            // A change that waits for a Raft leader must not stand in the way of what PostgreSQL needs now.
            change.actions.into_iter().fold(next, Decision::act)
        }
        Some(_) | None => next,
    };
    schedule::beside(o, next)
}

fn proposes(action: &Action) -> bool {
    match action {
        Action::Propose(_) | Action::Lease(_) => true,
        Action::Postgres(_) | Action::Guard(_) | Action::AskPeers => false,
    }
}

/// Is the lease granted to this life of the node, and may it act under it?
fn before_acting(o: &Observation) -> Option<Decision> {
    let lease = &o.cluster.lease;
    let tenure = lease.tenure.as_ref()?;
    if o.lease.given_up >= lease.epoch {
        return Some(given_up(o));
    }
    let session = o.guard.of_any_age()?.session;
    if tenure.session == session {
        return None;
    }
    let because = format!("epoch {} was granted to an earlier life of this node", lease.epoch);
    let decision = Decision::new(State::Starting, Rule::StrangerToEpoch, because, SOON);
    // A pinned epoch covers whatever runs, whichever life of the guard watches it.
    if !is_stopped(o) && !tenure.pinned {
        let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
        return Some(decision.act(Action::Postgres(stop)).wait("the old processes to be gone"));
    }
    if !matches!(o.postgres.data_dir, DataDir::Initialised { .. }) && o.cluster.system_identifier.is_some() {
        return Some(
            decision
                .act(Action::Propose(Command::Release { epoch: lease.epoch, position: None }))
                .wait("the lease to be vacant"),
        );
    }
    let grant = renewed(o, session, lease.voters.clone());
    Some(decision.act(Action::Propose(grant)).wait("a new epoch"))
}

/// An epoch given up is never used again; what became of the proposal is told by the record.
pub(super) fn given_up(o: &Observation) -> Decision {
    let epoch = o.cluster.lease.epoch;
    let because = format!("epoch {epoch} was given up");
    let decision = Decision::new(State::Demoting, Rule::GivenUpEpoch, because, SOON);
    if is_silenced(o) {
        let position = own_report(o).position.max(o.postgres.health.last_position);
        return decision
            .act(Action::Propose(Command::Release { epoch, position }))
            .wait("the lease to be vacant or transferred");
    }
    if may_be_writable(o) {
        let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
        return decision.act(Action::Postgres(stop)).wait("PostgreSQL to end");
    }
    decision
        .act(Action::Propose(Command::Release { epoch, position: own_report(o).position }))
        .wait("the lease to be vacant or transferred")
}

pub(super) fn renewed(
    o: &Observation,
    session: pgherd_raft::model::Session,
    voters: BTreeSet<MemberId>,
) -> Command {
    Command::Grant {
        expected_epoch: o.cluster.lease.epoch,
        to: o.me,
        session,
        ttl_ms: millis(o.policy.ttl),
        basis: Basis::Renewed { voters, pinned: is_pinned(o) },
    }
}

fn is_pinned(o: &Observation) -> bool {
    o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// New epochs for the same holder: repair, a change of voters, a new ttl. The last two only after a renewal of the
/// present epoch was won.
///
/// Each new epoch waits for the guard to be armed under the present one. The next epoch's wait covers the ttl of the
/// present one only: a deadline of an earlier epoch with a longer ttl could outlive it. In pause there is none.
pub(super) fn change_of_epoch(o: &Observation) -> Option<Decision> {
    let lease = &o.cluster.lease;
    let tenure = lease.tenure.as_ref()?;
    let is_disarmed = o.guard.of_any_age().is_some_and(|guard| guard.deadline.is_none());
    let is_unguarded = tenure.pinned && is_disarmed;
    let is_guarded = is_unguarded || is_armed_for(o, lease.epoch) && failsafe::may_begin_epoch(o);
    if may_be_writable(o) && !is_guarded {
        return None;
    }
    let state = if may_be_writable(o) { State::Primary } else { State::Starting };
    let propose = |rule, because: String, voters: BTreeSet<MemberId>| {
        Decision::new(state, rule, because, SOON)
            .act(Action::Propose(renewed(o, tenure.session, voters)))
            .wait("a new epoch")
    };
    if o.lease.disputed == Some(lease.epoch) {
        let because = format!("a voter has closed epoch {}", lease.epoch);
        return Some(propose(Rule::RepairEpoch, because, lease.voters.clone()));
    }
    o.licence()?;
    if let Some(fenced) = lease_fences(o) {
        let because = format!("{fenced} stopped following, although this node holds the lease");
        return Some(propose(Rule::RepairEpoch, because, lease.voters.clone()));
    }
    if let Some(voters) = wanted_voters(o) {
        let names = voters.iter().map(|id| o.cluster.name_of(*id)).collect::<Vec<_>>().join(", ");
        return Some(propose(Rule::ChangeVoters, format!("the lease's voters become {names}"), voters));
    }
    if tenure.ttl_ms != millis(o.policy.ttl) {
        let because = format!("the ttl changes from {} ms to {} ms", tenure.ttl_ms, millis(o.policy.ttl));
        return Some(propose(Rule::ChangeTtl, because, lease.voters.clone()));
    }
    if let Some(because) = failsafe::needs_own_epoch(o) {
        return Some(propose(Rule::BeginOwnEpoch, because, lease.voters.clone()));
    }
    None
}

/// The next voters of the lease. One that does not count yet acknowledges nothing, and is taken for reachable.
fn wanted_voters(o: &Observation) -> Option<BTreeSet<MemberId>> {
    let raft = &o.consensus.voters;
    let reachable = &o.lease.answering | &(raft - &o.cluster.lease.voters);
    lease_voters_wanted(&o.cluster, raft, &reachable)
}

/// The standbys that fenced themselves from this holder, which still has its majority. One that was overtaken by a renewal
/// has not told the group, and would follow nobody for the rest of the epoch: its report says so.
fn lease_fences(o: &Observation) -> Option<String> {
    let is_fenced = |id: &&MemberId| {
        let report = o.report(**id, REPORT_FRESH).filter(|_| **id != o.me);
        report.is_some_and(|report| report.fenced == o.cluster.lease.epoch)
    };
    let told: BTreeSet<&MemberId> = o.cluster.synchrony.fences.keys().collect();
    let fenced = told.into_iter().chain(o.cluster.members.keys().filter(is_fenced)).collect::<BTreeSet<_>>();
    let names: Vec<String> = fenced.into_iter().map(|id| o.cluster.name_of(*id)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn await_licence(o: &Observation) -> Decision {
    let epoch = o.cluster.lease.epoch;
    let waiting = "renewals by a majority of the lease's voters";
    let because = match o.lease.licence {
        Some(won) if won.epoch == epoch => {
            let ago = o.now.since(won.deadline).as_millis();
            format!("the licence of epoch {epoch} ended {ago} ms ago: PostgreSQL may not be writable")
        }
        Some(_) | None => format!("epoch {epoch} is granted to this node, but no renewal is won yet"),
    };
    let was_won = o.lease.licence.is_some_and(|won| won.epoch == epoch);
    if was_won && may_be_writable(o) && is_running(o) {
        let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
        let because = format!("demoted self because DCS is not accessible and I was a leader: {because}");
        return Decision::new(State::Demoting, Rule::AwaitLicence, because, SOON)
            .act(Action::Postgres(stop))
            .wait(waiting);
    }
    // Between two epochs of the same holder the earlier licence is good until its own deadline.
    let is_licensed = o.lease.licence.is_some_and(|won| won.deadline > o.now);
    let state = if is_licensed && may_be_writable(o) { State::Primary } else { State::Candidate };
    if let Some(promised) = failsafe::promised(o).filter(|_| !was_won) {
        let because = format!("{because}: {promised}");
        return Decision::new(state, Rule::StandBack, because, SOON).wait("the end of the promise");
    }
    Decision::new(state, Rule::AwaitLicence, because, SOON).wait(waiting)
}

fn with_a_licence(o: &Observation) -> Decision {
    if let Some(job) = &o.job {
        return job_running(o, job.kind);
    }
    if let Some(why) = watchdog_trouble(o).filter(|_| !may_be_writable(o)) {
        let because = format!("Not promoting self because watchdog could not be activated: {why}");
        return stop_and_release(o, Decision::new(State::Demoting, Rule::WatchdogMissing, because, SOON));
    }
    if let Some(decision) = operations::of_holder(o) {
        return decision;
    }
    match &o.postgres.data_dir {
        DataDir::Empty | DataDir::Incomplete | DataDir::Foreign(_) => first_lease::without_data(o),
        DataDir::Initialised { has_standby_signal, .. } => match o.postgres.process.of_any_age() {
            Some(Process::Stopped) => stopped(o, *has_standby_signal),
            Some(Process::Running { .. }) => running(o),
            None => Decision::new(
                State::Starting,
                Rule::RestartInPlace,
                "it is not known whether PostgreSQL runs: the guard has not shown itself yet",
                SOON,
            )
            .wait("the guard"),
            Some(Process::Ending) => Decision::new(
                State::Starting,
                Rule::RestartInPlace,
                "PostgreSQL has ended, but processes of it are left",
                SOON,
            )
            .wait("the processes of the data directory to be gone"),
        },
    }
}

/// Is a long action good for the lease? One that takes too long gives it back to a standby that could take over.
fn job_running(o: &Observation, kind: JobKind) -> Decision {
    let detail = o.job.as_ref().map(|job| job.detail.clone()).unwrap_or_default();
    let running_for = o.job.as_ref().map_or(Duration::ZERO, |job| job.running_for);
    let becoming = BECOMING.contains(&kind);
    if becoming && running_for >= patience_with_start(o) && has_successor(o) {
        return give_back(
            o,
            format!("PostgreSQL did not become writable within {} s", running_for.as_secs()),
        );
    }
    if let Some(decision) = switchover::stops_too_slowly(o, kind, running_for) {
        return decision;
    }
    let state = match kind {
        JobKind::Promote | JobKind::PrePromote => State::Promoting,
        JobKind::Bootstrap => State::Bootstrapping,
        JobKind::Stop => State::Demoting,
        JobKind::Clone | JobKind::Reinitialize => State::Cloning,
        JobKind::Rewind => State::Rewinding,
        JobKind::StartPrimary | JobKind::StartStandby | JobKind::Restart | JobKind::CopySlots => {
            State::Starting
        }
    };
    let because =
        if kind == JobKind::Restart { "updated leader lock during restart".to_owned() } else { detail };
    let decision = Decision::new(state, Rule::JobRunning, because, SOON).wait("the action to end");
    let epoch = o.cluster.lease.epoch;
    // The deadline of an earlier epoch is extended no more: it would end PostgreSQL in the middle of the action.
    let is_armed_for_another =
        o.guard.of_any_age().is_some_and(|guard| guard.deadline.is_some() && guard.epoch != epoch);
    let decision =
        if is_armed_for_another { decision.act(Action::Guard(GuardAction::Arm { epoch })) } else { decision };
    let next = sync::while_promoted(o).filter(|_| kind == JobKind::Promote);
    next.into_iter().fold(decision, Decision::act)
}

/// Is there a member which could take over without losing more than is allowed? One that has not followed this node's
/// timeline, or lies too far behind, would lose what was acknowledged here.
fn has_successor(o: &Observation) -> bool {
    let mine = own_report(o).position;
    let mut others = rank(o, None).candidates.into_iter().filter(|candidate| candidate.id != o.me);
    others_can_fence(o) && others.any(|candidate| is_near_enough(o, mine, candidate.position))
}

/// Are the fences of the others enough for a take-over? This node cannot fence: it needs no fence itself, so that the
/// lease would only come back to it.
pub(super) fn others_can_fence(o: &Observation) -> bool {
    let me = o.cluster.members.get(&o.me).map(|member| &member.name);
    o.cluster.synchrony.sets.iter().filter(|set| !set.is_asynchronous()).all(|set| {
        let others = set.names.iter().filter(|name| Some(*name) != me).count();
        others >= set.fences_needed()
    })
}

/// Would a member at this position lose no more than is allowed?
pub(super) fn is_near_enough(o: &Observation, mine: Option<WalPosition>, position: WalPosition) -> bool {
    mine.is_none_or(|mine| {
        position.timeline >= mine.timeline
            && (position.timeline > mine.timeline
                || mine.lsn.bytes_after(position.lsn) <= o.policy.maximum_lag_on_failover)
    })
}

/// Stops PostgreSQL, then gives the epoch up; the given-up record makes the release follow.
fn give_back(o: &Observation, because: String) -> Decision {
    stop_and_release(o, Decision::new(State::Demoting, Rule::GiveBack, because, SOON))
}

fn stop_and_release(o: &Observation, decision: Decision) -> Decision {
    if !is_stopped(o) || o.job.is_some() {
        let stop = PgAction::Stop { mode: StopMode::Immediate, checkpoint_first: false };
        return decision.act(Action::Postgres(stop)).wait("PostgreSQL to end");
    }
    release(o, decision)
}

/// Zero says what happens to a primary that crashed; a promotion takes its time all the same.
fn patience_with_start(o: &Observation) -> Duration {
    match o.policy.primary_start_timeout {
        Duration::ZERO => START_PATIENCE,
        limit => limit,
    }
}

/// A start or promotion under this epoch which took too long and was cut short.
fn took_too_long(o: &Observation) -> Option<String> {
    let mut ended = BECOMING.iter().filter_map(|kind| o.finished.get(kind));
    let slow = ended.find(|ended| {
        let this_epoch = ended.epoch == o.cluster.lease.epoch;
        this_epoch && ended.error.is_some() && ended.took >= patience_with_start(o)
    })?;
    Some(format!("PostgreSQL did not become writable within {} s", slow.took.as_secs()))
}

/// The order of the protocol: PostgreSQL is stopped; the deadline is void; given up durably; then the proposal.
pub(super) fn release(o: &Observation, decision: Decision) -> Decision {
    release_from(o, decision, own_report(o).position)
}

/// The same from a position which the caller knows better.
pub(super) fn release_from(o: &Observation, decision: Decision, position: Option<WalPosition>) -> Decision {
    let epoch = o.cluster.lease.epoch;
    decision
        .act(Action::Guard(GuardAction::Disarm))
        .act(Action::Lease(LeaseAction::GiveUp { epoch }))
        .act(Action::Propose(Command::Release { epoch, position }))
        .wait("the lease to be vacant")
}

fn stopped(o: &Observation, has_standby_signal: bool) -> Decision {
    let epoch = o.cluster.lease.epoch;
    if let Some(why) = took_too_long(o).filter(|_| has_successor(o)) {
        return give_back(o, why);
    }
    let starting = if has_standby_signal { JobKind::StartStandby } else { JobKind::StartPrimary };
    if let Some(failed) = o.finished.get(&starting).filter(|ended| ended.error.is_some()) {
        // Who got the lease anew tries at least once, whatever failed before: there may be nobody else who can take it.
        let is_tried = failed.epoch == o.cluster.lease.epoch;
        let gave_up =
            is_tried && (failed.failures >= START_ATTEMPTS || o.policy.primary_start_timeout.is_zero());
        if gave_up && has_successor(o) {
            let error = failed.error.clone().unwrap_or_default();
            return give_back(
                o,
                format!("removed leader key after trying and failing to start postgres: {error}"),
            );
        }
        let pause = (Duration::from_secs(1) * failed.failures).min(o.policy.retry_timeout);
        if failed.age < pause {
            let because = format!("failed to start postgres: {}", failed.error.clone().unwrap_or_default());
            let rule = if has_standby_signal { Rule::StartForPromotion } else { Rule::RestartInPlace };
            return Decision::new(State::Starting, rule, because, pause.saturating_sub(failed.age))
                .wait(format!("the next attempt, {} s after the last", pause.as_secs()));
        }
    }
    let immediately = o.policy.primary_start_timeout.is_zero();
    let crashed = o
        .postgres
        .control
        .of_any_age()
        .is_some_and(|control| control.state == super::facts::ControlState::InProduction);
    if immediately && crashed && !has_standby_signal && has_successor(o) {
        return give_back(o, "Primary crashed. Failing over (primary_start_timeout is 0)".to_owned());
    }
    let left = o.licence().map_or(Duration::ZERO, |licence| licence.deadline.since(o.now));
    if left < TOO_LATE_TO_START {
        let because = format!(
            "the licence of epoch {epoch} ends in {} ms: too soon to start PostgreSQL",
            left.as_millis()
        );
        return Decision::new(State::Starting, Rule::AwaitLicence, because, SOON / 2)
            .wait("renewals by a majority of the lease's voters");
    }
    let arm = Action::Guard(GuardAction::Arm { epoch });
    if has_standby_signal {
        let because = "starting as readonly because i had the session lock: it is promoted next";
        return Decision::new(State::Starting, Rule::StartForPromotion, because, SOON)
            .act(arm)
            .act(Action::Postgres(PgAction::StartStandby { upstream: None }));
    }
    if let Some(decision) = sync::before_writing(o) {
        return decision;
    }
    let because = "starting primary after failure: PostgreSQL is not running, and is started where it is";
    let start = Decision::new(State::Starting, Rule::RestartInPlace, because, SOON);
    stopped_by_others::put_off(o, start.act(arm).act(Action::Postgres(PgAction::StartPrimary)))
}

pub(super) fn is_armed_for(o: &Observation, epoch: Epoch) -> bool {
    o.guard
        .of_any_age()
        .is_some_and(|guard| guard.deadline.is_some() && guard.epoch == epoch && !guard.watchdog.is_outdated)
}

fn running(o: &Observation) -> Decision {
    let epoch = o.cluster.lease.epoch;
    let arm = Action::Guard(GuardAction::Arm { epoch });
    let is_armed = is_armed_for(o, epoch);
    let Some(server) = o.postgres.server.within(SERVER_FRESH) else {
        let because = "PostgreSQL runs, but does not answer by SQL: that alone is no reason to stop it";
        let decision = Decision::new(State::Primary, Rule::Lead, because, SOON).wait("an answer by SQL");
        return if is_armed { decision } else { decision.act(arm) };
    };
    if server.is_in_recovery {
        if let Some(decision) = sync::before_promotion(o).or_else(|| hook::pre_promote(o)) {
            return decision;
        }
        let above = highest_timeline(o, server);
        let reserved = o.cluster.timelines.reserved_in(epoch).filter(|reserved| *reserved > above);
        let Some(timeline) = reserved else {
            let because =
                "the number of the new timeline is reserved, so that no other promotion makes the same";
            let reserve = Decision::new(State::Promoting, Rule::ReserveTimeline, because, SOON)
                .act(Action::Propose(Command::ReserveTimeline { epoch, above }))
                .wait("a majority to agree on the number");
            // Agreed on together with the number: the promotion does not wait for it.
            let widens = sync::while_promoted(o).filter(proposes);
            return widens.into_iter().chain([arm]).fold(reserve, Decision::act);
        };
        let because = "promoted self to leader by acquiring session lock";
        let promote = Decision::new(State::Promoting, Rule::Promote, because, SOON)
            .act(arm)
            .act(Action::Postgres(PgAction::Promote { timeline }))
            .wait("PostgreSQL to leave recovery");
        // Meanwhile: whom commits wait for, and the slots, without which a standby tries again only after a second. Nobody is
        // told of a new primary before they are there.
        let also = sync::while_promoted(o).into_iter().chain(slots::before_writing(o, server));
        return also.fold(promote, Decision::act);
    }
    if !is_armed {
        return Decision::new(State::Primary, Rule::ArmGuard, "the guard is armed", SOON).act(arm);
    }
    keep(o, server).unwrap_or_else(|| {
        let because = if o.lease.failsafe.rests_on_promises {
            "continue to run as a leader because failsafe mode is enabled and all members are accessible"
                .to_owned()
        } else {
            format!("no action. I am ({}), the leader with the lock", o.my_name())
        };
        let lead = Decision::new(State::Primary, Rule::Lead, because, o.policy.loop_wait);
        if sync::is_changing(o) { lead.again_in(SOON) } else { lead }
    })
}

/// The highest timeline that is known to exist anywhere. What a promotion of this node makes is above it.
fn highest_timeline(o: &Observation, server: &super::facts::Server) -> TimelineId {
    let system = o.cluster.system_identifier;
    let reports = o.peers.values().filter_map(|report| report.of_any_age());
    let theirs = reports
        .filter(|report| system.is_none() || report.system_identifier == system)
        .filter_map(|report| Some(report.position?.timeline));
    theirs.fold(server.position.timeline.max(o.postgres.newest_history), TimelineId::max)
}
