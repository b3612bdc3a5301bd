//! Pause: automation is off, and PostgreSQL goes on by itself.
//!
//! The wish is a setting of the cluster. The effect is a property of an epoch: the holder takes one with `pinned`, which
//! nobody closes or fences, and only then is its guard disarmed: from there on the daemon may be stopped, and a licence
//! is not needed to go on. The way back is the holder's: it wins a renewal, arms the guard, and takes an epoch which is
//! not pinned. Who cannot be reached cannot do that, so that only an operator's word that the holder is dead ends the
//! pin from elsewhere.
//!
//! One word less is enough where commits wait for standbys: a daemon that is stopped in pause says so before it ends,
//! and when the pause is over then, its synchronous standbys fence and take over as always. Its PostgreSQL, which nobody
//! guards, may run on, execute, and serve reads until the daemon is back, but no commit that waits for standbys is
//! acknowledged. No client is sent there meanwhile: its REST API ended with the daemon. A holder which is merely cut off
//! never said goodbye, so that its pin stays.
//!
//! What is on its way and not known to be refused counts as done. So the guard is disarmed only in an epoch for which no
//! earlier life of this daemon can have asked for the end of the pin, and never in one for which this life armed it to
//! resume: both are left for another pinned epoch, which voids every proposal of the former.
//!
//! Nothing is started, promoted, rewound or copied by itself. A PostgreSQL that may be writable on a node which does not
//! hold the lease is stopped in pause as well: two writers are nobody's maintenance.

use std::time::Duration;

use pgherd_raft::lease::patience;
use pgherd_raft::model::{Basis, Command, Intent, IntentEnd, MemberId};

use super::action::{Action, GuardAction, JobKind, PgAction};
use super::decide::{SOON, is_running, is_stopped, may_be_writable};
use super::decision::{Decision, State};
use super::facts::{GuardFacts, Observation};
use super::failsafe;
use super::holder::{self, is_armed_for};
use super::report::SERVER_FRESH;
use super::rule::Rule;
use super::succession::{self, grant_to_me, takes_part};
use super::{fence, housekeeping, operations, standby, switchover};

/// The wish. A cluster which has no database system yet is made first.
fn is_wanted(o: &Observation) -> bool {
    o.policy.pause && o.cluster.system_identifier.is_some()
}

fn is_pinned(o: &Observation) -> bool {
    o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned)
}

fn holds(o: &Observation) -> bool {
    o.cluster.lease.holder() == Some(o.me)
}

/// Is automation off? From the wish on, until the pin ends.
pub fn is_paused(o: &Observation) -> bool {
    is_wanted(o) || is_pinned(o)
}

/// Has the pause, or its end, arrived at this node? With the holder it has when its guard is disarmed: from then on the
/// daemon may be stopped.
pub fn is_pause_in_force(o: &Observation) -> bool {
    let is_disarmed = guard(o).is_some_and(|guard| guard.deadline.is_none());
    match &o.cluster.lease.tenure {
        Some(tenure) if is_wanted(o) => tenure.pinned && (is_disarmed || !holds(o)),
        Some(tenure) => tenure.pinned,
        None => is_wanted(o),
    }
}

/// This node holds a pinned epoch: its PostgreSQL may be writable without a licence.
pub fn holds_pinned(o: &Observation) -> bool {
    let is_mine = guard(o).is_some_and(|guard| {
        o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.session == guard.session)
    });
    is_pinned(o) && holds(o) && is_mine && o.lease.given_up < o.cluster.lease.epoch
}

fn guard(o: &Observation) -> Option<&GuardFacts> {
    o.guard.of_any_age()
}

/// The node with the lease. None: the rules without pause decide.
pub(super) fn of_holder(o: &Observation) -> Option<Decision> {
    match (is_pinned(o), is_wanted(o)) {
        (false, false) => None,
        (false, true) => pin(o),
        (true, true) => Some(pinned(o)),
        (true, false) => Some(resume(o)),
    }
}

