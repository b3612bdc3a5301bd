//! The database as one thread sees it: open and verify, write durably.
//!
//! A write adds records, then replaces the state record, which makes them count. It relies on one property of sled:
//! after a crash the database is as after some prefix of the single operations on it, and that prefix has everything
//! that was forced to disk; it does without sled's batches and transactions. Whatever a write makes superfluous
//! is removed with the next one, when the state that meant it can no longer come back.
//!
//! It owns the sled database, the descriptor used for `fdatasync` (sled's own `flush` is `sync_file_range`, which
//! leaves file sizes and the drive's cache behind) and the seal. It promises that a commit which returned is on
//! disk and sealed. It must never be used after an error: what is on disk is unknown then.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::codec::{self, Blob, META_KEY};
use crate::error::{AmnesiaReason, StoreError};
use crate::files;
use crate::format;
use crate::memory;
use crate::meta::{BlobMark, LogMark, Meta};
use crate::seal::{Seal, Sealed};
use crate::verify::{self, Contents};

/// sled's cache: our working set is a few MiB and read only at open.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// sled reuses its file by segments; half its default keeps the directory a third smaller.
const SEGMENT_BYTES: usize = 256 * 1024;
/// sled's threads may hold its file lock a moment after the last handle is gone.
const SLED_LOCK_TRIES: u32 = 500;
const SLED_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Superfluous records removed with one write, beside as many as it adds: sled reuses space only after a flush, so
/// a large purge in one go would make its file grow by several times what it removes.
const REMOVED_PER_WRITE: usize = 64;
/// sled moves live pages out of a segment and then overwrites it, thinking that the moved ones are durable; so they
/// must be, before it has written the segments that lie between. An operation moves a page of some KiB at most.
const OPERATIONS_PER_SYNC: usize = 32;
const DATABASE: &str = "db";

/// A change of the store; several make a batch.
#[derive(Debug)]
pub(crate) enum Change {
    Append(Vec<NewEntry>),
    /// Entries from `from` on go; `last` is the last one left (or the last purged).
    Truncate {
        from: u64,
        last: Option<LogMark>,
    },
    Purge(LogMark),
    Vote(Value),
    Committed(Option<Value>),
    Floor(u64),
    Note {
        key: String,
        value: Vec<u8>,
    },
    Snapshot(Arc<[u8]>),
}

/// An entry to append.
#[derive(Debug)]
pub(crate) struct NewEntry {
    pub(crate) mark: LogMark,
    pub(crate) payload: Arc<[u8]>,
}

/// What is known of a retained entry: enough to remove it and to continue the chain from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) chain: u32,
    pub(crate) write: u64,
    pub(crate) bytes: usize,
}

/// Records a write adds, and those it makes superfluous.
#[derive(Debug, Default)]
struct Records {
    added: BTreeMap<Vec<u8>, Vec<u8>>,
    superfluous: Vec<Vec<u8>>,
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Engine {
    dir: PathBuf,
    db: sled::Db,
    data: File,
    data_path: PathBuf,
    seal: Seal,
    meta: Meta,
    kept: VecDeque<Kept>,
    notes: BTreeMap<String, Vec<u8>>,
    /// Keys of records of a write that a crash left unfinished; the next write may need the same keys.
    unfinished: Vec<Vec<u8>>,
    /// Keys of records that nothing means any more.
    garbage: VecDeque<Vec<u8>>,
    sync: bool,
}

impl Engine {
    /// Makes a store in `dir`, which is missing or empty: aside first, then renamed, so that a directory with
    /// content is always complete and a crash on the way leaves nothing that anybody relied on.
    pub(crate) fn create(dir: &Path, node_id: u64) -> Result<(), StoreError> {
        let staging = files::sibling(dir, ".", ".new");
        if staging.symlink_metadata().is_ok() {
            fs::remove_dir_all(&staging).map_err(StoreError::io("remove unfinished", &staging))?;
        }
        Engine::build(&staging, node_id, &BTreeMap::new())?;
        fs::rename(&staging, dir).map_err(StoreError::io("finish creating", dir))?;
        files::sync_dir(files::parent(dir))
    }

