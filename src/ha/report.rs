//! What a node says of itself to the others.

use std::time::Duration;

use pgherd_raft::model::WalPosition;

use super::action::JobKind;
use super::cut_off;
use super::facts::{DataDir, Observation, Process, Server};
use super::health::is_disk_in_doubt;
use super::member_report::MemberReport;
use super::operations;
use super::postgres_state::PostgresState;
use super::slots;

/// An answer of the server by SQL that is older than this is not counted as knowledge of its position.
pub const SERVER_FRESH: Duration = Duration::from_secs(3);
/// After a promotion that did not succeed, or as a primary that was sick, the node stands behind the others for this long.
pub const STAND_BACK: Duration = Duration::from_secs(30);

/// This node's report, from what was observed.
pub fn own_report(o: &Observation) -> MemberReport {
    let server = o.postgres.server.within(SERVER_FRESH);
    let process = o.postgres.process.of_any_age();
    // While the first server is being set up it is not yet open to others.
    let is_being_made = o.job.as_ref().is_some_and(|job| job.kind == JobKind::Bootstrap);
    let is_running = matches!(process, Some(Process::Running { .. })) && !is_being_made;
    let is_stopped = matches!(process, Some(Process::Stopped));
    let control = o.postgres.control.of_any_age();
    let from_control = control.filter(|_| is_stopped).map(|control| WalPosition {
        timeline: control.timeline,
        lsn: control.checkpoint.max(control.min_recovery_end),
    });
    let is_streaming = server.is_some_and(streams);
    MemberReport {
        session: o.guard.of_any_age().map(|guard| guard.session),
        state: String::new(),
        system_identifier: control.map(|control| control.system_identifier),
        has_data: matches!(o.postgres.data_dir, DataDir::Initialised { .. }),
        is_running: is_running && server.is_some(),
        is_in_recovery: server.map(|server| server.is_in_recovery),
        position: server.filter(|_| is_running).map(|server| server.position).or(from_control),
        replayed: server.and_then(|server| server.replayed),
        is_streaming,
        stream_ended: is_stopped || server.is_some_and(|server| server.receiver.is_none()),
        history: o.postgres.history.clone(),
        stands_back: stands_back(o),
        version: server.map_or(0, |server| server.version),
        epoch: o.cluster.lease.epoch,
        shutting_down: o.shutting_down,
        fenced: o.postgres.fenced,
        watchdog_failed: watchdog_trouble(o).is_some(),
        makes_no_cluster: o.policy.makes_no_cluster.is_some(),
        cut_off: cut_off::own_word(o),
        postgres: PostgresState::of(o),
        in_archive_recovery: server.and_then(replication_state) == Some(IN_ARCHIVE_RECOVERY),
        leaves_sync: operations::leaves_sync(o),
        scheduled_restart: o.scheduled_restart.clone(),
        pending_restart: o.postgres.pending_restart.clone(),
        slots: server.map(|server| slots::own_positions(o, server)).unwrap_or_default(),
        retained_slots: server.map(|server| slots::own_retained(o, server)).unwrap_or_default(),
    }
}

/// Does this server's walreceiver stream?
pub fn streams(server: &Server) -> bool {
    server.is_in_recovery && server.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming")
}

/// The words for how a standby gets its WAL.
pub const STREAMING: &str = "streaming";
/// The same.
pub const IN_ARCHIVE_RECOVERY: &str = "in archive recovery";

/// How a standby gets its WAL; none: it gets none, or is a primary.
pub fn replication_state(server: &Server) -> Option<&'static str> {
    if streams(server) {
        Some(STREAMING)
    } else {
        (server.is_in_recovery && server.has_archive).then_some(IN_ARCHIVE_RECOVERY)
    }
}

/// Why this node, which needs a watchdog device, has none that works; none: it may be the primary.
pub(super) fn watchdog_trouble(o: &Observation) -> Option<&str> {
    let watchdog = &o.guard.of_any_age()?.watchdog;
    watchdog.trouble.as_deref().filter(|_| watchdog.is_required)
}

fn stands_back(o: &Observation) -> bool {
    let stood_down = o.postgres.health.stood_down.is_some_and(|ago| ago < STAND_BACK);
    let failed = [JobKind::Promote, JobKind::PrePromote, JobKind::StartPrimary, JobKind::Bootstrap]
        .iter()
        .filter_map(|kind| o.finished.get(kind))
        .any(|ended| ended.error.is_some() && ended.age < STAND_BACK);
    failed || stood_down || is_disk_in_doubt(o)
}
