//! Which replication slots a node keeps, and what is to be done about those which it has.
//!
//! Each node that may become the primary keeps a physical slot for every other member, and the permanent slots of the
//! settings, so that no WAL is missing for anybody after a failover. A standby lets go of WAL as far as the primary says
//! that the slot's consumer has come. A logical slot cannot be made in recovery: it is copied from the primary, for which
//! PostgreSQL is started again.
//!
//! A position that is too old does no harm: it keeps WAL. So positions are not agreed on, they come with the primary's
//! reports, and where only failsafe's questions get through, with these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_raft::model::{Lsn, Member, MemberId, MemberKind, Revision};

use super::action::{Action, JobKind, PgAction};
use super::candidate::REPORT_FRESH;
use super::decide::SOON;
use super::decision::{Decision, State};
use super::facts::{Observation, Server, Upstream};
use super::member_report::MemberReport;
use super::pause::{holds_pinned, is_paused};
use super::report::{SERVER_FRESH, streams};
use super::rule::Rule;
use super::slot::{DropReason, Slot, SlotKind, SlotPosition, SlotStep};
use super::standby;

/// So many steps are done at a time; what is left is decided anew.
const MOST_STEPS: usize = 64;
/// A position that came with failsafe's question counts for so long.
const TOLD_FRESH: Duration = Duration::from_secs(30);
/// A standby is not started again sooner for slots that were added since it copied some.
const COPY_REST: Duration = Duration::from_secs(10);

/// A slot that this node should have.
#[derive(Debug)]
struct Wanted {
    kind: SlotKind,
    /// The member whose slot it is.
    member: Option<MemberId>,
    /// That member streams from this node.
    streams_from_here: bool,
    is_permanent: bool,
}

/// Adds the steps to a decision which leaves PostgreSQL alone.
pub(super) fn beside(o: &Observation, decision: Decision) -> Decision {
    let is_busy = o.job.is_some() || o.shutting_down || decision.actions.iter().any(changes_postgres);
    let Some(server) =
        o.postgres.server.within(SERVER_FRESH).filter(|server| !is_busy && may_keep(o, server))
    else {
        return decision;
    };
    let steps = steps(o, server);
    if steps.is_empty() {
        return decision;
    }
    // Positions move all the time, which is no news.
    let is_news = steps.iter().any(|step| !step.is_advance());
    let is_idle = matches!(decision.rule, Rule::Lead | Rule::Standby) && decision.actions.is_empty();
    let mut decision = decision;
    if is_news && is_idle {
        decision.rule = Rule::KeepSlots;
        "replication slots are made or dropped".clone_into(&mut decision.because);
    }
    decision.act(Action::Postgres(PgAction::KeepSlots { steps }))
}

fn changes_postgres(action: &Action) -> bool {
    match action {
        Action::Postgres(_) | Action::Guard(_) | Action::Lease(_) => true,
        Action::Propose(_) | Action::AskPeers => false,
    }
}

/// What is wanted is known, and the server is what the lease says of it.
fn may_keep(o: &Observation, server: &Server) -> bool {
    let is_known = o.cluster.group.is_some()
        && o.cluster.settings.revision > Revision(0)
        && o.cluster.members.contains_key(&o.me);
    is_known
        && match o.cluster.lease.holder() {
            Some(holder) if holder == o.me => {
                !server.is_in_recovery && (o.licence().is_some() || holds_pinned(o))
            }
            Some(_) => server.is_in_recovery,
            None => false,
        }
}

/// While this node is promoted: slots of the members, without which a standby tries again only after a second.
pub(super) fn before_writing(o: &Observation, server: &Server) -> Option<Action> {
    let wanted = wanted(o, true).into_iter().filter(|(_, wanted)| wanted.kind == SlotKind::Physical);
    let missing = wanted.filter(|(name, _)| slot(server, name).is_none());
    let steps: Vec<SlotStep> = missing.map(|(name, _)| SlotStep::physical(name)).take(MOST_STEPS).collect();
    (!steps.is_empty()).then_some(Action::Postgres(PgAction::KeepSlots { steps }))
}

