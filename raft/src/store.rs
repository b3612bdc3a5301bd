//! The node's store behind the names which this crate uses.
//!
//! Owns the way in: a store that lost something is set aside and a new one, with a new node id, takes its place.
//! That this happened is itself durable, so that such a node never founds a cluster: it only joins.

use std::io;
use std::path::Path;
use std::time::Duration;

use pgherd_storage::{Failure, Mark, Opened, Options, StoreError};
use serde::Serialize;
use tokio::sync::watch;

use crate::model::{Epoch, GroupId, MemberId};
use crate::types::{SnapshotMeta, TypeConfig};

/// The store behind the consensus library's traits.
pub(crate) type LogStore = pgherd_storage::Store<TypeConfig>;

/// The names of the notes.
const GIVEN_UP: &str = "given-up";
const GROUP: &str = "group";
const PROMISE: &str = "founding-promise";
/// Milliseconds.
const PROMISE_LENGTH: &str = "failsafe-promise";
const LOST: &str = "lost-store";

/// Everything durable of one node's part in one cluster. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    log: LogStore,
}

impl Store {
    /// Opens the store, and makes it when there is none.
    pub(crate) async fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.to_path_buf();
        let log = tokio::task::spawn_blocking(move || open(&path)).await.map_err(io::Error::other)??;
        Ok(Self { log })
    }

    pub(crate) fn id(&self) -> MemberId {
        MemberId(self.log.node_id())
    }

    /// For the consensus library.
    pub(crate) fn log(&self) -> LogStore {
        self.log.clone()
    }

    /// Why the store takes nothing more, once there is a reason.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.log.failed()
    }

    /// How far the store has come.
    pub(crate) fn mark(&self) -> Mark {
        self.log.mark()
    }

    /// What was remembered of the other members before this opening.
    pub(crate) fn memory(&self) -> Option<&[u8]> {
        self.log.memory()
    }

    /// Replaces what is remembered; no write that the mark counts.
    pub(crate) async fn save_memory(&self, memory: &impl Serialize) -> io::Result<()> {
        Ok(self.log.remember(serde_json::to_vec(memory)?).await?)
    }

    /// From the next opening on the store is one that lost something.
    pub(crate) async fn distrust(&self, reason: &str) -> io::Result<()> {
        Ok(self.log.distrust(reason).await?)
    }

    pub(crate) async fn close(&self) -> io::Result<()> {
        Ok(self.log.close().await?)
    }

    /// Below which epoch this voter acknowledges nothing.
    pub(crate) fn floor(&self) -> Epoch {
        Epoch(self.log.floor())
    }

    pub(crate) async fn save_floor(&self, floor: Epoch) -> io::Result<()> {
        Ok(self.log.set_floor(floor.0).await?)
    }

    /// Up to which epoch this node gave up.
    pub(crate) fn given_up(&self) -> Epoch {
        Epoch(self.number(GIVEN_UP).unwrap_or(0))
    }

    pub(crate) async fn save_given_up(&self, epoch: Epoch) -> io::Result<()> {
        self.save_note(GIVEN_UP, epoch.0.to_string()).await
    }

    /// The group whose messages this node accepts before the state says which: the one it founds or asked to join.
    pub(crate) fn group(&self) -> Option<GroupId> {
        self.number(GROUP).map(GroupId)
    }

    pub(crate) async fn save_group(&self, group: Option<GroupId>) -> io::Result<()> {
        self.save_note(GROUP, group.map(|group| group.0.to_string()).unwrap_or_default()).await
    }

    /// The promise to take part in one founding, as JSON.
    pub(crate) fn promise(&self) -> Option<String> {
        self.note(PROMISE)
    }

    pub(crate) async fn save_promise(&self, promise: Option<String>) -> io::Result<()> {
        self.save_note(PROMISE, promise.unwrap_or_default()).await
    }

    /// How long the longest promise lasts by which this node may stand back.
    pub(crate) fn promise_length(&self) -> Duration {
        Duration::from_millis(self.number(PROMISE_LENGTH).unwrap_or(0))
    }

    pub(crate) async fn save_promise_length(&self, length: Duration) -> io::Result<()> {
        self.save_note(PROMISE_LENGTH, length.as_millis().to_string()).await
    }

    /// A sentence that says which store was lost before this one.
    pub(crate) fn lost(&self) -> Option<String> {
        self.note(LOST)
    }

    pub(crate) fn load_snapshot(&self) -> io::Result<Option<String>> {
        let Some(kept) = self.log.snapshot() else { return Ok(None) };
        String::from_utf8(kept.snapshot).map(Some).map_err(io::Error::other)
    }

    pub(crate) async fn save_snapshot(&self, meta: &SnapshotMeta, text: String) -> io::Result<()> {
        Ok(self.log.save_snapshot(meta, text.into_bytes()).await?)
    }

    /// What was noted; an empty note is none.
    fn note(&self, key: &str) -> Option<String> {
        let text = self.log.note(key).and_then(|bytes| String::from_utf8(bytes).ok());
        text.filter(|text| !text.is_empty())
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.note(key).and_then(|text| text.parse().ok())
    }

    async fn save_note(&self, key: &str, value: String) -> io::Result<()> {
        Ok(self.log.set_note(key, value.as_bytes()).await?)
    }
}

/// Opens the directory. What cannot be trusted is set aside, and a new store with a note about it takes its place.
fn open(dir: &Path) -> Result<LogStore, StoreError> {
    let amnesiac = match LogStore::open(dir, Options::default())? {
        Opened::Fresh(store) | Opened::Known(store) => return Ok(store),
        Opened::Amnesiac(amnesiac) => amnesiac,
    };
    let reason = amnesiac.reason().clone();
    let sentence = |aside: &Path| {
        format!(
            "the store {} lost something ({reason}); it is kept as {}, and this node comes back under a new id",
            dir.display(),
            aside.display()
        )
    };
    let aside = amnesiac.replace(LOST, |aside| sentence(aside).into_bytes())?;
    tracing::error!("{}", sentence(&aside));
    match LogStore::open(dir, Options::default())? {
        Opened::Fresh(store) | Opened::Known(store) => Ok(store),
        Opened::Amnesiac(_) => Err(StoreError::NotADirectory { path: dir.to_path_buf() }),
    }
}