    /// Puts a new store with these notes in the place of the one in `dir`, in one step; the old one is kept beside it.
    pub(crate) fn replace(
        dir: &Path,
        node_id: u64,
        notes: impl FnOnce(&Path) -> BTreeMap<String, Vec<u8>>,
    ) -> Result<PathBuf, StoreError> {
        let aside = files::free_aside(dir)?;
        Engine::build(&aside, node_id, &notes(&aside))?;
        files::exchange(&aside, dir)?;
        Ok(aside)
    }

    /// Writes all files of a new store durably.
    fn build(dir: &Path, node_id: u64, notes: &BTreeMap<String, Vec<u8>>) -> Result<(), StoreError> {
        fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        let mut meta = Meta::new(node_id);
        let mut records = Records::default();
        if !notes.is_empty() {
            let blob = codec::encode_notes(notes)?;
            meta.notes = Some(records.add_blob(Blob::Notes, &blob, meta.sequence, None)?);
        }
        let record = codec::encode_meta(&meta)?;
        let database = dir.join(DATABASE);
        let made = guarded(|| {
            let db = open_sled(&database)?;
            for (key, value) in records.added {
                db.insert(key, value)?;
            }
            db.insert(META_KEY, record)?;
            db.flush()
        });
        match made {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(StoreError::Open { path: database, reason: error.to_string() });
            }
            Err(reason) => return Err(StoreError::Open { path: database, reason }),
        }
        Seal::create(dir, &meta)?;
        format::write(dir)?;
        files::sync_tree(dir)
    }

    /// Opens a complete store, verifies all of it and seals the new start. `Ok(Err(_))`: it cannot be trusted.
    pub(crate) fn open(
        dir: &Path,
        sync: bool,
    ) -> Result<Result<(Engine, Contents), AmnesiaReason>, StoreError> {
        if let Err(reason) = format::check(dir)? {
            return Ok(Err(reason));
        }
        let Some(sealed) = Seal::read(dir)? else {
            return Ok(Err(AmnesiaReason::Seal));
        };
        let database = dir.join(DATABASE);
        let data_path = database.join(DATABASE);
        if !data_path.is_file() {
            return Ok(Err(AmnesiaReason::Database));
        }
        let (db, contents) = match load(&database)? {
            Ok(loaded) => loaded,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Err(reason) = compare(&sealed, &contents.meta) {
            return Ok(Err(reason));
        }
        let data = File::open(&data_path).map_err(StoreError::io("open", &data_path))?;
        let mut engine = Engine {
            dir: dir.to_path_buf(),
            db,
            data,
            data_path,
            seal: Seal::open(dir, &sealed, sync)?,
            meta: contents.meta.clone(),
            kept: contents.kept.clone(),
            notes: contents.notes.clone(),
            unfinished: contents.unfinished.clone(),
            garbage: contents.garbage.iter().cloned().collect(),
            sync,
        };
        // What a killed process left in the page cache only must be on disk before it is used.
        engine.sync_data()?;
        engine.seal.write(&engine.meta)?;
        Ok(Ok((engine, contents)))
    }

    /// How often the store was opened, this time included.
    pub(crate) fn boot(&self) -> u64 {
        self.seal.boot()
    }

    /// Number of the last write.
    pub(crate) fn sequence(&self) -> u64 {
        self.meta.sequence
    }

    /// Replaces the memory; no write of the store.
    pub(crate) fn remember(&self, bytes: &[u8]) -> Result<(), StoreError> {
        memory::write(&self.dir, bytes)
    }

    /// Writes changes, all or none of them; on return they are on disk and sealed.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut next = self.meta.clone();
        next.sequence = next.sequence.saturating_add(1);
        let mut records = Records::default();
        for change in changes {
            self.stage(change, &mut next, &mut records)?;
        }
        let meta = codec::encode_meta(&next)?;
        let Records { added, superfluous } = records;
        let mut removed = std::mem::take(&mut self.unfinished);
        let room = added.len().saturating_add(REMOVED_PER_WRITE).min(self.garbage.len());
        removed.extend(self.garbage.drain(..room));
        let operations = removed.into_iter().map(|key| (key, None));
        let operations = operations.chain(added.into_iter().map(|(key, value)| (key, Some(value))));
        for (number, (key, value)) in (1_usize..).zip(operations) {
            self.perform(key, value)?;
            if number.is_multiple_of(OPERATIONS_PER_SYNC) {
                self.sync_data()?;
            }
        }
        self.perform(META_KEY.to_vec(), Some(meta))?;
        self.sync_data()?;
        self.seal.write(&next)?;
        self.meta = next;
        self.garbage.extend(superfluous);
        Ok(())
    }