/// A request of an operator goes first, and so does what a start or a promotion has begun.
fn pin(o: &Observation) -> Option<Decision> {
    o.licence()?;
    if o.job.is_some() || o.cluster.intent.is_some() {
        return None;
    }
    let in_recovery = o.postgres.server.of_any_age().is_some_and(|server| server.is_in_recovery);
    let is_settled = if is_running(o) {
        !in_recovery && is_armed_for(o, o.cluster.lease.epoch)
    } else {
        is_stopped(o) && !stopped_by_this_daemon(o)
    };
    is_settled.then(|| {
        let because = "the next epoch is pinned: nobody else takes the lease, and the guard is disarmed";
        Decision::new(state(o), Rule::Pause, because, SOON)
            .act(Action::Propose(renewed(o, true)))
            .wait("a pinned epoch")
    })
}

fn renewed(o: &Observation, pinned: bool) -> Command {
    let lease = &o.cluster.lease;
    let session = guard(o).map(|guard| guard.session).unwrap_or_default();
    let ttl_ms = lease.tenure.as_ref().map_or(0, |tenure| tenure.ttl_ms);
    let basis = Basis::Renewed { voters: lease.voters.clone(), pinned };
    Command::Grant { expected_epoch: lease.epoch, to: o.me, session, ttl_ms, basis }
}

fn state(o: &Observation) -> State {
    if may_be_writable(o) { State::Primary } else { State::Paused }
}

/// A stop that this daemon carried out and that nothing has followed: an operator's request came to nothing.
fn stopped_by_this_daemon(o: &Observation) -> bool {
    let succeeded = |kind| o.finished.get(&kind).is_some_and(|end| end.error.is_none());
    let failed = |kind| o.finished.get(&kind).is_some_and(|end| end.error.is_some());
    succeeded(JobKind::Stop) && !failed(JobKind::StartPrimary) && !failed(JobKind::StartStandby)
}

/// An operator asked for the copy, and nothing has been started from it: to start it is a part of that.
fn is_new_copy(o: &Observation) -> bool {
    let succeeded = |kind| o.finished.get(&kind).is_some_and(|end| end.error.is_none());
    let failed = |kind| o.finished.get(&kind).is_some_and(|end| end.error.is_some());
    succeeded(JobKind::Reinitialize) && !failed(JobKind::StartStandby)
}

/// The holder of a pinned epoch, while the pause lasts.
fn pinned(o: &Observation) -> Decision {
    if let Some(job) = &o.job {
        return Decision::new(state(o), Rule::JobRunning, job.detail.clone(), SOON).wait("the action to end");
    }
    if let Some(decision) = disarm(o).or_else(|| request(o)) {
        return decision;
    }
    if o.licence().is_some()
        && let Some(decision) = holder::change_of_epoch(o)
    {
        return decision;
    }
    if let Some(decision) = operations::of_holder(o).filter(|_| o.licence().is_some()) {
        return decision;
    }
    if is_stopped(o) {
        return stopped(o);
    }
    let because = format!("no action. I am ({}), the leader with the lock", o.my_name());
    let lead = Decision::new(state(o), Rule::Lead, because, o.policy.loop_wait);
    let server = o.postgres.server.within(SERVER_FRESH);
    match server.filter(|server| !server.is_in_recovery && o.licence().is_some()) {
        Some(server) => housekeeping::keep(o, server).unwrap_or(lead),
        None => lead,
    }
}

/// The guard of a pinned epoch is disarmed, unless the end of the pin may be on its way.
fn disarm(o: &Observation) -> Option<Decision> {
    let epoch = o.cluster.lease.epoch;
    let guard = guard(o).filter(|guard| guard.deadline.is_some())?;
    let decision = |because: String| Decision::new(state(o), Rule::DisarmInPause, because, SOON);
    if guard.epoch < epoch && epoch > o.lease.known_at_start {
        let because = format!("epoch {epoch} is pinned: the guard is disarmed");
        return Some(decision(because).act(Action::Guard(GuardAction::Disarm)));
    }
    let because = format!("the end of pinned epoch {epoch} may have been asked for: another one voids that");
    if o.licence().is_none() {
        return Some(decision(because).wait("renewals by a majority of the lease's voters"));
    }
    let again = decision(because).wait("another pinned epoch");
    // The deadline of another epoch is extended no more.
    let is_extended = guard.epoch == epoch;
    let again = if is_extended { again } else { again.act(Action::Guard(GuardAction::Arm { epoch })) };
    Some(again.act(Action::Propose(renewed(o, true))))
}

