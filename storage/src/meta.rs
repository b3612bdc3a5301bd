//! The state record: everything of the store except the entries, snapshot bytes and notes themselves, for which
//! it has checksums. It is the last record of each write and copied into the seal afterwards, so that comparing two
//! small records finds every rollback and walking the rest against it finds every damage.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A log id as stored: its index, and the whole as JSON (its type belongs to the caller's type config).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogMark {
    pub(crate) index: u64,
    pub(crate) id: Value,
}

/// What a snapshot or the notes must look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobMark {
    /// Number of the write that made it.
    pub(crate) write: u64,
    pub(crate) bytes: usize,
    pub(crate) crc: u32,
}

/// The state after one write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Number of the write that left this state, counted from 1.
    pub(crate) sequence: u64,
    pub(crate) node_id: u64,
    pub(crate) vote: Option<Value>,
    /// No epoch below is acknowledged by this voter.
    pub(crate) floor: u64,
    pub(crate) committed: Option<Value>,
    pub(crate) purged: Option<LogMark>,
    /// Index of the first retained entry, or of the next one if there is none.
    pub(crate) first: u64,
    /// The last entry, or the last purged one if there is none.
    pub(crate) last: Option<LogMark>,
    /// Checksum that ends the chain through all entries.
    pub(crate) chain: u32,
    pub(crate) snapshot: Option<BlobMark>,
    pub(crate) notes: Option<BlobMark>,
}

impl Meta {
    /// State of a store just made.
    pub(crate) fn new(node_id: u64) -> Self {
        Meta {
            sequence: 1,
            node_id,
            vote: None,
            floor: 0,
            committed: None,
            purged: None,
            first: 0,
            last: None,
            chain: 0,
            snapshot: None,
            notes: None,
        }
    }

    /// Index the next entry must have.
    pub(crate) fn next_index(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.index.saturating_add(1))
    }
}
