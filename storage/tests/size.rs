//! The directory stays small however many entries went through it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small, and some are to be cut")]

mod support;

use std::fs;
use std::path::Path;

use openraft::alias::SnapshotMetaOf;
use openraft::storage::RaftLogStorage;
use pgherd_storage::{Opened, Options, Store};
use support::{TestConfig, append, entry, id, open};

const ENTRIES: u64 = 200_000;
/// Entries per append, as a busy leader has them.
const GROUP: usize = 100;
/// As the daemon's Raft is configured: a snapshot each 5,000 entries, 1,000 kept behind it, purged by 256.
const SNAPSHOT_EACH: u64 = 5_000;
const KEEP: u64 = 1_000;
const PURGE: u64 = 256;
const LIMIT_BYTES: u64 = 16 * 1024 * 1024;

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() },
        )
        .sum()
}

#[tokio::test]
async fn two_hundred_thousand_entries_leave_a_small_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    // Space does not depend on syncing, time does.
    let Opened::Fresh(mut store) = Store::open(&path, Options::without_fdatasync()).unwrap() else {
        panic!("the directory was not empty")
    };
    let text = "x".repeat(300);
    let (mut largest, mut purged) = (0, 0);
    for first in (0..ENTRIES).step_by(GROUP) {
        append(&mut store, (first..first + GROUP as u64).map(|index| entry(1, index, &text)).collect())
            .await
            .unwrap();
        let next = first + GROUP as u64;
        if next.is_multiple_of(SNAPSHOT_EACH) {
            let meta =
                SnapshotMetaOf::<TestConfig> { last_log_id: Some(id(1, next - 1)), ..Default::default() };
            store.save_snapshot(&meta, vec![7; 20_000]).await.unwrap();
            while purged + PURGE < next.saturating_sub(KEEP) {
                purged += PURGE;
                store.purge(id(1, purged)).await.unwrap();
            }
            largest = largest.max(size(&path));
        }
    }
    store.close().await.unwrap();
    largest = largest.max(size(&path));
    println!(
        "{ENTRIES} entries: the directory had at most {} KiB, {} KiB at the end",
        largest / 1024,
        size(&path) / 1024
    );
    assert!(largest < LIMIT_BYTES, "{largest} bytes");
    let blobs = fs::read_dir(path.join("db/blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled wrote values to files which it never syncs");

    let mut store = open(&path);
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(id(1, ENTRIES - 1)));
    assert_eq!(state.last_purged_log_id, Some(id(1, purged)));
}
