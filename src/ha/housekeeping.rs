//! What a writable primary records in the group and keeps up in its PostgreSQL, beside its work.

use pgherd_raft::model::{Command, Revision, TimelineId};

use super::action::Action;
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
    failsafe::change_list(o)
}
