//! `fencing.command`: an operator's program that cuts a silent holder off (power switch, hypervisor, cloud API) and says
//! whether it did. Its word replaces the closes, so that nobody waits for the lease to expire.
//!
//! It is run by the best candidate, when a majority of the voters misses the holder's renewals and the holder's daemon
//! does not report here either. It is run beside the ordinary way: nothing waits for it, and when it fails, or does not
//! end, the lease expires as without it. What it confirms belongs to one epoch, in which the holder was silent before
//! the command was begun; who confirmed tells the others with its report, since another member may turn out to be the
//! better candidate.
//!
//! Never in pause, never for a pinned epoch, never against this node itself, one at a time, and [`MAX_ATTEMPTS`] times
//! an epoch at most. Where commits wait for standbys, fences are needed all the same: a dead holder acknowledges nothing
//! more, but what it has acknowledged must be found.

use std::time::Duration;

use pgherd_raft::model::{Basis, Epoch, Intent, MemberId};
use serde::{Deserialize, Serialize};

use super::action::{Action, LeaseAction};
use super::candidate::{REPORT_FRESH, rank};
use super::decide::SOON;
use super::decision::{Decision, State};
use super::evidence;
use super::facts::{Fact, Observation};
use super::fence;
use super::pause::is_paused;
use super::rule::Rule;
use super::succession::{ASK_AGAIN, end_stream, fences_are_needed, grant_to_me, my_turn, takes_part};

/// So often it is run in one epoch by one node, at most.
const MAX_ATTEMPTS: u32 = 3;
/// The pause after an attempt that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// What this node's `fencing.command` does and did.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CutOff {
    /// There is one.
    pub is_configured: bool,
    /// The epoch whose holder the last run was against.
    pub epoch: Epoch,
    /// How often it was begun in that epoch.
    pub attempts: u32,
    /// It runs, for so long.
    pub running_for: Option<Duration>,
    /// How the last run of that epoch ended; none: it has not.
    pub ended: Option<CutOffEnd>,
}

/// How a run of `fencing.command` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOffEnd {
    /// Why nothing is confirmed; none: the holder is cut off.
    pub error: Option<String>,
    /// How long ago.
    pub age: Duration,
}

/// The word of a member's `fencing.command`, for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOffWord {
    /// The epoch whose holder is cut off.
    pub epoch: Epoch,
    /// How long ago it was said.
    pub ago: Duration,
}

/// What this node's command has confirmed, for the others.
pub(super) fn own_word(o: &Observation) -> Option<CutOffWord> {
    let CutOff { epoch, ended, .. } = &o.lease.cut_off;
    let end = ended.as_ref().filter(|end| end.error.is_none())?;
    Some(CutOffWord { epoch: *epoch, ago: end.age })
}

/// The holder was cut off under this epoch: how long ago this was said, by this node's command or a peer's.
pub(super) fn confirmed(o: &Observation) -> Option<Duration> {
    let epoch = o.cluster.lease.epoch;
    let own = own_word(o).filter(|said| said.epoch == epoch);
    let holder = o.cluster.lease.holder();
    let told = o.peers.iter().filter(|(id, _)| Some(**id) != holder).filter_map(|(_, fact)| match fact {
        Fact::Known { value, age } => {
            value.cut_off.filter(|said| said.epoch == epoch).map(|said| said.ago.saturating_add(*age))
        }
        Fact::Unknown(_) => None,
    });
    own.map(|said| said.ago).into_iter().chain(told).max()
}

/// With the word that the holder is cut off, the best candidate asks for the lease at once.
pub(super) fn take_over(o: &Observation, holder: MemberId, silent: &str) -> Option<Decision> {
    let age = confirmed(o)?;
    if is_paused(o) || !takes_part(o) {
        return None;
    }
    if let Some(decision) = end_stream(o, Duration::ZERO) {
        return Some(decision);
    }
    let waiting = if fences_are_needed(o) {
        fence::before_take_over(o, age)
    } else {
        my_turn(o, &rank(o, Some(holder)), Some(o.lease.quiet_for.saturating_sub(age)))
    };
    Some(waiting.unwrap_or_else(|| {
        let because = format!("{silent}, and fencing.command has cut it off");
        let decision =
            Decision::new(State::Candidate, Rule::TakeCutOff, because, ASK_AGAIN).wait("the lease");
        match grant_to_me(o, Basis::CutOff) {
            Some(command) => decision.act(Action::Propose(command)),
            None => decision,
        }
    }))
}

/// Adds to the ordinary decision what the command needs: the question to the voters, then its run.
pub(super) fn beside(o: &Observation, holder: MemberId, silent: &str, next: Decision) -> Decision {
    let CutOff { running_for, .. } = o.lease.cut_off;
    if running_for.is_some() {
        let waiting = next.waiting_for.clone().filter(|_| next.rule == Rule::Suspect);
        let told = waiting.map(|what| format!("{what}, or for fencing.command to cut it off"));
        return Decision { waiting_for: told.or(next.waiting_for.clone()), ..next }.again_in(SOON);
    }
    if !is_called_for(o, holder) {
        return next;
    }
    let (epoch, voters) = (o.cluster.lease.epoch, o.cluster.lease.voters.clone());
    if !fence::is_missed_by_a_majority(o) {
        let asks = |action: &Action| matches!(action, Action::Lease(LeaseAction::Close { .. }));
        if next.actions.iter().any(asks) {
            return next;
        }
        let ask = Action::Lease(LeaseAction::Close { epoch, voters, for_real: false });
        let rule = if next.rule == Rule::Suspect { Rule::AskWhetherSilent } else { next.rule };
        return Decision { rule, ..next }.act(ask).again_in(ASK_AGAIN);
    }
    let because = format!("{silent}: fencing.command is to cut it off");
    Decision { rule: Rule::CutOff, because, ..next }
        .act(Action::Lease(LeaseAction::CutOff { epoch, member: holder }))
        .again_in(SOON)
}

/// Should this node run the command now?
fn is_called_for(o: &Observation, holder: MemberId) -> bool {
    let facts = &o.lease.cut_off;
    // Once the epoch can be closed, that is as fast.
    let wait = o.cluster.lease.tenure.as_ref().map_or(0, |tenure| tenure.wait_ms);
    let is_in_time = o.lease.quiet_for < Duration::from_millis(wait);
    let is_first = facts.epoch != o.cluster.lease.epoch;
    let has_rested = facts.ended.as_ref().is_none_or(|end| end.error.is_some() && end.age >= PAUSE);
    let may_again = is_first || facts.attempts < MAX_ATTEMPTS && has_rested;
    let reports = o.peers.get(&holder).is_some_and(|fact| fact.within(REPORT_FRESH).is_some());
    let other_named = matches!(
        o.cluster.intent.as_ref().map(|pending| &pending.intent),
        Some(Intent::Failover { to, .. }) if *to != o.me
    );
    facts.is_configured
        && is_in_time
        && may_again
        && !reports
        && !other_named
        && holder != o.me
        && !is_paused(o)
        && takes_part(o)
        && evidence::ranking(o, Some(holder)).place_of(o.me) == Some(0)
}
