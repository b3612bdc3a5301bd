//! What is to happen at a time that an operator named.

use std::time::Duration;

use pgherd_raft::model::{Command, ScheduledSwitchover, iso_time};

use super::action::Action;
use super::decide::SOON;
use super::decision::{Decision, State};
use super::facts::Observation;
use super::pause;
use super::rule::Rule;

/// Where the time that was named stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is ahead.
    In(Duration),
    /// It has come.
    Now,
    /// It passed without anybody to act: what was asked for then is not what is wanted by now.
    Stale,
}

/// The wall clock may step: what lies further back than one and a half times `loop_wait` is stale.
pub fn due(o: &Observation, at_ms: i64) -> Due {
    let ahead = at_ms.saturating_sub(o.wall_ms);
    let Ok(late) = u64::try_from(ahead.saturating_neg()) else {
        return Due::In(Duration::from_millis(ahead.unsigned_abs()));
    };
    let patience = o.policy.loop_wait.saturating_mul(3) / 2;
    if Duration::from_millis(late) > patience { Due::Stale } else { Due::Now }
}

/// The holder with a licence looks after the scheduled switchover beside everything else; `next` goes first.
pub(super) fn beside(o: &Observation, next: Decision) -> Decision {
    let Some(schedule) = o.cluster.scheduled_switchover else { return next };
    if o.licence().is_none() || pause::is_paused(o) || o.cluster.intent.is_some() {
        return next;
    }
    let step = match (out_of_date(o, schedule), due(o, schedule.at_ms)) {
        (Some(why), _) => cancel(schedule, why),
        (None, Due::In(rest)) => return next.again_in(rest),
        (None, Due::Stale) => cancel(
            schedule,
            format!("Found a stale switchover value, cleaning up: {}", iso_time(schedule.at_ms)),
        ),
        (None, Due::Now) => begin(schedule),
    };
    // What is under way goes first: for so long a schedule can wait before it is stale.
    if next.actions.is_empty() && o.job.is_none() { step } else { next.again_in(SOON) }
}

fn begin(schedule: ScheduledSwitchover) -> Decision {
    let because = format!("Manual scheduled switchover at {}", iso_time(schedule.at_ms));
    Decision::new(State::Primary, Rule::ScheduledSwitchover, because, SOON)
        .act(Action::Propose(Command::BeginScheduled { at_ms: schedule.at_ms }))
        .wait("the agreement of the group")
}

fn cancel(schedule: ScheduledSwitchover, because: String) -> Decision {
    Decision::new(State::Primary, Rule::CancelSchedule, because, SOON)
        .act(Action::Propose(Command::CancelSchedule { at_ms: Some(schedule.at_ms) }))
        .wait("the agreement of the group")
}

/// The member that it names is the primary already, or the one that it is to leave is not.
fn out_of_date(o: &Observation, schedule: ScheduledSwitchover) -> Option<String> {
    if schedule.to == Some(o.me) {
        return Some("I am already the leader, no need to switchover".to_owned());
    }
    let from = schedule.from.filter(|from| *from != o.me)?;
    Some(format!("the scheduled switchover is from {}, which is not the leader", o.cluster.name_of(from)))
}
