//! Clients that write all the time, as an application would: reconnect, try the next address, never repeat a write
//! of unknown outcome.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::ledger::{Ledger, Route};
use super::node::Node;
use super::ports::Place;
use super::probe::Probes;
use super::wait;

/// Between two writes: the resolution of the measured gaps.
const PACE: Duration = Duration::from_millis(5);
/// Between two rounds over all addresses when none takes writes.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// For connecting, and for one write: a client gives a silent server up after this.
const PATIENCE: Duration = Duration::from_secs(1);
/// A write that waits is not given up while it may still be acknowledged: longer than any lease of the tests.
const PROBE_PATIENCE: Duration = Duration::from_secs(12);
/// Ids of different writers do not meet.
const IDS_PER_WRITER: i64 = 1 << 40;
/// Writes are not resumed by one lucky acknowledgement.
const RESUMED: usize = 20;

/// Running writers.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) ledger: Ledger,
    routes: Vec<Route>,
    stop: CancellationToken,
    writers: JoinSet<()>,
    /// Looks for two writers.
    pub(crate) probes: Option<Probes>,
}

impl Workload {
    /// Makes the table and starts a direct writer, and one through the proxy if there is one.
    pub(crate) async fn start(cluster: &Cluster, proxy_port: Option<u16>) -> Result<Self> {
        let primary = cluster.wait_for_primary(super::cluster::HEAL_LIMIT).await?;
        let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql_at()).await?;
        session.client.batch_execute("CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY)").await?;
        let mut workload = Self {
            ledger: Ledger::default(),
            routes: Vec::new(),
            stop: CancellationToken::new(),
            writers: JoinSet::new(),
            probes: None,
        };
        let nodes = cluster.data_nodes().map(|(_, node)| node.ports.postgresql_at()).collect();
        workload.add(Route::Direct, nodes);
        if let Some(port) = proxy_port {
            workload.add(Route::Proxy, vec![port.into()]);
        }
        workload.wait_until_writing(super::clock::now(), super::cluster::HEAL_LIMIT).await?;
        Ok(workload)
    }

    fn add(&mut self, route: Route, places: Vec<Place>) {
        let writer = Writer { route, places, next_id: self.first_id(), ledger: self.ledger.clone() };
        let stop = self.stop.clone();
        self.writers.spawn(async move {
            stop.run_until_cancelled(writer.run()).await;
        });
        self.routes.push(route);
    }

    fn first_id(&self) -> i64 {
        i64::try_from(self.writers.len()).unwrap_or(i64::MAX).saturating_mul(IDS_PER_WRITER)
    }

    /// Lets a client of each data node try to write there all the time.
    pub(crate) fn probe(&mut self, cluster: &Cluster) {
        for (_, node) in cluster.data_nodes() {
            let probe =
                Probe { port: node.ports.postgresql, next_id: self.first_id(), ledger: self.ledger.clone() };
            let stop = self.stop.clone();
            self.writers.spawn(async move {
                stop.run_until_cancelled(probe.run()).await;
            });
        }
    }

    pub(crate) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Waits until every route has had acknowledgements after this moment.
    pub(crate) async fn wait_until_writing(&self, since: Instant, limit: Duration) -> Result<()> {
        wait::until("acknowledged writes on every route", limit, async || {
            let counts: Vec<_> =
                self.routes.iter().map(|route| (*route, self.ledger.count_since(*route, since))).collect();
            if counts.iter().all(|(_, count)| *count >= RESUMED) {
                Ok(())
            } else {
                Err(format!("{counts:?}"))
            }
        })
        .await
    }

    /// Acknowledged writes which the present primary does not have.
    pub(crate) async fn lost(&self, cluster: &Cluster) -> Result<Vec<i64>> {
        let primary = cluster.wait_for_primary(super::cluster::HEAL_LIMIT).await?;
        let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql_at()).await?;
        // What is acknowledged later than this is not asked for: taken before the rows are read.
        let promised = self.ledger.missing_from(&HashSet::new());
        let rows =
            session.client.query("SELECT id FROM ledger", &[]).await.context("reading the ledger table")?;
        let stored: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let mut lost: Vec<i64> = promised.into_iter().filter(|id| !stored.contains(id)).collect();
        if let Some(probes) = &self.probes {
            lost.extend(probes.lost(&session).await?);
        }
        Ok(lost)
    }

    /// The same with a probe on every node that looks for two writers.
    pub(crate) async fn watched(cluster: &Cluster, proxy_port: Option<u16>) -> Result<Self> {
        let mut workload = Self::start(cluster, proxy_port).await?;
        workload.probes = Some(Probes::start(cluster).await?);
        Ok(workload)
    }

    /// Fails when anything failed on this node since then for clients that wait as long as it takes.
    pub(crate) fn nothing_failed_on(&self, node: usize, moment: Instant) -> Result<()> {
        let failed = self.probes.as_ref().context("no probes")?.failures_since(node, moment);
        ensure!(failed.is_empty(), "failed on node {}: {failed:#?}", node + 1);
        Ok(())
    }

    /// Ends the writers, and fails when two nodes ever acknowledged writes at one time.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.stop().await;
        let probes = self.probes.as_mut().context("nobody looked for two writers")?;
        probes.stop().await;
        let findings = probes.findings();
        super::tell(&findings.to_string());
        ensure!(findings.two_writers().is_zero(), "two nodes acknowledged writes: {findings}");
        Ok(())
    }

    /// What was acknowledged after this moment and is not stored on this node, the primary.
    pub(crate) async fn lost_since(&self, primary: &Node, moment: Instant) -> Result<HashSet<i64>> {
        let session = Session::open_patiently(primary.ports.postgresql_at()).await?;
        let promised = self.ledger.promised_since(moment);
        let question = "SELECT id FROM ledger WHERE id = ANY ($1)";
        let rows = session.client.query(question, &[&promised]).await.context("reading the ledger table")?;
        let stored: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        Ok(promised.into_iter().filter(|id| !stored.contains(id)).collect())
    }

    /// Ends the writers.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        while self.writers.join_next().await.is_some() {}
    }
}

