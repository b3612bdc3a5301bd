//! Succession where commits wait for standbys: fences instead of patience.
//!
//! A standby that follows nobody for the rest of the epoch acknowledges nothing more. With so many of each set in force
//! that the rest are too few, the old primary can acknowledge nothing, and the highest position among them covers
//! everything that it has acknowledged. A fence is not undone: a false alarm is repaired by the holder's next epoch. So
//! a standby fences itself only when a majority of the lease's voters has missed the holder, too.

use std::cmp::Reverse;
use std::time::Duration;

use pgherd_raft::lease::patience;
use pgherd_raft::model::{Basis, Command, MemberId, Tenure, WalPosition};

use super::action::{Action, LeaseAction, PgAction};
use super::candidate::{NO_WATCHDOG, REPORT_FRESH};
use super::decide::SOON;
use super::decision::{Decision, State};
use super::facts::Observation;
use super::failsafe;
use super::report::{SERVER_FRESH, watchdog_trouble};
use super::rule::Rule;
use super::succession::{ASK_AGAIN, grant_to_me, takes_part};
use super::sync;

/// How much longer each worse of several equal candidates waits before it stops waiting for the better ones.
const PATIENCE_WITH_EQUALS: Duration = Duration::from_secs(1);

/// Is this node's name in a set in force, so that it can fence and stand?
pub(super) fn counts(o: &Observation) -> bool {
    let name = o.cluster.members.get(&o.me).map(|member| &member.name);
    name.is_some_and(|name| o.cluster.synchrony.includes(name))
}

/// Does a take-over need fences at all? Not for the last holder, and not where no commit waits for standbys.
pub(super) fn are_needed(o: &Observation) -> bool {
    o.cluster.synchrony.needs_standbys() && o.cluster.lease.last_holder != Some(o.me)
}

/// Way 2: the holder is silent, and its synchronous standbys do not wait for its lease to expire.
pub(super) fn of_silent_holder(o: &Observation, tenure: &Tenure, silent: &str) -> Option<Decision> {
    let may_be_fast = o.policy.sync.fast_failover && o.cluster.synchrony.can_silence();
    if !may_be_fast || tenure.pinned && !may_end_pin(o) || !counts(o) || !takes_part(o) {
        return None;
    }
    // The holder of a pinned epoch said itself that its daemon ends, and no voter would close the epoch.
    if !is_fenced(o) && !tenure.pinned && !is_missed_by_a_majority(o) {
        return Some(ask_whether_silent(o, silent));
    }
    let since = o.lease.quiet_for.saturating_sub(patience(Duration::from_millis(tenure.ttl_ms)));
    Some(fence_myself(o).or_else(|| await_turn(o, since)).unwrap_or_else(|| take(o, silent)))
}

/// The pause is over, and the holder's daemon was stopped during it: fences end the pin.
pub(super) fn may_end_pin(o: &Observation) -> bool {
    !o.policy.pause && o.cluster.may_fence_pinned()
}

/// Has a majority of the voters heard nothing for the holder's patience? Then it is about to lose its lease anyway.
pub(super) fn is_missed_by_a_majority(o: &Observation) -> bool {
    let lease = &o.cluster.lease;
    let answers = o.lease.closes.as_ref().filter(|closes| closes.epoch == lease.epoch);
    answers.is_some_and(|answers| {
        let fresh = answers.age <= REPORT_FRESH;
        let missing = answers.silent.iter().chain(&answers.would).chain(&answers.closed).copied().collect();
        fresh && lease.is_majority(&missing)
    })
}

/// Expiry, and a vacant lease: the holder is silent for other reasons, but what it acknowledged must be known. Some: not
/// yet, or not this node.
pub(super) fn before_take_over(o: &Observation, waited: Duration) -> Option<Decision> {
    if !counts(o) {
        let because = format!(
            "following a different leader because I am not allowed to promote: {} is not a synchronous standby and may lack acknowledged commits",
            o.my_name()
        );
        return Some(
            Decision::new(State::CatchingUp, Rule::MayNotPromote, because, SOON)
                .act(Action::AskPeers)
                .wait("a synchronous standby to take over"),
        );
    }
    if let Some(tenure) =
        o.cluster.lease.tenure.as_ref().filter(|_| !is_missed_by_a_majority(o) && !is_fenced(o))
    {
        let because = format!("{} may be silent to this node alone", o.cluster.name_of(tenure.holder));
        return Some(ask_whether_silent(o, &because));
    }
    fence_myself(o).or_else(|| await_turn(o, waited))
}

fn is_fenced(o: &Observation) -> bool {
    o.cluster.synchrony.fences.contains_key(&o.me) || o.postgres.fenced >= o.cluster.lease.epoch
}

fn ask_whether_silent(o: &Observation, because: &str) -> Decision {
    let (epoch, voters) = (o.cluster.lease.epoch, o.cluster.lease.voters.clone());
    Decision::new(State::CatchingUp, Rule::AskWhetherSilent, because, ASK_AGAIN)
        .act(Action::AskPeers)
        .act(Action::Lease(LeaseAction::Close { epoch, voters, for_real: false }))
        .wait("a majority of the voters to miss the holder, or a renewal")
}

