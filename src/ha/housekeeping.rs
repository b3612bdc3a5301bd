//! What a writable primary records in the group and keeps up in its PostgreSQL, beside its work.

use std::collections::BTreeSet;

use pgherd_raft::model::{Command, MemberKind, Revision, TimelineId};

use super::action::{Action, PgAction};
use super::decide::SOON;
use super::decision::{Decision, State};
use super::facts::{Observation, Server};
use super::rule::Rule;
use super::{failsafe, sync};

/// A primary that was adopted, or that PostgreSQL gave another number than the reserved one: its own is not made again.
fn records_timeline(o: &Observation, server: &Server) -> Option<Action> {
    let above = server.position.timeline;
    let is_known = above <= TimelineId(1) || above <= o.cluster.timelines.highest;
    let epoch = o.cluster.lease.epoch;
    (!is_known).then_some(Action::Propose(Command::ReserveTimeline { epoch, above }))
}

/// What a writable primary does beside its work.
pub(super) fn keep(o: &Observation, server: &Server) -> Option<Decision> {
    housekeeping(o, server).or_else(|| sync::of_primary(o, server))
}

/// What a running primary records and keeps.
fn housekeeping(o: &Observation, server: &Server) -> Option<Decision> {
    let decision = |rule, because: &str| Decision::new(State::Primary, rule, because, SOON);
    if o.cluster.system_identifier.is_none() {
        let identifier = o.postgres.control.of_any_age()?.system_identifier;
        let epoch = o.cluster.lease.epoch;
        return Some(
            decision(Rule::RecordSystem, "the cluster gets this database system")
                .act(Action::Propose(Command::SetSystemIdentifier { epoch, identifier })),
        );
    }
    if o.cluster.settings.revision == Revision(0) {
        let document = o.policy.bootstrap_settings.clone();
        let by = o.my_name();
        return Some(
            decision(Rule::RecordSettings, "the new cluster gets its settings")
                .act(Action::Propose(Command::SetSettings { expected: Revision(0), document, by, at_ms: 0 })),
        );
    }
    if let Some(action) = records_timeline(o, server) {
        let because = "the timeline of this primary counts as made";
        return Some(decision(Rule::ReserveTimeline, because).act(action));
    }
    if let Some(decision) = failsafe::change_list(o) {
        return Some(decision);
    }
    missing_slots(o, server)
        .map(|slots| decision(Rule::KeepSlots, "replication slots are made for the members").act(slots))
}

pub(super) fn missing_slots(o: &Observation, server: &Server) -> Option<Action> {
    let others =
        o.cluster.members.iter().filter(|(id, member)| **id != o.me && member.kind == MemberKind::Data);
    let names: BTreeSet<String> = others.map(|(_, member)| member.name.slot_name()).collect();
    let missing = names.iter().any(|name| server.physical_slots.iter().all(|slot| slot.name != *name));
    (o.policy.use_slots && missing).then_some(Action::Postgres(PgAction::EnsureSlots { names }))
}
