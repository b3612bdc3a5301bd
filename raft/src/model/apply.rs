//! The one place where the replicated state changes. Total, deterministic, clockless.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Basis, Command, Outcome, Rejection};
use super::event::{MAX_EVENT_BYTES, record};
use super::history;
use super::ids::{Epoch, GroupId, MemberId, Session};
use super::intent::{EndedIntent, Intent, IntentEnd, PendingIntent};
use super::lease::{Lease, Tenure};
use super::lsn::WalPosition;
use super::member::Member;
use super::schedule;
use super::settings;
use super::state::ClusterState;
use super::takeover::{self, expect_epoch};

/// The most members a cluster may have: keeps a broken or hostile joiner from growing the state without limit.
pub const MAX_MEMBERS: usize = 64;
/// The shortest and the longest time one renewal may be good, in milliseconds.
pub const TTL_LIMITS_MS: (u64, u64) = (2_000, 3_600_000);

/// Applies one committed command. `index` is its place in the log.
///
/// A failed expectation changes nothing and is the ordinary outcome [`Outcome::Rejected`].
pub fn apply(state: &mut ClusterState, index: u64, command: &Command) -> Outcome {
    match decide(state, index, command) {
        Ok(()) => Outcome::Applied,
        Err(rejection) => Outcome::Rejected(rejection),
    }
}

/// Every arm checks all its expectations before it changes anything.
fn decide(state: &mut ClusterState, index: u64, command: &Command) -> Result<(), Rejection> {
    if state.group.is_some() == matches!(command, Command::Found { .. }) {
        return Err(Rejection::Founding);
    }
    match command {
        Command::Found { group, scope, members } => found(state, *group, scope, members),
        Command::PutMember { id, member, replaces } => put_member(state, *id, member, *replaces),
        Command::RemoveMember { id } => {
            refuse_voter(state, *id)?;
            remove_member(state, *id).ok_or(Rejection::Member { id: *id })
        }
        Command::SetLeaving { id, leaving } => set_leaving(state, *id, *leaving),
        Command::Grant { expected_epoch, to, session, ttl_ms, basis } => {
            expect_epoch(state, *expected_epoch)?;
            grant(state, *to, *session, *ttl_ms, basis)
        }
        Command::Release { epoch, position } => release(state, *epoch, *position),
        Command::Transfer { epoch, to, session, voters } => {
            transfer(state, *epoch, *to, *session, voters.as_ref())
        }
        Command::SetVoters { epoch, voters } => {
            expect_epoch(state, *epoch)?;
            if state.lease.tenure.is_some() {
                return Err(Rejection::Tenure);
            }
            check_voters(state, voters)?;
            state.lease.voters.clone_from(voters);
            Ok(())
        }
        Command::SetSystemIdentifier { epoch, identifier } => {
            expect_epoch(state, *epoch)?;
            match state.system_identifier {
                Some(current) if current != *identifier => Err(Rejection::SystemIdentifier { current }),
                _ => {
                    state.system_identifier = Some(*identifier);
                    Ok(())
                }
            }
        }
        Command::ReserveTimeline { epoch, above } => {
            expect_epoch(state, *epoch)?;
            if state.lease.tenure.is_none() {
                return Err(Rejection::Tenure);
            }
            state.timelines.reserve(*epoch, *above)
        }
        Command::Fence { epoch, member, position } => takeover::fence(state, *epoch, *member, *position),
        Command::WidenSync { epoch, revision, to } => takeover::widen(state, *epoch, *revision, to),
        Command::NarrowSync { epoch, revision, to } => takeover::narrow(state, *epoch, *revision, to),
        Command::SetFailsafe { epoch, members } => takeover::set_failsafe(state, *epoch, members.as_ref()),
        Command::Record { event } => {
            if event.text_bytes() > MAX_EVENT_BYTES {
                return Err(Rejection::Limit {
                    what: format!("an event has at most {MAX_EVENT_BYTES} bytes"),
                });
            }
            record(&mut state.events, index, event);
            Ok(())
        }
        Command::SetHistory { epoch, history } => history::set(state, *epoch, history),
        Command::SetSettings { expected, document, by, at_ms } => {
            settings::set(state, *expected, document, by, *at_ms)
        }
        Command::SetIntent { intent } => set_intent(state, index, intent),
        Command::ScheduleSwitchover { schedule } => schedule::schedule(state, *schedule),
        Command::CancelSchedule { at_ms } => schedule::cancel(state, *at_ms),
        Command::BeginScheduled { at_ms } => schedule::begin(state, index, *at_ms),
        Command::EndIntent { id, end } => match state.intent.take_if(|pending| pending.id == *id) {
            Some(pending) => {
                state.last_intent = Some(EndedIntent { id: pending.id, end: end.clone() });
                Ok(())
            }
            None => Err(Rejection::Intent),
        },
    }
}

