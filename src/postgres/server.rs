//! What the server says of itself, asked in one statement.

use std::path::Path;
use std::time::Duration;

use pgherd_raft::model::{Lsn, PostgresAddr, TimelineId, WalPosition};
use serde::Deserialize;

use super::query::{QueryError, Session};
use super::slots::SlotRow;
use crate::ha::{Receiver, Sender, Server, Slot};

/// One round trip, so that the answers belong together. PostgreSQL 13 to 18 have all of these columns. A walreceiver
/// which is only connecting has no row in `pg_stat_wal_receiver`, but is a process which may soon receive something.
const STATEMENT: &str = "\
SELECT json_build_object(
 'is_in_recovery', r.yes,
 'written', CASE WHEN r.yes THEN NULL ELSE pg_current_wal_lsn() END,
 'wal_file', CASE WHEN r.yes THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END,
 'received', pg_last_wal_receive_lsn(),
 'replayed', pg_last_wal_replay_lsn(),
 'replayed_at', pg_last_xact_replay_timestamp()::text,
 'replay_paused', CASE WHEN r.yes THEN pg_is_wal_replay_paused() ELSE false END,
 'checkpoint_timeline', (SELECT timeline_id FROM pg_control_checkpoint()),
 'recovery_timeline', (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
 'receiver', (SELECT json_build_object('status', status, 'host', sender_host, 'port', sender_port,
   'slot', nullif(slot_name, ''), 'timeline', received_tli) FROM pg_stat_wal_receiver LIMIT 1),
 'receiver_processes', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
 'senders', (SELECT coalesce(json_agg(json_build_object('application_name', application_name,
   'client_addr', host(client_addr), 'user', usename, 'state', state, 'sync_state', sync_state,
   'sync_priority', sync_priority, 'written', write_lsn, 'flushed', flush_lsn, 'replayed', replay_lsn)), '[]')
   FROM pg_stat_replication),
 'slots', (SELECT coalesce(json_agg(s), '[]') FROM pg_replication_slots s WHERE NOT temporary),
 'wal_level', current_setting('wal_level'),
 'segment_bytes', pg_size_bytes(current_setting('wal_segment_size')),
 'version', current_setting('server_version_num')::int,
 'started_at', pg_postmaster_start_time()::text,
 'primary_conninfo', current_setting('primary_conninfo'),
 'restore_command', current_setting('restore_command'),
 'sync_names', current_setting('synchronous_standby_names'))
FROM (SELECT pg_is_in_recovery() AS yes) r";

#[derive(Debug, Deserialize)]
struct Answer {
    is_in_recovery: bool,
    written: Option<Lsn>,
    wal_file: Option<String>,
    received: Option<Lsn>,
    replayed: Option<Lsn>,
    replayed_at: Option<String>,
    replay_paused: bool,
    checkpoint_timeline: u32,
    recovery_timeline: u32,
    receiver: Option<ReceiverRow>,
    receiver_processes: u32,
    senders: Vec<SenderRow>,
    slots: Vec<SlotRow>,
    #[serde(default)]
    wal_level: String,
    segment_bytes: u64,
    version: u32,
    started_at: String,
    primary_conninfo: Option<String>,
    restore_command: Option<String>,
    sync_names: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ReceiverRow {
    status: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    slot: Option<String>,
    timeline: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct SenderRow {
    application_name: Option<String>,
    client_addr: Option<String>,
    user: Option<String>,
    state: Option<String>,
    sync_state: Option<String>,
    sync_priority: Option<i32>,
    written: Option<Lsn>,
    flushed: Option<Lsn>,
    replayed: Option<Lsn>,
}

/// The server's answer, and what of it is needed besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) server: Server,
    /// The `primary_conninfo` which is in force.
    pub(super) primary_conninfo: String,
    /// The `synchronous_standby_names` which the session sees.
    pub(super) sync_names: String,
}

/// Asks. `wal` is the directory of the WAL; `seen` is the highest timeline which this postmaster's walreceiver was seen on: the view forgets it with the
/// end of the walreceiver, exactly when it is needed.
pub(super) async fn ask(
    session: &Session,
    limit: Duration,
    seen: Option<TimelineId>,
    wal: &Path,
) -> Result<Answered, QueryError> {
    const NAME: &str = "its state";
    let text = session.text_within(NAME, STATEMENT, limit).await?.unwrap_or_default();
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|error| QueryError::Server { statement: NAME, reason: error.to_string() })?;
    let is_told = seen.is_some() || !answer.is_in_recovery || answer.receiver.is_some();
    let seen = if is_told { seen } else { look_at_wal(wal, received(&answer), answer.segment_bytes).await };
    Ok(interpret(answer, seen))
}

