//! What the writers were promised: every acknowledged write with its time.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clock;

/// The way that a write took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Route {
    /// The client knows all nodes and tries one after the other.
    Direct,
    /// Through HAProxy's read-write port.
    Proxy,
}

#[derive(Debug, Default)]
struct Book {
    acknowledged: BTreeMap<Route, Vec<(Instant, i64)>>,
    failed: BTreeMap<Route, usize>,
}

/// Shared by all writers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    fn with<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn acknowledge(&self, route: Route, id: i64) {
        self.with(|book| book.acknowledged.entry(route).or_default().push((clock::now(), id)));
    }

    /// A write or a connection that failed: no promise.
    pub(crate) fn fail(&self, route: Route) {
        self.with(|book| *book.failed.entry(route).or_default() += 1);
    }

    pub(crate) fn failures(&self, route: Route) -> usize {
        self.with(|book| book.failed.get(&route).copied().unwrap_or(0))
    }

    pub(crate) fn count(&self) -> usize {
        self.with(|book| book.acknowledged.values().map(Vec::len).sum())
    }

    /// How many acknowledgements came after this moment.
    pub(crate) fn count_since(&self, route: Route, moment: Instant) -> usize {
        self.with(|book| {
            let all = book.acknowledged.get(&route).map_or(&[] as &[_], Vec::as_slice);
            all.iter().rev().take_while(|(at, _)| *at > moment).count()
        })
    }

    /// The longest time between two acknowledgements of a route, of which the later came after this moment: a gap
    /// that a fault makes begins with the last acknowledgement before it.
    pub(crate) fn longest_gap_since(&self, route: Route, moment: Instant) -> Duration {
        self.with(|book| {
            let all = book.acknowledged.get(&route).map_or(&[] as &[_], Vec::as_slice);
            all.iter()
                .zip(all.iter().skip(1))
                .filter(|((_, _), (later, _))| *later > moment)
                .map(|((earlier, _), (later, _))| later.duration_since(*earlier))
                .max()
                .unwrap_or_default()
        })
    }

    /// Acknowledged writes that are not among these.
    pub(crate) fn missing_from(&self, stored: &HashSet<i64>) -> Vec<i64> {
        self.with(|book| {
            let all = book.acknowledged.values().flatten();
            all.map(|(_, id)| *id).filter(|id| !stored.contains(id)).collect()
        })
    }
}
