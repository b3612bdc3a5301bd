//! Has this data directory gone another way than the primary? Answered from timeline histories alone.

use pgherd_raft::model::{TimelineId, WalPosition};

use super::facts::{ControlData, ControlState, TimelineSwitch};

/// How a data directory relates to the primary's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lineage {
    /// Everything in it is part of the primary's history: streaming can go on.
    Ancestor,
    /// It has WAL which the primary does not have, or may have: to be rewound.
    Diverged,
    /// Two servers made the same timeline: `pg_rewind` would see no difference, so it must be copied anew.
    SameTimelineTwice,
}

/// A primary's timeline and where its earlier timelines ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct History<'a> {
    /// The timeline on which the server is.
    pub timeline: TimelineId,
    /// Where each earlier timeline of it ended.
    pub switches: &'a [TimelineSwitch],
}

impl History<'_> {
    /// Where this timeline ended in this history; none: it did not end, or is no part of it.
    fn end_of(&self, timeline: TimelineId) -> Option<pgherd_raft::model::Lsn> {
        self.switches.iter().find(|switch| switch.timeline == timeline).map(|switch| switch.lsn)
    }
}

/// The lineage of a running standby, by its received position.
pub(super) fn of_standby(position: WalPosition, own: &[TimelineSwitch], primary: History<'_>) -> Lineage {
    if position.timeline == primary.timeline {
        let forks = |switches: &[TimelineSwitch]| {
            switches.iter().map(|switch| (switch.timeline, switch.lsn)).collect::<Vec<_>>()
        };
        let differs = !own.is_empty() && forks(own) != forks(primary.switches);
        return if differs { Lineage::SameTimelineTwice } else { Lineage::Ancestor };
    }
    match primary.end_of(position.timeline) {
        Some(end) if position.lsn <= end => Lineage::Ancestor,
        Some(_) | None => Lineage::Diverged,
    }
}

/// The lineage of a stopped data directory, by its control data.
///
/// A former primary that crashed may have written anything after its last checkpoint, so only a clean shutdown whose
/// checkpoint lies before the fork proves that nothing diverged: the shutdown checkpoint is the last record.
pub(super) fn of_stopped(
    control: &ControlData,
    has_backup_label: bool,
    own: &[TimelineSwitch],
    primary: History<'_>,
) -> Lineage {
    if has_backup_label || !control.state.was_primary() {
        let lsn = control.checkpoint.max(control.min_recovery_end);
        return of_standby(WalPosition { timeline: control.timeline, lsn }, own, primary);
    }
    if control.timeline == primary.timeline {
        return Lineage::SameTimelineTwice;
    }
    match (control.state, primary.end_of(control.timeline)) {
        (ControlState::ShutDown, Some(end)) if control.checkpoint < end => Lineage::Ancestor,
        _ => Lineage::Diverged,
    }
}
