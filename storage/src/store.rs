//! The handle on an open store: opening, floor, notes, failure, close.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::RaftTypeConfig;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::{Change, Engine};
use crate::error::{AmnesiaReason, Failure, StoreError};
use crate::files::{self, Lock};
use crate::memory;
use crate::mirror::Mirror;
use crate::writer::{Operation, Writer};

/// Notes are promises of a member (a handful); more than this is a mistake.
pub const MAX_NOTES: usize = 64;
/// Size of one note in bytes, key included: all notes are written again when one changes.
pub const MAX_NOTE_BYTES: usize = 4 * 1024;
/// The note of a store that its own bearer found out to be put back.
const DISTRUSTED: &str = "distrusted";

/// How to open a store.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { sync: true }
    }
}

impl Options {
    /// Leaves out every `fdatasync`. For the test which shows that power cuts are noticed then.
    #[doc(hidden)]
    #[must_use]
    pub fn without_fdatasync() -> Self {
        Options { sync: false }
    }
}

/// What opening found.
#[derive(Debug)]
pub enum Opened<C: RaftTypeConfig> {
    /// There was nothing: a new store was made, with a new node id.
    Fresh(Store<C>),
    /// The store is as it was left.
    Known(Store<C>),
    /// The directory cannot be trusted and was not changed. Whoever had its node id must not speak again.
    Amnesiac(Amnesiac),
}

/// A directory which lost something, still locked.
#[derive(Debug)]
pub struct Amnesiac {
    dir: PathBuf,
    reason: AmnesiaReason,
    _lock: Lock,
}

impl Amnesiac {
    /// Why it is not trusted.
    pub fn reason(&self) -> &AmnesiaReason {
        &self.reason
    }

    /// Renames the directory to `NAME.aside-N` beside it, where it is kept until somebody deletes it by hand, and
    /// returns that path. The next [`Store::open`] makes a new store with a new node id.
    pub fn set_aside(self) -> Result<PathBuf, StoreError> {
        files::set_aside(&self.dir)
    }

    /// Like [`Amnesiac::set_aside`], with a new store in its place which has this note already, in one step: at no
    /// moment can a crash leave a directory that looks as if nothing had ever been there. `note` gets the path under
    /// which the old directory is kept. The next [`Store::open`] finds the new store as [`Opened::Known`].
    pub fn replace(self, key: &str, note: impl FnOnce(&Path) -> Vec<u8>) -> Result<PathBuf, StoreError> {
        Engine::replace(&self.dir, random_node_id()?, |aside| [(key.to_owned(), note(aside))].into())
    }
}

/// How far a store has come. A member that shows a lower mark than it did before, under the same node id, runs
/// on a store that was put back from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// How often the store was opened, this time included.
    pub boot: u64,
    /// Number of the last durable write.
    pub sequence: u64,
}

/// The open store of one member; a cheap handle, all clones are the same store. Dropping the last one closes it
/// in the background; [`Store::close`] waits for that.
pub struct Store<C: RaftTypeConfig> {
    inner: Arc<Inner<C>>,
}

struct Inner<C: RaftTypeConfig> {
    node_id: u64,
    boot: u64,
    dir: PathBuf,
    mirror: Arc<Mutex<Mirror<C>>>,
    memory: Option<Vec<u8>>,
    writer: Writer,
}

impl<C: RaftTypeConfig> Clone for Store<C> {
    fn clone(&self) -> Self {
        Store { inner: Arc::clone(&self.inner) }
    }
}

impl<C: RaftTypeConfig> std::fmt::Debug for Store<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.inner.dir)
            .field("node_id", &self.inner.node_id)
            .field("boot", &self.inner.boot)
            .finish_non_exhaustive()
    }
}

impl<C: RaftTypeConfig> Store<C> {
    /// Opens the store in `dir`, making it when there is nothing. It blocks (files, sled): call it on a thread that
    /// may block. `dir` must not be a mount point, since it may be renamed; its parent may be one.
    pub fn open(dir: &Path, options: Options) -> Result<Opened<C>, StoreError> {
        let parent = files::parent(dir);
        std::fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
        let lock = Lock::take(dir)?;
        let is_fresh = is_empty(dir)?;
        if is_fresh {
            Engine::create(dir, random_node_id()?)?;
        }
        let amnesiac =
            |reason, lock| Opened::Amnesiac(Amnesiac { dir: dir.to_path_buf(), reason, _lock: lock });
        let (engine, contents) = match Engine::open(dir, options.sync)? {
            Ok(opened) => opened,
            Err(reason) => return Ok(amnesiac(reason, lock)),
        };
        if let Some(reason) = contents.notes.get(DISTRUSTED) {
            let reason = String::from_utf8_lossy(reason).into_owned();
            return Ok(amnesiac(AmnesiaReason::PutBack(reason), lock));
        }
        let node_id = contents.meta.node_id;
        let mirror = match Mirror::load(contents)? {
            Ok(mirror) => mirror,
            Err(reason) => return Ok(amnesiac(reason, lock)),
        };
        let boot = engine.boot();
        let inner = Inner {
            node_id,
            boot,
            dir: dir.to_path_buf(),
            mirror: Arc::new(Mutex::new(mirror)),
            memory: memory::read(dir)?,
            writer: Writer::start(engine, lock)?,
        };
        let store = Store { inner: Arc::new(inner) };
        Ok(if is_fresh { Opened::Fresh(store) } else { Opened::Known(store) })
    }

