//! Failsafe: a primary that has lost the majority goes on while all members to which the lease could be granted stand
//! back for it.
//!
//! When the members are asked, and what their answers prove, is the renewer's business
//! ([`pgherd_raft::lease::Holder::ask_members`]); what a member promised binds its first renewals there, too. Here is
//! what follows for decisions: the holder keeps the list, and takes an epoch in which the list counts; a member that
//! stands back neither fences itself nor asks for the lease, and says so.

use std::collections::BTreeSet;
use std::time::Duration;

use pgherd_raft::model::{Command, MemberId, MemberKind};

use super::action::{Action, GuardAction, JobKind, PgAction, StopMode};
use super::decide::{SOON, is_stopped, may_be_writable};
use super::decision::{Decision, State};
use super::facts::{DataDir, Observation};
use super::rule::Rule;
use super::standby;

/// A new epoch is begun only if its first renewal can be won so long before the present licence ends.
const ROOM_FOR_RENEWAL: Duration = Duration::from_secs(1);

/// May the lease be granted to this member, as far as the list says?
pub(super) fn is_listed(o: &Observation, id: MemberId) -> bool {
    o.cluster.failsafe.as_ref().is_none_or(|list| list.contains(&id))
}

/// Why a member that is not in the list does not stand; a sentence's end.
pub(super) const NOT_LISTED: &str =
    "is not in the failsafe list yet: the primary adds it while it has a majority";

/// The list as it should be: every data member, also one that is stopped, since it may come back and take over.
fn wanted(o: &Observation) -> Option<BTreeSet<MemberId>> {
    let data = o.cluster.members.iter().filter(|(_, member)| member.kind == MemberKind::Data);
    o.policy.failsafe.then(|| data.map(|(id, _)| *id).collect())
}

/// The holder changes the list, only while its licence rests on a majority.
pub(super) fn change_list(o: &Observation) -> Option<Decision> {
    let wanted = wanted(o);
    if o.cluster.failsafe == wanted || o.lease.failsafe.rests_on_promises {
        return None;
    }
    let because = match &wanted {
        Some(list) => {
            let names: Vec<String> = list.iter().map(|id| o.cluster.name_of(*id)).collect();
            format!("failsafe: only these may get the lease from here on: {}", names.join(", "))
        }
        None => "failsafe ends: every data member may get the lease".to_owned(),
    };
    let epoch = o.cluster.lease.epoch;
    Some(
        Decision::new(State::Primary, Rule::ChangeFailsafe, because, SOON)
            .act(Action::Propose(Command::SetFailsafe { epoch, members: wanted })),
    )
}

/// Why the list does not count in the present epoch, so that another one is needed; none: it counts.
pub(super) fn needs_own_epoch(o: &Observation) -> Option<String> {
    let epoch = o.cluster.lease.epoch;
    let list = o.cluster.failsafe.as_ref().filter(|_| o.policy.failsafe)?;
    let is_pinned = o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned);
    if is_pinned || o.lease.failsafe.rests_on_promises {
        return None;
    }
    let why = if epoch <= o.lease.known_at_start {
        "an earlier life of this daemon may have asked for another failsafe list in it"
    } else if o.lease.failsafe.may_be_off {
        "the end of failsafe may be agreed on in it"
    } else if !o.lease.failsafe.proposed.is_subset(list) {
        "a failsafe list with other members may be agreed on in it"
    } else {
        return None;
    };
    Some(format!("failsafe does not count in epoch {epoch}: {why}"))
}

/// For how long neither a majority nor all members have answered; none: not longer than `retry_timeout`, or failsafe is
/// off.
fn forsaken_for(o: &Observation) -> Option<Duration> {
    let lease = &o.cluster.lease;
    let is_on = o.policy.failsafe && o.cluster.failsafe.is_some();
    let is_pinned = lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned);
    let won = o.lease.licence.filter(|won| won.epoch == lease.epoch && is_on && !is_pinned)?;
    let silent = o.now.since(won.sent);
    (silent > o.policy.retry_timeout).then_some(silent)
}

