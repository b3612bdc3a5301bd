//! What the store contains, in memory, typed: the side that readers see.
//!
//! The log and the purge position change when an operation is accepted, since Raft reads entries back at once;
//! vote, floor, notes and snapshot change when they are durable, since they are promises.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use openraft::RaftTypeConfig;
use openraft::alias::{LogIdOf, SnapshotMetaOf, VoteOf};
use openraft::entry::RaftEntry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::codec;
use crate::error::{AmnesiaReason, StoreError};
use crate::meta::LogMark;
use crate::verify::Contents;

/// The last snapshot.
pub(crate) type KeptSnapshot<C> = (SnapshotMetaOf<C>, Arc<[u8]>);

/// The readable state.
pub(crate) struct Mirror<C: RaftTypeConfig> {
    pub(crate) vote: Option<VoteOf<C>>,
    pub(crate) committed: Option<LogIdOf<C>>,
    pub(crate) purged: Option<LogIdOf<C>>,
    pub(crate) last: Option<LogIdOf<C>>,
    /// Index of the first retained entry, or of the next one if there is none.
    pub(crate) first: u64,
    pub(crate) entries: VecDeque<Arc<[u8]>>,
    pub(crate) floor: u64,
    pub(crate) notes: BTreeMap<String, Vec<u8>>,
    pub(crate) snapshot: Option<KeptSnapshot<C>>,
}

impl<C: RaftTypeConfig> Mirror<C> {
    /// Types what was read. `Ok(Err(_))`: intact records that contradict each other.
    pub(crate) fn load(contents: Contents) -> Result<Result<Self, AmnesiaReason>, StoreError> {
        let Contents { meta, entries, kept: _, snapshot, notes, unfinished: _, garbage: _ } = contents;
        let purged = meta.purged.map(|mark| from_value("the purge position", mark.id)).transpose()?;
        let last: Option<LogIdOf<C>> =
            meta.last.map(|mark| from_value("the last log id", mark.id)).transpose()?;
        let mut previous: Option<LogIdOf<C>> = purged.clone();
        for (payload, index) in entries.iter().zip(meta.first..) {
            let id = log_id_of::<C>(&decode_entry::<C>(index, payload)?);
            if id.index != index || previous.as_ref().is_some_and(|previous| *previous >= id) {
                return Ok(Err(AmnesiaReason::Record(format!("log entry {index} is out of order"))));
            }
            previous = Some(id);
        }
        if previous != last {
            return Ok(Err(AmnesiaReason::Record("the log does not end where it should".to_owned())));
        }
        let snapshot = snapshot.map(|blob| decode_snapshot::<C>(&blob)).transpose()?;
        Ok(Ok(Mirror {
            vote: meta.vote.map(|vote| from_value("the vote", vote)).transpose()?,
            committed: meta.committed.map(|id| from_value("the commit position", id)).transpose()?,
            purged,
            last,
            first: meta.first,
            entries,
            floor: meta.floor,
            notes,
            snapshot,
        }))
    }

    /// Index the next entry must have; any from `first` on while the log is empty.
    pub(crate) fn next_index(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.index.saturating_add(1)).max(self.first)
    }

    /// The JSON of the entries of `start..end` that are there, at most `count` of them.
    pub(crate) fn range(&self, start: u64, end: u64, count: usize) -> Vec<(u64, Arc<[u8]>)> {
        let skip = usize::try_from(start.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (self.first..)
            .zip(self.entries.iter())
            .skip(skip)
            .take_while(|(index, _)| *index < end)
            .take(count)
            .map(|(index, payload)| (index, Arc::clone(payload)))
            .collect()
    }
}

impl<C: RaftTypeConfig> std::fmt::Debug for Mirror<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("vote", &self.vote)
            .field("purged", &self.purged)
            .field("last", &self.last)
            .field("floor", &self.floor)
            .finish_non_exhaustive()
    }
}

/// An entry's log id.
pub(crate) fn log_id_of<C: RaftTypeConfig>(entry: &C::Entry) -> LogIdOf<C> {
    let (leader_id, index) = entry.log_id_parts();
    LogIdOf::<C>::new(leader_id.clone(), index)
}

/// Reads an entry back.
pub(crate) fn decode_entry<C: RaftTypeConfig>(index: u64, payload: &[u8]) -> Result<C::Entry, StoreError> {
    serde_json::from_slice(payload)
        .map_err(|error| StoreError::Decode { what: format!("log entry {index}"), reason: error.to_string() })
}

/// A log id as it is stored.
pub(crate) fn mark_of<C: RaftTypeConfig>(id: &LogIdOf<C>) -> Result<LogMark, StoreError> {
    Ok(LogMark { index: id.index, id: to_value("a log id", id)? })
}

pub(crate) fn to_value<T: Serialize>(what: &'static str, value: &T) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::Encode { what, reason: error.to_string() })
}

fn from_value<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, StoreError> {
    serde_json::from_value(value)
        .map_err(|error| StoreError::Decode { what: what.to_owned(), reason: error.to_string() })
}

fn decode_snapshot<C: RaftTypeConfig>(blob: &[u8]) -> Result<KeptSnapshot<C>, StoreError> {
    let broken = |reason: String| StoreError::Decode { what: "the snapshot".to_owned(), reason };
    let (meta, data) = codec::decode_snapshot(blob).ok_or_else(|| broken("it is too short".to_owned()))?;
    let meta = serde_json::from_slice(meta).map_err(|error| broken(error.to_string()))?;
    Ok((meta, data.into()))
}