    /// Random number made with the store; this member's Raft node id.
    pub fn node_id(&self) -> u64 {
        self.inner.node_id
    }

    /// Directory of the store.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// How far the store has come.
    pub fn mark(&self) -> Mark {
        Mark { boot: self.inner.boot, sequence: self.inner.writer.sequence() }
    }

    /// The epoch below which this voter acknowledges nothing.
    pub fn floor(&self) -> u64 {
        self.mirror().floor
    }

    /// Raises the floor; durable on return. A lower value than the present one changes nothing.
    pub async fn set_floor(&self, floor: u64) -> Result<(), StoreError> {
        if floor <= self.floor() {
            return Ok(());
        }
        self.write(Change::Floor(floor), move |mirror| mirror.floor = mirror.floor.max(floor)).await
    }

    /// A note set before.
    pub fn note(&self, key: &str) -> Option<Vec<u8>> {
        self.mirror().notes.get(key).cloned()
    }

    /// Sets a note (a member's promise about itself); durable on return, covered by the seal like everything.
    pub async fn set_note(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let size = key.len().saturating_add(value.len());
        if size > MAX_NOTE_BYTES {
            return Err(StoreError::TooLarge { what: "a note", size, limit: MAX_NOTE_BYTES });
        }
        {
            let mirror = self.mirror();
            if mirror.notes.len() >= MAX_NOTES && !mirror.notes.contains_key(key) {
                let size = mirror.notes.len().saturating_add(1);
                return Err(StoreError::TooLarge { what: "the set of notes", size, limit: MAX_NOTES });
            }
        }
        let (key, value) = (key.to_owned(), value.to_vec());
        let change = Change::Note { key: key.clone(), value: value.clone() };
        self.write(change, move |mirror| {
            mirror.notes.insert(key, value);
        })
        .await
    }

    /// Makes durable that the directory was put back from an older copy: from the next [`Store::open`] on it is
    /// [`Opened::Amnesiac`]. `reason` says how that was found out.
    pub async fn distrust(&self, reason: &str) -> Result<(), StoreError> {
        self.set_note(DISTRUSTED, reason.as_bytes()).await
    }

    /// What [`Store::remember`] wrote before this opening; none if that was lost.
    pub fn memory(&self) -> Option<&[u8]> {
        self.inner.memory.as_deref()
    }

    /// Replaces the memory; durable on return, and no write that [`Store::mark`] counts. It is no promise: a crash may
    /// leave the one before, and its failure does not end the store.
    pub async fn remember(&self, memory: Vec<u8>) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        let permit = self.inner.writer.reserve().await?;
        permit.send(Operation::Remember(
            memory,
            Box::new(move |result| {
                // The caller may have given up waiting.
                drop(sender.send(result));
            }),
        ));
        self.outcome(receiver).await
    }

    /// Shows why the store takes nothing more, once there is a reason. A store that failed must be opened again
    /// by a new process; until then its member neither votes nor acknowledges.
    pub fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.inner.writer.failed()
    }

    /// Writes what waits, closes the files and releases the lock, for all handles. Later operations fail.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        let Ok(permit) = self.inner.writer.reserve().await else {
            return Ok(());
        };
        permit.send(Operation::Close(Box::new(move |result| {
            // The caller may have given up waiting.
            drop(sender.send(result));
        })));
        self.outcome(receiver).await
    }

    pub(crate) fn mirror(&self) -> MutexGuard<'_, Mirror<C>> {
        lock(&self.inner.mirror)
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.inner.writer
    }

    /// Queues a change, waits until it is durable; `then` runs before anybody is told.
    pub(crate) async fn write(
        &self,
        change: Change,
        then: impl FnOnce(&mut Mirror<C>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let permit = self.inner.writer.reserve().await?;
        self.submit(permit, change, then).await
    }

    /// The same for a place in the queue that was reserved before.
    pub(crate) async fn submit(
        &self,
        permit: mpsc::Permit<'_, Operation>,
        change: Change,
        then: impl FnOnce(&mut Mirror<C>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        let mirror = Arc::clone(&self.inner.mirror);
        permit.send(Operation::Write(
            change,
            Box::new(move |result| {
                if result.is_ok() {
                    then(&mut lock(&mirror));
                }
                drop(sender.send(result));
            }),
        ));
        self.outcome(receiver).await
    }

    async fn outcome(&self, receiver: oneshot::Receiver<Result<(), Failure>>) -> Result<(), StoreError> {
        match receiver.await {
            Ok(result) => result.map_err(StoreError::Failed),
            Err(_) => Err(StoreError::Failed(self.inner.writer.reason())),
        }
    }
}

fn lock<C: RaftTypeConfig>(mirror: &Mutex<Mirror<C>>) -> MutexGuard<'_, Mirror<C>> {
    // Every change under this lock is complete in itself, so a panic of another thread leaves nothing half done.
    mirror.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_empty(dir: &Path) -> Result<bool, StoreError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(StoreError::NotADirectory { path: dir.to_path_buf() })
        }
        Err(error) => Err(StoreError::io("list", dir)(error)),
    }
}

/// 0 is left out, so that it can mean "nobody" elsewhere.
fn random_node_id() -> Result<u64, StoreError> {
    loop {
        let mut bytes = [0_u8; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| StoreError::io("draw a node id for", Path::new("the store"))(error.into()))?;
        let id = u64::from_ne_bytes(bytes);
        if id != 0 {
            return Ok(id);
        }
    }
}