/// A primary that nobody carries does not wait for the end of its lease: it goes on as a replica of nobody, which can be
/// read. The lease stays its own: with the next renewal it is promoted again.
pub(super) fn step_down(o: &Observation) -> Option<Decision> {
    let silent = forsaken_for(o).filter(|_| o.job.is_none())?;
    let because = format!(
        "demoted self because DCS is not accessible and I was a leader: neither a majority of the voters nor all members of the failsafe list have answered for {} ms",
        silent.as_millis()
    );
    let decision =
        Decision::new(State::Demoting, Rule::StepDown, because, SOON).wait("a majority, or all members");
    if !is_stopped(o) {
        let stop = PgAction::Stop { mode: StopMode::Fast, checkpoint_first: false };
        return Some(if may_be_writable(o) { decision.act(Action::Postgres(stop)) } else { decision });
    }
    let is_initialised = matches!(o.postgres.data_dir, DataDir::Initialised { .. });
    if !is_initialised || standby::pause_after(o.finished.get(&JobKind::StartStandby)).is_some() {
        return Some(decision);
    }
    Some(
        decision
            .act(Action::Guard(GuardAction::Disarm))
            .act(Action::Postgres(PgAction::StartStandby { upstream: None })),
    )
}

/// Whoever stands back wins no first renewal of another epoch: a primary must not lose its present one meanwhile.
pub(super) fn may_begin_epoch(o: &Observation) -> bool {
    let left = o.licence().map_or(Duration::ZERO, |won| won.deadline.since(o.now));
    o.lease.stands_back.is_none_or(|promise| promise.remaining + ROOM_FOR_RENEWAL < left)
}

/// What this node promised, and to whom: a sentence.
pub(super) fn promised(o: &Observation) -> Option<String> {
    let promise = o.lease.stands_back?;
    let ms = promise.remaining.as_millis();
    Some(match promise.holder {
        Some(holder) => format!(
            "this node promised {} to stand back for {ms} ms more (failsafe)",
            o.cluster.name_of(holder)
        ),
        None => format!(
            "an earlier life of this daemon may have promised to stand back for {ms} ms more (failsafe)"
        ),
    })
}

/// What the lease would be asked for is not, while this node stands back. None: it does not.
pub(super) fn stand_back(o: &Observation, holder: Option<MemberId>) -> Option<Decision> {
    let because = promised(o)?;
    let decision = standby::decide(o, holder);
    if !decision.actions.is_empty() {
        return Some(decision.again_in(SOON));
    }
    let waiting = decision.waiting_for.clone().map_or_else(String::new, |what| format!(", or {what}"));
    Some(
        Decision::new(decision.state, Rule::StandBack, because, SOON)
            .wait(format!("the end of the promise{waiting}")),
    )
}

/// Until when the members that promised stand back; none: no promise is in force as far as the holder knows.
pub(super) fn members_stand_back(o: &Observation) -> Option<Duration> {
    let until = o.lease.failsafe.members_stand_back_until?;
    Some(until.since(o.now)).filter(|rest| !rest.is_zero())
}

/// Would the primary go on by promises with these members left? Who would have to stand back, as a clause.
pub(super) fn would_carry(o: &Observation, living: &BTreeSet<MemberId>) -> Option<String> {
    let list = o.cluster.failsafe.as_ref().filter(|list| o.policy.failsafe && list.is_subset(living))?;
    let holder = o.cluster.lease.holder()?;
    let others = list.iter().filter(|id| **id != holder).map(|id| o.cluster.name_of(*id));
    let others: Vec<String> = others.collect();
    let names = others.join(" and ");
    Some(match others.len() {
        0 => "no other data node is there".to_owned(),
        1 => format!("{names} answers it"),
        _ => format!("{names} answer it"),
    })
}

/// What an operator should know: without the witnesses the primary has no majority, and failsafe is off.
pub fn advice(o: &Observation) -> Option<String> {
    let voters = &o.cluster.lease.voters;
    let data = voters.iter().filter(|id| o.cluster.is_data_member(**id)).count();
    let is_short = data * 2 <= voters.len() && !voters.is_empty();
    (is_short && !o.policy.failsafe && o.cluster.system_identifier.is_some()).then(|| {
        format!(
            "data nodes are {data} of {} voters, which is no majority: if the witnesses are lost, writing ends; \
             set failsafe_mode: true, or use fewer witnesses than data nodes",
            voters.len()
        )
    })
}