    /// Adds one change to the records and to the state they will leave.
    fn stage(&mut self, change: Change, next: &mut Meta, records: &mut Records) -> Result<(), StoreError> {
        match change {
            Change::Append(entries) => {
                for entry in entries {
                    self.stage_entry(entry, next, records)?;
                }
            }
            Change::Truncate { from, last } => {
                let mut end = next.next_index();
                while end > from.max(next.first) {
                    end = end.saturating_sub(1);
                    records.drop_entry(end, self.kept.pop_back());
                }
                next.last = last;
                next.chain = self.kept.back().map_or(0, |kept| kept.chain);
                if self.kept.is_empty() {
                    next.first = next.next_index();
                }
            }
            Change::Purge(upto) => {
                while next.first <= upto.index {
                    let Some(kept) = self.kept.pop_front() else { break };
                    records.drop_entry(next.first, Some(kept));
                    next.first = next.first.saturating_add(1);
                }
                next.first = next.first.max(upto.index.saturating_add(1));
                if self.kept.is_empty() {
                    next.last = Some(upto.clone());
                }
                next.purged = Some(upto);
            }
            Change::Vote(vote) => next.vote = Some(vote),
            Change::Committed(committed) => next.committed = committed,
            Change::Floor(floor) => next.floor = next.floor.max(floor),
            Change::Note { key, value } => {
                self.notes.insert(key, value);
                let notes = codec::encode_notes(&self.notes)?;
                next.notes =
                    Some(records.add_blob(Blob::Notes, &notes, next.sequence, next.notes.as_ref())?);
            }
            Change::Snapshot(bytes) => {
                let old = next.snapshot.as_ref();
                next.snapshot = Some(records.add_blob(Blob::Snapshot, &bytes, next.sequence, old)?);
            }
        }
        Ok(())
    }

    fn stage_entry(
        &mut self,
        entry: NewEntry,
        next: &mut Meta,
        records: &mut Records,
    ) -> Result<(), StoreError> {
        let index = entry.mark.index;
        if self.kept.is_empty() && index >= next.first {
            next.first = index;
        } else if index != next.next_index() {
            return Err(StoreError::NotConsecutive { index, expected: next.next_index() });
        }
        let (chain, record) = codec::encode_entry(index, next.chain, &entry.payload);
        for (part, bytes) in codec::parts("a log entry", &record)? {
            records.add(codec::log_key(index, next.sequence, part), bytes);
        }
        self.kept.push_back(Kept { chain, write: next.sequence, bytes: record.len() });
        next.chain = chain;
        next.last = Some(entry.mark);
        Ok(())
    }

    /// One operation of sled: an insertion, or a removal without a value.
    fn perform(&self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        let performed = guarded(|| match value {
            Some(value) => self.db.insert(key, value),
            None => self.db.remove(key),
        });
        match performed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(reason) => Err(self.failed(&reason)),
        }
    }

    /// sled's flush, then what it leaves out.
    fn sync_data(&self) -> Result<(), StoreError> {
        let db = &self.db;
        match guarded(|| db.flush()) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(self.failed(&error.to_string())),
            Err(reason) => return Err(self.failed(&reason)),
        }
        if self.sync {
            rustix::fs::fdatasync(&self.data)
                .map_err(|error| StoreError::io("sync", &self.data_path)(error.into()))?;
        }
        Ok(())
    }

    fn failed(&self, reason: &str) -> StoreError {
        let source = std::io::Error::other(reason.to_owned());
        StoreError::Io { operation: "write", path: self.data_path.clone(), source }
    }
}

