//! The database as one thread sees it: open and verify, commit batches durably.
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

use crate::codec::{self, META_KEY, PART_BYTES};
use crate::error::{AmnesiaReason, StoreError};
use crate::files;
use crate::format;
use crate::meta::{LogMark, Meta, SnapshotMark};
use crate::seal::{Seal, Sealed};
use crate::verify::{self, Contents};

/// sled's cache: our working set is a few MiB and read only at open.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// sled's threads may hold its file lock a moment after the last handle is gone.
const SLED_LOCK_TRIES: u32 = 500;
const SLED_LOCK_PAUSE: Duration = Duration::from_millis(10);
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
    pub(crate) parts: u16,
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Engine {
    db: sled::Db,
    data: File,
    data_path: PathBuf,
    seal: Seal,
    meta: Meta,
    kept: VecDeque<Kept>,
    notes: BTreeMap<String, Vec<u8>>,
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
        fs::create_dir_all(&staging).map_err(StoreError::io("create", &staging))?;
        let meta = Meta::new(node_id);
        let database = staging.join(DATABASE);
        let record = codec::encode_meta(&meta)?;
        let made = guarded(|| {
            let db = open_sled(&database)?;
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
        Seal::create(&staging, &meta)?;
        format::write(&staging)?;
        files::sync_tree(&staging)?;
        fs::rename(&staging, dir).map_err(StoreError::io("finish creating", dir))?;
        files::sync_dir(files::parent(dir))
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
            db,
            data,
            data_path,
            seal: Seal::open(dir, &sealed, sync)?,
            meta: contents.meta.clone(),
            kept: contents.kept.clone(),
            notes: contents.notes.clone(),
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

    /// Writes changes as one atomic batch; on return they are on disk and sealed.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut next = self.meta.clone();
        next.sequence = next.sequence.saturating_add(1);
        let mut batch = sled::Batch::default();
        for change in changes {
            self.stage(change, &mut next, &mut batch)?;
        }
        batch.insert(META_KEY, codec::encode_meta(&next)?);
        let db = &self.db;
        match guarded(|| db.apply_batch(batch)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.failed(&error.to_string())),
            Err(reason) => return Err(self.failed(&reason)),
        }
        self.sync_data()?;
        self.seal.write(&next)?;
        self.meta = next;
        Ok(())
    }

    /// Puts one change into the batch and into the state it will leave.
    fn stage(&mut self, change: Change, next: &mut Meta, batch: &mut sled::Batch) -> Result<(), StoreError> {
        match change {
            Change::Append(entries) => {
                for entry in entries {
                    self.stage_entry(entry, next, batch)?;
                }
            }
            Change::Truncate { from, last } => {
                let mut end = next.next_index();
                while end > from.max(next.first) {
                    end = end.saturating_sub(1);
                    remove_entry(batch, end, self.kept.pop_back());
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
                    remove_entry(batch, next.first, Some(kept));
                    next.first = next.first.saturating_add(1);
                }
                next.first = next.first.max(upto.index.saturating_add(1));
                if next.next_index() <= next.first && self.kept.is_empty() {
                    next.last = Some(upto.clone());
                }
                next.purged = Some(upto);
            }
            Change::Vote(vote) => next.vote = Some(vote),
            Change::Committed(committed) => next.committed = committed,
            Change::Floor(floor) => next.floor = next.floor.max(floor),
            Change::Note { key, value } => {
                batch.insert(codec::note_key(&key), value.clone());
                self.notes.insert(key, value);
                next.notes = u32::try_from(self.notes.len()).unwrap_or(u32::MAX);
                next.notes_crc = codec::notes_crc(self.notes.iter());
            }
            Change::Snapshot(blob) => stage_snapshot(&blob, next, batch),
        }
        Ok(())
    }

    fn stage_entry(
        &mut self,
        entry: NewEntry,
        next: &mut Meta,
        batch: &mut sled::Batch,
    ) -> Result<(), StoreError> {
        let index = entry.mark.index;
        if self.kept.is_empty() && index >= next.first {
            next.first = index;
        } else if index != next.next_index() {
            return Err(StoreError::NotConsecutive { index, expected: next.next_index() });
        }
        let (chain, record) = codec::encode_entry(index, next.chain, &entry.payload);
        let mut parts: u16 = 0;
        for part in record.chunks(PART_BYTES) {
            batch.insert(codec::log_key(index, parts), part);
            parts = parts.checked_add(1).ok_or(StoreError::TooLarge {
                what: "a log entry",
                size: record.len(),
                limit: PART_BYTES.saturating_mul(usize::from(u16::MAX)),
            })?;
        }
        self.kept.push_back(Kept { chain, parts });
        next.chain = chain;
        next.last = Some(entry.mark);
        Ok(())
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

fn remove_entry(batch: &mut sled::Batch, index: u64, kept: Option<Kept>) {
    for part in 0..kept.map_or(0, |kept| kept.parts) {
        batch.remove(codec::log_key(index, part));
    }
}

fn stage_snapshot(blob: &[u8], next: &mut Meta, batch: &mut sled::Batch) {
    let mut parts: u32 = 0;
    for part in blob.chunks(PART_BYTES) {
        batch.insert(codec::snapshot_key(parts), part);
        parts = parts.saturating_add(1);
    }
    for part in parts..next.snapshot.as_ref().map_or(0, |old| old.parts) {
        batch.remove(codec::snapshot_key(part));
    }
    next.snapshot = Some(SnapshotMark { bytes: blob.len(), parts, crc: crc32fast::hash(blob) });
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