/// What the last holder had stays known.
fn release(state: &mut ClusterState, epoch: Epoch, position: Option<WalPosition>) -> Result<(), Rejection> {
    expect_epoch(state, epoch)?;
    state.lease.tenure.take().ok_or(Rejection::Tenure)?;
    state.lease.left_at = position;
    Ok(())
}

/// The founders become the members and the voters of a vacant lease.
fn found(
    state: &mut ClusterState,
    group: GroupId,
    scope: &str,
    founders: &[(MemberId, Member)],
) -> Result<(), Rejection> {
    let mut members = BTreeMap::new();
    for (id, founder) in founders {
        check_unique(&members, *id, founder, None)?;
        if members.insert(*id, founder.clone()).is_some() {
            return Err(Rejection::Member { id: *id });
        }
    }
    if members.len() > MAX_MEMBERS {
        return Err(Rejection::Limit { what: format!("a cluster has at most {MAX_MEMBERS} members") });
    }
    let voters: BTreeSet<MemberId> =
        members.iter().filter(|(_, member)| member.votes).map(|(id, _)| *id).collect();
    if voters.is_empty() {
        return Err(Rejection::Voters);
    }
    *state = ClusterState {
        group: Some(group),
        scope: scope.to_owned(),
        members,
        lease: Lease { voters, ..Lease::default() },
        ..ClusterState::default()
    };
    Ok(())
}

/// A name and an address belong to one member; `replaces` is about to go.
fn check_unique(
    members: &BTreeMap<MemberId, Member>,
    id: MemberId,
    member: &Member,
    replaces: Option<MemberId>,
) -> Result<(), Rejection> {
    let others = || members.iter().filter(|(other, _)| **other != id && Some(**other) != replaces);
    if let Some((by, _)) = others().find(|(_, other)| other.name == member.name) {
        return Err(Rejection::NameTaken { name: member.name.clone(), by: *by });
    }
    if let Some((by, other)) = others().find(|(_, other)| other.raft_addr == member.raft_addr) {
        return Err(Rejection::AddressTaken { address: other.raft_addr.clone(), by: *by });
    }
    Ok(())
}

fn set_leaving(state: &mut ClusterState, id: MemberId, leaving: bool) -> Result<(), Rejection> {
    if !state.members.contains_key(&id) {
        return Err(Rejection::Member { id });
    }
    if leaving {
        state.leaving.insert(id);
    } else {
        state.leaving.remove(&id);
    }
    Ok(())
}

/// A member joins, changes, or takes the place of its own former store: same name, other id. What a member is for
/// cannot change under one id: a holder which became a witness would be a holder without PostgreSQL.
fn put_member(
    state: &mut ClusterState,
    id: MemberId,
    member: &Member,
    replaces: Option<MemberId>,
) -> Result<(), Rejection> {
    check_unique(&state.members, id, member, replaces)?;
    if state.members.get(&id).is_some_and(|known| known.kind != member.kind) {
        return Err(Rejection::Member { id });
    }
    let former = replaces.filter(|old| *old != id).and_then(|old| state.members.get(&old).map(|m| (old, m)));
    if let Some((old, known)) = former
        && known.name != member.name
    {
        return Err(Rejection::Member { id: old });
    }
    if former.is_none() && state.members.len() >= MAX_MEMBERS && !state.members.contains_key(&id) {
        return Err(Rejection::Limit { what: format!("a cluster has at most {MAX_MEMBERS} members") });
    }
    if let Some((old, _)) = former {
        refuse_voter(state, old)?;
        remove_member(state, old);
    }
    state.members.insert(id, member.clone());
    Ok(())
}

/// The failsafe list keeps its other members; an empty one would let nobody hold the lease.
fn remove_member(state: &mut ClusterState, id: MemberId) -> Option<()> {
    state.members.remove(&id)?;
    state.leaving.remove(&id);
    schedule::forget(state, Some(id));
    state.synchrony.fences.remove(&id);
    if let Some(list) = &mut state.failsafe {
        list.remove(&id);
    }
    state.failsafe.take_if(|list| list.is_empty());
    Some(())
}

