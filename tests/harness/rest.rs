//! A client for the nodes' REST API: HTTP/1.0, one request per connection, every answer within a limit.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ports::Place;

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

pub(crate) async fn get(at: impl Into<Place>, path: &str) -> Result<Answer> {
    tokio::time::timeout(PATIENCE, request(at.into(), "GET", path, "")).await.context("no answer in time")?
}

/// A request which may take long, as a switchover does.
pub(crate) async fn post(at: impl Into<Place>, path: &str, body: &str, limit: Duration) -> Result<Answer> {
    tokio::time::timeout(limit, request(at.into(), "POST", path, body)).await.context("no answer in time")?
}

/// A change of the settings of the cluster.
pub(crate) async fn patch(at: impl Into<Place>, path: &str, body: &str) -> Result<Answer> {
    tokio::time::timeout(PATIENCE, request(at.into(), "PATCH", path, body))
        .await
        .context("no answer in time")?
}

/// Takes back what was scheduled.
pub(crate) async fn delete(at: impl Into<Place>, path: &str) -> Result<Answer> {
    tokio::time::timeout(PATIENCE, request(at.into(), "DELETE", path, ""))
        .await
        .context("no answer in time")?
}

async fn request(at: Place, method: &str, path: &str, body: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect((at.host, at.port)).await?;
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {at}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    let text = String::from_utf8_lossy(&raw);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("no HTTP answer: {text}") };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status code")?;
    Ok(Answer { status, body: body.to_owned() })
}