/// Away from the async threads, because there may be thousands of files.
async fn look_at_wal(wal: &Path, at: Lsn, segment_bytes: u64) -> Option<TimelineId> {
    let wal = wal.to_owned();
    let look = tokio::task::spawn_blocking(move || timeline_of_wal(&wal, at, segment_bytes));
    look.await.ok().flatten()
}

/// The highest timeline which has a WAL file for a position: what a standby received last, also when neither the
/// walreceiver nor the control file tells any more.
fn timeline_of_wal(wal: &Path, at: Lsn, segment_bytes: u64) -> Option<TimelineId> {
    let segment = at.0.checked_div(segment_bytes)?;
    let segments_per_id = (1_u64 << 32).checked_div(segment_bytes)?;
    let suffix =
        format!("{:08X}{:08X}", segment.checked_div(segments_per_id)?, segment.checked_rem(segments_per_id)?);
    let names = std::fs::read_dir(wal).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let timelines = names.filter_map(|name| {
        let timeline = name.strip_suffix(&suffix).filter(|digits| digits.len() == 8)?;
        u32::from_str_radix(timeline, 16).ok()
    });
    timelines.max().map(TimelineId)
}

fn received(answer: &Answer) -> Lsn {
    answer.received.unwrap_or_default().max(answer.replayed.unwrap_or_default())
}

fn interpret(answer: Answer, seen: Option<TimelineId>) -> Answered {
    let position =
        if answer.is_in_recovery { standby_position(&answer, seen) } else { primary_position(&answer) };
    let receiver = match (answer.receiver, answer.receiver_processes) {
        (Some(row), _) => Some(receiver(row)),
        (None, 1..) => Some(Receiver { status: "connecting".to_owned(), from: None, slot: None }),
        (None, 0) => None,
    };
    let server = Server {
        is_in_recovery: answer.is_in_recovery,
        position,
        replayed: answer.replayed.filter(|_| answer.is_in_recovery),
        replayed_at: answer.replayed_at.filter(|_| answer.is_in_recovery),
        replay_paused: answer.replay_paused,
        has_archive: answer.restore_command.is_some_and(|command| !command.is_empty()),
        receiver,
        senders: answer.senders.into_iter().map(sender).collect(),
        slots: answer.slots.into_iter().map(Slot::from).collect(),
        is_logical: answer.wal_level == "logical",
        version: answer.version,
        started_at: answer.started_at,
    };
    Answered {
        server,
        primary_conninfo: answer.primary_conninfo.unwrap_or_default(),
        sync_names: answer.sync_names.unwrap_or_default(),
    }
}

/// The first eight digits of a WAL file's name are its timeline.
fn primary_position(answer: &Answer) -> WalPosition {
    let digits = answer.wal_file.as_deref().and_then(|name| name.get(..8));
    let timeline = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    WalPosition {
        timeline: TimelineId(timeline.unwrap_or(answer.checkpoint_timeline)),
        lsn: answer.written.unwrap_or_default(),
    }
}

fn standby_position(answer: &Answer, seen: Option<TimelineId>) -> WalPosition {
    let streamed = answer.receiver.as_ref().and_then(|row| row.timeline).map(TimelineId);
    let recorded = TimelineId(answer.checkpoint_timeline.max(answer.recovery_timeline));
    WalPosition {
        timeline: recorded.max(streamed.unwrap_or_default()).max(seen.unwrap_or_default()),
        lsn: received(answer),
    }
}

