//! A damaged or rolled back copy of a store either opens with every acknowledged record or is amnesiac: never
//! with fewer, never empty, and never with a panic.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small, and some are to be cut")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use pgherd_storage::{Opened, Options, Store};
use support::workload::{self, Model, Numbers};
use support::{TestConfig, open};

const SEED: u64 = 4;
const OPERATIONS: u64 = 300;
/// Damaged copies of each kind and file.
const ROUNDS: u64 = 12;

/// A closed store at the end of the workload, copies of it at earlier points, and what it must contain.
struct Original {
    dir: tempfile::TempDir,
    model: Model,
    earlier: Vec<PathBuf>,
}

impl Original {
    async fn make() -> Original {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scope");
        let mut earlier = Vec::new();
        let mut model = Model::default();
        for stop in [40, 150, 290, OPERATIONS] {
            let mut store = open(&path);
            workload::run(&mut store, SEED, &mut model, stop, |_| ()).await.unwrap();
            store.close().await.unwrap();
            if stop < OPERATIONS {
                let copy = dir.path().join(format!("earlier-{stop}"));
                copy_tree(&path, &copy);
                earlier.push(copy);
            }
        }
        Original { dir, model, earlier }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("scope")
    }

    /// A copy to damage.
    fn copy(&self) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scope");
        copy_tree(&self.path(), &path);
        (dir, path)
    }

    /// Opens a damaged copy: `true` when it is amnesiac, `false` when nothing is missing.
    async fn judge(&self, path: &Path, damage: &str) -> bool {
        let mut store = match Store::<TestConfig>::open(path, Options::default()) {
            Ok(Opened::Known(store)) => store,
            Ok(Opened::Fresh(_)) => panic!("{damage}: started empty"),
            Ok(Opened::Amnesiac(_)) => return true,
            Err(error) => panic!("{damage}: {error}"),
        };
        let found = Model::of(&mut store).await;
        store.close().await.unwrap();
        let same = found.find(SEED, &self.model, OPERATIONS, OPERATIONS).is_some();
        assert!(same, "{damage}: opened without a word, with {}", found.summary());
        false
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Damages one file in one way and says which.
fn damage(path: &Path, kind: &str, numbers: &mut Numbers) -> String {
    let mut bytes = fs::read(path).unwrap();
    let length = bytes.len() as u64;
    let at = numbers.below(length) as usize;
    let near_end = length.saturating_sub(1 + numbers.below(4096.min(length))) as usize;
    match kind {
        "cut near the end" => bytes.truncate(near_end),
        "cut anywhere" => bytes.truncate(at),
        "a bit flipped" => bytes[at] ^= 1 << numbers.below(8),
        "a bit flipped near the end" => bytes[near_end] ^= 1 << numbers.below(8),
        "a page zeroed" => {
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
        }
        "noise" => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill_with(|| numbers.below(256) as u8);
        }
        other => panic!("unknown damage {other}"),
    }
    fs::write(path, bytes).unwrap();
    format!("{}: {kind} (at {at} or {near_end} of {length})", path.display())
}

#[tokio::test]
async fn a_damaged_file_is_noticed_or_harmless() {
    let original = Original::make().await;
    let mut numbers = Numbers::new(SEED);
    let (mut noticed, mut harmless) = (0, 0);
    for file in files(&original.path()) {
        let name = file.strip_prefix(original.path()).unwrap().to_path_buf();
        for kind in [
            "cut near the end",
            "cut anywhere",
            "a bit flipped",
            "a bit flipped near the end",
            "a page zeroed",
            "noise",
        ] {
            for _ in 0..ROUNDS {
                let (_dir, copy) = original.copy();
                let what = damage(&copy.join(&name), kind, &mut numbers);
                if original.judge(&copy, &what).await { noticed += 1 } else { harmless += 1 }
            }
        }
    }
    println!("{noticed} damaged stores noticed, {harmless} opened with everything");
    assert!(noticed > 0 && harmless > 0, "{noticed} noticed, {harmless} harmless");
}

#[tokio::test]
async fn a_missing_file_is_noticed_or_harmless() {
    let original = Original::make().await;
    for name in ["format", "seal", "db/db", "db"] {
        let (_dir, copy) = original.copy();
        let path = copy.join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        assert!(original.judge(&copy, &format!("{name} removed")).await, "{name} removed and not noticed");
    }
    for file in files(&original.path().join("db")) {
        let (_dir, copy) = original.copy();
        let name = file.strip_prefix(original.path()).unwrap();
        fs::remove_file(copy.join(name)).unwrap();
        original.judge(&copy, &format!("{} removed", name.display())).await;
    }
}

#[tokio::test]
async fn a_rolled_back_part_is_noticed() {
    let original = Original::make().await;
    for earlier in &original.earlier {
        let (_dir, copy) = original.copy();
        fs::remove_dir_all(copy.join("db")).unwrap();
        copy_tree(&earlier.join("db"), &copy.join("db"));
        assert!(original.judge(&copy, "database rolled back").await, "an old database was taken");

        let (_dir, copy) = original.copy();
        fs::copy(earlier.join("seal"), copy.join("seal")).unwrap();
        assert!(original.judge(&copy, "seal rolled back").await, "an old seal was taken");
    }
}

#[tokio::test]
async fn a_part_of_another_store_is_noticed() {
    let original = Original::make().await;
    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("scope");
    let mut model = Model::default();
    let mut store = open(&path);
    workload::run(&mut store, SEED, &mut model, OPERATIONS, |_| ()).await.unwrap();
    store.close().await.unwrap();
    let (_dir, copy) = original.copy();
    fs::copy(path.join("seal"), copy.join("seal")).unwrap();
    assert!(original.judge(&copy, "foreign seal").await, "a foreign seal was taken");
}

/// Nothing in the directory can tell that all of it is older than it was; but its bearer shows a mark that others
/// have seen higher, before it has written anything.
#[tokio::test]
async fn a_store_rolled_back_as_a_whole_shows_a_lower_mark() {
    let original = Original::make().await;
    let present = open(&original.path());
    for earlier in &original.earlier {
        let old = open(earlier);
        assert_eq!(old.node_id(), present.node_id());
        assert!(old.mark() < present.mark(), "{:?} is not below {:?}", old.mark(), present.mark());
    }
}
