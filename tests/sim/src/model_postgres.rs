//! PostgreSQL as far as high availability sees it: WAL on branching timelines, a control file, asynchronous streaming,
//! crashes, promotion. It runs without its daemon, and becomes writable without it once it was told to.
//!
//! PostgreSQL tells histories apart by timeline numbers only, and so does everything here that stands for it; the model
//! alone knows that two branches of one number are different, and calls it a failure if they are ever mixed.

use crate::ha::{ControlData, ControlState, SyncNames, TimelineSwitch};
use crate::model::{Lsn, SystemIdentifier, TimelineId, WalPosition};

use crate::model_sync::Commits;

/// A piece of history: a timeline from where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    pub(crate) timeline: u32,
    /// Unique, unknown to PostgreSQL.
    id: u64,
    from: u64,
}

/// Everything written, as a history and an end.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Wal {
    branches: Vec<Branch>,
    pub(crate) end: u64,
}

impl Wal {
    fn new(id: u64) -> Self {
        Self { branches: vec![Branch { timeline: 1, id, from: 0 }], end: 100 }
    }

    pub(crate) fn timeline(&self) -> u32 {
        self.branches.last().map_or(0, |branch| branch.timeline)
    }

    pub(crate) fn position(&self) -> WalPosition {
        WalPosition { timeline: TimelineId(self.timeline()), lsn: Lsn(self.end) }
    }

    /// As in a history file: where each earlier timeline ended.
    pub(crate) fn history(&self) -> Vec<TimelineSwitch> {
        self.branches
            .windows(2)
            .map(|pair| TimelineSwitch {
                timeline: TimelineId(pair[0].timeline),
                lsn: Lsn(pair[1].from),
                reason: "no recovery target specified".to_owned(),
            })
            .collect()
    }

    fn fork(&mut self, id: u64, timeline: u32) {
        self.branches.push(Branch { timeline, id, from: self.end });
    }

    /// The history up to this position.
    pub(crate) fn up_to(&self, end: u64) -> Self {
        let branches = self.branches.iter().copied().filter(|branch| branch.from <= end).collect();
        Self { branches, end: self.end.min(end) }
    }

    /// Where a timeline ends in this history.
    fn end_of(&self, timeline: u32) -> Option<u64> {
        let place = self.branches.iter().position(|branch| branch.timeline == timeline)?;
        Some(self.branches.get(place + 1).map_or(self.end, |next| next.from))
    }

    /// May a walreceiver which stands here stream from that history, as far as PostgreSQL can tell?
    pub(crate) fn may_stream_from(&self, source: &Self) -> bool {
        source.end_of(self.timeline()).is_some_and(|end| self.end <= end)
    }

    /// Is all of it really part of that history?
    pub(crate) fn is_part_of(&self, source: &Self) -> bool {
        let shared = self.branches.iter().zip(&source.branches).all(|(mine, theirs)| mine.id == theirs.id);
        let end = source.branches.get(self.branches.len()).map_or(source.end, |next| next.from);
        shared && self.branches.len() <= source.branches.len() && self.end <= end
    }

    /// Takes over what the source has up to this position.
    fn receive(&mut self, source: &Self, to: u64) {
        if to < self.end {
            return;
        }
        self.end = to;
        self.branches = source.branches.iter().copied().filter(|branch| branch.from <= to).collect();
    }

    /// The common history with the source, as `pg_rewind` finds it: by timeline numbers and where they began.
    fn differs_for_pg_rewind(&self, source: &Self) -> bool {
        let numbers = |wal: &Self| wal.branches.iter().map(|b| (b.timeline, b.from)).collect::<Vec<_>>();
        numbers(self) != numbers(source)
    }
}

/// What is in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Directory {
    Empty,
    Incomplete,
    Initialised,
}

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) directory: Directory,
    pub(crate) wal: Wal,
    /// Up to here it outlives a crash of the machine.
    pub(crate) flushed: u64,
    /// `synchronous_standby_names` in the configuration file.
    pub(crate) sync_names: SyncNames,
    pub(crate) system: u64,
    pub(crate) has_standby_signal: bool,
    pub(crate) has_backup_label: bool,
    pub(crate) has_old_data: bool,
    state: ControlState,
    checkpoint: (u32, u64),
}

impl Data {
    pub(crate) fn empty() -> Self {
        Self {
            directory: Directory::Empty,
            wal: Wal::default(),
            flushed: 0,
            sync_names: SyncNames::Own,
            system: 0,
            has_standby_signal: false,
            has_backup_label: false,
            has_old_data: false,
            state: ControlState::ShutDown,
            checkpoint: (1, 0),
        }
    }

