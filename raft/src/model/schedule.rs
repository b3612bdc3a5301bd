//! A switchover that an operator asked for at a later time.
//!
//! `apply` reads no clock: the holder of the lease looks at its wall clock, and turns what is due into an ordinary
//! request with a command of its own, so that one schedule never becomes two requests.

use serde::{Deserialize, Serialize};

use super::apply::set_intent;
use super::command::Rejection;
use super::ids::MemberId;
use super::intent::Intent;
use super::state::ClusterState;

/// A switchover at a later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledSwitchover {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The holder from which the lease is to be taken; none: whoever holds it then.
    pub from: Option<MemberId>,
    /// The standby which takes it; none: the best one.
    pub to: Option<MemberId>,
}

/// A later schedule takes the place of an earlier one.
pub(super) fn schedule(state: &mut ClusterState, schedule: ScheduledSwitchover) -> Result<(), Rejection> {
    let ScheduledSwitchover { from, to, .. } = schedule;
    if let Some(stranger) = from.into_iter().chain(to).find(|id| !state.is_data_member(*id)) {
        return Err(Rejection::Member { id: stranger });
    }
    if let Some(same) = to.filter(|to| Some(*to) == from) {
        return Err(Rejection::Member { id: same });
    }
    state.scheduled_switchover = Some(schedule);
    Ok(())
}

/// `at_ms`: only the schedule for that time.
pub(super) fn cancel(state: &mut ClusterState, at_ms: Option<i64>) -> Result<(), Rejection> {
    let is_meant = |schedule: &mut ScheduledSwitchover| at_ms.is_none_or(|at| schedule.at_ms == at);
    state.scheduled_switchover.take_if(is_meant).map(|_| ()).ok_or(Rejection::Intent)
}

/// The schedule for that time becomes a pending request.
pub(super) fn begin(state: &mut ClusterState, index: u64, at_ms: i64) -> Result<(), Rejection> {
    let due = state.scheduled_switchover.filter(|schedule| schedule.at_ms == at_ms);
    let ScheduledSwitchover { from, to, .. } = due.ok_or(Rejection::Intent)?;
    let from = from.or(state.lease.holder()).ok_or(Rejection::Tenure)?;
    set_intent(state, index, &Intent::Switchover { from, to })?;
    state.scheduled_switchover = None;
    Ok(())
}

/// A member that is gone, or a change of the holder by other means, ends what was scheduled.
pub(super) fn forget(state: &mut ClusterState, gone: Option<MemberId>) {
    state
        .scheduled_switchover
        .take_if(|schedule| gone.is_none_or(|gone| schedule.from == Some(gone) || schedule.to == Some(gone)));
}

/// Milliseconds since 1970 as people and programs write them: `2026-01-31T10:00:00.250000+00:00`.
pub fn iso_time(ms: i64) -> String {
    const DAY: i64 = 86_400;
    let (seconds, millis) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date_of(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}000") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// The date of a day counted from 1970: years begin in March here, so that the leap day is the last one.
fn date_of(day: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let shifted = day + 719_468;
    let (era, in_era) = (shifted.div_euclid(ERA), shifted.rem_euclid(ERA));
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * in_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let january_or_february = i64::from(month <= 2);
    (year + era * 400 + january_or_february, month, in_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (-1, "1969-12-31T23:59:59.999000+00:00"),
            (951_782_400_000, "2000-02-29T00:00:00+00:00"),
            (1_767_261_600_123, "2026-01-01T10:00:00.123000+00:00"),
            (4_107_542_399_000, "2100-02-28T23:59:59+00:00"),
            (4_107_542_400_000, "2100-03-01T00:00:00+00:00"),
        ] {
            assert_eq!(iso_time(ms), text);
        }
    }
}
