//! Keys and records in sled. One tree holds everything, so that everything has one order.
//!
//! | key | value |
//! |---|---|
//! | `m` | checksum, then the state record as JSON |
//! | `l` index write part | entry: index, checksum of the entry before, own checksum, JSON; cut into parts |
//! | `s` write part | snapshot: length of its metadata, metadata as JSON, bytes; cut into parts |
//! | `n` write part | all notes: for each, length and bytes of key and value; cut into parts |
//!
//! Numbers are big-endian. `write` is the number of the write that made the record: nothing but the state record
//! is ever overwritten, so an unfinished write leaves the state before it whole. Records which the state record
//! does not mean are garbage. An entry's checksum covers the one before it: the entries form a chain whose end is
//! in the state record, so an entry that is intact but stale is found out.

use std::collections::BTreeMap;

use crate::error::StoreError;
use crate::meta::Meta;

/// sled writes a leaf of more than a quarter of a segment (64 KiB) to a file of its own and never syncs that file,
/// so a power cut empties it. A leaf holds up to about 20 values: this keeps every leaf below.
pub(crate) const PART_BYTES: usize = 2 * 1024;

pub(crate) const META_KEY: &[u8] = b"m";
const LOG: u8 = b'l';

/// Things of any size of which the state record means one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blob {
    Snapshot,
    Notes,
}

impl Blob {
    fn kind(self) -> u8 {
        match self {
            Blob::Snapshot => b's',
            Blob::Notes => b'n',
        }
    }
}

/// What a key names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Meta,
    Log { index: u64, write: u64, part: u16 },
    Blob { blob: Blob, write: u64, part: u16 },
}

pub(crate) fn log_key(index: u64, write: u64, part: u16) -> Vec<u8> {
    let mut key = vec![LOG];
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&write.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

pub(crate) fn blob_key(blob: Blob, write: u64, part: u16) -> Vec<u8> {
    let mut key = vec![blob.kind()];
    key.extend_from_slice(&write.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

/// Reads a key; `None` for one that this program never wrote.
pub(crate) fn parse_key(key: &[u8]) -> Option<Key> {
    let (kind, rest) = key.split_first()?;
    if key == META_KEY {
        return Some(Key::Meta);
    }
    if *kind == LOG {
        let (index, rest) = rest.split_first_chunk::<8>()?;
        let (write, part) = write_and_part(rest)?;
        return Some(Key::Log { index: u64::from_be_bytes(*index), write, part });
    }
    let blob = [Blob::Snapshot, Blob::Notes].into_iter().find(|blob| blob.kind() == *kind)?;
    let (write, part) = write_and_part(rest)?;
    Some(Key::Blob { blob, write, part })
}

fn write_and_part(rest: &[u8]) -> Option<(u64, u16)> {
    let (write, part) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*write), u16::from_be_bytes(part.try_into().ok()?)))
}

/// Cuts a record into parts with their numbers.
pub(crate) fn parts<'a>(
    what: &'static str,
    record: &'a [u8],
) -> Result<impl Iterator<Item = (u16, &'a [u8])>, StoreError> {
    let limit = PART_BYTES.saturating_mul(usize::from(u16::MAX));
    if record.len() > limit {
        return Err(StoreError::TooLarge { what, size: record.len(), limit });
    }
    Ok((0..=u16::MAX).zip(record.chunks(PART_BYTES)))
}

/// An entry ready to be cut into parts, and the checksum that the next one continues from.
pub(crate) fn encode_entry(index: u64, previous: u32, payload: &[u8]) -> (u32, Vec<u8>) {
    let chain = chain(index, previous, payload);
    let mut record = Vec::with_capacity(payload.len().saturating_add(16));
    record.extend_from_slice(&index.to_be_bytes());
    record.extend_from_slice(&previous.to_be_bytes());
    record.extend_from_slice(&chain.to_be_bytes());
    record.extend_from_slice(payload);
    (chain, record)
}

/// An entry as read: what it continues from, where its checksum stands, and its JSON.
#[derive(Debug)]
pub(crate) struct EntryRecord {
    pub(crate) previous: u32,
    pub(crate) chain: u32,
    pub(crate) payload: Vec<u8>,
}

