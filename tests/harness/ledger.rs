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
    /// A client of one node alone, which looks for a second writer.
    Probe,
}

/// A promise to a client.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    at: Instant,
    id: i64,
    /// PostgreSQL's, or HAProxy's.
    port: u16,
}

#[derive(Debug, Default)]
struct Book {
    acknowledged: BTreeMap<Route, Vec<Acknowledged>>,
    failed: BTreeMap<Route, usize>,
}

/// Shared by all writers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    fn with<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn acknowledge(&self, route: Route, port: u16, id: i64) {
        let acknowledged = Acknowledged { at: clock::now(), id, port };
        self.with(|book| book.acknowledged.entry(route).or_default().push(acknowledged));
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
            all.iter().rev().take_while(|it| it.at > moment).count()
        })
    }

    /// When the last acknowledgement of a route came.
    pub(crate) fn last(&self, route: Route) -> Option<Instant> {
        self.with(|book| book.acknowledged.get(&route)?.last().map(|write| write.at))
    }

    /// The longest time between two acknowledgements of a route, of which the later came after this moment: a gap
    /// that a fault makes begins with the last acknowledgement before it.
    pub(crate) fn longest_gap_since(&self, route: Route, moment: Instant) -> Duration {
        self.with(|book| {
            let all = book.acknowledged.get(&route).map_or(&[] as &[_], Vec::as_slice);
            all.iter()
                .zip(all.iter().skip(1))
                .filter(|(_, later)| later.at > moment)
                .map(|(earlier, later)| later.at.duration_since(earlier.at))
                .max()
                .unwrap_or_default()
        })
    }

    /// For how long two of these nodes, told by their ports, both acknowledged writes after this moment: from the first
    /// acknowledgement of the one that came later to the last one of the other.
    pub(crate) fn two_writers_since(&self, nodes: &[u16], moment: Instant) -> Duration {
        let spans: Vec<_> = nodes.iter().filter_map(|port| self.span_since(*port, moment)).collect();
        let mut longest = Duration::ZERO;
        for (index, (first, last)) in spans.iter().enumerate() {
            for (other_first, other_last) in spans.iter().skip(index + 1) {
                let both = last.min(other_last).saturating_duration_since(*first.max(other_first));
                longest = longest.max(both);
            }
        }
        longest
    }

    /// The first and the last acknowledgement of a node.
    fn span_since(&self, port: u16, moment: Instant) -> Option<(Instant, Instant)> {
        self.with(|book| {
            let all = book.acknowledged.values().flatten();
            let times = all.filter(|it| it.port == port && it.at > moment).map(|it| it.at);
            times.fold(None, |span: Option<(Instant, Instant)>, at| match span {
                None => Some((at, at)),
                Some((first, last)) => Some((first.min(at), last.max(at))),
            })
        })
    }

    /// What was acknowledged after this moment, on all routes.
    pub(crate) fn promised_since(&self, moment: Instant) -> Vec<i64> {
        self.with(|book| {
            let recent =
                book.acknowledged.values().flat_map(|all| all.iter().rev().take_while(|it| it.at > moment));
            recent.map(|it| it.id).collect()
        })
    }

    /// Acknowledged writes that are not among these.
    pub(crate) fn missing_from(&self, stored: &HashSet<i64>) -> Vec<i64> {
        self.with(|book| {
            let all = book.acknowledged.values().flatten();
            all.map(|it| it.id).filter(|id| !stored.contains(id)).collect()
        })
    }
}
