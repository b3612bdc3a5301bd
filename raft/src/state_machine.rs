//! The replicated state machine: `model::apply` behind the consensus library's trait.
//!
//! Owns the applied state. It is rebuilt at start from the last snapshot and the log after it, so an apply writes
//! nothing to disk. A snapshot is one JSON document with its own format number.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::{self, ClusterState, Outcome};
use crate::store::Store;
use crate::types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// The format number of the snapshot document.
const SNAPSHOT_FORMAT: u32 = 1;

/// The applied state at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) state: ClusterState,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl Applied {
    /// The index of the last applied entry; zero before the first.
    pub(crate) fn index(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.index)
    }
}

#[derive(Serialize)]
struct DocumentRef<'a> {
    format: u32,
    last: &'a Option<LogId>,
    membership: &'a StoredMembership,
    state: &'a ClusterState,
}

#[derive(Deserialize)]
struct Document {
    last: Option<LogId>,
    membership: StoredMembership,
    state: ClusterState,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Applies committed entries and publishes the result.
#[derive(Debug)]
pub(crate) struct StateMachine {
    applied: Applied,
    published: watch::Sender<Arc<Applied>>,
    store: Store,
}

impl StateMachine {
    /// Starts from the store's snapshot, if it has one.
    pub(crate) fn open(store: Store) -> io::Result<Self> {
        let applied = match store.load_snapshot()? {
            Some(text) => parse(&text)?,
            None => Applied::default(),
        };
        let published = watch::Sender::new(Arc::new(applied.clone()));
        Ok(Self { applied, published, store })
    }

    /// Follows the applied state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        self.published.subscribe()
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.applied.clone()));
    }
}

fn parse(text: &str) -> io::Result<Applied> {
    let FormatOnly { format } = serde_json::from_str(text).map_err(invalid)?;
    if format != SNAPSHOT_FORMAT {
        return Err(invalid(format!(
            "the snapshot has format {format}, this version reads {SNAPSHOT_FORMAT}; use a newer pgherd"
        )));
    }
    let Document { last, membership, state } = serde_json::from_str(text).map_err(invalid)?;
    Ok(Applied { state, last, membership })
}

fn render(applied: &Applied) -> io::Result<String> {
    let Applied { state, last, membership } = applied;
    serde_json::to_string(&DocumentRef { format: SNAPSHOT_FORMAT, last, membership, state }).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn snapshot(applied: &Applied, text: String) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone() },
        snapshot: text,
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = String;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.applied.last = Some(entry.log_id);
            let outcome = match &entry.payload {
                EntryPayload::Blank => Outcome::Applied,
                EntryPayload::Normal(command) => {
                    model::apply(&mut self.applied.state, entry.log_id.index, command)
                }
                EntryPayload::Membership(membership) => {
                    self.applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Outcome::Applied
                }
            };
            self.publish();
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { applied: self.applied.clone(), store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, text: String) -> io::Result<()> {
        let applied = parse(&text)?;
        self.store.save_snapshot(meta, text).await?;
        self.applied = applied;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(text) = self.store.load_snapshot()? else { return Ok(None) };
        let applied = parse(&text)?;
        Ok(Some(snapshot(&applied, text)))
    }
}

/// One moment of the applied state, to be written as a snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    applied: Applied,
    store: Store,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = String;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let text = render(&self.applied)?;
        let snapshot = snapshot(&self.applied, text.clone());
        self.store.save_snapshot(&snapshot.meta, text).await?;
        Ok(snapshot)
    }
}