impl Records {
    fn add(&mut self, key: Vec<u8>, value: &[u8]) {
        self.added.insert(key, value.to_vec());
    }

    /// Forgets a record of this write, or marks one of an earlier write as superfluous.
    fn drop(&mut self, key: Vec<u8>) {
        if self.added.remove(&key).is_none() {
            self.superfluous.push(key);
        }
    }

    fn add_blob(
        &mut self,
        blob: Blob,
        bytes: &[u8],
        write: u64,
        old: Option<&BlobMark>,
    ) -> Result<BlobMark, StoreError> {
        if let Some(old) = old {
            for part in 0..part_count(old.bytes) {
                self.drop(codec::blob_key(blob, old.write, part));
            }
        }
        for (part, piece) in codec::parts("a snapshot or note", bytes)? {
            self.add(codec::blob_key(blob, write, part), piece);
        }
        Ok(BlobMark { write, bytes: bytes.len(), crc: crc32fast::hash(bytes) })
    }

    fn drop_entry(&mut self, index: u64, kept: Option<Kept>) {
        for part in 0..kept.map_or(0, |kept| part_count(kept.bytes)) {
            let write = kept.map_or(0, |kept| kept.write);
            self.drop(codec::log_key(index, write, part));
        }
    }
}

/// Number of parts of a record, which was within the limit when it was written.
fn part_count(bytes: usize) -> u16 {
    u16::try_from(bytes.div_ceil(codec::PART_BYTES)).unwrap_or(u16::MAX)
}

/// Compares what the database says with what was sealed. A crash can fall between the write of a batch and its
/// seal, so the database may be one write ahead: that write was never acknowledged and is as good as any.
fn compare(sealed: &Sealed, meta: &Meta) -> Result<(), AmnesiaReason> {
    let (seal, database) = (sealed.meta.sequence, meta.sequence);
    if sealed.meta.node_id != meta.node_id {
        return Err(AmnesiaReason::Identity { seal: sealed.meta.node_id, database: meta.node_id });
    }
    if database < seal {
        return Err(AmnesiaReason::RolledBack { seal, database });
    }
    if database.saturating_sub(seal) > 1 {
        return Err(AmnesiaReason::SealBehind { seal, database });
    }
    if database == seal && sealed.meta != *meta {
        return Err(AmnesiaReason::Disagree(seal));
    }
    Ok(())
}

fn open_sled(path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .segment_size(SEGMENT_BYTES)
        .mode(sled::Mode::LowSpace);
    for _ in 1..SLED_LOCK_TRIES {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(SLED_LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    config.open()
}

/// Opens the database and reads all of it. sled panics on some kinds of damage: that is damage, too.
fn load(path: &Path) -> Result<Result<(sled::Db, Contents), AmnesiaReason>, StoreError> {
    let loaded = guarded(|| {
        let db = open_sled(path)?;
        let read = verify::read(&db)?;
        Ok((db, read))
    });
    match loaded {
        Ok(Ok((db, Ok(contents)))) => Ok(Ok((db, contents))),
        Ok(Ok((_, Err(reason)))) => Ok(Err(reason)),
        Ok(Err(sled::Error::Io(error))) if !is_damage(&error) => {
            Err(StoreError::Open { path: path.to_path_buf(), reason: error.to_string() })
        }
        Ok(Err(error)) => Ok(Err(AmnesiaReason::Unreadable(error.to_string()))),
        Err(panic) => Ok(Err(AmnesiaReason::Unreadable(panic))),
    }
}

fn is_damage(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::InvalidData
            | std::io::ErrorKind::InvalidInput
            | std::io::ErrorKind::NotFound
    )
}

/// Calls into sled with its panics turned into text.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<sled::Result<T>, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        format!("sled panicked: {text}")
    })
}