    /// initdb.
    pub(crate) fn make(&mut self, id: u64) {
        let wal = Wal::new(id);
        let checkpoint = (1, 90);
        let state = ControlState::ShutDown;
        *self = Self {
            directory: Directory::Initialised,
            flushed: wal.end,
            wal,
            system: id,
            state,
            checkpoint,
            ..Self::empty()
        };
    }

    /// pg_basebackup.
    pub(crate) fn copy_of(&mut self, source: &Self) {
        *self = Self {
            directory: Directory::Initialised,
            has_standby_signal: true,
            has_backup_label: true,
            has_old_data: self.has_old_data,
            state: ControlState::InProduction,
            flushed: source.wal.end,
            ..source.clone()
        };
    }

    /// The machine crashes: what was not flushed is gone.
    pub(crate) fn crash(&mut self) {
        self.wal = self.wal.up_to(self.flushed);
    }

    /// pg_rewind: false when it finds nothing to do although the model knows better.
    pub(crate) fn rewind_to(&mut self, source: &Self) -> bool {
        let sees_difference = self.wal.differs_for_pg_rewind(&source.wal) || self.wal.end > source.wal.end;
        if sees_difference {
            let has_old_data = self.has_old_data;
            self.copy_of(source);
            self.has_old_data = has_old_data;
            return true;
        }
        self.has_standby_signal = true;
        self.state = ControlState::InArchiveRecovery;
        self.wal.is_part_of(&source.wal)
    }

    pub(crate) fn control(&self) -> Option<ControlData> {
        if self.directory != Directory::Initialised {
            return None;
        }
        let in_recovery = !self.state.was_primary() || self.has_backup_label;
        let (timeline, checkpoint) = self.checkpoint;
        Some(ControlData {
            system_identifier: SystemIdentifier(self.system),
            state: self.state,
            timeline: TimelineId(if in_recovery { self.wal.timeline() } else { timeline }),
            checkpoint: Lsn(checkpoint),
            min_recovery_end: Lsn(if in_recovery { self.wal.end } else { 0 }),
        })
    }
}

/// A walreceiver which hears nothing for so long ends (`wal_receiver_timeout`, shortened).
pub(crate) const RECEIVER_TIMEOUT: u64 = 2_000_000;

/// Walsenders of a primary that shuts down wait no longer for a standby that does not answer.
const DRAINS_WITHIN: u64 = 3_000_000;

/// What a server finds around it in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    pub(crate) now: u64,
    pub(crate) fresh_id: u64,
    pub(crate) written: u64,
    /// Every walreceiver that has a connection has everything.
    pub(crate) is_drained: bool,
    /// Nothing comes back from the disk.
    pub(crate) is_stalled: bool,
}

/// A postmaster and what it is about to do by itself.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) pid: u32,
    /// True time at which it answers.
    pub(crate) ready_at: u64,
    pub(crate) is_in_recovery: bool,
    /// True time at which it leaves recovery.
    pub(crate) promoted_at: Option<u64>,
    /// The number which the placeholders leave for the timeline of the promotion; none: the next one.
    pub(crate) reserved: Option<u32>,
    /// True time at which it is down, and whether cleanly.
    pub(crate) stops_at: Option<(u64, bool)>,
    /// The shutdown checkpoint is written; walsenders send the rest until this true time at most.
    pub(crate) drains_until: Option<u64>,
    /// SIGKILL was sent, and it waits for its disk to die: it runs no instruction any more.
    pub(crate) is_killed: bool,
    /// The postmaster is stopped (SIGSTOP): its children go on, and nobody new is let in.
    pub(crate) refuses: bool,
    /// True time of the checkpoint after a promotion or a crash recovery.
    checkpoint_at: u64,
    /// Whom it follows.
    pub(crate) upstream: Option<usize>,
    /// Streams, or believes so, until this true time.
    pub(crate) receiver_until: u64,
    /// The node and the postmaster from which the walreceiver has a connection.
    pub(crate) connection: Option<(usize, u32)>,
    /// The walreceiver was told to end, and has done so at this true time.
    pub(crate) receiver_ends_at: Option<u64>,
    pub(crate) commits: Commits,
}