/// An operator's switchover or failover works in pause.
fn request(o: &Observation) -> Option<Decision> {
    o.licence()?;
    let pending = o.cluster.intent.as_ref()?;
    if let Some(decision) = switchover::decide(o) {
        return Some(decision);
    }
    let crashed = is_stopped(o) && matches!(pending.intent, Intent::Failover { .. });
    crashed.then(|| {
        let because =
            "PostgreSQL is not started in pause: the lease is given back for the one that an operator named";
        holder::release(o, Decision::new(State::Demoting, Rule::GiveBack, because, SOON))
    })
}

/// What an operator stopped stays so. What was stopped to hand over, for nothing, is started again.
fn stopped(o: &Observation) -> Decision {
    let epoch = o.cluster.lease.epoch;
    if stopped_by_this_daemon(o) && o.licence().is_some() {
        let because = "PostgreSQL was stopped to hand over, which came to nothing: starting it where it is";
        return Decision::new(State::Starting, Rule::RestartInPlace, because, SOON)
            .act(Action::Guard(GuardAction::Arm { epoch }))
            .act(Action::Postgres(PgAction::StartPrimary));
    }
    let because = format!("{} holds the lease, and PostgreSQL is stopped: it is left so", o.my_name());
    Decision::new(State::Paused, Rule::Paused, because, o.policy.loop_wait)
        .wait("the end of the pause, or an operator's failover")
}

/// The wish is gone. The order of the protocol: a renewal, the guard, the epoch.
fn resume(o: &Observation) -> Decision {
    let epoch = o.cluster.lease.epoch;
    if let Some(job) = &o.job {
        return Decision::new(state(o), Rule::JobRunning, job.detail.clone(), SOON).wait("the action to end");
    }
    let because = format!("epoch {epoch} is pinned, and the pause is over");
    let decision = Decision::new(state(o), Rule::Resume, because, SOON);
    if o.licence().is_none() {
        return decision.wait("renewals by a majority of the lease's voters");
    }
    if !is_armed_for(o, epoch) {
        return decision.act(Action::Guard(GuardAction::Arm { epoch })).wait("the guard to be armed");
    }
    if !failsafe::may_begin_epoch(o) {
        return decision.wait("the end of what this node promised to another primary (failsafe)");
    }
    decision.act(Action::Propose(renewed(o, false))).wait("an epoch which is not pinned")
}

/// A node without the lease, while automation is off.
pub(super) fn of_other(o: &Observation, holder: Option<MemberId>) -> Decision {
    let named = matches!(
        o.cluster.intent.as_ref().map(|pending| &pending.intent),
        Some(Intent::Failover { to, .. }) if *to == o.me
    );
    let fenced = holder.filter(|_| is_pinned(o) && fence::may_end_pin(o));
    if let Some(decision) = fenced.and_then(|holder| succession::of_silent_holder(o, holder)) {
        return decision;
    }
    let decision = match holder {
        None if named => return succession::of_vacant_lease(o),
        Some(holder) if named => {
            let by_name =
                if is_pinned(o) { refuse_pinned(o, holder) } else { succession::of_silent_holder(o, holder) };
            if let Some(decision) = by_name {
                return decision;
            }
            standby::decide(o, Some(holder))
        }
        Some(_) | None => standby::decide(o, holder),
    };
    let is_left = decision.actions.iter().any(|action| is_automation(o, action));
    if is_left { left(o, &decision.because) } else { with_resume(o, holder, decision) }
}

/// What is not done by itself in pause: an operator may ask for it.
fn is_automation(o: &Observation, action: &Action) -> bool {
    match action {
        Action::Postgres(PgAction::StartStandby { .. }) => {
            !stopped_by_this_daemon(o) && !is_new_copy(o) && o.operation.is_none()
        }
        Action::Postgres(PgAction::Restart { .. } | PgAction::Reinitialize { .. }) => false,
        Action::Postgres(action) => action.job().is_some() || matches!(action, PgAction::DiscardIncomplete),
        Action::Propose(_) | Action::Guard(_) | Action::Lease(_) | Action::AskPeers => false,
    }
}

