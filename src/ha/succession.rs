//! Who is next: when the holder is silent, and when the lease is vacant.

use std::time::Duration;

use pgherd_raft::lease::{margin, patience};
use pgherd_raft::model::{Basis, Command, Intent, IntentEnd, MemberId, MemberKind};

use super::action::{Action, LeaseAction, PgAction};
use super::candidate::{REPORT_FRESH, Ranking, rank};
use super::cut_off;
use super::decide::{SOON, is_running};
use super::decision::{Decision, State};
use super::facts::{DataDir, Observation};
use super::failsafe;
use super::fence;
use super::first_lease;
use super::holder::millis;
use super::hook;
use super::report::own_report;
use super::rule::Rule;
use super::standby;

/// How soon a candidate asks again.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Timers may end a moment early.
const JUST_AFTER: Duration = Duration::from_millis(2);
/// How much longer each worse candidate waits before it stops waiting for the better ones.
const PATIENCE_WITH_BETTER: Duration = Duration::from_secs(3);
/// How long an unfinished stream of another candidate is waited for.
const STREAM_PATIENCE: Duration = Duration::from_millis(500);
/// How long the position of a member that is silent is waited for; then it counts as unknown.
const POSITION_PATIENCE: Duration = Duration::from_millis(500);

/// After a time in which no majority answered, everybody is waited for so long: the cut-off come back one by one.
const REUNION_PATIENCE: Duration = Duration::from_secs(2);

/// What a candidate waits for in every takeover.
pub(super) const AWAITS_POSITIONS: &str = "final positions";
/// What it waits for when a member is silent.
pub(super) const AWAITS_REPORT: &str = "its report";

/// How long until this node's patience with a silent holder ends; none: it has ended, or nobody waits for it. No event
/// tells of the end of a silence.
pub(super) fn patience_left(o: &Observation) -> Option<Duration> {
    let tenure = o.cluster.lease.tenure.as_ref()?;
    let waits = tenure.holder != o.me && !tenure.pinned && o.hears_renewals();
    let patience = patience(Duration::from_millis(tenure.ttl_ms));
    (waits && o.lease.quiet_for <= patience && takes_part(o))
        .then(|| patience.saturating_sub(o.lease.quiet_for) + JUST_AFTER)
}

/// The holder is another member: has it been silent for long? None: it has not, or this node keeps out of it.
pub(super) fn of_silent_holder(o: &Observation, holder: MemberId) -> Option<Decision> {
    let tenure = o.cluster.lease.tenure.as_ref()?;
    if !o.hears_renewals()
        || o.job.is_some()
        || o.lease.quiet_for <= patience(Duration::from_millis(tenure.ttl_ms))
    {
        return None;
    }
    if let Some(decision) = failsafe::stand_back(o, Some(holder)).or_else(|| hook::back_off(o)) {
        return Some(decision);
    }
    let name = o.cluster.name_of(holder);
    let silent = format!("{name} has not renewed the lease for {} ms", o.lease.quiet_for.as_millis());
    if let Some(decision) = fence::of_silent_holder(o, tenure, &silent) {
        return Some(decision);
    }
    if tenure.pinned {
        return None;
    }
    if let Some(decision) = cut_off::take_over(o, holder, &silent) {
        return Some(decision);
    }
    let wait = Duration::from_millis(tenure.wait_ms);
    let next = by_expiry(o, holder, wait, &silent)?;
    Some(cut_off::beside(o, holder, &silent, next))
}

/// The ordinary way: the lease expires.
fn by_expiry(o: &Observation, holder: MemberId, wait: Duration, silent: &str) -> Option<Decision> {
    if let Some(decision) = end_stream(o, wait) {
        return Some(decision);
    }
    if o.lease.quiet_for < wait {
        if !takes_part(o) {
            return None;
        }
        let rest = wait.saturating_sub(o.lease.quiet_for);
        return Some(
            Decision::new(State::CatchingUp, Rule::Suspect, silent, rest.min(SOON))
                .act(Action::AskPeers)
                .wait(format!("the epoch to be closable in {} ms, or a renewal", rest.as_millis())),
        );
    }
    if !takes_part(o) {
        return None;
    }
    if fences_are_needed(o) {
        let since = o.lease.quiet_for.saturating_sub(wait);
        return Some(fence::before_take_over(o, since).unwrap_or_else(|| close(o, silent)));
    }
    if let Some(decision) = reunion(o, holder) {
        return Some(decision);
    }
    let ranking = rank(o, Some(holder));
    Some(my_turn(o, &ranking, Some(wait)).unwrap_or_else(|| close(o, silent)))
}

