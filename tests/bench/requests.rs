//! Health checks per second.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::figures;
use crate::harness::clock;
use crate::harness::cluster::{Cluster, Plan};

const CONNECTIONS: usize = 16;
const WATCHED: Duration = Duration::from_secs(10);

pub(crate) async fn run() -> Result<()> {
    let cluster = Cluster::start(&Plan::of(3)?).await?;
    let primary = cluster.primary().await?.context("a primary")?;
    let port = cluster.node(primary)?.ports.rest;
    for keeps_alive in [true, false] {
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(client(port, keeps_alive));
        }
        let mut samples = Vec::new();
        while let Some(client) = clients.join_next().await {
            samples.extend(client??);
        }
        let how = if keeps_alive { "kept open" } else { "one request each" };
        let rate = f64::from(u32::try_from(samples.len())?) / WATCHED.as_secs_f64();
        println!("OPTIONS /primary, {CONNECTIONS} connections, {how}: {rate:.0} requests/s");
        figures::print(&format!("OPTIONS /primary, {how}, answer time"), &samples);
    }
    Ok(())
}

async fn client(port: u16, keeps_alive: bool) -> Result<Vec<Duration>> {
    let begin = clock::now();
    let mut samples = Vec::new();
    let mut kept = None;
    while begin.elapsed() < WATCHED {
        let asked = clock::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?),
        };
        ask(&mut stream).await?;
        samples.push(asked.elapsed());
        if keeps_alive {
            kept = Some(stream);
        }
    }
    Ok(samples)
}

async fn ask(stream: &mut BufReader<TcpStream>) -> Result<()> {
    stream.write_all(b"OPTIONS /primary HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await?;
    let mut length = 0;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    ensure!(line.contains(" 200 "), "not 200: {line}");
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(())
}
