//! The last snapshot: saved durably, one at a time, for the state machine that makes it.
//!
//! The state machine itself lives in memory elsewhere; after a restart it is rebuilt from this snapshot and the
//! retained log.

use std::sync::Arc;

use openraft::RaftTypeConfig;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};

use crate::codec;
use crate::engine::Change;
use crate::error::StoreError;
use crate::store::Store;

/// Size of a snapshot in bytes, metadata included. The replicated state is KiBs; the directory has to stay small.
pub const MAX_SNAPSHOT_BYTES: usize = 4 * 1024 * 1024;

impl<C: RaftTypeConfig> Store<C> {
    /// Replaces the snapshot; durable on return. An older snapshot than the present one changes nothing, since
    /// the log behind the present one may be purged.
    pub async fn save_snapshot(&self, meta: &SnapshotMetaOf<C>, data: Vec<u8>) -> Result<(), StoreError> {
        if self.mirror().snapshot.as_ref().is_some_and(|(kept, _)| kept.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        let encoded = serde_json::to_vec(meta).map_err(|error| StoreError::Encode {
            what: "the snapshot's metadata",
            reason: error.to_string(),
        })?;
        let blob = codec::encode_snapshot(&encoded, &data)?;
        if blob.len() > MAX_SNAPSHOT_BYTES {
            return Err(StoreError::TooLarge {
                what: "the snapshot",
                size: blob.len(),
                limit: MAX_SNAPSHOT_BYTES,
            });
        }
        let (meta, data): (_, Arc<[u8]>) = (meta.clone(), data.into());
        self.write(Change::Snapshot(blob.into()), move |mirror| mirror.snapshot = Some((meta, data))).await
    }

    /// The last snapshot saved, if there was one.
    pub fn snapshot(&self) -> Option<SnapshotOf<C, Vec<u8>>> {
        let kept = self.mirror().snapshot.clone();
        kept.map(|(meta, data)| SnapshotOf::<C, Vec<u8>> { meta, snapshot: data.to_vec() })
    }
}
