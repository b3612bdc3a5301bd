//! How long a health check takes beside 400 connections that say nothing, or not enough: while they come, while they stay,
//! and when they end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::figures;
use crate::harness::clock;
use crate::harness::cluster::{Cluster, Plan};

/// As many as the promise names.
const CONNECTIONS: usize = 400;
/// Longer than the server's patience with who says nothing.
const WATCHED: Duration = Duration::from_secs(7);
/// Between two checks, as a busy load balancer asks.
const PAUSE: Duration = Duration::from_millis(5);

/// What each of them says before it falls silent.
const FLOODS: [(&str, usize, &str); 6] = [
    ("none", 0, ""),
    ("silent", CONNECTIONS, ""),
    ("half a request line", CONNECTIONS, "OPTIONS / HT"),
    ("half a head", CONNECTIONS, "OPTIONS /primary HTTP/1.1\r\nX: "),
    ("half a body", CONNECTIONS, "PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"),
    ("idle after an answer", CONNECTIONS, "OPTIONS /primary HTTP/1.1\r\nHost: x\r\n\r\n"),
];

pub(crate) async fn run() -> Result<()> {
    let cluster = Cluster::start(&Plan::of(1)?).await?;
    let primary = cluster.primary().await?.context("a primary")?;
    let port = cluster.node(primary)?.ports.rest;
    for (name, count, words) in FLOODS {
        let (samples, open) = tokio::join!(checks(port), flood(port, count, words));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        figures::print(
            &format!("OPTIONS /primary beside {count} connections ({name}), load {load}"),
            &samples?,
        );
        drop(open?);
    }
    Ok(())
}

/// All at once.
async fn flood(port: u16, count: usize, words: &str) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(words.as_bytes()).await?;
        open.push(stream);
    }
    Ok(open)
}

/// Each over a connection of its own.
async fn checks(port: u16) -> Result<Vec<Duration>> {
    let begin = clock::now();
    let mut samples = Vec::new();
    while begin.elapsed() < WATCHED {
        let asked = clock::now();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"OPTIONS /primary HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.0 200 "), "{}", String::from_utf8_lossy(&answer));
        samples.push(asked.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(samples)
}
