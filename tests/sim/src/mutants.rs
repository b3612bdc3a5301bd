//! Rules switched off one by one: each must be noticed.
//!
//! The product has no switches: what surrounds the real core here lies to it, or does not do what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::faults::Fault;
use crate::ha::{Action, Fact, Observation, PgAction, SyncInUse, SyncMode, SyncNames};
use crate::model::{Basis, ClusterState, Command, Epoch, Outcome, Rejection, SyncSet, Synchrony, apply};
use crate::worlds::{FAILSAFE, HARSH, PAUSE, SYNC, SYNC_FOUR, Setting, THREE};

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
    /// One promise is as good as all.
    MissingPromise,
    /// A pinned epoch is closed and taken like any other.
    ClosePinned,
    /// The guard is disarmed before the pinned epoch is agreed on.
    DisarmEarly,
    /// The pin ends although the guard is not armed.
    ResumeUnarmed,
    /// The daemon trusts a guard that shows no heartbeat.
    StoppedGuardTrusted,
    /// Answers leave before the floor is on disk.
    AnswerBeforeFloor,
    /// A standby is promoted with whatever `synchronous_standby_names` it has.
    PromoteUnconfigured,
}

/// A mutant, the world in which it shows, and the seed that is known to notice it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    mutant: Mutant,
    world: Setting,
    pub(crate) seed: u64,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        format!("{:?}", self.mutant)
    }

    pub(crate) fn setting(&self) -> Setting {
        Setting { mutant: Some(self.mutant), ..self.world }
    }
}

const fn case(mutant: Mutant, world: Setting, seed: u64) -> Case {
    Case { mutant, world, seed }
}

/// A world in which only these faults happen.
const fn only(faults: &'static [Fault], world: Setting) -> Setting {
    Setting { faults, ..world }
}

#[rustfmt::skip]
pub(crate) const CASES: [Case; 22] = [
    case(Mutant::CountFromAnswer, only(&[Fault::StopDaemon, Fault::OneWay, Fault::TwoWay], HARSH), 595),
    case(Mutant::NoMajority, THREE, 39),
    case(Mutant::GuardIgnored, THREE, 0),
    case(Mutant::CloseAtOnce, THREE, 15),
    case(Mutant::ForgetfulVoter, only(&[Fault::KillDaemon, Fault::TwoWay, Fault::OneWay], THREE), 43),
    case(Mutant::NextTimeline, THREE, 57),
    case(Mutant::TakeClosedUnfenced, SYNC, 17),
    case(Mutant::TakeVacantUnfenced, only(&[Fault::CleanStop, Fault::TwoWay, Fault::KillPostgres, Fault::Crash], SYNC), 6),
    case(Mutant::OneFenceTooFew, SYNC, 6),
    case(Mutant::ConfigureFirst, SYNC, 13),
    case(Mutant::NarrowUnseen, SYNC, 2),
    case(Mutant::NarrowBehind, SYNC_FOUR, 27),
    case(Mutant::NoRevision, only(&[Fault::ChangeSync, Fault::Storm, Fault::KillDaemon], Setting { harsh: true, ..SYNC }), 155),
    case(Mutant::ForgottenFence, only(&[Fault::StopDaemon, Fault::OneWay], SYNC), 231),
    case(Mutant::FenceBeforeEnd, SYNC, 6),
    case(Mutant::PromoteUnconfigured, SYNC, 7),
    case(Mutant::MissingPromise, only(&[Fault::LoseWitnesses, Fault::TwoWay, Fault::OneWay], FAILSAFE), 502),
    case(Mutant::ClosePinned, PAUSE, 28),
    case(Mutant::DisarmEarly, only(&[Fault::Pause, Fault::Resume, Fault::OneWay, Fault::TwoWay], PAUSE), 3),
    case(Mutant::ResumeUnarmed, PAUSE, 4),
    case(Mutant::StoppedGuardTrusted, THREE, 358),
    case(Mutant::AnswerBeforeFloor, only(&[Fault::StallLog, Fault::KillDaemon, Fault::TwoWay, Fault::OneWay], THREE), 865),
];

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
        Mutant::ClosePinned if standby => {
            o.policy.pause = false;
            if let Some(tenure) = &mut o.cluster.lease.tenure {
                tenure.pinned = false;
            }
        }
        Mutant::ResumeUnarmed if !standby && !o.policy.pause => {
            let is_pinned = o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned);
            if let Fact::Known { value, .. } = &mut o.guard
                && is_pinned
            {
                (value.deadline, value.epoch) =
                    (Some(o.now.after(Duration::from_secs(3))), o.cluster.lease.epoch);
            }
        }
        Mutant::StoppedGuardTrusted => {
            if let Fact::Known { value, .. } = &mut o.guard {
                value.heartbeat_age = Duration::ZERO;
                value.deadline = value.deadline.map(|deadline| deadline.max(o.now));
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
        (Mutant::ClosePinned, Command::Grant { .. }, Rejection::Pinned) => again(&|state| {
            if let Some(tenure) = &mut state.lease.tenure {
                tenure.pinned = false;
            }
        }),
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

/// Does it ask for a pinned epoch?
pub(crate) fn pins(action: &Action) -> bool {
    matches!(action, Action::Propose(Command::Grant { basis: Basis::Renewed { pinned: true, .. }, .. }))
}
