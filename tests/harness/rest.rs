//! A client for the nodes' REST API: HTTP/1.0, one request per connection, every answer within a limit.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A node which does not answer within this time is treated as not answering.
const PATIENCE: Duration = Duration::from_secs(2);

/// Status code and body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}

pub(crate) async fn get(port: u16, path: &str) -> Result<Answer> {
    tokio::time::timeout(PATIENCE, request(port, "GET", path, "")).await.context("no answer in time")?
}

/// A request which may take long, as a switchover does.
pub(crate) async fn post(port: u16, path: &str, body: &str, limit: Duration) -> Result<Answer> {
    tokio::time::timeout(limit, request(port, "POST", path, body)).await.context("no answer in time")?
}

pub(crate) async fn patch(port: u16, path: &str, body: &str) -> Result<Answer> {
    tokio::time::timeout(PATIENCE, request(port, "PATCH", path, body)).await.context("no answer in time")?
}

async fn request(port: u16, method: &str, path: &str, body: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    let text = String::from_utf8_lossy(&raw);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("no HTTP answer: {text}") };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status code")?;
    Ok(Answer { status, body: body.to_owned() })
}
