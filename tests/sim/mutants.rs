//! Rules switched off one by one: each must be noticed.
//!
//! The product has no switches: what surrounds the real core here lies to it, or does not do what it says.

use std::collections::BTreeSet;

use pgherd::ha::{Action, Fact, Observation, PgAction, SyncInUse, SyncMode, SyncNames};
use pgherd_raft::model::{
    Basis, ClusterState, Command, Epoch, Outcome, Rejection, SyncSet, Synchrony, apply,
};

/// A rule of the protocol switched off, to see that the invariants notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The licence is counted from the answer instead of the sending of its round.
    CountFromAnswer,
    /// One voter's acknowledgement is a licence.
    NoMajority,
    /// The guard does nothing at the deadline.
    GuardIgnored,
    /// Voters close without having been quiet.
    CloseAtOnce,
    /// A restarted voter does not count its start as an acknowledgement.
    ForgetfulVoter,
    /// PostgreSQL takes the next number for a new timeline, whatever is reserved.
    NextTimeline,
    /// A standby that may lack acknowledged commits takes an expired lease.
    TakeClosedUnfenced,
    /// The same for a vacant lease.
    TakeVacantUnfenced,
    /// The lease is granted by one fence too few.
    OneFenceTooFew,
    /// PostgreSQL is told to use a set before the group has agreed on it.
    ConfigureFirst,
    /// The old set leaves although PostgreSQL may still use it.
    NarrowUnseen,
    /// The old set leaves although the new one has not caught up.
    NarrowBehind,
    /// A change of the sets that comes late is applied.
    NoRevision,
    /// The fence is forgotten once the group knows of it: the standby follows the old primary again.
    ForgottenFence,
    /// The position of a fence is read before the walreceiver has ended.
    FenceBeforeEnd,
    /// A standby is promoted with whatever `synchronous_standby_names` it has.
    PromoteUnconfigured,
}

/// What the daemon of a node believes although it is not so.
pub(crate) fn distort(mutant: Mutant, o: &mut Observation) {
    let standby = o.cluster.lease.last_holder != Some(o.me);
    match mutant {
        Mutant::TakeClosedUnfenced if standby && o.cluster.lease.tenure.is_some() => {
            o.cluster.synchrony = Synchrony::default();
        }
        Mutant::TakeVacantUnfenced if standby && o.cluster.lease.tenure.is_none() => {
            o.cluster.synchrony = Synchrony::default();
        }
        Mutant::OneFenceTooFew if standby => one_fence_less(&mut o.cluster),
        Mutant::ForgottenFence if o.cluster.synchrony.fences.contains_key(&o.me) => {
            o.postgres.fenced = Epoch(0);
        }
        Mutant::FenceBeforeEnd if o.postgres.fenced >= o.cluster.lease.epoch => {
            if let Fact::Known { value, .. } = &mut o.postgres.server {
                value.receiver = None;
            }
        }
        Mutant::PromoteUnconfigured => {
            let recovering = o.postgres.server.of_any_age().filter(|server| server.is_in_recovery);
            if let Some(server) = recovering {
                let set = SyncSet { names: BTreeSet::new(), needed: 1 };
                o.postgres.sync_in_use = Some(SyncInUse { set: set.clone(), since: server.position.lsn });
                o.postgres.sync_configured = SyncNames::Agreed { set, any: true };
            }
        }
        _ => {}
    }
}

/// Every set in force seems to need one fence less.
fn one_fence_less(state: &mut ClusterState) {
    for set in &mut state.synchrony.sets {
        if set.needed > 0 {
            set.needed += 1;
        }
    }
}

/// What the group agrees on although it must not.
pub(crate) fn accepts(
    mutant: Mutant,
    state: &mut ClusterState,
    index: u64,
    command: &Command,
    outcome: &Outcome,
) -> bool {
    let Outcome::Rejected(why) = outcome else { return false };
    let mut again = |change: &dyn Fn(&mut ClusterState)| {
        let mut other = state.clone();
        change(&mut other);
        let done = apply(&mut other, index, command) == Outcome::Applied;
        if done {
            let sets = std::mem::take(&mut state.synchrony.sets);
            *state = other;
            state.synchrony.sets = sets;
        }
        done
    };
    match (mutant, command, why) {
        (
            Mutant::TakeClosedUnfenced,
            Command::Grant { basis: Basis::Closed { .. }, .. },
            Rejection::TooFewFences | Rejection::BehindFence { .. },
        )
        | (
            Mutant::TakeVacantUnfenced,
            Command::Grant { basis: Basis::Vacant, .. },
            Rejection::TooFewFences | Rejection::BehindFence { .. },
        ) => again(&|state| state.synchrony = Synchrony::default()),
        (Mutant::OneFenceTooFew, Command::Grant { .. }, Rejection::TooFewFences) => again(&one_fence_less),
        (Mutant::NoRevision, Command::NarrowSync { epoch, to, .. }, Rejection::Synchrony { .. }) => {
            let lands = *epoch == state.lease.epoch && state.synchrony.sets.contains(to);
            if lands {
                state.synchrony.sets = vec![to.clone()];
                state.synchrony.revision += 1;
            }
            lands
        }
        _ => false,
    }
}

/// The set which PostgreSQL is told to use at once.
pub(crate) fn configured_first(mutant: Option<Mutant>, action: &Action, mode: SyncMode) -> Option<PgAction> {
    match (mutant, action) {
        (Some(Mutant::ConfigureFirst), Action::Propose(Command::WidenSync { to, .. })) => {
            Some(PgAction::SetSync {
                names: SyncNames::Agreed { set: to.clone(), any: mode == SyncMode::Quorum },
            })
        }
        _ => None,
    }
}