/// This node was among too few to take over, and no longer is. The holder has what nobody else may have: if it is back
/// as well, it renews its lease; and the positions of the others are on their way.
fn reunion(o: &Observation, holder: MemberId) -> Option<Decision> {
    let lease = &o.cluster.lease;
    let answers =
        o.lease.closes.as_ref().filter(|closes| closes.epoch == lease.epoch && closes.is_answered)?;
    let since = answers.unanswered?.saturating_add(answers.age);
    let rest = REUNION_PATIENCE.checked_sub(since).filter(|rest| !rest.is_zero())?;
    let name = o.cluster.name_of(holder);
    let because =
        format!("no majority answered until {} ms ago: {name} may be on its way back", since.as_millis());
    let close = LeaseAction::Close { epoch: lease.epoch, voters: lease.voters.clone(), for_real: false };
    Some(
        Decision::new(State::CatchingUp, Rule::AwaitReunion, because, ASK_AGAIN)
            .act(Action::AskPeers)
            .act(Action::Lease(close))
            .wait(format!("a renewal by {name}, {} ms at most", rest.as_millis())),
    )
}

/// Does a take-over by this node need fences? An operator who was told what may be lost can do without.
pub(super) fn fences_are_needed(o: &Observation) -> bool {
    let accepts_loss = matches!(
        o.cluster.intent.as_ref().map(|pending| &pending.intent),
        Some(Intent::Failover { to, accepts_loss, holder_is_dead }) if *to == o.me && (*accepts_loss || *holder_is_dead)
    );
    fence::are_needed(o) && !accepts_loss
}

/// A node without data, or with a PostgreSQL that does not run in recovery, has its own business first, unless it is a
/// former primary which an operator names.
pub(super) fn takes_part(o: &Observation) -> bool {
    let named = matches!(
        o.cluster.intent.as_ref().map(|pending| &pending.intent),
        Some(Intent::Failover { to, .. }) if *to == o.me
    );
    named && was_primary(o)
        || is_running(o) && o.postgres.server.of_any_age().is_some_and(|server| server.is_in_recovery)
}

/// Shortly before the epoch can be closed, and while the lease is vacant, the old stream is ended here, so that this
/// node's position is final when it is compared. Not before the holder's own deadline: until then it may acknowledge
/// what would be missing here.
pub(super) fn end_stream(o: &Observation, wait: Duration) -> Option<Decision> {
    let server = o.postgres.server.of_any_age()?;
    let early = wait.saturating_sub(margin(wait));
    if o.lease.quiet_for < early || !takes_part(o) || o.postgres.configured_upstream.is_none() {
        return None;
    }
    let because = "the old stream is ended, so that positions are final before they are compared";
    let decision = Decision::new(State::CatchingUp, Rule::EndStream, because, ASK_AGAIN)
        .act(Action::Postgres(PgAction::Follow { upstream: None }));
    Some(if server.receiver.is_some() { decision.wait("the walreceiver to end") } else { decision })
}

/// Some: it is not this node's turn, or not yet.
pub(super) fn my_turn(o: &Observation, ranking: &Ranking, wait: Option<Duration>) -> Option<Decision> {
    let not =
        |rule, because: String| Decision::new(State::CatchingUp, rule, because, SOON).act(Action::AskPeers);
    if let Some(Intent::Failover { to, .. }) = o.cluster.intent.as_ref().map(|pending| &pending.intent) {
        return named_successor(o, ranking, *to);
    }
    let Some(place) = ranking.place_of(o.me) else {
        let why = ranking.unfit_reason(o.me).unwrap_or("is no data member");
        let because = format!(
            "following a different leader because I am not allowed to promote: {} {why}",
            o.my_name()
        );
        return Some(not(Rule::MayNotPromote, because).wait("another member to take over"));
    };
    let still_streaming = ranking.candidates.iter().find(|c| !c.report.stream_ended);
    // Since the lease could be taken: a vacant one at once.
    let waited = o.lease.quiet_for.saturating_sub(wait.unwrap_or_default());
    if let Some(other) = still_streaming.filter(|_| waited < STREAM_PATIENCE) {
        let because = format!("{} has not ended the old stream yet", o.cluster.name_of(other.id));
        return Some(not(Rule::BetterCandidate, because).wait(AWAITS_POSITIONS).again_in(ASK_AGAIN));
    }
    let turns = u32::try_from(place).unwrap_or(u32::MAX);
    if let Some(silent) = silent_member(o).filter(|_| waited < POSITION_PATIENCE) {
        let because = format!("{silent} may have received more, and has not reported its position");
        return Some(not(Rule::BetterCandidate, because).wait(AWAITS_REPORT).again_in(ASK_AGAIN));
    }
    // Control data may name the timeline of before the last promotion; nobody has more than the last holder all the same.
    let was_last = o.cluster.lease.last_holder == Some(o.me);
    let may_overtake = was_last || !later_timeline_exists(o, ranking);
    if place == 0 || (may_overtake && waited > PATIENCE_WITH_BETTER.saturating_mul(turns)) {
        return None;
    }
    Some(not(Rule::BetterCandidate, better(o, ranking)).wait("the better candidate to take over"))
}

