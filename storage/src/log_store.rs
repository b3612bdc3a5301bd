//! openraft's log storage traits.
//!
//! Reads come from memory. Appends are readable at once and reported flushed when they are durable.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::alias::{LogIdOf, VoteOf};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};

use crate::engine::{Change, NewEntry};
use crate::error::StoreError;
use crate::mirror::{self, mark_of, to_value};
use crate::store::Store;
use crate::writer::Operation;

/// Size of one entry as JSON in bytes. The state is KiBs; a caller refuses commands long before this, since an
/// error here ends the Raft.
pub const MAX_ENTRY_BYTES: usize = 4 * 1024 * 1024;
/// Entries and bytes read at once for replication: bounds a message.
const MAX_READ_ENTRIES: usize = 256;
const MAX_READ_BYTES: usize = 1024 * 1024;

impl<C: RaftTypeConfig> Store<C> {
    fn read_entries(&self, range: impl RangeBounds<u64>, limited: bool) -> Result<Vec<C::Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let count = if limited { MAX_READ_ENTRIES } else { usize::MAX };
        let payloads = self.mirror().range(start, end, count);
        let mut bytes: usize = 0;
        let mut entries = Vec::with_capacity(payloads.len());
        for (index, payload) in payloads {
            bytes = bytes.saturating_add(payload.len());
            if limited && bytes > MAX_READ_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(mirror::decode_entry::<C>(index, &payload)?);
        }
        Ok(entries)
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for Store<C> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<C::Entry>, io::Error> {
        self.read_entries(range, false)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<C>>, io::Error> {
        Ok(self.mirror().vote.clone())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<C::Entry>, io::Error> {
        self.read_entries(start..end, true)
    }
}

impl<C: RaftTypeConfig> RaftLogStorage<C> for Store<C> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let mirror = self.mirror();
        Ok(LogState { last_purged_log_id: mirror.purged.clone(), last_log_id: mirror.last.clone() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> Result<(), io::Error> {
        let stored = to_value("the vote", vote)?;
        let vote = vote.clone();
        Ok(self.write(Change::Vote(stored), move |mirror| mirror.vote = Some(vote)).await?)
    }

    /// Rides with the next batch: after a crash the commit position may be older, which Raft allows.
    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        let stored = committed.as_ref().map(|id| to_value("the commit position", id)).transpose()?;
        let permit = self.writer().reserve().await?;
        self.mirror().committed = committed;
        permit.send(Operation::Ride(Change::Committed(stored)));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<C>>, io::Error> {
        Ok(self.mirror().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        for entry in entries {
            encoded.push((mirror::log_id_of::<C>(&entry), encode_entry::<C>(&entry)?));
        }
        let permit = self.writer().reserve().await?;
        let mut new = Vec::with_capacity(encoded.len());
        {
            let mut mirror = self.mirror();
            let mut expected = match encoded.first() {
                // An empty log takes up where its first entry says: after a purge, that is past it.
                Some((id, _)) if mirror.entries.is_empty() && id.index >= mirror.first => id.index,
                _ => mirror.next_index(),
            };
            for (id, payload) in &encoded {
                if id.index != expected {
                    return Err(StoreError::NotConsecutive { index: id.index, expected }.into());
                }
                expected = expected.saturating_add(1);
                new.push(NewEntry { mark: mark_of::<C>(id)?, payload: Arc::clone(payload) });
            }
            for (id, payload) in encoded {
                if mirror.entries.is_empty() {
                    mirror.first = id.index;
                }
                mirror.entries.push_back(payload);
                mirror.last = Some(id);
            }
        }
        permit.send(Operation::Write(
            Change::Append(new),
            Box::new(move |result| callback.io_completed(result.map_err(io::Error::other))),
        ));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |id| id.index.saturating_add(1));
        let permit = self.writer().reserve().await?;
        let last = {
            let mut mirror = self.mirror();
            if mirror.next_index() <= from || mirror.entries.is_empty() {
                return Ok(());
            }
            let keep = usize::try_from(from.saturating_sub(mirror.first)).unwrap_or(usize::MAX);
            mirror.entries.truncate(keep);
            mirror.last = match (mirror.entries.back(), from.checked_sub(1)) {
                (Some(payload), Some(index)) => {
                    Some(mirror::log_id_of::<C>(&mirror::decode_entry::<C>(index, payload)?))
                }
                _ => mirror.purged.clone(),
            };
            if mirror.entries.is_empty() {
                mirror.first = mirror.last.as_ref().map_or(0, |last| last.index.saturating_add(1));
            }
            mirror.last.clone()
        };
        let last = last.as_ref().map(mark_of::<C>).transpose()?;
        Ok(self.submit(permit, Change::Truncate { from, last }, |_| ()).await?)
    }

    /// Not waited for: it promises nothing, and a failure of it shows at the next operation.
    async fn purge(&mut self, log_id: LogIdOf<C>) -> Result<(), io::Error> {
        let mark = mark_of::<C>(&log_id)?;
        let permit = self.writer().reserve().await?;
        {
            let mut mirror = self.mirror();
            if mirror.purged.as_ref().is_some_and(|purged| purged.index >= log_id.index) {
                return Ok(());
            }
            let count = log_id.index.saturating_add(1).saturating_sub(mirror.first);
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(mirror.entries.len());
            mirror.entries.drain(..count);
            mirror.first = log_id.index.saturating_add(1).max(mirror.first);
            if mirror.entries.is_empty() {
                mirror.last = Some(log_id.clone());
            }
            mirror.purged = Some(log_id);
        }
        permit.send(Operation::Write(Change::Purge(mark), Box::new(|_| ())));
        Ok(())
    }
}

fn encode_entry<C: RaftTypeConfig>(entry: &C::Entry) -> Result<Arc<[u8]>, StoreError> {
    let payload = serde_json::to_vec(entry)
        .map_err(|error| StoreError::Encode { what: "a log entry", reason: error.to_string() })?;
    if payload.len() > MAX_ENTRY_BYTES {
        return Err(StoreError::TooLarge {
            what: "a log entry",
            size: payload.len(),
            limit: MAX_ENTRY_BYTES,
        });
    }
    Ok(payload.into())
}
