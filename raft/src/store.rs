//! The node's store behind the names which this crate uses.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{Entry, OptionalSend};

use crate::model::{Epoch, MemberId};
use crate::types::{LogId, TypeConfig, Vote};

type LogEntry = openraft::alias::EntryOf<TypeConfig>;

/// Everything durable of one node's part in one cluster. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    id: MemberId,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    log: BTreeMap<u64, LogEntry>,
    snapshot: Option<String>,
    floor: Epoch,
    notes: BTreeMap<String, Vec<u8>>,
}

#[expect(clippy::unused_async, reason = "the durable store waits for the disk here")]
impl Store {
    pub(crate) async fn open(_dir: &Path) -> io::Result<Self> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self { id: MemberId(u64::from_le_bytes(bytes)), memory: Arc::default() })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> MemberId {
        self.id
    }

    pub(crate) fn floor(&self) -> Epoch {
        self.memory().floor
    }

    pub(crate) async fn save_floor(&self, floor: Epoch) -> io::Result<()> {
        let mut memory = self.memory();
        memory.floor = memory.floor.max(floor);
        Ok(())
    }

    pub(crate) fn note(&self, name: &str) -> Option<Vec<u8>> {
        self.memory().notes.get(name).cloned()
    }

    pub(crate) async fn save_note(&self, name: &str, value: Vec<u8>) -> io::Result<()> {
        self.memory().notes.insert(name.to_owned(), value);
        Ok(())
    }

    pub(crate) async fn load_snapshot(&self) -> io::Result<Option<String>> {
        Ok(self.memory().snapshot.clone())
    }

    pub(crate) async fn save_snapshot(&self, text: String) -> io::Result<()> {
        self.memory().snapshot = Some(text);
        Ok(())
    }
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        Ok(self.memory().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.memory();
        let last = memory.log.values().next_back().map(RaftEntry::log_id);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: last.or(memory.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.memory().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.memory().log.extend(entries.into_iter().map(|entry: Entry<_, _>| (entry.log_id.index, entry)));
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let keep = last.map_or(0, |last| last.index.saturating_add(1));
        self.memory().log.split_off(&keep);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut memory = self.memory();
        memory.log = memory.log.split_off(&upto.index.saturating_add(1));
        memory.purged = Some(upto);
        Ok(())
    }
}
