//! Gathers the facts about the local PostgreSQL, each part with its own deadline.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Epoch, Lsn, TimelineId};
use tokio::time::timeout;

use super::control_data;
use super::files;
use super::layout::{Layout, Marker};
use super::parameters::Asked;
use super::pending::Pending;
use super::query::QueryError;
use super::server::{self, Answered};
use super::sync_use::SyncUse;
use super::tool::{QUICK, Tool};
use super::{Postgres, conf, history, timelines};
use crate::ha::{
    ControlData, DataDir, Fact, PostgresFacts, Process, Server, SyncNames, TimelineSwitch, Upstream, streams,
};

/// An observation is of use only while it is young. The parts run side by side, and each has less than the second
/// after which nobody waits for the whole: the server's answer, the control data after a look at the files, the history.
const SERVER_LIMIT: Duration = Duration::from_millis(700);
const CONTROL_LIMIT: Duration = Duration::from_millis(400);
/// How long looking at files may take before the last look counts.
const FILES_LIMIT: Duration = Duration::from_millis(300);
const HISTORY_LIMIT: Duration = Duration::from_millis(200);
/// The control data of a running server is read again after this time.
const CONTROL_INTERVAL: Duration = Duration::from_secs(10);
/// A fresh position for the succession is waited for no longer than this.
const POSITION_LIMIT: Duration = Duration::from_millis(300);
/// After so many late answers in a row the kept connection is given up. Not after the first: when the connection table
/// is full, the kept connection is the only one to be had.
const LATE_ANSWERS: u32 = 3;

/// What is remembered between observations.
#[derive(Debug, Default)]
pub(super) struct Cache {
    control: Option<(FileStamp, ControlData, BootTime)>,
    files: Option<Files>,
    /// The highest timeline which the walreceiver of this postmaster was seen on.
    seen_timeline: Option<(u32, TimelineId)>,
    late_answers: u32,
    pub(super) pending: Pending,
    pub(super) asked: Option<Asked>,
    /// The last postmaster which was asked, and whether it said nothing but that it is not ready.
    last_asked: Option<(u32, bool)>,
    pub(super) sync_use: Option<SyncUse>,
    pub(super) streamed_at: BTreeMap<String, BootTime>,
    pub(super) stalled_at: BTreeMap<String, (Lsn, BootTime)>,
    /// The postmaster which is a primary.
    pub(super) primary_pid: Option<u32>,
}

/// Changes whenever PostgreSQL writes the control file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// Lines of `postmaster.pid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunsAt {
    pub(super) port: u16,
    /// The first directory with a socket.
    pub(super) sockets: Option<String>,
    /// The first address that is listened on.
    pub(super) host: Option<String>,
}

impl RunsAt {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(3).map(str::trim);
        let port = lines.next()?.parse().ok()?;
        let mut line = || lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
        Some(Self { port, sockets: line(), host: line() })
    }
}

/// What is read from files.
#[derive(Clone, Debug)]
struct Files {
    data_dir: DataDir,
    control: Option<FileStamp>,
    conninfo: Option<String>,
    upstream: Option<Upstream>,
    has_old_data: bool,
    /// The data directory is a copy which has not been seen to stream.
    is_copy: bool,
    /// Where the postmaster says that it is reached.
    runs_at: Option<RunsAt>,
    sync: SyncNames,
    fenced: Epoch,
}

impl Postgres {
    /// Looks at everything at once; takes less than a second, and what is late is unknown.
    pub async fn observe(&self) -> PostgresFacts {
        let look_at_files = async {
            let files = self.observe_files().await;
            let control = self.observe_control(&files).await;
            (files, control)
        };
        let ((files, control), server) = tokio::join!(look_at_files, self.observe_server(SERVER_LIMIT));
        let process = self.postmaster.process();
        if files.is_copy && server.of_any_age().is_some_and(|answered| streams(&answered.server)) {
            self.value_copy_in_background();
        }
        let timeline = match (server.of_any_age(), control.of_any_age()) {
            (Some(answered), _) => Some(answered.server.position.timeline),
            (None, Some(control)) => Some(control.timeline),
            (None, None) => None,
        };
        let (history, newest_history) = self.observe_history(timeline).await;
        let is_standby = matches!(files.data_dir, DataDir::Initialised { has_standby_signal: true, .. });
        let in_force = server.of_any_age().map(|answered| answered.primary_conninfo.clone());
        let as_written = in_force.is_none() || in_force == files.conninfo;
        let (sync_in_use, left_stream, stalled_stream) = match (&process, server.of_any_age()) {
            (Fact::Known { value: Process::Running { pid, .. }, .. }, Some(answered)) => {
                let left_stream = self.note_streams(*pid, answered, &files.sync);
                (self.note_sync(*pid, answered, &files.sync), left_stream, self.note_stalls(answered))
            }
            _ => (None, BTreeMap::new(), BTreeMap::new()),
        };
        let pending_restart = match (&process, server.of_any_age()) {
            (Fact::Known { value: Process::Running { pid, .. }, .. }, Some(_)) => self.pending_restart(*pid),
            _ => BTreeMap::new(),
        };
        PostgresFacts {
            data_dir: files.data_dir,
            control,
            process,
            configured_upstream: files.upstream.filter(|_| is_standby && as_written),
            sync_in_use,
            left_stream,
            stalled_stream,
            sync_configured: files.sync,
            fenced: files.fenced,
            server: map(server, |answered| answered.server),
            history,
            never_ready: self.cache().last_asked.is_some_and(|(_, never_ready)| never_ready),
            newest_history,
            has_old_data: files.has_old_data,
            health: self.health(),
            pending_restart,
        }
    }

