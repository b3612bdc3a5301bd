//! The open connections, of which there may be so many and not more.
//!
//! When all places are taken, the newest connection takes the place of the least useful one: while many never sent a whole
//! request, the oldest of those; else the one that was idle for longest. So a flood of half-open connections only pushes out
//! itself, and who has just come has the time to ask, whoever holds the other places. What carries an operation keeps its
//! place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// Connections at a time. Above what health checkers and scrapers of one node need, below the usual limit of 1024 open
/// files.
const MAX_CONNECTIONS: usize = 256;
/// So many which never asked keep their places before those who have asked and are idle: several times what is accepted in one
/// go, so that what they say is read before they are pushed out.
const NEWCOMERS: usize = 128;

/// What a connection is good for; shared with its task.
#[derive(Clone, Debug)]
pub(super) struct InUse(Arc<Usage>);

#[derive(Debug, Default)]
struct Usage {
    /// Requests of this server that were begun, all connections counted.
    clock: Arc<AtomicU64>,
    /// The clock when this one's last request had arrived; zero: none has.
    asked: AtomicU64,
    is_operating: AtomicBool,
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

    /// Somebody who may do so has asked for something that takes time.
    pub(super) fn begin(&self) {
        self.0.is_operating.store(true, Ordering::Relaxed);
    }

    /// The answer is there.
    pub(super) fn answered(&self) {
        self.0.is_operating.store(false, Ordering::Relaxed);
    }

    fn is_operating(&self) -> bool {
        self.0.is_operating.load(Ordering::Relaxed)
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
        // The first of several is the oldest.
        let place = |is_meant: &dyn Fn(&InUse) -> bool| {
            let meant =
                self.open.iter().enumerate().filter(|(_, (_, one))| is_meant(one) && !one.is_operating());
            meant.min_by_key(|(_, (_, one))| one.last()).map(|(place, _)| place)
        };
        let newcomers = self.open.iter().filter(|(_, one)| !one.has_asked()).count();
        let idle = place(&InUse::has_asked).filter(|_| newcomers <= NEWCOMERS);
        let least = idle.or_else(|| place(&|_| true));
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

    fn open(connections: &mut Connections, count: usize) -> Vec<InUse> {
        let mut uses = Vec::new();
        for _ in 0..count {
            connections.add(|in_use| {
                uses.push(in_use);
                std::future::pending()
            });
        }
        uses
    }

    fn is_open(connections: &Connections, one: &InUse) -> bool {
        connections.open.iter().any(|(_, other)| Arc::ptr_eq(&one.0, &other.0))
    }

    #[tokio::test]
    async fn the_least_useful_goes_first() {
        let mut connections = Connections::default();
        let uses = open(&mut connections, 4);
        let [checker, silent, scraper, operator] = uses.as_slice() else { panic!("four") };
        operator.begin();
        scraper.asked();
        checker.asked();
        for gone in [scraper, checker, silent] {
            assert!(is_open(&connections, gone));
            connections.make_room();
            assert!(!is_open(&connections, gone));
        }
        assert!(is_open(&connections, operator));
        operator.answered();
        connections.make_room();
        assert!(connections.open.is_empty());
        connections.make_room();
        connections.shutdown().await;
    }

    #[tokio::test]
    async fn silent_ones_push_out_each_other() {
        let mut connections = Connections::default();
        let checker = open(&mut connections, 1);
        checker[0].asked();
        let flood = open(&mut connections, 400);
        assert_eq!(connections.open.len(), MAX_CONNECTIONS);
        assert!(is_open(&connections, &checker[0]) && !is_open(&connections, &flood[0]));
        connections.shutdown().await;
    }

    #[tokio::test]
    async fn who_has_just_come_is_not_pushed_out_by_who_came_a_moment_later() {
        let mut connections = Connections::default();
        for one in open(&mut connections, 400) {
            one.asked();
        }
        let checker = open(&mut connections, 1);
        open(&mut connections, NEWCOMERS);
        assert!(is_open(&connections, &checker[0]), "it had no time to ask");
        open(&mut connections, 1);
        assert!(!is_open(&connections, &checker[0]), "it has asked nothing");
        connections.shutdown().await;
    }
}
