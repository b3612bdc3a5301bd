//! openraft's own storage suite on the real store, with a state machine that does just what the suite needs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io;

use futures_util::{Stream, TryStreamExt};
use openraft::StorageError;
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, StoredMembership};
use pgherd_storage::Store;
use support::TestConfig;
use tempfile::TempDir;

/// Remembers the last entry and membership; its snapshots go into the store.
#[derive(Clone)]
struct StateMachine {
    store: Store<TestConfig>,
    applied: Option<LogIdOf<TestConfig>>,
    membership: StoredMembershipOf<TestConfig>,
}

impl RaftSnapshotBuilder<TestConfig> for StateMachine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TestConfig, Vec<u8>>, io::Error> {
        let meta = SnapshotMetaOf::<TestConfig> {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        self.store.save_snapshot(&meta, b"state".to_vec()).await?;
        Ok(self.store.snapshot().unwrap())
    }
}

impl RaftStateMachine<TestConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TestConfig>>, StoredMembershipOf<TestConfig>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TestConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let Some(membership) = entry.get_membership() {
                self.membership = StoredMembership::new(self.applied, membership);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TestConfig>,
        snapshot: Vec<u8>,
    ) -> Result<(), io::Error> {
        self.store.save_snapshot(meta, snapshot).await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TestConfig, Vec<u8>>>, io::Error> {
        Ok(self.store.snapshot())
    }
}

struct Builder;

impl StoreBuilder<TestConfig, Store<TestConfig>, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Store<TestConfig>, StateMachine), StorageError<TestConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = support::open(&dir.path().join("scope"));
        let machine =
            StateMachine { store: store.clone(), applied: None, membership: StoredMembership::default() };
        Ok((dir, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