/// A lease voter, or the holder, cannot be removed from the members: first it must cease to count.
fn refuse_voter(state: &ClusterState, id: MemberId) -> Result<(), Rejection> {
    if state.lease.voters.contains(&id) || state.lease.holder() == Some(id) {
        return Err(Rejection::StillVoter { id });
    }
    Ok(())
}

fn grant(
    state: &mut ClusterState,
    to: MemberId,
    session: Session,
    ttl_ms: u64,
    basis: &Basis,
) -> Result<(), Rejection> {
    let voters = grant_voters(state, to, basis)?;
    if !(TTL_LIMITS_MS.0..=TTL_LIMITS_MS.1).contains(&ttl_ms) {
        return Err(Rejection::Limit { what: format!("ttl must be 2 s to 1 h, not {ttl_ms} ms") });
    }
    let before = state.lease.tenure.as_ref().map_or(0, |tenure| tenure.ttl_ms);
    let pinned = matches!(basis, Basis::Renewed { pinned: true, .. });
    let tenure = Tenure { holder: to, session, ttl_ms, wait_ms: before.max(ttl_ms), pinned };
    begin_epoch(state, tenure, voters);
    Ok(())
}

/// The voters of the new epoch, if the basis carries the grant.
fn grant_voters(state: &ClusterState, to: MemberId, basis: &Basis) -> Result<BTreeSet<MemberId>, Rejection> {
    may_hold(state, to)?;
    match (basis, &state.lease.tenure) {
        (Basis::Renewed { voters, .. }, Some(tenure)) if tenure.holder == to => {
            check_voters(state, voters)?;
            Ok(voters.clone())
        }
        _ => {
            takeover::check(state, to, basis)?;
            Ok(state.lease.voters.clone())
        }
    }
}

/// Only data members hold the lease, and in failsafe only those which the holder asks for their promises.
fn may_hold(state: &ClusterState, to: MemberId) -> Result<(), Rejection> {
    if !state.is_data_member(to) {
        return Err(Rejection::Member { id: to });
    }
    match &state.failsafe {
        Some(list) if !list.contains(&to) => Err(Rejection::Failsafe),
        Some(_) | None => Ok(()),
    }
}

/// Old and new majorities must share a member, which one change at a time guarantees.
fn check_voters(state: &ClusterState, voters: &BTreeSet<MemberId>) -> Result<(), Rejection> {
    let changed = state.lease.voters.symmetric_difference(voters).count();
    let known = voters.iter().all(|id| state.members.contains_key(id));
    if voters.is_empty() || changed > 1 || !known { Err(Rejection::Voters) } else { Ok(()) }
}

fn begin_epoch(state: &mut ClusterState, tenure: Tenure, voters: BTreeSet<MemberId>) {
    let holder = tenure.holder;
    let changes_holder = state.lease.holder() != Some(holder);
    let epoch = state.lease.epoch.next();
    state.lease = Lease { epoch, voters, tenure: Some(tenure), left_at: None, last_holder: Some(holder) };
    state.synchrony.fences.clear();
    if !changes_holder {
        return;
    }
    schedule::forget(state, None);
    if let Some(pending) = state.intent.take() {
        state.last_intent = Some(EndedIntent { id: pending.id, end: IntentEnd::Done { holder } });
    }
}

fn transfer(
    state: &mut ClusterState,
    epoch: Epoch,
    to: MemberId,
    session: Session,
    voters: Option<&BTreeSet<MemberId>>,
) -> Result<(), Rejection> {
    expect_epoch(state, epoch)?;
    let Some(tenure) = &state.lease.tenure else { return Err(Rejection::Tenure) };
    if tenure.holder == to {
        return Err(Rejection::Member { id: to });
    }
    may_hold(state, to)?;
    let voters = voters.unwrap_or(&state.lease.voters).clone();
    check_voters(state, &voters)?;
    let next = Tenure { holder: to, session, pinned: false, wait_ms: tenure.ttl_ms, ..tenure.clone() };
    begin_epoch(state, next, voters);
    Ok(())
}

pub(super) fn set_intent(state: &mut ClusterState, index: u64, intent: &Intent) -> Result<(), Rejection> {
    if state.intent.is_some() {
        return Err(Rejection::Intent);
    }
    if let Intent::Switchover { from, .. } = intent
        && state.lease.holder() != Some(*from)
    {
        return Err(Rejection::Tenure);
    }
    if let Some(to) = intent.target()
        && (!state.is_data_member(to) || state.lease.holder() == Some(to))
    {
        return Err(Rejection::Member { id: to });
    }
    state.intent = Some(PendingIntent { id: index, intent: intent.clone() });
    Ok(())
}