impl Server {
    pub(crate) fn start(pid: u32, data: &mut Data, upstream: Option<usize>, now: u64, takes: u64) -> Self {
        let is_in_recovery = data.has_standby_signal;
        data.state =
            if is_in_recovery { ControlState::InArchiveRecovery } else { ControlState::InCrashRecovery };
        data.has_backup_label = false;
        // What was received is replayed, and counts as received.
        data.flushed = data.wal.end;
        Self {
            pid,
            ready_at: now + takes,
            is_in_recovery,
            promoted_at: None,
            reserved: None,
            stops_at: None,
            drains_until: None,
            is_killed: false,
            refuses: false,
            checkpoint_at: now + takes,
            upstream,
            receiver_until: 0,
            connection: None,
            receiver_ends_at: None,
            commits: Commits::new(&data.sync_names),
        }
    }

    pub(crate) fn is_ready(&self, now: u64) -> bool {
        now >= self.ready_at && !self.is_killed
    }

    /// It answers a new session.
    pub(crate) fn is_open(&self, now: u64) -> bool {
        self.is_ready(now) && self.drains_until.is_none()
    }

    /// A client could be told that its commit is safe.
    pub(crate) fn is_writable(&self, now: u64) -> bool {
        self.is_open(now) && !self.is_in_recovery
    }

    /// One step of its own life. False: it is gone. `is_drained`: every walreceiver that is connected has everything.
    pub(crate) fn live(&mut self, data: &mut Data, around: &Around) -> bool {
        let Around { now, fresh_id, written, is_drained, is_stalled } = *around;
        if self.is_killed {
            return is_stalled;
        }
        if let Some(until) = self.drains_until {
            return !is_drained && now < until;
        }
        if is_stalled {
            // What waits for the disk is the last to go, and tells nobody anything.
            self.is_killed |= self.stops_at.is_some_and(|(at, clean)| now >= at && !clean);
            return true;
        }
        if let Some((at, clean)) = self.stops_at
            && now >= at
        {
            if clean {
                self.shut_down(data);
                self.drains_until = Some(now + DRAINS_WITHIN);
            }
            return clean && !self.is_in_recovery;
        }
        if self.promoted_at.is_some_and(|at| now >= at) && self.is_in_recovery && self.is_ready(now) {
            self.is_in_recovery = false;
            self.upstream = None;
            (self.connection, self.receiver_ends_at) = (None, None);
            data.wal.fork(fresh_id, self.reserved.unwrap_or(data.wal.timeline() + 1));
            data.has_standby_signal = false;
            data.flushed = data.wal.end;
            self.checkpoint_at = now + 1_500_000;
        }
        if self.is_writable(now) {
            if data.state != ControlState::InProduction {
                data.state = ControlState::InProduction;
            }
            if self.stops_at.is_none() {
                data.flushed = data.wal.end;
                data.wal.end += written;
            }
            if now >= self.checkpoint_at {
                data.checkpoint = (data.wal.timeline(), data.wal.end);
                self.checkpoint_at = now + 5_000_000;
            }
        }
        true
    }

    fn shut_down(&self, data: &mut Data) {
        if self.is_in_recovery {
            data.state = ControlState::ShutDownInRecovery;
        } else {
            data.state = ControlState::ShutDown;
            data.checkpoint = (data.wal.timeline(), data.wal.end);
            data.wal.end += 10;
        }
        data.flushed = data.wal.end;
    }

    /// The walreceiver ends: what it has written it flushes first.
    pub(crate) fn end_receiver(&mut self, data: &mut Data) {
        (self.connection, self.receiver_ends_at, self.receiver_until) = (None, None, 0);
        data.flushed = data.wal.end;
    }

    /// Another primary to follow, or nobody: the walreceiver that runs is told to end.
    pub(crate) fn follow(&mut self, upstream: Option<usize>, ends_at: u64) {
        self.upstream = upstream;
        if self.connection.is_some_and(|(from, _)| Some(from) != upstream) {
            self.receiver_ends_at.get_or_insert(ends_at);
        }
    }

    /// Receives from a running server which it reaches. An error: histories would be mixed.
    pub(crate) fn stream(
        &mut self,
        data: &mut Data,
        source: &Wal,
        source_ends: bool,
        now: u64,
        behind: u64,
    ) -> Result<(), String> {
        if !data.wal.may_stream_from(source) {
            return Ok(());
        }
        if !data.wal.is_part_of(source) {
            return Err(format!("{:?} streams from {:?}: two histories are mixed", data.wal, source));
        }
        self.receiver_until = now + RECEIVER_TIMEOUT;
        let behind = if source_ends { 0 } else { behind };
        data.wal.receive(source, source.end.saturating_sub(behind));
        Ok(())
    }
}
