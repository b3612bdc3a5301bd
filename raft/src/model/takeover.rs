//! What a grant to another member needs: the present holder is silent, and nothing acknowledged is missing.

use std::collections::BTreeSet;

use super::command::{Basis, Rejection};
use super::ids::{Epoch, MemberId, MemberName};
use super::intent::Intent;
use super::lsn::WalPosition;
use super::state::ClusterState;
use super::synchrony::{MAX_SETS, SyncSet, Synchrony};

/// Checks a grant to a member other than the holder.
pub(super) fn check(state: &ClusterState, to: MemberId, basis: &Basis) -> Result<(), Rejection> {
    let word = operators_word(state, to);
    check_silence(state, basis, word)?;
    if word.accepts_loss || state.lease.last_holder == Some(to) {
        return Ok(());
    }
    check_durability(state, to)
}

/// What an operator said about a failover to this member.
#[derive(Clone, Copy, Default)]
struct Word {
    accepts_loss: bool,
    holder_is_dead: bool,
}

fn operators_word(state: &ClusterState, to: MemberId) -> Word {
    match state.intent.as_ref().map(|pending| &pending.intent) {
        Some(Intent::Failover { to: named, accepts_loss, holder_is_dead }) if *named == to => {
            Word { accepts_loss: *accepts_loss || *holder_is_dead, holder_is_dead: *holder_is_dead }
        }
        _ => Word::default(),
    }
}

/// Can the last holder acknowledge nothing more?
fn check_silence(state: &ClusterState, basis: &Basis, word: Word) -> Result<(), Rejection> {
    let lease = &state.lease;
    let Some(tenure) = &lease.tenure else {
        return if *basis == Basis::Vacant { Ok(()) } else { Err(Rejection::Tenure) };
    };
    if *basis == Basis::OperatorsWord {
        return if word.holder_is_dead { Ok(()) } else { Err(Rejection::Tenure) };
    }
    let is_fenced = *basis == Basis::Fenced && state.may_fence_pinned();
    if tenure.pinned && *basis != Basis::Vacant && !is_fenced {
        return Err(Rejection::Pinned);
    }
    match basis {
        Basis::Closed { by } if lease.is_majority(by) => Ok(()),
        Basis::Closed { .. } => Err(Rejection::TooFewCloses),
        Basis::Fenced if !is_silenced(state) => Err(Rejection::TooFewFences),
        Basis::Fenced | Basis::CutOff => Ok(()),
        Basis::Vacant | Basis::Renewed { .. } | Basis::OperatorsWord => Err(Rejection::Tenure),
    }
}

/// Are so many standbys of each set in force fenced that the rest cannot acknowledge anything?
fn is_silenced(state: &ClusterState) -> bool {
    let name_of = |id: MemberId| state.members.get(&id).map(|member| member.name.clone());
    state.synchrony.can_silence() && state.synchrony.unfenced(name_of).is_none()
}

/// Does this member have everything that may have been acknowledged?
fn check_durability(state: &ClusterState, to: MemberId) -> Result<(), Rejection> {
    let synchrony = &state.synchrony;
    let name_of = |id: MemberId| state.members.get(&id).map(|member| member.name.clone());
    if synchrony.unfenced(name_of).is_some() {
        return Err(Rejection::TooFewFences);
    }
    match synchrony.highest_fence() {
        Some(highest) if synchrony.needs_standbys() && synchrony.fences.get(&to) < Some(&highest) => {
            Err(Rejection::BehindFence { highest })
        }
        _ => Ok(()),
    }
}

/// A standby of a set in force says that it follows nobody.
pub(super) fn fence(
    state: &mut ClusterState,
    epoch: Epoch,
    member: MemberId,
    position: WalPosition,
) -> Result<(), Rejection> {
    expect_epoch(state, epoch)?;
    if state.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned) && !state.may_fence_pinned() {
        return Err(Rejection::Pinned);
    }
    let name = state.members.get(&member).map(|known| &known.name).ok_or(Rejection::Member { id: member })?;
    if state.lease.holder() == Some(member) || !state.synchrony.includes(name) {
        return Err(Rejection::Member { id: member });
    }
    let fence = state.synchrony.fences.entry(member).or_insert(position);
    *fence = (*fence).max(position);
    Ok(())
}

/// Another set comes into force, or one in force becomes the last: that which PostgreSQL may use next.
pub(super) fn widen(
    state: &mut ClusterState,
    epoch: Epoch,
    revision: u64,
    to: &SyncSet,
) -> Result<(), Rejection> {
    check_change(state, epoch, revision)?;
    let known = |name: &MemberName| state.members.values().any(|member| member.name == *name);
    let synchrony = &state.synchrony;
    if synchrony.is_target(to) {
        return Ok(());
    }
    let is_full = synchrony.sets.len() >= MAX_SETS && !synchrony.is_in_force(to);
    if is_full || !to.names.iter().all(known) {
        return Err(Rejection::Synchrony { revision: synchrony.revision });
    }
    let synchrony = &mut state.synchrony;
    if synchrony.sets.is_empty() {
        synchrony.sets.push(SyncSet::default());
    }
    synchrony.sets.retain(|set| set != to);
    synchrony.sets.push(to.clone());
    synchrony.revision = revision.saturating_add(1);
    Ok(())
}

/// One set remains in force.
pub(super) fn narrow(
    state: &mut ClusterState,
    epoch: Epoch,
    revision: u64,
    to: &SyncSet,
) -> Result<(), Rejection> {
    check_change(state, epoch, revision)?;
    let synchrony = &mut state.synchrony;
    if !synchrony.is_target(to) {
        return Err(Rejection::Synchrony { revision: synchrony.revision });
    }
    synchrony.sets = vec![to.clone()];
    synchrony.revision = revision.saturating_add(1);
    Ok(())
}

fn check_change(state: &ClusterState, epoch: Epoch, revision: u64) -> Result<(), Rejection> {
    expect_epoch(state, epoch)?;
    let Synchrony { revision: current, .. } = state.synchrony;
    if state.lease.tenure.is_none() {
        return Err(Rejection::Tenure);
    }
    if current == revision { Ok(()) } else { Err(Rejection::Synchrony { revision: current }) }
}

/// While the lease is vacant nobody renews by promises, so anybody may change the list.
pub(super) fn set_failsafe(
    state: &mut ClusterState,
    epoch: Epoch,
    members: Option<&BTreeSet<MemberId>>,
) -> Result<(), Rejection> {
    expect_epoch(state, epoch)?;
    if let Some(stranger) = members.and_then(|list| list.iter().find(|id| !state.is_data_member(**id))) {
        return Err(Rejection::Member { id: *stranger });
    }
    let holder = state.lease.holder();
    let lacks = |list: &&BTreeSet<MemberId>| list.is_empty() || holder.is_some_and(|id| !list.contains(&id));
    if members.filter(lacks).is_some() {
        return Err(Rejection::Failsafe);
    }
    state.failsafe = members.cloned();
    Ok(())
}

pub(super) fn expect_epoch(state: &ClusterState, expected: Epoch) -> Result<(), Rejection> {
    let current = state.lease.epoch;
    if current == expected { Ok(()) } else { Err(Rejection::Epoch { current }) }
}