    /// Only what the server says by SQL, freshly read and with a short deadline: for the succession.
    pub async fn report_position(&self) -> Fact<Server> {
        map(self.observe_server(POSITION_LIMIT).await, |answered| answered.server)
    }

    async fn observe_files(&self) -> Files {
        let layout = self.layout();
        let look = self.inner.look.look(move || {
            let conf = files::read(&layout.conf_file()).ok().flatten().unwrap_or_default();
            Files {
                data_dir: layout.classify(),
                control: stamp(&layout.in_data("global/pg_control")),
                conninfo: conf::parse_primary_conninfo(&conf),
                upstream: conf::parse_upstream(&conf),
                has_old_data: !layout.asides().is_empty(),
                is_copy: matches!(layout.marker(), Ok(Some(Marker::Copied))),
                runs_at: files::read(&layout.in_data("postmaster.pid"))
                    .ok()
                    .flatten()
                    .and_then(|text| RunsAt::parse(&text)),
                sync: conf::parse_sync(&conf),
                // A record that cannot be read holds for every epoch.
                fenced: fenced(&layout).unwrap_or(Epoch(u64::MAX)),
            }
        });
        if let Ok(Some(files)) = timeout(FILES_LIMIT, look).await {
            self.cache().files = Some(files.clone());
            return files;
        }
        self.cache().files.clone().unwrap_or_else(|| Files {
            data_dir: DataDir::Foreign("the file system of the data directory does not answer".to_owned()),
            control: None,
            conninfo: None,
            upstream: None,
            has_old_data: false,
            is_copy: false,
            runs_at: None,
            sync: SyncNames::Own,
            fenced: Epoch(u64::MAX),
        })
    }

    async fn observe_server(&self, limit: Duration) -> Fact<Answered> {
        let Some(Process::Running { pid, .. }) = self.postmaster.process().of_any_age().cloned() else {
            self.forget_session();
            return Fact::Unknown("PostgreSQL is not running".to_owned());
        };
        let seen = self.cache().seen_timeline.filter(|(of, _)| *of == pid).map(|(_, timeline)| timeline);
        let wal = self.layout().in_data("pg_wal");
        let ask = async {
            let session = self.session().await?;
            let answer = server::ask(&session, limit, seen, &wal).await;
            Ok((Arc::clone(&session), answer))
        };
        let late = QueryError::Late { statement: "its state", millis: limit.as_millis() };
        let (session, answer) = match timeout(limit, ask).await {
            Ok(Ok((session, answer))) => (Some(session), answer.map_err(super::PgError::from)),
            Ok(Err(error)) => (None, Err(error)),
            Err(_) => (None, Err(late.into())),
        };
        match answer {
            Ok(answered) => {
                self.remember(pid, &answered);
                Fact::fresh(answered)
            }
            Err(error) => {
                self.note_not_ready(pid, &error);
                let is_late = matches!(error, super::PgError::Query(QueryError::Late { .. }));
                self.note_failure(is_late, session.is_some_and(|session| session.is_closed()));
                Fact::Unknown(error.in_full())
            }
        }
    }

    /// Only the server's own word counts: one that cannot be asked may be ready all the same.
    fn note_not_ready(&self, pid: u32, error: &super::PgError) {
        use super::PgError::Query;
        let is_said = matches!(error, Query(QueryError::Connect { is_not_ready: true, .. }));
        let mut cache = self.cache();
        if cache.last_asked.is_none_or(|(last, _)| last != pid) {
            cache.last_asked = Some((pid, is_said));
        }
    }

    fn remember(&self, pid: u32, answered: &Answered) {
        let mut cache = self.cache();
        cache.last_asked = Some((pid, false));
        cache.late_answers = 0;
        let timeline = answered.server.position.timeline;
        cache.seen_timeline = answered.server.is_in_recovery.then_some((pid, timeline));
    }

    fn value_copy_in_background(&self) {
        let this = self.clone();
        self.in_background(async move {
            if let Err(error) = this.value_copy().await {
                tracing::warn!("it is not recorded that the new copy streams: {}", error.in_full());
            }
        });
    }

    fn note_failure(&self, is_late: bool, is_closed: bool) {
        let gives_up = {
            let mut cache = self.cache();
            cache.late_answers = if is_late { cache.late_answers.saturating_add(1) } else { 0 };
            cache.late_answers >= LATE_ANSWERS
        };
        if gives_up || is_closed {
            self.cache().late_answers = 0;
            self.forget_session();
        }
    }

