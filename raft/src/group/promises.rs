//! This node's promises to holders without a majority (failsafe): the pure [`Promise`], the applied record, and the
//! durable length brought together.
//!
//! Promises that a question is judged by a record which is not older than any that a renewal of this node was counted
//! under before, and that no promise leaves before its length is on disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock;
use crate::lease::{BootTime, FailsafeQuestion, FailsafeRefusal, Promise, StandingBack};
use crate::model::{Epoch, MemberId};
use crate::state_machine::Applied;
use crate::store::Store;

#[derive(Debug)]
pub(crate) struct Promises {
    promise: Mutex<Promise>,
    /// One length is written at a time: the last one decided is the last one on disk.
    writing: tokio::sync::Mutex<()>,
    store: Store,
    applied: watch::Receiver<Arc<Applied>>,
}

impl Promises {
    pub(crate) fn new(me: MemberId, store: Store, applied: watch::Receiver<Arc<Applied>>) -> Self {
        let promise = Mutex::new(Promise::new(me, store.promise_length(), clock::now()));
        Self { promise, writing: tokio::sync::Mutex::default(), store, applied }
    }

    fn promise(&self) -> MutexGuard<'_, Promise> {
        self.promise.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard was armed for this epoch.
    pub(crate) fn armed_for(&self, epoch: Epoch) {
        self.promise().armed_for(epoch);
    }

    /// Until when no first renewal counts. To be read after the round was begun whose answers are counted.
    pub(crate) fn until(&self) -> BootTime {
        self.promise().until()
    }

    pub(crate) fn in_force(&self, now: BootTime) -> Option<StandingBack> {
        self.promise().in_force(now)
    }

    /// The record is read while nothing else can be promised or counted: one that was applied before the last count is
    /// seen here, and this promise is seen by the next count.
    pub(crate) async fn ask(&self, request: &FailsafeQuestion) -> io::Result<Result<(), FailsafeRefusal>> {
        let _writing = self.writing.lock().await;
        let answer = {
            let mut promise = self.promise();
            let applied = Arc::clone(&self.applied.borrow());
            promise.ask(&applied.state, request, clock::now())
        };
        match answer {
            Ok(Some(length)) => {
                self.store.save_promise_length(length).await?;
                self.promise().written(length);
                Ok(Ok(()))
            }
            Ok(None) => Ok(Ok(())),
            Err(refusal) => Ok(Err(refusal)),
        }
    }
}
