//! Sick, not dead: a primary that runs and is of no use gives its place to a member that can take it.
//!
//! The probes run in threads of their own and are asked for nothing but what a primary must be able to do: accept a
//! connection, write and flush WAL, write to the data directory. Each of them fails for a reason that another machine
//! does not share. A lock, a full connection table, a standby that does not answer are none of their business.
//!
//! PostgreSQL is killed by the guard, because what is sick may not obey a signal. A process that sleeps in the kernel
//! until its disk answers counts as gone once SIGKILL was sent: it runs no instruction any more.

use std::time::Duration;

use pgherd_raft::model::{Command, WalPosition};
use serde::{Deserialize, Serialize};

use super::action::{Action, GuardAction, JobKind, LeaseAction};
use super::candidate::rank;
use super::decide::{SOON, is_stopped};
use super::decision::{Decision, State};
use super::facts::Observation;
use super::holder::{is_near_enough, others_can_fence, release_from};
use super::report::{own_report, watchdog_trouble};
use super::rule::Rule;

/// So many unexpected ends of the postmaster within [`CRASH_WINDOW`] are a crash loop.
pub const CRASH_LOOP: usize = 5;
/// Ends of the postmaster further back than this are forgotten.
pub const CRASH_WINDOW: Duration = Duration::from_secs(300);
/// The guard sends SIGKILL to everything in its first rounds, of 2 ms each; what is left after this time sleeps in the
/// kernel.
const KILL_SENT: Duration = Duration::from_secs(1);
/// A standby whose disk has failed for so long stands behind the others.
const DISK_DOUBT: Duration = Duration::from_secs(3);

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Probe {
    /// It was not asked, or could not be asked for a reason that says nothing about the server.
    #[default]
    NotAsked,
    /// It succeeded the last time.
    Succeeds {
        /// How long ago.
        age: Duration,
    },
    /// It fails, or has not come back.
    Fails {
        /// Since the beginning of the first attempt which failed.
        since: Duration,
        /// Why.
        why: String,
    },
}

/// How the local PostgreSQL is. Only a primary is asked for more than its disk.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// A fresh connection is answered by whatever answer.
    pub accepts: Probe,
    /// WAL is written and flushed.
    pub writes: Probe,
    /// A file in the data directory is written and flushed.
    pub disk: Probe,
    /// How long ago each of the last postmasters that ran writable ended unexpectedly.
    pub crashes: Vec<Duration>,
    /// The last position at which this node was seen to write: a sick server does not tell it any more.
    pub last_position: Option<WalPosition>,
    /// PostgreSQL was killed because it was sick, and not started since.
    pub condemned: Option<Condemned>,
    /// How long ago that was decided the last time.
    pub stood_down: Option<Duration>,
}

/// Why and under which epoch PostgreSQL was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
    /// The epoch.
    pub epoch: pgherd_raft::model::Epoch,
    /// The sentence.
    pub why: String,
}

/// Is the data disk of this node in doubt, so that others are the better choice?
pub(super) fn is_disk_in_doubt(o: &Observation) -> bool {
    matches!(&o.postgres.health.disk, Probe::Fails { since, .. } if *since >= DISK_DOUBT)
}

/// No process of the data directory runs, or can run, any instruction: it is gone, or was sent SIGKILL.
pub(super) fn is_silenced(o: &Observation) -> bool {
    is_stopped(o) || is_killed(o)
}

/// Everything was sent SIGKILL, and something waits for its disk to die.
pub(super) fn is_killed(o: &Observation) -> bool {
    let killing = o.guard.of_any_age().and_then(|guard| guard.killing_for);
    killing.is_some_and(|killing| killing >= KILL_SENT)
}

