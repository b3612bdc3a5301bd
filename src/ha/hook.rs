//! `pre_promote`: the operator's command which may forbid a promotion.
//!
//! Its refusal costs the lease, as a promotion that failed: this node gives it back and keeps out of the succession for a
//! whole ttl, so that another member takes over.

use super::action::{Action, JobKind, PgAction};
use super::decide::SOON;
use super::decision::{Decision, State};
use super::facts::Observation;
use super::holder::release;
use super::rule::Rule;

/// `pre_promote` is asked once in an epoch. None: there is none, or it agreed.
pub(super) fn pre_promote(o: &Observation) -> Option<Decision> {
    let epoch = o.cluster.lease.epoch;
    if !o.policy.has_pre_promote {
        return None;
    }
    match o.finished.get(&JobKind::PrePromote).filter(|ended| ended.epoch == epoch) {
        None => Some(
            Decision::new(State::Promoting, Rule::PrePromote, "the pre_promote script is run", SOON)
                .act(Action::Postgres(PgAction::PrePromote))
                .wait("the script to end"),
        ),
        Some(ended) => ended.error.as_ref().map(|error| {
            let because = format!("Promotion cancelled because the pre-promote script failed: {error}");
            let decision = Decision::new(State::Demoting, Rule::PromotionCancelled, because, SOON);
            // A standby cannot write: it goes on as one, and needs no guard.
            release(o, decision)
        }),
    }
}

/// After a failed `pre_promote` this node keeps out of the succession for a whole ttl.
pub(super) fn back_off(o: &Observation) -> Option<Decision> {
    let ended = o.finished.get(&JobKind::PrePromote).filter(|ended| ended.error.is_some())?;
    let rest = o.policy.ttl.checked_sub(ended.age).filter(|rest| !rest.is_zero())?;
    let because =
        "backoff: skip leader race after pre_promote script failure and releasing the lock voluntarily";
    Some(
        Decision::new(State::CatchingUp, Rule::BackOff, because, rest.min(SOON))
            .wait("another member to take over"),
    )
}
