//! The open connections, of which there may be so many and not more.
//!
//! When all places are taken, the newest connection takes the place of the least useful one: first of those that never
//! sent a whole request, the oldest; then the one that was idle for longest. So a flood of half-open connections only
//! pushes out itself. What carries an operation keeps its place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// Connections at a time. Above what health checkers and scrapers of one node need, below the usual limit of 1024 open
/// files.
const MAX_CONNECTIONS: usize = 256;

/// What a connection is good for; shared with its task.
#[derive(Clone, Debug)]
pub(super) struct InUse(Arc<Usage>);

#[derive(Debug, Default)]
struct Usage {
    /// Requests of this server that were begun, all connections counted.
    clock: Arc<AtomicU64>,
    /// The clock when this one's last request had arrived; zero: none has.
    asked: AtomicU64,
    operations: AtomicU32,
}

impl InUse {
    fn new(clock: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Usage { clock, ..Usage::default() }))
    }

    /// The head of a request has arrived.
    pub(super) fn asked(&self) {
        let now = self.0.clock.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.0.asked.store(now, Ordering::Relaxed);
    }

    /// Has it sent a request at all?
    pub(super) fn has_asked(&self) -> bool {
        self.last() > 0
    }

    fn last(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Somebody who may do so asks for something that takes time; until the result is dropped.
    pub(super) fn begin(&self) -> Operating {
        self.0.operations.fetch_add(1, Ordering::Relaxed);
        Operating(Arc::clone(&self.0))
    }

    fn is_operating(&self) -> bool {
        self.0.operations.load(Ordering::Relaxed) > 0
    }
}

/// An operation is under way on this connection.
#[derive(Debug)]
pub(super) struct Operating(Arc<Usage>);

impl Drop for Operating {
    fn drop(&mut self) {
        self.0.operations.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, InUse)>,
    clock: Arc<AtomicU64>,
}

impl Connections {
    /// Makes a place for one more and begins it.
    pub(super) fn add<F>(&mut self, converse: impl FnOnce(InUse) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS {
            self.make_room();
        }
        let in_use = InUse::new(Arc::clone(&self.clock));
        let task = self.tasks.spawn(converse(in_use.clone()));
        self.open.push_back((task, in_use));
    }

    /// Closes the least useful one.
    pub(super) fn make_room(&mut self) {
        let candidates = self.open.iter().enumerate().filter(|(_, (_, in_use))| !in_use.is_operating());
        // The first of several is the oldest.
        let least = candidates.min_by_key(|(_, (_, in_use))| in_use.last()).map(|(place, _)| place);
        if let Some((task, _)) = self.open.remove(least.unwrap_or(0)) {
            task.abort();
        }
    }

    /// Closes all.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_least_useful_goes_first() {
        let mut connections = Connections::default();
        let mut uses = Vec::new();
        for _ in 0..4 {
            connections.add(|in_use| {
                uses.push(in_use);
                std::future::pending()
            });
        }
        let [checker, silent, scraper, operator] = uses.as_slice() else { panic!("four") };
        let operation = operator.begin();
        scraper.asked();
        checker.asked();
        let is_open = |connections: &Connections, one: &InUse| {
            connections.open.iter().any(|(_, other)| Arc::ptr_eq(&one.0, &other.0))
        };
        for gone in [silent, scraper, checker] {
            assert!(is_open(&connections, gone));
            connections.make_room();
            assert!(!is_open(&connections, gone));
        }
        assert!(is_open(&connections, operator));
        drop(operation);
        connections.make_room();
        assert!(connections.open.is_empty());
        connections.make_room();
        connections.shutdown().await;
    }
}
