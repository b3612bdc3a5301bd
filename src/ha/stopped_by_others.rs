//! A PostgreSQL that somebody else stopped in order, for example by `pg_ctl stop`, is started again a moment later.
//!
//! `pg_ctl stop` waits until `postmaster.pid` is gone, and looks ten times a second: where the next postmaster writes
//! that file at once, it waits for its whole time limit for a server that is not the one it stopped. What crashed is
//! started again at once, and nothing here delays the way of the lease to another member.

use std::time::Duration;

use super::decide::is_stopped;
use super::decision::Decision;
use super::facts::{ControlState, Observation};

/// Ten looks of `pg_ctl`, some of which may be late on a busy machine.
const TO_BE_SEEN: Duration = Duration::from_secs(1);

/// For how long PostgreSQL stays down for whoever stopped it to see. None: it is started now.
fn left(o: &Observation) -> Option<Duration> {
    let ended = o.guard.of_any_age()?.stopped_by_others.filter(|_| is_stopped(o))?;
    let state = o.postgres.control.of_any_age().map(|control| control.state);
    let in_order = matches!(state, Some(ControlState::ShutDown | ControlState::ShutDownInRecovery));
    if !ended.is_certain && !in_order {
        return None;
    }
    let left = TO_BE_SEEN.saturating_sub(o.now.since(ended.at));
    // An operator's wish for a restart is no surprise to whoever stopped it.
    (!left.is_zero() && o.operation.is_none()).then_some(left)
}

/// The decision to start it, put off until then.
pub(super) fn put_off(o: &Observation, decision: Decision) -> Decision {
    let Some(left) = left(o) else { return decision };
    let because = "PostgreSQL was stopped by somebody else, in order: it is started again in a moment";
    Decision::new(decision.state, decision.rule, because, left).wait("the one who stopped it to see that")
}
