//! The seal: a small file beside the database which remembers what the database must contain.
//!
//! sled can come back in an older state without a word. The seal is written after each durable write of the
//! database, into two alternating slots, each with a checksum, so that a torn slot leaves the other. It promises
//! that a database older than the last acknowledged write is found out. It never decides what to do about it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::files;
use crate::meta::Meta;

/// A slot is one page and sector multiple: no write of one slot touches the other.
const SLOT_BYTES: usize = 4096;
const SLOTS: usize = 2;
const MAGIC: &[u8; 8] = b"PGHSEAL1";
/// Magic, checksum, length.
const HEADER_BYTES: usize = 16;
const FILE: &str = "seal";

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    /// Counts the writes of the seal; the slot with the higher one is newer.
    pub(crate) write: u64,
    /// How often the store was opened.
    pub(crate) boot: u64,
    pub(crate) meta: Meta,
}

/// The open seal.
#[derive(Debug)]
pub(crate) struct Seal {
    file: File,
    path: PathBuf,
    write: u64,
    boot: u64,
    sync: bool,
}

impl Seal {
    /// Makes the seal of a new store.
    pub(crate) fn create(dir: &Path, meta: &Meta) -> Result<(), StoreError> {
        let mut bytes = render(&Sealed { write: 0, boot: 0, meta: meta.clone() })?;
        bytes.resize(SLOT_BYTES.saturating_mul(SLOTS), 0);
        files::write_new(&dir.join(FILE), &bytes)
    }

    /// Reads the newer valid slot; `None` when there is none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Sealed>, StoreError> {
        let Some(bytes) = files::read_limited(&dir.join(FILE), SLOT_BYTES.saturating_mul(SLOTS))? else {
            return Ok(None);
        };
        Ok(bytes.chunks(SLOT_BYTES).filter_map(parse).max_by_key(|sealed| sealed.write))
    }

    /// Opens the seal for writing, as a continuation of what was read.
    pub(crate) fn open(dir: &Path, sealed: &Sealed, sync: bool) -> Result<Seal, StoreError> {
        let path = dir.join(FILE);
        let file = OpenOptions::new().write(true).open(&path).map_err(StoreError::io("open", &path))?;
        Ok(Seal { file, path, write: sealed.write, boot: sealed.boot.saturating_add(1), sync })
    }

    /// How often the store was opened, this time included.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Seals a state; on return it is on disk.
    pub(crate) fn write(&mut self, meta: &Meta) -> Result<(), StoreError> {
        self.write = self.write.saturating_add(1);
        let bytes = render(&Sealed { write: self.write, boot: self.boot, meta: meta.clone() })?;
        let offset = if self.write.is_multiple_of(2) { 0 } else { SLOT_BYTES };
        self.file
            .write_all_at(&bytes, u64::try_from(offset).unwrap_or(0))
            .map_err(StoreError::io("write", &self.path))?;
        if self.sync {
            rustix::fs::fdatasync(&self.file)
                .map_err(|error| StoreError::io("sync", &self.path)(error.into()))?;
        }
        Ok(())
    }
}

fn render(sealed: &Sealed) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(sealed)
        .map_err(|error| StoreError::Encode { what: "the seal", reason: error.to_string() })?;
    let limit = SLOT_BYTES.saturating_sub(HEADER_BYTES);
    let length = match u32::try_from(json.len()) {
        Ok(length) if json.len() <= limit => length,
        _ => return Err(StoreError::TooLarge { what: "the seal", size: json.len(), limit }),
    };
    let mut slot = MAGIC.to_vec();
    slot.extend_from_slice(&crc32fast::hash(&json).to_be_bytes());
    slot.extend_from_slice(&length.to_be_bytes());
    slot.extend_from_slice(&json);
    slot.resize(SLOT_BYTES, 0);
    Ok(slot)
}

fn parse(slot: &[u8]) -> Option<Sealed> {
    let rest = slot.strip_prefix(MAGIC)?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let json = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    if u32::from_be_bytes(*crc) != crc32fast::hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_slot_wins_and_a_torn_one_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut meta = Meta::new(9);
        Seal::create(dir.path(), &meta).unwrap();
        let mut seal = Seal::open(dir.path(), &Seal::read(dir.path()).unwrap().unwrap(), true).unwrap();
        for sequence in 2..=5 {
            meta.sequence = sequence;
            seal.write(&meta).unwrap();
            assert_eq!(Seal::read(dir.path()).unwrap().unwrap().meta.sequence, sequence);
        }
        // Write 4 went to the first slot: tear it in the middle of its text.
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Seal::read(dir.path()).unwrap().unwrap().meta.sequence, 4);
        bytes[SLOT_BYTES + 100] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Seal::read(dir.path()).unwrap(), None);
    }
}
