//! The file `memory`: what a member remembers without a promise.
//!
//! It stands outside of the database and the seal, so that writing it counts as no write of the store: the memory is
//! about other members' counts of writes, and two members whose memories counted would wake each other for ever. It
//! is replaced as a whole. A lost or damaged one reads as none; nobody may rely on it as on a vote.

use std::path::Path;

use crate::error::StoreError;
use crate::files;

const FILE: &str = "memory";
/// Size of the memory in bytes: some numbers for each of a cluster's members.
pub const MAX_MEMORY_BYTES: usize = 64 * 1024;
/// The checksum in front.
const HEADER_BYTES: usize = 4;

/// Replaces the file durably.
pub(crate) fn write(dir: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.len() > MAX_MEMORY_BYTES {
        return Err(StoreError::TooLarge { what: "the memory", size: bytes.len(), limit: MAX_MEMORY_BYTES });
    }
    let mut record = crc32fast::hash(bytes).to_be_bytes().to_vec();
    record.extend_from_slice(bytes);
    files::replace(&dir.join(FILE), &record)
}

/// What was written last.
pub(crate) fn read(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let limit = MAX_MEMORY_BYTES.saturating_add(HEADER_BYTES);
    let Some(record) = files::read_limited(&dir.join(FILE), limit)? else { return Ok(None) };
    let Some((crc, bytes)) = record.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    Ok((u32::from_be_bytes(*crc) == crc32fast::hash(bytes)).then(|| bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_counts_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        write(dir.path(), b"one").unwrap();
        write(dir.path(), b"two").unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(b"two".to_vec()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }
}
