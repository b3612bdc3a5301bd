//! A store that was closed comes back as it was; what stands in the way of opening is told apart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small, and some are to be cut")]

mod support;

use std::fs;

use openraft::Vote;
use openraft::alias::SnapshotMetaOf;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use pgherd_storage::{Opened, Options, Store, StoreError};
use support::{TestConfig, append, entry, id, open};

#[tokio::test]
async fn everything_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let mut store = open(&path);
    let node_id = store.node_id();
    assert_eq!(store.mark().boot, 1);

    store.save_vote(&Vote::new(3, 7)).await.unwrap();
    append(&mut store, (0..20).map(|index| entry(1, index, &"x".repeat(100))).collect()).await.unwrap();
    store.truncate_after(Some(id(1, 14))).await.unwrap();
    // Larger than one part, so that it is cut and put together again.
    append(&mut store, vec![entry(2, 15, &"y".repeat(100_000))]).await.unwrap();
    let meta = SnapshotMetaOf::<TestConfig> { last_log_id: Some(id(1, 9)), ..Default::default() };
    store.save_snapshot(&meta, vec![7; 100_000]).await.unwrap();
    store.save_snapshot(&meta, vec![8; 40_000]).await.unwrap();
    store.purge(id(1, 9)).await.unwrap();
    store.set_floor(5).await.unwrap();
    store.set_floor(4).await.unwrap();
    store.set_note("given-up", b"9").await.unwrap();
    store.set_note("given-up", b"10").await.unwrap();
    store.save_committed(Some(id(1, 14))).await.unwrap();
    let before = store.mark();
    store.close().await.unwrap();

    let mut store = open(&path);
    assert_eq!(store.node_id(), node_id);
    assert_eq!(store.mark().boot, 2);
    assert!(store.mark() > before);
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(3, 7)));
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 9)), Some(id(2, 15))));
    let entries = store.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [10, 11, 12, 13, 14, 15]);
    assert_eq!(entries[5].log_id, id(2, 15));
    assert_eq!(entries[5].payload, entry(2, 15, &"y".repeat(100_000)).payload);
    assert_eq!(store.read_committed().await.unwrap(), Some(id(1, 14)));
    let snapshot = store.snapshot().unwrap();
    assert_eq!((snapshot.meta, snapshot.snapshot), (meta, vec![8; 40_000]));
    assert_eq!((store.floor(), store.note("given-up")), (5, Some(b"10".to_vec())));
    assert_eq!(store.note("other"), None);
}

#[tokio::test]
async fn a_log_emptied_by_truncation_or_purge_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let mut store = open(&path);
    append(&mut store, vec![entry(1, 0, "a"), entry(1, 1, "b")]).await.unwrap();
    store.truncate_after(None).await.unwrap();
    append(&mut store, vec![entry(2, 0, "c"), entry(2, 1, "d")]).await.unwrap();
    store.close().await.unwrap();

    let mut store = open(&path);
    store.purge(id(3, 40)).await.unwrap();
    append(&mut store, vec![entry(3, 41, "e")]).await.unwrap();
    store.truncate_after(Some(id(3, 40))).await.unwrap();
    store.close().await.unwrap();

    let mut store = open(&path);
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(3, 40)), Some(id(3, 40))));
    append(&mut store, vec![entry(4, 41, "f")]).await.unwrap();
    assert_eq!(store.try_get_log_entries(..).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_hole_in_the_log_is_refused_and_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir.path().join("scope"));
    append(&mut store, vec![entry(1, 0, "a")]).await.unwrap();
    assert!(append(&mut store, vec![entry(1, 2, "c")]).await.is_err());
    append(&mut store, vec![entry(1, 1, "b")]).await.unwrap();
    assert_eq!(store.try_get_log_entries(..).await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_process_opens_a_store_and_a_closed_one_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let store = open(&path);
    let second = Store::<TestConfig>::open(&path, Options::default());
    assert!(matches!(second, Err(StoreError::Locked { .. })), "{second:?}");
    store.close().await.unwrap();
    assert!(matches!(store.set_floor(1).await, Err(StoreError::Failed(_))));
    assert!(store.failed().borrow().is_some());
    open(&path);
}