fn receiver(row: ReceiverRow) -> Receiver {
    let from = row.host.zip(row.port).map(|(host, port)| PostgresAddr { host, port });
    Receiver { status: row.status.unwrap_or_else(|| "unknown".to_owned()), from, slot: row.slot }
}

fn sender(row: SenderRow) -> Sender {
    Sender {
        application_name: row.application_name.unwrap_or_default(),
        client_addr: row.client_addr,
        user: row.user.unwrap_or_default(),
        state: row.state.unwrap_or_default(),
        sync_state: row.sync_state.unwrap_or_default(),
        sync_priority: row.sync_priority.unwrap_or_default(),
        written: row.written,
        flushed: row.flushed,
        replayed: row.replayed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> Answer {
        serde_json::from_str(json).expect("json")
    }

    const STANDBY: &str = r#"{"is_in_recovery": true, "written": null, "wal_file": null, "received": "0/5000000",
        "replayed": "0/5000060", "replayed_at": null, "replay_paused": false, "checkpoint_timeline": 1,
        "recovery_timeline": 2, "receiver": null, "receiver_processes": 0, "senders": [], "slots": [],
        "segment_bytes": 16777216, "version": 150018, "started_at": "2026-01-01 00:00:00+00", "primary_conninfo": ""}"#;

    #[test]
    fn a_standby_has_what_it_received_or_replayed_on_the_latest_timeline_seen() {
        let position = |seen| interpret(answer(STANDBY), seen).server.position;
        assert_eq!(position(None).to_string(), "0/5000060 on timeline 2");
        assert_eq!(position(Some(TimelineId(3))).timeline, TimelineId(3));
        let streaming = STANDBY.replace(
            "\"receiver\": null",
            r#""receiver": {"status": "streaming", "host": "h", "port": 1, "slot": null, "timeline": 4}"#,
        );
        let server = interpret(answer(&streaming), Some(TimelineId(3))).server;
        assert_eq!(server.position.timeline, TimelineId(4));
        assert_eq!(server.receiver.expect("receiver").status, "streaming");
    }

    #[test]
    fn the_wal_itself_tells_the_timeline_of_a_position() {
        let wal = tempfile::tempdir().expect("directory");
        for name in [
            "000000010000000100000002",
            "000000030000000100000002",
            "000000040000000100000003",
            "00000003.history",
            "000000090000000100000002.partial",
        ] {
            std::fs::write(wal.path().join(name), "").expect("file");
        }
        let at = |lsn: &str| timeline_of_wal(wal.path(), lsn.parse().expect("lsn"), 16 * 1024 * 1024);
        assert_eq!(at("1/2000060"), Some(TimelineId(3)));
        assert_eq!(at("1/3000000"), Some(TimelineId(4)));
        assert_eq!(at("2/3000000"), None);
        assert_eq!(timeline_of_wal(wal.path(), Lsn(1), 0), None);
    }

    #[test]
    fn a_connecting_walreceiver_is_not_gone() {
        let connecting = STANDBY.replace("\"receiver_processes\": 0", "\"receiver_processes\": 1");
        let server = interpret(answer(&connecting), None).server;
        assert_eq!(server.receiver.expect("receiver").status, "connecting");
        assert_eq!(interpret(answer(STANDBY), None).server.receiver, None);
    }

    #[test]
    fn a_primary_s_timeline_is_that_of_the_file_which_it_writes() {
        let primary = STANDBY
            .replace("\"is_in_recovery\": true", "\"is_in_recovery\": false")
            .replace("\"written\": null", "\"written\": \"1/A0\"")
            .replace("\"wal_file\": null", "\"wal_file\": \"0000000B0000000100000000\"");
        let server = interpret(answer(&primary), None).server;
        assert_eq!(server.position.to_string(), "1/A0 on timeline 11");
        assert_eq!(server.replayed, None);
    }
}