fn slot<'a>(server: &'a Server, name: &str) -> Option<&'a Slot> {
    server.slots.iter().find(|slot| slot.name == name)
}

/// What is to be done, in order.
fn steps(o: &Observation, server: &Server) -> Vec<SlotStep> {
    let is_primary = !server.is_in_recovery;
    let wanted = wanted(o, is_primary);
    let mut steps: Vec<SlotStep> = Vec::new();
    if !is_paused(o) {
        for slot in server.slots.iter().filter(|slot| !slot.is_active && !slot.is_failover) {
            let why = why_drop(o, slot, wanted.get(&slot.name), is_primary);
            steps.extend(why.map(|why| SlotStep::Drop { name: slot.name.clone(), why }));
        }
    }
    for (name, wanted) in &wanted {
        let can_be_made = match wanted.kind {
            SlotKind::Physical => true,
            SlotKind::Logical { .. } => is_primary && server.is_logical,
        };
        if can_be_made && slot(server, name).is_none() {
            steps.push(SlotStep::Create { name: name.clone(), kind: wanted.kind.clone() });
        }
    }
    let dropped: BTreeSet<String> = steps.iter().map(|step| step.name().to_owned()).collect();
    let positions = if is_primary { of_members(o, &wanted) } else { of_primary(o) };
    let reached = if is_primary { server.position.lsn } else { server.replayed.unwrap_or_default() };
    for slot in server.slots.iter().filter(|slot| !slot.is_active && !dropped.contains(&slot.name)) {
        let is_wanted = wanted.get(&slot.name).is_some_and(|wanted| wanted.kind == slot.kind);
        let to = positions.get(&slot.name).filter(|_| is_wanted).map(|to| (*to).min(reached));
        let Some(to) = to.filter(|to| slot.position().is_some_and(|at| at < *to)) else { continue };
        let database = match &slot.kind {
            SlotKind::Physical => None,
            SlotKind::Logical { database, .. } => Some(database.clone()),
        };
        steps.push(SlotStep::Advance { name: slot.name.clone(), database, to });
    }
    steps.truncate(MOST_STEPS);
    steps
}

/// Why a slot that nobody uses has to go; none: it stays.
fn why_drop(o: &Observation, slot: &Slot, wanted: Option<&Wanted>, is_primary: bool) -> Option<DropReason> {
    if o.policy.slots.ignored.iter().any(|matcher| matcher.matches(slot)) {
        return None;
    }
    let Some(wanted) = wanted else { return Some(DropReason::Unknown) };
    if wanted.kind != slot.kind {
        return Some(DropReason::Differs);
    }
    if slot.is_lost {
        return Some(DropReason::Lost);
    }
    // It was used while this node was the primary, and nobody who streams through it will move it on.
    let is_left = !is_primary && !wanted.streams_from_here && slot.kind == SlotKind::Physical;
    slot.xmin.filter(|_| is_left).map(DropReason::Xmin)
}

/// How far the primary's slots have come; empty: it is not known at the moment.
fn of_primary(o: &Observation) -> BTreeMap<String, Lsn> {
    let report = o.cluster.lease.holder().and_then(|holder| o.report(holder, REPORT_FRESH));
    if let Some(report) = report.filter(|report| report.is_in_recovery == Some(false)) {
        return report.slots.iter().map(|(name, slot)| (name.clone(), slot.lsn)).collect();
    }
    let told = o.slots.told.as_ref().filter(|told| told.age < TOLD_FRESH);
    told.map(|told| told.slots.clone()).unwrap_or_default()
}

/// How far members have come that stream from others than this primary: nobody else moves their slots here.
fn of_members(o: &Observation, wanted: &BTreeMap<String, Wanted>) -> BTreeMap<String, Lsn> {
    let elsewhere = wanted.iter().filter(|(_, wanted)| !wanted.streams_from_here);
    elsewhere
        .filter_map(|(name, wanted)| {
            let report =
                o.report(wanted.member?, REPORT_FRESH).filter(|report| report.is_in_recovery == Some(true));
            let reported = report.and_then(|report| Some(report.position?.lsn));
            Some((name.clone(), reported.or(o.slots.answered.get(name).copied())?))
        })
        .collect()
}

