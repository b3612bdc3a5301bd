//! Keys and records in sled. One tree holds everything, so that one batch is atomic over all of it.
//!
//! | key | value |
//! |---|---|
//! | `m` | checksum, then the state record as JSON |
//! | `l` index part | entry: index, checksum of the entry before, own checksum, JSON; cut into parts |
//! | `s` part | snapshot: length of its metadata, metadata as JSON, bytes; cut into parts |
//! | `n` key | note |
//!
//! Numbers are big-endian. An entry's checksum covers the one before it: the entries form a chain whose end is
//! in the state record, so an entry that is intact but stale is found out.

use crate::error::StoreError;
use crate::meta::Meta;

/// Values above sled's blob limit become files of their own, which its recovery treats worse; stay well below.
pub(crate) const PART_BYTES: usize = 32 * 1024;

pub(crate) const META_KEY: &[u8] = b"m";
const LOG: u8 = b'l';
const SNAPSHOT: u8 = b's';
const NOTE: u8 = b'n';

/// What a key names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Meta,
    Log { index: u64, part: u16 },
    Snapshot { part: u32 },
    Note(&'a str),
}

pub(crate) fn log_key(index: u64, part: u16) -> Vec<u8> {
    let mut key = vec![LOG];
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

pub(crate) fn snapshot_key(part: u32) -> Vec<u8> {
    let mut key = vec![SNAPSHOT];
    key.extend_from_slice(&part.to_be_bytes());
    key
}

pub(crate) fn note_key(name: &str) -> Vec<u8> {
    let mut key = vec![NOTE];
    key.extend_from_slice(name.as_bytes());
    key
}

/// Reads a key; `None` for one that this program never wrote.
pub(crate) fn parse_key(key: &[u8]) -> Option<Key<'_>> {
    let (kind, rest) = key.split_first()?;
    match *kind {
        LOG => {
            let (index, part) = rest.split_first_chunk::<8>()?;
            let part = <[u8; 2]>::try_from(part).ok()?;
            Some(Key::Log { index: u64::from_be_bytes(*index), part: u16::from_be_bytes(part) })
        }
        SNAPSHOT => Some(Key::Snapshot { part: u32::from_be_bytes(rest.try_into().ok()?) }),
        NOTE => Some(Key::Note(std::str::from_utf8(rest).ok()?)),
        _ if key == META_KEY => Some(Key::Meta),
        _ => None,
    }
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

/// One checksum over all notes, in the order of their keys.
pub(crate) fn notes_crc<'a>(notes: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for (key, value) in notes {
        hasher.update(&key.len().to_be_bytes());
        hasher.update(key.as_bytes());
        hasher.update(&value.len().to_be_bytes());
        hasher.update(value);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_their_numbers_and_parse_back() {
        assert!(log_key(255, 0) < log_key(256, 0));
        assert!(log_key(1, 9) < log_key(2, 0));
        assert_eq!(parse_key(&log_key(7, 3)), Some(Key::Log { index: 7, part: 3 }));
        assert_eq!(parse_key(&snapshot_key(9)), Some(Key::Snapshot { part: 9 }));
        assert_eq!(parse_key(&note_key("promise")), Some(Key::Note("promise")));
        assert_eq!(parse_key(META_KEY), Some(Key::Meta));
        assert_eq!(parse_key(b"l123"), None);
        assert_eq!(parse_key(b"mm"), None);
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