/// A candidate on a later timeline is not overtaken: a promotion from an earlier one would make the same timeline a
/// second time, which PostgreSQL cannot tell from the first.
fn later_timeline_exists(o: &Observation, ranking: &Ranking) -> bool {
    let mine = ranking.candidates.iter().find(|candidate| candidate.id == o.me);
    let mine = mine.map(|candidate| candidate.position.timeline);
    let mut others = ranking.candidates.iter().filter(|candidate| !candidate.report.stands_back);
    others.any(|candidate| Some(candidate.position.timeline) > mine)
}

/// Another data member, not the holder, whose position is not known. Nobody has received more than the last holder.
fn silent_member(o: &Observation) -> Option<String> {
    if o.lease.given_up >= o.cluster.lease.epoch {
        return None;
    }
    let holder = o.cluster.lease.holder();
    let mut others = o.cluster.members.iter().filter(|(id, member)| {
        let counts = member.kind == MemberKind::Data && !o.cluster.leaving.contains(*id);
        counts && **id != o.me && Some(**id) != holder
    });
    let silent = others.find(|(id, _)| o.report(**id, REPORT_FRESH).is_none());
    silent.map(|(_, member)| member.name.to_string())
}

/// The beginnings of the words in which a node that did not take over says why.
pub const LOST_RACE: [&str; 3] = [
    "following a different leader because I am not allowed to promote",
    "is ahead of my wal position",
    "has equally tolerable WAL position",
];

/// Why another member, which holds the lease by now, went before this standby; none: it was not in the race.
pub fn lost_race(o: &Observation) -> Option<String> {
    let winner = o.cluster.lease.holder().filter(|winner| *winner != o.me)?;
    let mine = own_report(o).position?;
    let tags = |id: &MemberId| o.cluster.members.get(id).map(|member| &member.tags);
    let (my_tags, its_tags) = (tags(&o.me)?, tags(&winner)?);
    let name = o.cluster.name_of(winner);
    if !my_tags.may_be_promoted() {
        return Some(format!(
            "{}: {name} took over",
            "following a different leader because I am not allowed to promote"
        ));
    }
    let (its, my) = (its_tags.failover_priority(), my_tags.failover_priority());
    if its > my {
        return Some(equally_tolerable(&name, its, my));
    }
    let at = o.peers.get(&winner).and_then(|fact| fact.of_any_age())?.position?;
    (at > mine).then(|| format!("Wal position of {name} is ahead of my wal position"))
}

fn equally_tolerable(name: &str, its: i64, mine: i64) -> String {
    format!(
        "{name} has equally tolerable WAL position and priority {its}, while this node has priority {mine}"
    )
}

/// Why another member goes first, in the words that operators of Patroni look for.
fn better(o: &Observation, ranking: &Ranking) -> String {
    let (Some(best), Some(mine)) =
        (ranking.candidates.first(), ranking.candidates.iter().find(|candidate| candidate.id == o.me))
    else {
        return "another member is the better candidate".to_owned();
    };
    let name = o.cluster.name_of(best.id);
    if best.position > mine.position {
        return format!("Wal position of {name} is ahead of my wal position");
    }
    if best.priority > mine.priority {
        return equally_tolerable(&name, best.priority, mine.priority);
    }
    if mine.report.stands_back {
        return format!("{name} goes first, since this node recently failed to become writable");
    }
    format!("{name} has the same WAL position and priority, and its name comes first")
}

/// An operator named the next primary: only that one stands.
fn named_successor(o: &Observation, ranking: &Ranking, to: MemberId) -> Option<Decision> {
    if to == o.me && ranking.place_of(to).is_some() {
        return None;
    }
    let name = o.cluster.name_of(to);
    let pending = o.cluster.intent.as_ref()?;
    if let Some(why) = ranking.unfit_reason(to) {
        let end = IntentEnd::Refused(format!("{name} {why}"));
        return Some(
            Decision::new(State::CatchingUp, Rule::HandOverRefuse, format!("{name} {why}"), SOON)
                .act(Action::Propose(Command::EndIntent { id: pending.id, end })),
        );
    }
    let because = format!("an operator named {name} as the next primary");
    Some(
        Decision::new(State::CatchingUp, Rule::BetterCandidate, because, SOON)
            .wait(format!("{name} to take over")),
    )
}