/// The slots that this node should have as the primary, or as a standby.
fn wanted(o: &Observation, as_primary: bool) -> BTreeMap<String, Wanted> {
    let Some(own) = o.cluster.members.get(&o.me) else { return BTreeMap::new() };
    let own_slot = own.name.slot_name();
    let mut wanted = if o.policy.use_slots { of_all_members(o, own, as_primary) } else { BTreeMap::new() };
    if !own.tags.may_be_promoted() && !as_primary {
        return wanted;
    }
    let may_decode = as_primary || gets_logical(o, own);
    for (name, kind) in &o.policy.slots.permanent {
        let is_physical = *kind == SlotKind::Physical;
        if *name == own_slot || !is_physical && !may_decode {
            continue;
        }
        match wanted.get_mut(name) {
            // A member needs its slot more than anybody else.
            Some(of_member) => of_member.is_permanent = is_physical,
            None => {
                let kind = kind.clone();
                let permanent = Wanted { kind, member: None, streams_from_here: false, is_permanent: true };
                wanted.insert(name.clone(), permanent);
            }
        }
    }
    wanted.remove(&own_slot);
    wanted
}

/// The slots of the members: of those that stream from here, and, in case this node is the primary one day, of all.
fn of_all_members(o: &Observation, own: &Member, as_primary: bool) -> BTreeMap<String, Wanted> {
    let ttl = o.policy.slots.member_ttl;
    let keeps_all = !ttl.is_zero() && (as_primary || own.tags.may_be_promoted());
    let mut wanted = BTreeMap::new();
    let others = o.cluster.members.iter().filter(|(id, member)| **id != o.me && may_stream(member));
    for (id, member) in others {
        let streams_from_here = match upstream_of(o, member) {
            Some(upstream) => upstream == own.name.as_str(),
            None => as_primary,
        };
        let name = member.name.slot_name();
        let is_gone = o.slots.absent.get(&name).is_some_and(|absent| *absent >= ttl);
        if (streams_from_here || keeps_all) && !is_gone {
            let kind = SlotKind::Physical;
            let slot = Wanted { kind, member: Some(*id), streams_from_here, is_permanent: false };
            wanted.insert(name, slot);
        }
    }
    // Of members that the cluster knows no more.
    let known: BTreeSet<String> = o.cluster.members.values().map(|member| member.name.slot_name()).collect();
    let retained = o.slots.absent.iter().filter(|(name, absent)| !known.contains(*name) && **absent < ttl);
    for (name, _) in retained.filter(|_| keeps_all) {
        let kind = SlotKind::Physical;
        let slot = Wanted { kind, member: None, streams_from_here: as_primary, is_permanent: false };
        wanted.entry(name.clone()).or_insert(slot);
    }
    wanted
}

fn may_stream(member: &Member) -> bool {
    member.kind == MemberKind::Data && !member.tags.flag("nostream")
}

/// The member that another one is to follow in the place of the primary, if it is there.
fn upstream_of<'a>(o: &Observation, member: &'a Member) -> Option<&'a str> {
    let name = member.tags.text("replicatefrom").filter(|name| *name != member.name.as_str())?;
    let is_there = |other: &Member| other.kind == MemberKind::Data && other.name.as_str() == name;
    o.cluster.members.values().any(is_there).then_some(name)
}

/// Does WAL come to this member by streaming all the way? Only then its feedback reaches the primary, which keeps for it
/// what decoding needs.
fn gets_logical(o: &Observation, own: &Member) -> bool {
    let mut member = own;
    // No chain is longer than there are members; one in a circle ends, too.
    for _ in 0..o.cluster.members.len() {
        if member.tags.flag("nostream") {
            return false;
        }
        let Some(upstream) = upstream_of(o, member) else { return true };
        let Some(next) = o.cluster.members.values().find(|next| next.name.as_str() == upstream) else {
            return true;
        };
        member = next;
    }
    true
}

