//! The one thread that writes, and the queue in front of it.
//!
//! Blocking work stays off the async runtime. Whatever waits in the queue is committed together (group commit);
//! each operation's completion is called after its batch is on disk and sealed, in order. After the first error
//! nothing is written any more, every later operation fails with that error, and the watch value shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use crate::engine::{Change, Engine};
use crate::error::{Failure, StoreError};
use crate::files::Lock;

/// Operations that may wait; callers beyond it wait for room. Raft itself has few writes in flight.
const QUEUE_LIMIT: usize = 256;
/// Operations committed together: bounds the size of a batch and the delay of its first operation.
const GROUP_LIMIT: usize = 128;

/// Called once, by the writer's thread, when the operation is durable or failed.
pub(crate) type Done = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// Something for the writer to do.
pub(crate) enum Operation {
    /// Make this durable and say so.
    Write(Change, Done),
    /// Write this with the next batch; not worth one of its own.
    Ride(Change),
    /// Replace the memory; counts as no write.
    Remember(Vec<u8>, Done),
    /// Write what rides, release everything, say so.
    Close(Done),
}

/// The sending side; the thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Operation>,
    failed: watch::Receiver<Option<Failure>>,
    sequence: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread, which owns the engine and the lock from here on.
    pub(crate) fn start(engine: Engine, lock: Lock) -> Result<Writer, StoreError> {
        let sequence = Arc::new(AtomicU64::new(engine.sequence()));
        let durable = Arc::clone(&sequence);
        let (queue, operations) = mpsc::channel(QUEUE_LIMIT);
        let (failure, failed) = watch::channel(None);
        thread::Builder::new()
            .name("pgherd-store".to_owned())
            .spawn(move || {
                let closing = run(engine, operations, &failure, &durable);
                // Only when the database is closed may another process open it.
                drop(lock);
                if let Some((done, result)) = closing {
                    done(result);
                }
            })
            .map_err(StoreError::io("start the writer of", std::path::Path::new("the store")))?;
        Ok(Writer { queue, failed, sequence })
    }

    /// Waits for room in the queue. Nothing is changed before there is some, so dropping the future is harmless.
    pub(crate) async fn reserve(&self) -> Result<mpsc::Permit<'_, Operation>, StoreError> {
        if let Some(failure) = self.failed.borrow().clone() {
            return Err(StoreError::Failed(failure));
        }
        self.queue.reserve().await.map_err(|_| StoreError::Failed(self.reason()))
    }

    /// Why the writer takes nothing more.
    pub(crate) fn reason(&self) -> Failure {
        self.failed.borrow().clone().unwrap_or_else(closed)
    }

    /// Number of the last durable write.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Shows the failure as soon as there is one.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.failed.clone()
    }
}

fn closed() -> Failure {
    Failure::new("the store is closed")
}

/// Works until the queue ends or a close is asked for, which the caller answers once everything is released.
fn run(
    mut engine: Engine,
    mut operations: mpsc::Receiver<Operation>,
    failure: &watch::Sender<Option<Failure>>,
    durable: &AtomicU64,
) -> Option<(Done, Result<(), Failure>)> {
    let mut riding: Option<Change> = None;
    while let Some(first) = operations.blocking_recv() {
        let mut changes = Vec::new();
        let mut waiting = Vec::new();
        let mut closing = None;
        let mut next = Some(first);
        while let Some(operation) = next {
            match operation {
                Operation::Write(change, done) => {
                    changes.push(change);
                    waiting.push(done);
                }
                Operation::Ride(change) => riding = Some(change),
                Operation::Remember(bytes, done) => {
                    // Nobody relies on it, so its failure ends nothing.
                    done(engine.remember(&bytes).map_err(Failure::new));
                }
                Operation::Close(done) => {
                    closing = Some(done);
                    break;
                }
            }
            next = if waiting.len() < GROUP_LIMIT { operations.try_recv().ok() } else { None };
        }
        let earlier = failure.borrow().clone();
        let result = match earlier {
            Some(earlier) => Err(earlier),
            None if changes.is_empty() && (closing.is_none() || riding.is_none()) => Ok(()),
            None => {
                changes.extend(riding.take());
                engine.commit(changes).map_err(Failure::new)
            }
        };
        if let Err(reason) = &result {
            fail(failure, reason);
        }
        durable.store(engine.sequence(), Ordering::Release);
        for done in waiting {
            done(result.clone());
        }
        if let Some(done) = closing {
            fail(failure, &closed());
            return Some((done, result));
        }
    }
    // The last handle is gone without a close: what rides is not promised to anybody, but costs little to keep.
    if let Some(change) = riding
        && failure.borrow().is_none()
        && let Err(error) = engine.commit(vec![change])
    {
        warn!("the store could not write its last commit position: {error}");
    }
    None
}

/// Records the first failure; it stays.
fn fail(failure: &watch::Sender<Option<Failure>>, reason: &Failure) {
    failure.send_if_modified(|current| {
        let first = current.is_none();
        if first {
            if *reason != closed() {
                error!("the store failed and takes nothing more until it is opened again: {reason}");
            }
            *current = Some(reason.clone());
        }
        first
    });
}
