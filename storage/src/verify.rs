//! Reading the whole database once, at open, and checking every record against the state record.
//!
//! It promises that what it returns is exactly what the write named in the state record left: no entry missing,
//! stale, foreign or damaged. It never repairs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::codec::{self, EntryRecord, Key};
use crate::engine::Kept;
use crate::error::AmnesiaReason;
use crate::meta::Meta;

/// Everything in a verified database.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) meta: Meta,
    /// The retained entries as JSON, the first with index `meta.first`.
    pub(crate) entries: Vec<Arc<[u8]>>,
    pub(crate) kept: VecDeque<Kept>,
    /// Snapshot metadata and bytes, as [`codec::decode_snapshot`] takes them.
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) notes: BTreeMap<String, Vec<u8>>,
}

/// Records as found, before they are held against the state record.
#[derive(Default)]
struct Found {
    meta: Option<Vec<u8>>,
    entries: BTreeMap<u64, Parts>,
    snapshot: Parts,
    notes: BTreeMap<String, Vec<u8>>,
}

/// The retained log, checked.
struct Log {
    entries: Vec<Arc<[u8]>>,
    kept: VecDeque<Kept>,
}

#[derive(Default)]
struct Parts {
    count: u32,
    bytes: Vec<u8>,
}

impl Parts {
    /// Adds the next part; keys are sorted, so a gap means that one is lost.
    fn push(&mut self, part: u32, bytes: &[u8]) -> bool {
        let in_order = part == self.count;
        self.count = self.count.saturating_add(1);
        self.bytes.extend_from_slice(bytes);
        in_order
    }
}

/// Reads and checks a database. The outer error is sled's own.
pub(crate) fn read(db: &sled::Db) -> sled::Result<Result<Contents, AmnesiaReason>> {
    let mut found = Found::default();
    for item in db.iter() {
        let (key, value) = item?;
        let sorted = match codec::parse_key(&key) {
            Some(Key::Meta) => {
                found.meta = Some(value.to_vec());
                true
            }
            Some(Key::Log { index, part }) => {
                found.entries.entry(index).or_default().push(u32::from(part), &value)
            }
            Some(Key::Snapshot { part }) => found.snapshot.push(part, &value),
            Some(Key::Note(name)) => {
                found.notes.insert(name.to_owned(), value.to_vec());
                true
            }
            None => return Ok(Err(damage("it contains a record of unknown kind"))),
        };
        if !sorted {
            return Ok(Err(damage("a part of a record is missing")));
        }
    }
    Ok(check(found))
}

fn check(found: Found) -> Result<Contents, AmnesiaReason> {
    let Some(record) = found.meta else {
        return Err(damage("the state record is missing"));
    };
    let Some(meta) = codec::decode_meta(&record) else {
        return Err(damage("the state record is damaged"));
    };
    let Log { entries, kept } = check_entries(&meta, found.entries)?;
    let count = u32::try_from(found.notes.len()).unwrap_or(u32::MAX);
    if count != meta.notes || (count > 0 && codec::notes_crc(found.notes.iter()) != meta.notes_crc) {
        return Err(damage("the notes are not those that were written last"));
    }
    let snapshot = match &meta.snapshot {
        None if found.snapshot.count == 0 => None,
        Some(mark)
            if found.snapshot.count == mark.parts
                && found.snapshot.bytes.len() == mark.bytes
                && crc32fast::hash(&found.snapshot.bytes) == mark.crc =>
        {
            Some(found.snapshot.bytes)
        }
        _ => return Err(damage("the snapshot is not the one that was written last")),
    };
    Ok(Contents { meta, entries, kept, snapshot, notes: found.notes })
}

/// Checks that the log is contiguous, intact, one chain, and ends as the state record says.
fn check_entries(meta: &Meta, found: BTreeMap<u64, Parts>) -> Result<Log, AmnesiaReason> {
    if u64::try_from(found.len()) != Ok(meta.retained()) {
        let (has, wants) = (found.len(), meta.retained());
        return Err(damage(&format!("the log has {has} entries instead of {wants}")));
    }
    let mut entries = Vec::with_capacity(found.len());
    let mut kept = VecDeque::with_capacity(found.len());
    let mut end: Option<u32> = None;
    for ((index, parts), expected) in found.into_iter().zip(meta.first..) {
        if index != expected {
            return Err(damage(&format!("log entry {expected} is missing")));
        }
        let Some(EntryRecord { previous, chain, payload }) = codec::decode_entry(index, &parts.bytes) else {
            return Err(damage(&format!("log entry {index} is damaged")));
        };
        if end.is_some_and(|end| end != previous) {
            return Err(damage(&format!("log entry {index} does not continue the one before")));
        }
        end = Some(chain);
        entries.push(payload.into());
        kept.push_back(Kept { chain, parts: u16::try_from(parts.count).unwrap_or(u16::MAX) });
    }
    if end.is_some_and(|end| end != meta.chain) {
        return Err(damage("the last log entry is not the one that was written last"));
    }
    Ok(Log { entries, kept })
}

fn damage(what: &str) -> AmnesiaReason {
    AmnesiaReason::Record(what.to_owned())
}