/// A connection with the task which drives it.
pub(crate) struct Session {
    pub(crate) client: Client,
    _driver: JoinSet<()>,
}

impl Session {
    /// For the scenario's own questions: a busy machine is no reason to fail.
    pub(crate) async fn open_patiently(at: impl Into<Place>) -> Result<Self> {
        let at = at.into();
        wait::until("a connection", super::cluster::HEAL_LIMIT, async || {
            Self::open(at).await.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    pub(crate) async fn open(at: impl Into<Place>) -> Result<Self> {
        let at = at.into();
        let config = Cluster::client(at);
        let (client, connection) = tokio::time::timeout(PATIENCE, config.connect(NoTls))
            .await
            .context("no connection in time")?
            .with_context(|| format!("connecting to PostgreSQL at {at}"))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its error reaches the client's next call.
            drop(connection.await);
        });
        Ok(Self { client, _driver: driver })
    }
}

struct Writer {
    route: Route,
    places: Vec<Place>,
    next_id: i64,
    ledger: Ledger,
}

impl Writer {
    async fn run(mut self) {
        loop {
            for place in self.places.clone() {
                self.write_while_possible(place).await;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes until something fails. A standby refuses the first write.
    async fn write_while_possible(&mut self, place: Place) {
        let Ok(session) = Session::open(place).await else {
            self.ledger.fail(self.route);
            return;
        };
        let Ok(insert) = session.client.prepare("INSERT INTO ledger VALUES ($1)").await else {
            self.ledger.fail(self.route);
            return;
        };
        loop {
            // An id is used once: after a failure nobody knows whether it is stored.
            let id = self.next_id;
            self.next_id += 1;
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&id];
            let write = session.client.execute(&insert, &values);
            match tokio::time::timeout(PATIENCE, write).await {
                Ok(Ok(_)) => self.ledger.acknowledge(self.route, place.port, id),
                Ok(Err(_)) | Err(_) => {
                    self.ledger.fail(self.route);
                    return;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Writes on one node whenever that one takes writes.
struct Probe {
    port: u16,
    next_id: i64,
    ledger: Ledger,
}

impl Probe {
    async fn run(mut self) {
        loop {
            if let Ok(session) = Session::open(self.port).await {
                self.write(&session.client).await;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Until the connection breaks. A standby refuses the writes one by one and keeps the connection, on which it is
    /// seen at once when it becomes writable.
    async fn write(&mut self, client: &Client) {
        // The server's log is for what is remarkable.
        if client.batch_execute("SET log_min_messages = panic").await.is_err() {
            return;
        }
        while !client.is_closed() {
            let id = self.next_id;
            self.next_id += 1;
            let statement = format!("INSERT INTO ledger VALUES ({id})");
            match tokio::time::timeout(PROBE_PATIENCE, client.simple_query(&statement)).await {
                Ok(Ok(_)) => self.ledger.acknowledge(Route::Probe, self.port, id),
                Ok(Err(_)) => {}
                Err(_) => return,
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