    async fn observe_control(&self, files: &Files) -> Fact<ControlData> {
        let Some(stamp) = files.control.clone() else {
            return Fact::Unknown("there is no control file".to_owned());
        };
        let now = clock::now();
        if let Some((of, value, at)) = self.cache().control.clone() {
            let age = now.since(at);
            if of == stamp {
                return Fact::fresh(value);
            }
            if self.is_running() && of.inode == stamp.inode && age < CONTROL_INTERVAL {
                return Fact::Known { value, age };
            }
        }
        if self.inner.look.hangs() {
            return Fact::Unknown("the file system of the data directory does not answer".to_owned());
        }
        match timeout(CONTROL_LIMIT, self.read_control()).await {
            Ok(Ok((control, _))) => {
                self.cache().control = Some((stamp, control.clone(), now));
                Fact::fresh(control)
            }
            Ok(Err(error)) => Fact::Unknown(error.in_full()),
            Err(_) => Fact::Unknown("pg_controldata did not answer in time".to_owned()),
        }
    }

    /// Runs `pg_controldata`.
    pub(super) async fn read_control(
        &self,
    ) -> Result<(ControlData, control_data::LeastSettings), super::PgError> {
        let program = self.programs()?.path("pg_controldata");
        let printed =
            Tool::new(program).arg("-D").arg(self.settings().data_dir.as_os_str()).run(Some(QUICK)).await?;
        Ok((control_data::parse(&printed)?, control_data::parse_least_settings(&printed)))
    }

    /// The history of this timeline, and the highest one which has a history file here.
    async fn observe_history(&self, timeline: Option<TimelineId>) -> (Vec<TimelineSwitch>, TimelineId) {
        let timeline = timeline.unwrap_or_default();
        let wal = self.layout().in_data("pg_wal");
        let look = self.inner.look.look(move || {
            let newest = timelines::newest(&wal, timeline);
            if timeline <= TimelineId(1) {
                return (Vec::new(), newest);
            }
            let text = files::read(&wal.join(history::file_name(timeline))).ok().flatten();
            (text.map(|text| history::parse(&text)).unwrap_or_default(), newest)
        });
        match timeout(HISTORY_LIMIT, look).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => (Vec::new(), timeline),
        }
    }

    /// Where the running server is reached, as far as it was seen: the configuration may name other addresses by now.
    pub(super) fn runs_at(&self) -> Option<RunsAt> {
        self.cache().files.as_ref().and_then(|files| files.runs_at.clone())
    }

    /// A server is about to be started, at the addresses of the configuration.
    pub(super) fn forget_addresses(&self) {
        if let Some(files) = &mut self.cache().files {
            files.runs_at = None;
        }
    }

    /// For those who change the data directory as a whole.
    pub(super) fn forget_control(&self) {
        self.cache().control = None;
    }
}

fn fenced(layout: &Layout) -> Result<Epoch, super::PgError> {
    super::write::parse_fence(files::read(&layout.fence_file())?.as_deref())
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let is = std::fs::metadata(path).ok()?;
    Some(FileStamp { inode: is.ino(), seconds: is.mtime(), nanoseconds: is.mtime_nsec() })
}

fn map<T, U>(fact: Fact<T>, change: impl FnOnce(T) -> U) -> Fact<U> {
    match fact {
        Fact::Known { value, age } => Fact::Known { value: change(value), age },
        Fact::Unknown(why) => Fact::Unknown(why),
    }
}

/// The marker is looked at by those who are about to start the server.
pub(super) fn refuse_unfinished(layout: &Layout) -> Result<(), super::PgError> {
    let directory = layout.data_dir.display();
    match layout.marker()? {
        Some(Marker::Filling(what)) => {
            Err(super::PgError::Refused(format!("{directory} is not complete: its {what} did not finish")))
        }
        Some(Marker::PuttingAside(_)) => Err(super::PgError::Refused(format!(
            "{directory} is not complete: its content is being put aside for a new copy"
        ))),
        Some(Marker::Rewinding) => Err(super::PgError::Refused(format!(
            "{directory} cannot be used: an earlier pg_rewind of it did not finish, so it needs a new copy"
        ))),
        Some(Marker::Copied) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_postmaster_says_where_it_is_reached() {
        let text = "7\n/d\n1700000000\n5432\n/tmp\n127.0.0.1\n  1 2\nready   \n";
        let expected =
            RunsAt { port: 5432, sockets: Some("/tmp".to_owned()), host: Some("127.0.0.1".to_owned()) };
        assert_eq!(RunsAt::parse(text), Some(expected));
        let bare = RunsAt { port: 5432, sockets: None, host: None };
        assert_eq!(RunsAt::parse("7\n/d\n1700000000\n5432\n\n\n"), Some(bare));
        assert_eq!(RunsAt::parse("7\n/d\n1700000000\n"), None);
    }
}
