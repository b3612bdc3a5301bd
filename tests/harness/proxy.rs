//! Faults of the network between the daemons: a proxy in front of every node's peers' port, which stalls what comes
//! from certain others. A stalled connection stays open and silent, as on a network that drops packets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How soon a healed link goes on.
const LOOK: Duration = Duration::from_millis(20);

/// The direction of a flow: index of the node that sends, index of the node that receives.
type Flow = (usize, usize);

#[derive(Debug, Default)]
struct Faults {
    stalled: BTreeSet<Flow>,
    /// The daemons' process ids, to tell whose connection it is.
    daemons: BTreeMap<usize, i32>,
}

/// All proxies of a cluster.
#[derive(Debug)]
pub(crate) struct Links {
    faults: Arc<Mutex<Faults>>,
    _proxies: JoinSet<()>,
}

impl Links {
    /// Listens on each node's public port and forwards to its own; the pairs are in the order of the nodes.
    pub(crate) async fn start(ports: &[(u16, u16)]) -> Result<Self> {
        let faults = Arc::new(Mutex::new(Faults::default()));
        let mut proxies = JoinSet::new();
        for (to, (public, own)) in ports.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", *public))
                .await
                .with_context(|| format!("listening on {public}"))?;
            proxies.spawn(serve(listener, *public, *own, to, Arc::clone(&faults)));
        }
        Ok(Self { faults, _proxies: proxies })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Faults) -> T) -> T {
        work(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells whose connections come from which process; to be called after every start of a daemon.
    pub(crate) fn know(&self, node: usize, daemon: i32) {
        self.with(|faults| faults.daemons.insert(node, daemon));
    }

    /// Cuts a node off from all others, in both directions.
    pub(crate) fn isolate(&self, node: usize, count: usize) {
        self.with(|faults| {
            for other in (0..count).filter(|other| *other != node) {
                faults.stalled.insert((node, other));
                faults.stalled.insert((other, node));
            }
        });
    }

    /// Stalls what one node sends to another, whoever has opened the connection.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.with(|faults| faults.stalled.insert((from, to)));
    }

    /// All links work again.
    pub(crate) fn heal(&self) {
        self.with(|faults| faults.stalled.clear());
    }
}

async fn serve(listener: TcpListener, public: u16, own: u16, to: usize, faults: Arc<Mutex<Faults>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, address)) = listener.accept().await {
        let daemons = faults.lock().unwrap_or_else(PoisonError::into_inner).daemons.clone();
        let from = owner(address.port(), public, &daemons);
        connections.spawn(forward(stream, own, from.map(|from| (from, to)), Arc::clone(&faults)));
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(stream: TcpStream, own: u16, link: Option<Flow>, faults: Arc<Mutex<Faults>>) {
    let Ok(inner) = TcpStream::connect(("127.0.0.1", own)).await else { return };
    let (from_outside, to_outside) = stream.into_split();
    let (from_inside, to_inside) = inner.into_split();
    tokio::select! {
        () = copy(from_outside, to_inside, link, &faults) => {}
        () = copy(from_inside, to_outside, link.map(|(from, to)| (to, from)), &faults) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, flow: Option<Flow>, faults: &Mutex<Faults>) {
    let is_stalled = || {
        let faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
        flow.is_some_and(|flow| faults.stalled.contains(&flow))
    };
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        while is_stalled() {
            tokio::time::sleep(LOOK).await;
        }
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Which daemon holds the connection from this local port to that one: the kernel's table names the socket's inode,
/// and the process has a descriptor of it.
fn owner(local: u16, remote: u16, daemons: &BTreeMap<usize, i32>) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = |field: usize| {
            let hex = fields.get(field)?.rsplit_once(':')?.1;
            u16::from_str_radix(hex, 16).ok()
        };
        let is_it = port(1) == Some(local) && port(2) == Some(remote);
        is_it.then(|| fields.get(9)?.parse::<u64>().ok()).flatten()
    })?;
    daemons.iter().find_map(|(node, pid)| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let is_its = descriptors.flatten().any(|entry| {
            fs::metadata(entry.path())
                .is_ok_and(|file| file.ino() == inode && file.mode() & 0o170_000 == 0o140_000)
        });
        is_its.then_some(*node)
    })
}
