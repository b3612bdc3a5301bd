//! Reading the whole database once, at open, and checking every record against the state record.
//!
//! It promises that what it returns is exactly what the write named in the state record left: no entry missing,
//! stale, foreign or damaged. Records which the state record does not mean (of an unfinished write, or of one
//! whose leavings were not removed yet) are listed as garbage. It never repairs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::codec::{self, Blob, EntryRecord, Key};
use crate::engine::Kept;
use crate::error::AmnesiaReason;
use crate::meta::{BlobMark, Meta};

/// Everything in a verified database.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) meta: Meta,
    /// The retained entries as JSON, the first with index `meta.first`.
    pub(crate) entries: VecDeque<Arc<[u8]>>,
    pub(crate) kept: VecDeque<Kept>,
    /// Snapshot metadata and bytes, as [`codec::decode_snapshot`] takes them.
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) notes: BTreeMap<String, Vec<u8>>,
    /// Keys of records of a write later than the state record: it was not finished.
    pub(crate) unfinished: Vec<Vec<u8>>,
    /// Keys of records which the state record does not mean any more.
    pub(crate) garbage: Vec<Vec<u8>>,
}

/// Records as found, before they are held against the state record.
#[derive(Default)]
struct Found {
    meta: Option<Vec<u8>>,
    /// By index, then by the write that made them.
    entries: BTreeMap<u64, BTreeMap<u64, Record>>,
    blobs: BTreeMap<(Blob, u64), Record>,
}

/// The retained log, checked.
#[derive(Default)]
struct Log {
    entries: VecDeque<Arc<[u8]>>,
    kept: VecDeque<Kept>,
}

/// A record put together from its parts, and their keys.
#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
    keys: Vec<Vec<u8>>,
    has_gap: bool,
}

impl Record {
    /// Adds a part; keys are sorted, so each must be the next one.
    fn push(&mut self, part: u16, key: &[u8], bytes: &[u8]) {
        self.has_gap |= usize::from(part) != self.keys.len();
        self.bytes.extend_from_slice(bytes);
        self.keys.push(key.to_vec());
    }
}

/// Reads and checks a database. The outer error is sled's own.
pub(crate) fn read(db: &sled::Db) -> sled::Result<Result<Contents, AmnesiaReason>> {
    let mut found = Found::default();
    for item in db.iter() {
        let (key, value) = item?;
        match codec::parse_key(&key) {
            Some(Key::Meta) => found.meta = Some(value.to_vec()),
            Some(Key::Log { index, write, part }) => {
                found.entries.entry(index).or_default().entry(write).or_default().push(part, &key, &value);
            }
            Some(Key::Blob { blob, write, part }) => {
                found.blobs.entry((blob, write)).or_default().push(part, &key, &value);
            }
            None => return Ok(Err(damage("it contains a record of unknown kind"))),
        }
    }
    Ok(check(found))
}

fn check(mut found: Found) -> Result<Contents, AmnesiaReason> {
    let Some(record) = found.meta.take() else {
        return Err(damage("the state record is missing"));
    };
    let Some(meta) = codec::decode_meta(&record) else {
        return Err(damage("the state record is damaged"));
    };
    let Log { entries, kept } = take_log(&meta, &mut found)?;
    let snapshot = take_blob(Blob::Snapshot, meta.snapshot.as_ref(), &mut found)
        .map_err(|()| damage("the snapshot is not the one that was written last"))?;
    let notes = take_blob(Blob::Notes, meta.notes.as_ref(), &mut found)
        .and_then(|blob| codec::decode_notes(&blob.unwrap_or_default()).ok_or(()))
        .map_err(|()| damage("the notes are not those that were written last"))?;
    let leftovers = found.entries.into_values().flatten();
    let leftovers = leftovers.chain(found.blobs.into_iter().map(|((_, write), record)| (write, record)));
    let (mut unfinished, mut garbage) = (Vec::new(), Vec::new());
    for (write, record) in leftovers {
        if write > meta.sequence { unfinished.extend(record.keys) } else { garbage.extend(record.keys) }
    }
    Ok(Contents { meta, entries, kept, snapshot, notes, unfinished, garbage })
}

/// Takes out the entries of the log, following the chain of checksums from its end.
fn take_log(meta: &Meta, found: &mut Found) -> Result<Log, AmnesiaReason> {
    let mut log = Log::default();
    let mut wanted = meta.chain;
    for index in (meta.first..meta.next_index()).rev() {
        let versions = found.entries.get_mut(&index);
        let Some(versions) = versions else {
            return Err(damage(&format!("log entry {index} is missing")));
        };
        let intact = versions.iter().find_map(|(write, record)| {
            let entry = codec::decode_entry(index, &record.bytes)?;
            (entry.chain == wanted && !record.has_gap).then_some((*write, entry))
        });
        let Some((write, EntryRecord { previous, chain, payload })) = intact else {
            return Err(damage(&format!(
                "log entry {index} is damaged or not the one that was written last"
            )));
        };
        let bytes = versions.remove(&write).map_or(0, |record| record.bytes.len());
        log.entries.push_front(payload.into());
        log.kept.push_front(Kept { chain, write, bytes });
        wanted = previous;
    }
    Ok(log)
}

/// Takes out a blob, if there is to be one; `Err` when it is not the one that is meant.
fn take_blob(blob: Blob, mark: Option<&BlobMark>, found: &mut Found) -> Result<Option<Vec<u8>>, ()> {
    let Some(mark) = mark else { return Ok(None) };
    let Some(record) = found.blobs.remove(&(blob, mark.write)) else {
        return if mark.bytes == 0 { Ok(Some(Vec::new())) } else { Err(()) };
    };
    let is_meant =
        !record.has_gap && record.bytes.len() == mark.bytes && crc32fast::hash(&record.bytes) == mark.crc;
    if is_meant { Ok(Some(record.bytes)) } else { Err(()) }
}

fn damage(what: &str) -> AmnesiaReason {
    AmnesiaReason::Record(what.to_owned())
}
