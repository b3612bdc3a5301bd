//! Looks for two writers: on every node, all the time, somebody tries to write there and nowhere else.
//!
//! Each acknowledged write says on which timeline it was made. A timeline has one writer, so two writers show as
//! acknowledgements of an older timeline after the first one of a newer timeline elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use super::clock;
use super::cluster::Cluster;
use super::ports::Place;
use super::wait;
use super::workload::Session;

/// Between two writes of a session.
const PACE: Duration = Duration::from_millis(5);
/// After a refusal, as every standby gives.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Between two new connections of the one that always takes a new one.
const FRESH_PAUSE: Duration = Duration::from_millis(250);
/// PostgreSQL names WAL files by the timeline: eight hexadecimal digits.
const INSERT: &str =
    "INSERT INTO probe VALUES ($1) RETURNING left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";

/// An acknowledged write.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) node: usize,
    pub(crate) timeline: u32,
    pub(crate) at: Instant,
    pub(crate) id: i64,
}

/// A write or a connection of a probe that waits as long as it takes, and failed.
#[derive(Clone, Debug)]
struct Failed {
    node: usize,
    at: Instant,
    what: String,
}

#[derive(Debug, Default)]
struct Notes {
    acknowledged: Vec<Acknowledged>,
    failed: Vec<Failed>,
}

type Book = Arc<Mutex<Notes>>;

/// Running probes.
#[derive(Debug)]
pub(crate) struct Probes {
    book: Book,
    writers: JoinSet<()>,
}

impl Probes {
    /// Makes the table and starts two probes on every data node: one keeps its connection as long as it may, and waits
    /// for an answer as long as it takes; one takes a new connection for each write.
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        let primary = cluster.wait_for_primary(super::cluster::HEAL_LIMIT).await?;
        let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql_at()).await?;
        let table = "CREATE TABLE IF NOT EXISTS probe (id bigint PRIMARY KEY)";
        session.client.batch_execute(table).await.context("making the probe's table")?;
        let book = Book::default();
        let next_id = Arc::new(AtomicI64::new(0));
        let mut writers = JoinSet::new();
        for (node, at) in cluster.data_nodes().map(|(index, node)| (index, node.ports.postgresql_at())) {
            for is_fresh in [false, true] {
                let writer =
                    Writer { node, at, is_fresh, next_id: Arc::clone(&next_id), book: Arc::clone(&book) };
                writers.spawn(writer.run());
            }
        }
        let probes = Self { book, writers };
        wait::until_true("a write of the probes", super::cluster::HEAL_LIMIT, async || {
            probes.findings().acknowledged() > 0
        })
        .await?;
        Ok(probes)
    }

    /// Ends the probes; what they have seen is kept.
    pub(crate) async fn stop(&mut self) {
        self.writers.shutdown().await;
    }

    pub(crate) fn findings(&self) -> Findings {
        Findings::of(&self.book.lock().unwrap_or_else(PoisonError::into_inner).acknowledged)
    }

    /// What failed on this node since then for a client that waits as long as it takes: one with a time-out of its own
    /// also fails when the machine is slow.
    pub(crate) fn failures_since(&self, node: usize, moment: Instant) -> Vec<String> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = book.failed.iter().filter(|failed| failed.node == node && failed.at >= moment);
        failed.map(|failed| failed.what.clone()).collect()
    }

    /// Acknowledged writes that this server does not have.
    pub(crate) async fn lost(&self, session: &Session) -> Result<Vec<i64>> {
        let promised: Vec<i64> = {
            let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.acknowledged.iter().map(|write| write.id).collect()
        };
        let rows = session.client.query("SELECT id FROM probe", &[]).await.context("reading the probes")?;
        let stored: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        Ok(promised.into_iter().filter(|id| !stored.contains(id)).collect())
    }
}

struct Writer {
    node: usize,
    at: Place,
    is_fresh: bool,
    next_id: Arc<AtomicI64>,
    book: Book,
}

impl Writer {
    async fn run(self) {
        loop {
            if let Ok(session) = Session::open(self.at).await {
                self.write(&session).await;
            }
            tokio::time::sleep(if self.is_fresh { FRESH_PAUSE } else { RETRY_PAUSE }).await;
        }
    }

    /// Writes until the connection fails; a refused write is tried again.
    async fn write(&self, session: &Session) {
        let Ok(insert) = session.client.prepare(INSERT).await else { return };
        while !session.client.is_closed() {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            match session.client.query_one(&insert, &[&id]).await {
                Ok(row) => {
                    let at = clock::now();
                    let timeline = u32::from_str_radix(row.get(0), 16).unwrap_or_default();
                    let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
                    book.acknowledged.push(Acknowledged { node: self.node, timeline, at, id });
                }
                Err(error) => {
                    let is_standby = error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
                    if !self.is_fresh && !is_standby {
                        let (node, at, what) = (self.node, clock::now(), format!("{error:?}"));
                        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
                        book.failed.push(Failed { node, at, what });
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            if self.is_fresh {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// One node on one timeline.
#[derive(Clone, Debug)]
struct Reign {
    node: usize,
    timeline: u32,
    first: Instant,
    last: Instant,
    count: usize,
}

/// What the probes have seen.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    reigns: Vec<Reign>,
    /// Acknowledgements of an older timeline after the first one of a newer one elsewhere.
    stale: Vec<Acknowledged>,
}

impl Findings {
    pub(crate) fn of(book: &[Acknowledged]) -> Self {
        let mut reigns: BTreeMap<(u32, usize), Reign> = BTreeMap::new();
        for write in book {
            let Acknowledged { node, timeline, at, .. } = *write;
            let reign = reigns.entry((timeline, node)).or_insert(Reign {
                node,
                timeline,
                first: at,
                last: at,
                count: 0,
            });
            reign.first = reign.first.min(at);
            reign.last = reign.last.max(at);
            reign.count += 1;
        }
        let reigns: Vec<Reign> = reigns.into_values().collect();
        let is_stale = |write: &&Acknowledged| {
            reigns.iter().any(|other| {
                other.node != write.node && other.timeline >= write.timeline && other.first <= write.at
            })
        };
        let stale = book.iter().filter(is_stale).cloned().collect();
        Self { reigns, stale }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.reigns.iter().map(|reign| reign.count).sum()
    }

    /// How long two nodes acknowledged writes; two writers on one timeline count as well.
    pub(crate) fn two_writers(&self) -> Duration {
        let overlap = |reign: &Reign| {
            self.reigns
                .iter()
                .filter(|other| other.node != reign.node && other.timeline >= reign.timeline)
                .map(|other| reign.last.saturating_duration_since(other.first))
                .max()
        };
        self.reigns.iter().filter_map(overlap).max().unwrap_or_default()
    }

    /// Stale acknowledgements that this node gave.
    pub(crate) fn stale_of(&self, node: usize) -> Vec<Acknowledged> {
        self.stale.iter().filter(|write| write.node == node).cloned().collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe on every node: two-writer time {:.3} s", self.two_writers().as_secs_f64())?;
        for reign in &self.reigns {
            let lasted = reign.last.duration_since(reign.first).as_secs_f64();
            let Reign { node, timeline, count, .. } = reign;
            write!(f, "; timeline {timeline} on node {}: {count} in {lasted:.1} s", node + 1)?;
        }
        match self.stale.len() {
            0 => Ok(()),
            stale => write!(f, "; {stale} STALE"),
        }
    }
}