/// How far the slots of this primary have come, its own place included; for its report.
pub(super) fn own_positions(o: &Observation, server: &Server) -> BTreeMap<String, SlotPosition> {
    if server.is_in_recovery {
        return BTreeMap::new();
    }
    let wanted = wanted(o, true);
    let known = server
        .slots
        .iter()
        .filter(|slot| wanted.get(&slot.name).is_some_and(|wanted| wanted.kind == slot.kind));
    let mut positions: BTreeMap<String, SlotPosition> = known
        .filter_map(|slot| {
            let position = SlotPosition { lsn: slot.position()?, catalog_xmin: slot.catalog_xmin };
            Some((slot.name.clone(), position))
        })
        .collect();
    if let Some(own) = o.cluster.members.get(&o.me).filter(|own| o.policy.use_slots && may_stream(own)) {
        let position = SlotPosition { lsn: server.position.lsn, catalog_xmin: None };
        positions.insert(own.name.slot_name(), position);
    }
    positions
}

/// The members' slots that are kept although their members may be away, those left out that are permanent.
pub(super) fn own_retained(o: &Observation, server: &Server) -> BTreeSet<String> {
    if server.is_in_recovery || !o.policy.use_slots {
        return BTreeSet::new();
    }
    let own = o.cluster.members.get(&o.me).filter(|own| may_stream(own)).map(|own| own.name.slot_name());
    let own = own.filter(|name| !o.policy.slots.permanent.contains_key(name));
    let wanted = wanted(o, true).into_iter().filter(|(_, wanted)| !wanted.is_permanent);
    wanted.map(|(name, _)| name).chain(own).collect()
}

/// The permanent logical slots that this standby lacks and the primary has.
pub(super) fn copy(
    o: &Observation,
    server: &Server,
    source: &Upstream,
    primary: &MemberReport,
) -> Option<Decision> {
    // While nobody but failsafe carries the primary, a standby must not go away.
    let may_restart = !is_paused(o) && o.lease.stands_back.is_none() && streams(server);
    if !may_restart || !server.is_logical || !may_keep(o, server) {
        return None;
    }
    let missing = wanted(o, false).into_iter().filter(|(name, wanted)| {
        wanted.kind != SlotKind::Physical && slot(server, name).is_none() && primary.slots.contains_key(name)
    });
    let slots: BTreeMap<String, SlotKind> = missing.map(|(name, wanted)| (name, wanted.kind)).collect();
    let before = o.finished.get(&JobKind::CopySlots);
    let rests = standby::pause_after(before).is_some() || before.is_some_and(|end| end.age < COPY_REST);
    if slots.is_empty() || rests {
        return None;
    }
    let names: Vec<&str> = slots.keys().map(String::as_str).collect();
    let because = format!(
        "Copying logical slots [{}] from the primary {}: PostgreSQL is started again for that",
        names.join(", "),
        source.name
    );
    Some(
        Decision::new(State::Starting, Rule::CopySlots, because, SOON)
            .act(Action::Postgres(PgAction::CopySlots { source: source.clone(), slots })),
    )
}

/// Unknown slots that stay because somebody uses them: for a warning.
pub fn unknown_in_use(o: &Observation) -> BTreeSet<String> {
    let server = o.postgres.server.within(SERVER_FRESH).filter(|server| may_keep(o, server) && !is_paused(o));
    let Some(server) = server else { return BTreeSet::new() };
    let is_primary = !server.is_in_recovery;
    let wanted = wanted(o, is_primary);
    let in_use = server.slots.iter().filter(|slot| slot.is_active && !slot.is_failover);
    in_use
        .filter(|slot| why_drop(o, slot, wanted.get(&slot.name), is_primary) == Some(DropReason::Unknown))
        .map(|slot| slot.name.clone())
        .collect()
}