/// First as a question, then for real, then the grant.
fn close(o: &Observation, silent: &str) -> Decision {
    let lease = &o.cluster.lease;
    let (epoch, voters) = (lease.epoch, lease.voters.clone());
    let candidate = |rule| Decision::new(State::Candidate, rule, silent, ASK_AGAIN);
    let ask = |for_real| Action::Lease(LeaseAction::Close { epoch, voters: voters.clone(), for_real });
    let Some(answers) = o.lease.closes.as_ref().filter(|closes| closes.epoch == epoch) else {
        return candidate(Rule::AskToClose).act(ask(false)).wait("a majority that would close the epoch");
    };
    if lease.is_majority(&answers.closed) {
        let basis = Basis::Closed { by: answers.closed.clone() };
        return match grant_to_me(o, basis) {
            Some(command) => candidate(Rule::TakeClosed).act(Action::Propose(command)).wait("the lease"),
            None => candidate(Rule::TakeClosed).wait("a guard"),
        };
    }
    let willing = answers.would.union(&answers.closed).copied().collect();
    if lease.is_majority(&willing) {
        return candidate(Rule::Close).act(ask(true)).wait("a majority that closed the epoch");
    }
    candidate(Rule::AskToClose).act(ask(false)).wait("a majority that would close the epoch")
}

pub(super) fn grant_to_me(o: &Observation, basis: Basis) -> Option<Command> {
    let session = o.guard.of_any_age()?.session;
    let expected_epoch = o.cluster.lease.epoch;
    Some(Command::Grant { expected_epoch, to: o.me, session, ttl_ms: millis(o.policy.ttl), basis })
}

/// Nobody holds the lease.
pub(super) fn of_vacant_lease(o: &Observation) -> Decision {
    if o.job.is_some() {
        return standby::decide(o, None);
    }
    if let Some(decision) = hook::back_off(o) {
        return decision;
    }
    if let Some(decision) = failsafe::stand_back(o, None) {
        return decision;
    }
    if o.cluster.system_identifier.is_none() {
        return first_lease::decide(o);
    }
    if let DataDir::Empty | DataDir::Incomplete | DataDir::Foreign(_) = o.postgres.data_dir {
        return standby::decide(o, None);
    }
    let mine = own_report(o);
    let is_ready = takes_part(o) || was_primary(o);
    if !is_ready || mine.position.is_none() || (was_primary(o) && is_outdated(o) && !is_named(o)) {
        return standby::decide(o, None);
    }
    if fences_are_needed(o) {
        let decision = fence::before_take_over(o, o.lease.quiet_for);
        return decision.unwrap_or_else(|| {
            take_vacant(o, "the lease is vacant and this node has every acknowledged commit")
        });
    }
    if let Some(decision) = end_stream(o, Duration::ZERO) {
        return decision;
    }
    let ranking = rank(o, None);
    if let Some(decision) = my_turn(o, &ranking, None) {
        return decision;
    }
    take_vacant(o, "the lease is vacant and this node is the best candidate")
}

/// A stopped former primary stands as a candidate with what its control data proves.
fn was_primary(o: &Observation) -> bool {
    let DataDir::Initialised { has_backup_label, .. } = o.postgres.data_dir else { return false };
    let stopped = super::decide::is_stopped(o);
    let control = o.postgres.control.of_any_age();
    stopped && !has_backup_label && control.is_some_and(|control| control.state.was_primary())
}

/// A former primary after which somebody else held the lease: what that one wrote may be missing here, and other WAL
/// may lie in its place. Only reports of all the others on no later timeline show that nothing was written since.
fn is_outdated(o: &Observation) -> bool {
    let was_last_holder = o.lease.given_up >= o.cluster.lease.epoch;
    let mine = own_report(o).position.map(|position| position.timeline);
    let is_later = |id: &MemberId| match o.peers.get(id).and_then(|fact| fact.of_any_age()) {
        Some(report) if !report.has_data => false,
        Some(report) => report.position.is_none_or(|position| Some(position.timeline) > mine),
        None => true,
    };
    let mut others = o.cluster.members.iter().filter(|(id, m)| **id != o.me && m.kind == MemberKind::Data);
    !was_last_holder && others.any(|(id, _)| is_later(id))
}

/// An operator says that this node is to be the next primary, whatever is lost by it.
pub(super) fn is_named(o: &Observation) -> bool {
    let intent = o.cluster.intent.as_ref().map(|pending| &pending.intent);
    matches!(intent, Some(Intent::Failover { to, .. }) if *to == o.me)
}

pub(super) fn take_vacant(o: &Observation, because: &str) -> Decision {
    let decision = Decision::new(State::Candidate, Rule::TakeVacant, because, SOON).wait("the lease");
    match grant_to_me(o, Basis::Vacant) {
        Some(command) => decision.act(Action::Propose(command)),
        None => decision,
    }
}