/// What is wrong for so long that somebody else should be the primary; a sentence.
fn illness(o: &Observation) -> Option<String> {
    if let Some(why) = watchdog_trouble(o) {
        return Some(format!("Demoting self because watchdog could not be activated: {why}"));
    }
    let limit = o.policy.primary_health_timeout;
    if limit.is_zero() {
        return None;
    }
    let health = &o.postgres.health;
    let failing = |probe: &Probe| match probe {
        Probe::Fails { since, why } if *since >= limit => Some((since.as_secs(), why.clone())),
        Probe::Fails { .. } | Probe::Succeeds { .. } | Probe::NotAsked => None,
    };
    if let Some((seconds, why)) = failing(&health.disk) {
        return Some(format!("the data directory could not be written to for {seconds} s: {why}"));
    }
    // A start, a promotion and a stop have limits of their own.
    if o.job.is_none() {
        if let Some((seconds, why)) = failing(&health.accepts) {
            return Some(format!("PostgreSQL has accepted no new connection for {seconds} s: {why}"));
        }
        if let Some((seconds, why)) = failing(&health.writes) {
            return Some(format!("PostgreSQL could not write WAL for {seconds} s: {why}"));
        }
    }
    let crashes = health.crashes.iter().filter(|age| **age <= CRASH_WINDOW).count();
    (crashes >= CRASH_LOOP).then(|| {
        format!("PostgreSQL has ended unexpectedly {crashes} times within {} s", CRASH_WINDOW.as_secs())
    })
}

/// The holder's way out, when there is somebody to take over. None: it is well, or there is nobody.
pub(super) fn decide(o: &Observation) -> Option<Decision> {
    if is_handing_over(o) {
        return None;
    }
    let condemned = o.postgres.health.condemned.as_ref();
    let condemned = condemned.filter(|condemned| condemned.epoch == o.cluster.lease.epoch);
    let why = condemned.map(|condemned| condemned.why.clone()).or_else(|| illness(o))?;
    // Once killed it is given back, unless the successor is lost: then it is better started again.
    let is_under_way = condemned.is_some() && !is_stopped(o);
    if !is_under_way && !has_well_successor(o) {
        return None;
    }
    let decision = Decision::new(State::Demoting, Rule::Sick, why, SOON);
    let position = own_report(o).position.max(o.postgres.health.last_position);
    if is_stopped(o) {
        return Some(release_from(o, decision, position));
    }
    if is_killed(o) {
        // The guard's deadline is as good as void: it kills until nothing is left, and starts nothing meanwhile.
        let epoch = o.cluster.lease.epoch;
        return Some(
            decision
                .act(Action::Lease(LeaseAction::GiveUp { epoch }))
                .act(Action::Propose(Command::Release { epoch, position }))
                .wait("the lease to be vacant"),
        );
    }
    Some(decision.act(Action::Guard(GuardAction::Kill)).wait("PostgreSQL to end"))
}

/// How long this node may keep the lease without deciding anything, as if its PostgreSQL were of no use for as long.
/// None: for ever, since health does not count, nobody could take over, or the lease has no end.
pub fn patience_with_holder(o: &Observation) -> Option<Duration> {
    let limit = o.policy.primary_health_timeout;
    let is_mine = o.cluster.lease.tenure.as_ref().is_some_and(|held| held.holder == o.me && !held.pinned);
    (is_mine && !limit.is_zero() && has_well_successor(o)).then_some(limit)
}

/// The sick holder has nobody to give the lease to: that is said, and it goes on.
pub(super) fn told(o: &Observation, next: Decision) -> Decision {
    let is_leading = matches!(next.rule, Rule::Lead | Rule::KeepSlots);
    match illness(o) {
        Some(why) if is_leading && !is_handing_over(o) => Decision {
            rule: Rule::Sick,
            because: format!("{why}, but no member could take over: PostgreSQL is left running"),
            ..next.again_in(SOON)
        },
        Some(_) | None => next,
    }
}

/// A planned change of the primary is on its way: it has a limit of its own.
fn is_handing_over(o: &Observation) -> bool {
    o.cluster.intent.is_some() && o.job.as_ref().is_some_and(|job| job.kind == JobKind::Stop)
}

/// A member that may take over, and has no doubt about itself.
fn has_well_successor(o: &Observation) -> bool {
    let mine = own_report(o).position.max(o.postgres.health.last_position);
    let synchrony = &o.cluster.synchrony;
    let counts = |id| {
        let name = o.cluster.members.get(&id).map(|member| &member.name);
        !synchrony.needs_standbys() || name.is_some_and(|name| synchrony.includes(name))
    };
    others_can_fence(o)
        && rank(o, None).candidates.iter().any(|candidate| {
            candidate.id != o.me
                && counts(candidate.id)
                && !candidate.report.stands_back
                && is_near_enough(o, mine, candidate.position)
        })
}