/// The next step towards this node's own fence; none: it is committed, or not needed of it.
pub(super) fn fence_myself(o: &Observation) -> Option<Decision> {
    let epoch = o.cluster.lease.epoch;
    if !are_needed(o) || !counts(o) || o.cluster.synchrony.fences.contains_key(&o.me) {
        return None;
    }
    let because =
        format!("following nobody for the rest of epoch {epoch}, so that nothing more is acknowledged");
    let decision = Decision::new(State::CatchingUp, Rule::Fence, because, ASK_AGAIN);
    if o.postgres.fenced < epoch || o.postgres.configured_upstream.is_some() {
        return Some(
            decision.act(Action::Postgres(PgAction::Fence { epoch })).wait("the walreceiver to end"),
        );
    }
    match flushed_for_good(o) {
        Some(position) => Some(
            decision
                .act(Action::Propose(Command::Fence { epoch, member: o.me, position }))
                .wait("the agreement of the group"),
        ),
        None => Some(decision.wait("the walreceiver to end")),
    }
}

/// What this standby has flushed, read after its walreceiver had ended.
fn flushed_for_good(o: &Observation) -> Option<WalPosition> {
    let server = o.postgres.server.within(SERVER_FRESH)?;
    (server.is_in_recovery && server.receiver.is_none()).then_some(server.position)
}

/// Some: enough fences are there, and it is not this node's turn; or there are too few.
pub(super) fn await_turn(o: &Observation, waited: Duration) -> Option<Decision> {
    let synchrony = &o.cluster.synchrony;
    let not = |rule, because: String| {
        Decision::new(State::CatchingUp, rule, because, ASK_AGAIN.max(SOON / 2)).act(Action::AskPeers)
    };
    let name_of = |id: MemberId| o.cluster.members.get(&id).map(|member| member.name.clone());
    if let Some((set, lacking)) = synchrony.unfenced(name_of) {
        let because = format!("{} may acknowledge or may have acknowledged commits", sync::describe(set));
        return Some(not(Rule::AwaitFences, because).wait(format!("{lacking} more of them to be fenced")));
    }
    let me = o.cluster.members.get(&o.me)?;
    if !me.tags.may_be_promoted() {
        let because = format!(
            "following a different leader because I am not allowed to promote: {} has the tag nofailover, or failover_priority 0",
            o.my_name()
        );
        return Some(not(Rule::MayNotPromote, because).wait("another member to take over"));
    }
    if !failsafe::is_listed(o, o.me) {
        let because = format!("{} {}", o.my_name(), failsafe::NOT_LISTED);
        return Some(not(Rule::MayNotPromote, because).wait("another member to take over"));
    }
    if watchdog_trouble(o).is_some() {
        let because = format!(
            "following a different leader because I am not allowed to promote: {} {NO_WATCHDOG}",
            o.my_name()
        );
        return Some(not(Rule::MayNotPromote, because).wait("another member to take over"));
    }
    let highest = synchrony.highest_fence()?;
    if synchrony.fences.get(&o.me) < Some(&highest) {
        let ahead = synchrony.fences.iter().find(|(_, position)| **position == highest);
        let name = ahead.map(|(id, _)| o.cluster.name_of(*id)).unwrap_or_default();
        let because = format!("Wal position of {name} is ahead of my wal position");
        return Some(not(Rule::BetterCandidate, because).wait("the better candidate to take over"));
    }
    let equals = equals(o, highest);
    let place = equals.iter().position(|id| *id == o.me).unwrap_or(equals.len());
    let turn = u32::try_from(place).unwrap_or(u32::MAX);
    if waited >= PATIENCE_WITH_EQUALS.saturating_mul(turn) {
        return None;
    }
    let name = equals.first().map(|id| o.cluster.name_of(*id)).unwrap_or_default();
    let because = format!("{name} has the same WAL position, and goes first by priority or name");
    Some(not(Rule::BetterCandidate, because).wait("the better candidate to take over"))
}

/// The fenced members at the highest position that may be promoted, the first one first.
fn equals(o: &Observation, highest: WalPosition) -> Vec<MemberId> {
    let mut equals: Vec<MemberId> = o
        .cluster
        .synchrony
        .fences
        .iter()
        .filter(|(id, position)| {
            let may = o.cluster.members.get(id).is_some_and(|member| member.tags.may_be_promoted());
            may && failsafe::is_listed(o, **id) && **position == highest
        })
        .map(|(id, _)| *id)
        .collect();
    equals.sort_by_cached_key(|id| {
        let is_doubtful =
            |report: &super::member_report::MemberReport| report.stands_back || report.watchdog_failed;
        let stands_back = *id != o.me && o.report(*id, REPORT_FRESH).is_none_or(is_doubtful);
        let priority = o.cluster.members.get(id).map_or(0, |member| member.tags.failover_priority());
        (stands_back, Reverse(priority), o.cluster.name_of(*id))
    });
    equals
}

fn take(o: &Observation, silent: &str) -> Decision {
    let fenced: Vec<String> = o.cluster.synchrony.fences.keys().map(|id| o.cluster.name_of(*id)).collect();
    let because = format!("{silent}; fenced: {}", fenced.join(", "));
    let decision = Decision::new(State::Candidate, Rule::TakeFenced, because, ASK_AGAIN).wait("the lease");
    match grant_to_me(o, Basis::Fenced) {
        Some(command) => decision.act(Action::Propose(command)),
        None => decision,
    }
}
