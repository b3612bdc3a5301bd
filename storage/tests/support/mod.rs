//! What the storage tests share: a type config, and short ways to open a store and to write to it.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small, and some are to be cut")]

pub(crate) mod workload;

use std::path::Path;

use openraft::alias::LogIdOf;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log_id;
use openraft::type_config::TypeConfigExt;
use openraft::{Entry, EntryPayload};
use pgherd_storage::{Opened, Options, Store};

openraft::declare_raft_types!(
    /// Commands are strings, node ids numbers.
    pub(crate) TestConfig:
        D = String,
        R = (),
        Node = openraft::impls::EmptyNode,
);

/// A log id of this term and index.
pub(crate) fn id(term: u64, index: u64) -> LogIdOf<TestConfig> {
    log_id::<TestConfig>(term, 1, index)
}

/// An entry with a text.
pub(crate) fn entry(term: u64, index: u64, text: &str) -> <TestConfig as openraft::RaftTypeConfig>::Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(text.to_owned()) }
}

/// Opens a store that must be usable.
pub(crate) fn open(dir: &Path) -> Store<TestConfig> {
    match Store::open(dir, Options::default()).unwrap() {
        Opened::Fresh(store) | Opened::Known(store) => store,
        Opened::Amnesiac(amnesiac) => panic!("the store is amnesiac: {}", amnesiac.reason()),
    }
}

/// Appends entries and waits until they are durable.
pub(crate) async fn append(
    store: &mut Store<TestConfig>,
    entries: Vec<<TestConfig as openraft::RaftTypeConfig>::Entry>,
) -> std::io::Result<()> {
    let (sender, receiver) = TestConfig::oneshot();
    store.append(entries, IOFlushed::signal(sender)).await?;
    receiver.await.unwrap_or_else(|_| Err(std::io::Error::other("nobody answered")))
}