/// Reads an entry; `None` if it is not the one that was written at this index.
pub(crate) fn decode_entry(index: u64, record: &[u8]) -> Option<EntryRecord> {
    let (stored_index, rest) = record.split_first_chunk::<8>()?;
    let (previous, rest) = rest.split_first_chunk::<4>()?;
    let (stored_chain, payload) = rest.split_first_chunk::<4>()?;
    let previous = u32::from_be_bytes(*previous);
    let stored_chain = u32::from_be_bytes(*stored_chain);
    let intact =
        u64::from_be_bytes(*stored_index) == index && chain(index, previous, payload) == stored_chain;
    intact.then(|| EntryRecord { previous, chain: stored_chain, payload: payload.to_vec() })
}

fn chain(index: u64, previous: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&previous.to_be_bytes());
    hasher.update(&index.to_be_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The state record with its checksum in front.
pub(crate) fn encode_meta(meta: &Meta) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(meta)
        .map_err(|error| StoreError::Encode { what: "the state record", reason: error.to_string() })?;
    let mut record = crc32fast::hash(&json).to_be_bytes().to_vec();
    record.extend_from_slice(&json);
    Ok(record)
}

/// Reads the state record; `None` if it is damaged.
pub(crate) fn decode_meta(record: &[u8]) -> Option<Meta> {
    let (crc, json) = record.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*crc) != crc32fast::hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Snapshot metadata and bytes in one piece.
pub(crate) fn encode_snapshot(meta: &[u8], data: &[u8]) -> Result<Vec<u8>, StoreError> {
    let length = u32::try_from(meta.len()).map_err(|_| StoreError::TooLarge {
        what: "a snapshot's metadata",
        size: meta.len(),
        limit: PART_BYTES,
    })?;
    let mut blob = length.to_be_bytes().to_vec();
    blob.extend_from_slice(meta);
    blob.extend_from_slice(data);
    Ok(blob)
}

/// The reverse of [`encode_snapshot`].
pub(crate) fn decode_snapshot(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// All notes in one piece, in the order of their keys.
pub(crate) fn encode_notes(notes: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    let mut blob = Vec::new();
    for (key, value) in notes {
        for bytes in [key.as_bytes(), value.as_slice()] {
            let length = u32::try_from(bytes.len()).map_err(|_| StoreError::TooLarge {
                what: "a note",
                size: bytes.len(),
                limit: PART_BYTES,
            })?;
            blob.extend_from_slice(&length.to_be_bytes());
            blob.extend_from_slice(bytes);
        }
    }
    Ok(blob)
}

/// The reverse of [`encode_notes`].
pub(crate) fn decode_notes(mut blob: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut notes = BTreeMap::new();
    while !blob.is_empty() {
        let (key, rest) = decode_snapshot(blob)?;
        let (value, rest) = decode_snapshot(rest)?;
        notes.insert(std::str::from_utf8(key).ok()?.to_owned(), value.to_vec());
        blob = rest;
    }
    Some(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_their_numbers_and_parse_back() {
        assert!(log_key(255, 9, 0) < log_key(256, 1, 0));
        assert!(log_key(1, 255, 9) < log_key(1, 256, 0));
        assert_eq!(parse_key(&log_key(7, 5, 3)), Some(Key::Log { index: 7, write: 5, part: 3 }));
        for blob in [Blob::Snapshot, Blob::Notes] {
            assert_eq!(parse_key(&blob_key(blob, 9, 4)), Some(Key::Blob { blob, write: 9, part: 4 }));
        }
        assert_eq!(parse_key(META_KEY), Some(Key::Meta));
        assert_eq!(parse_key(b"l123"), None);
        assert_eq!(parse_key(b"mm"), None);
    }

    #[test]
    fn notes_come_back() {
        let notes = BTreeMap::from([("a".to_owned(), vec![]), ("bc".to_owned(), vec![0, 1, 2])]);
        assert_eq!(decode_notes(&encode_notes(&notes).unwrap()), Some(notes));
        assert_eq!(decode_notes(&[0, 0, 0, 9, 1]), None);
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_found() {
        let (_, record) = encode_entry(5, 77, b"{\"a\":1}");
        assert!(decode_entry(5, &record).is_some());
        assert!(decode_entry(6, &record).is_none());
        for position in 0..record.len() {
            for bit in 0..8 {
                let mut damaged = record.clone();
                damaged[position] ^= 1 << bit;
                assert!(decode_entry(5, &damaged).is_none(), "byte {position} bit {bit}");
            }
        }
    }
}