#[tokio::test]
async fn an_unknown_format_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    open(&path).close().await.unwrap();
    let text = "pgherd-storage 2";
    fs::write(path.join("format"), format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))).unwrap();
    let refused = Store::<TestConfig>::open(&path, Options::default());
    assert!(matches!(refused, Err(StoreError::UnknownFormat { found: 2, known: 1, .. })), "{refused:?}");
    assert!(path.join("db/db").exists());
}

#[tokio::test]
async fn a_store_set_aside_is_kept_and_its_successor_has_another_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let store = open(&path);
    let node_id = store.node_id();
    store.close().await.unwrap();
    fs::remove_file(path.join("seal")).unwrap();
    let Opened::Amnesiac(amnesiac) = Store::<TestConfig>::open(&path, Options::default()).unwrap() else {
        panic!("a store without its seal was opened");
    };
    let aside = amnesiac.set_aside().unwrap();
    assert!(aside.join("db/db").exists());
    let Opened::Fresh(store) = Store::<TestConfig>::open(&path, Options::default()).unwrap() else {
        panic!("nothing was there, and yet something was known");
    };
    assert_ne!(store.node_id(), node_id);
}

#[tokio::test]
async fn a_replaced_store_is_kept_and_its_successor_knows_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let store = open(&path);
    let node_id = store.node_id();
    store.close().await.unwrap();
    fs::write(path.join("seal"), b"").unwrap();
    let Opened::Amnesiac(amnesiac) = Store::<TestConfig>::open(&path, Options::default()).unwrap() else {
        panic!("a store with an empty seal was opened");
    };
    let aside = amnesiac.replace("lost", |aside| aside.display().to_string().into_bytes()).unwrap();
    assert_eq!(fs::read(aside.join("seal")).unwrap(), b"");
    let Opened::Known(store) = Store::<TestConfig>::open(&path, Options::default()).unwrap() else {
        panic!("the successor is not there");
    };
    assert_ne!(store.node_id(), node_id);
    assert_eq!(store.note("lost"), Some(aside.display().to_string().into_bytes()));
    assert_eq!(store.mark().boot, 1);
}

/// sled's own timer would write behind our back and wake an idle machine twice a second.
#[tokio::test]
async fn no_thread_flushes_by_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("scope"));
    store.set_floor(1).await.unwrap();
    let mut names = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        // A thread of another test may end meanwhile.
        names.extend(fs::read_to_string(task.unwrap().path().join("comm")));
    }
    assert!(names.iter().any(|name| name.contains("pgherd-store")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("flusher")), "{names:?}");
}

#[tokio::test]
async fn the_memory_is_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let store = open(&path);
    assert_eq!(store.memory(), None);
    let before = store.mark();
    store.remember(b"others".to_vec()).await.unwrap();
    assert_eq!(store.mark(), before);
    assert!(store.remember(vec![0; pgherd_storage::MAX_MEMORY_BYTES + 1]).await.is_err());
    // Its failure ends nothing.
    store.set_floor(1).await.unwrap();
    store.close().await.unwrap();
    assert!(store.remember(b"late".to_vec()).await.is_err());
    let store = open(&path);
    assert_eq!(store.memory(), Some(b"others".as_slice()));
}

#[tokio::test]
async fn a_distrusted_store_is_amnesiac_from_its_next_opening_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let store = open(&path);
    store.distrust("node2 remembers more").await.unwrap();
    store.close().await.unwrap();
    for _ in 0..2 {
        let Opened::Amnesiac(amnesiac) = Store::<TestConfig>::open(&path, Options::default()).unwrap() else {
            panic!("a distrusted store was opened");
        };
        assert!(amnesiac.reason().to_string().contains("node2 remembers more"));
    }
}