/// Automation would do something.
pub(super) fn left(o: &Observation, because: &str) -> Decision {
    let because = format!("left as it is, although: {because}");
    Decision::new(State::Paused, Rule::Paused, because, o.policy.loop_wait).wait("the end of the pause")
}

/// Says whom the end of the pause waits for.
fn with_resume(o: &Observation, holder: Option<MemberId>, decision: Decision) -> Decision {
    match holder.filter(|_| is_pinned(o) && !is_wanted(o)) {
        Some(holder) => {
            let name = o.cluster.name_of(holder);
            decision.again_in(SOON).wait(format!(
                "{name} to end the pause: it must come back, or an operator must say that it is dead (pgherdctl failover --primary-is-dead)"
            ))
        }
        None => decision,
    }
}

fn silence(o: &Observation) -> Option<Duration> {
    let tenure = o.cluster.lease.tenure.as_ref()?;
    let hears = o.hears_renewals();
    let is_silent = o.lease.quiet_for > patience(Duration::from_millis(tenure.ttl_ms));
    (!hears || is_silent).then_some(o.lease.quiet_for)
}

/// The holder of a pinned epoch is silent, but that alone ends no pin. While it is not, it carries the request out.
fn refuse_pinned(o: &Observation, holder: MemberId) -> Option<Decision> {
    silence(o)?;
    let name = o.cluster.name_of(holder);
    Some(refuse(
        o,
        format!(
            "{name} does not answer, and its PostgreSQL may run on, since it was paused: say that it is dead \
             (primary_is_dead, pgherdctl failover --primary-is-dead), or start its daemon"
        ),
    ))
}

fn refuse(o: &Observation, why: String) -> Decision {
    let decision = Decision::new(State::CatchingUp, Rule::HandOverRefuse, why.clone(), SOON);
    let Some(pending) = &o.cluster.intent else { return decision };
    decision.act(Action::Propose(Command::EndIntent { id: pending.id, end: IntentEnd::Refused(why) }))
}

/// An operator says that the holder is dead and names this node: nothing else is waited for.
pub(super) fn by_operators_word(o: &Observation, holder: MemberId) -> Option<Decision> {
    let pending = o.cluster.intent.as_ref().map(|pending| &pending.intent);
    let Some(Intent::Failover { to, holder_is_dead: true, .. }) = pending else { return None };
    if *to != o.me || o.job.is_some() {
        return None;
    }
    let name = o.cluster.name_of(holder);
    let Some(quiet) = silence(o) else {
        let ago = o.lease.quiet_for.as_millis();
        return Some(refuse(o, format!("{name} is not dead: it renewed the lease {ago} ms ago")));
    };
    if !takes_part(o) {
        return None;
    }
    if !failsafe::is_listed(o, o.me) {
        return Some(refuse(o, format!("{} {}", o.my_name(), failsafe::NOT_LISTED)));
    }
    if let Some(decision) = failsafe::stand_back(o, Some(holder)) {
        return Some(decision);
    }
    if let Some(decision) = succession::end_stream(o, Duration::ZERO) {
        return Some(decision);
    }
    let because =
        format!("an operator says that {name} is dead; it was heard {} ms ago last", quiet.as_millis());
    let decision = Decision::new(State::Candidate, Rule::TakeByWord, because, SOON).wait("the lease");
    Some(match grant_to_me(o, Basis::OperatorsWord) {
        Some(command) => decision.act(Action::Propose(command)),
        None => decision,
    })
}

/// The daemon ends in pause: PostgreSQL goes on, and the lease is kept. None: it is stopped first, as always.
pub(super) fn of_shutdown(o: &Observation) -> Option<Decision> {
    let epoch = o.cluster.lease.epoch;
    if !is_wanted(o) || o.job.is_some() || o.lease.given_up >= epoch && holds(o) {
        return None;
    }
    let is_disarmed = guard(o).is_some_and(|guard| guard.deadline.is_none());
    if holds(o) && !(is_pinned(o) && is_disarmed) {
        return if is_pinned(o) { disarm(o) } else { pin(o) };
    }
    let because = "Leader key is not deleted and Postgresql is not stopped due paused state";
    Some(Decision::new(State::Stopping, Rule::ShutDownDone, because, o.policy.loop_wait))
}
