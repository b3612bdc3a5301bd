//! HAProxy in front of a cluster, with the template that the README recommends.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::{ports, tools, wait};

/// Enough for a machine that reads the program from disk for the first time and is busy.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running HAProxy.
#[derive(Debug)]
pub(crate) struct HaProxy {
    pub(crate) read_write: u16,
    pub(crate) read_only: u16,
    process: Child,
}

impl HaProxy {
    /// Ports which the system chooses.
    pub(crate) async fn start_anywhere(cluster: &Cluster) -> Result<Self> {
        Self::start(cluster, ports::free()?, ports::free()?).await
    }

    pub(crate) async fn start(cluster: &Cluster, read_write: u16, read_only: u16) -> Result<Self> {
        let path: PathBuf = cluster.directory().join("haproxy.cfg");
        fs::write(&path, config(cluster, read_write, read_only)).context("writing haproxy.cfg")?;
        let log_path = cluster.directory().join("haproxy.log");
        let log = fs::File::create(&log_path).context("making haproxy.log")?;
        let mut command = Command::new(tools::haproxy()?);
        command.arg("-db").arg("-f").arg(&path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // HAProxy returns to where it was started, and another user may not enter a repository below /root.
        command.current_dir(cluster.directory());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        if let Some(user) = &cluster.user {
            user.run(&mut command);
        }
        let process = command.spawn().context("starting haproxy")?;
        let mut proxy = Self { read_write, read_only, process };
        let said = || fs::read_to_string(&log_path).unwrap_or_default();
        let listening = wait::until("HAProxy to listen", START_LIMIT, async || {
            if let Ok(Some(status)) = proxy.process.try_wait() {
                return Ok(Err(anyhow!("HAProxy ended with {status}")));
            }
            match listens(read_write).await && listens(read_only).await {
                true => Ok(Ok(())),
                false => Err("not yet".to_owned()),
            }
        });
        listening.await.flatten().with_context(|| format!("starting HAProxy, which says: {}", said()))?;
        Ok(proxy)
    }
}

/// Asks by connecting: a look that took the port for a moment could be what keeps HAProxy from it.
async fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // A process that has ended already is what is wanted.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn config(cluster: &Cluster, read_write: u16, read_only: u16) -> String {
    let servers: String = cluster
        .data_nodes()
        .map(|(_, node)| {
            format!(
                "    server {} {} check port {}\n",
                node.name,
                node.ports.postgresql_at(),
                node.ports.rest
            )
        })
        .collect();
    let section = |name: &str, port: u16, path: &str| {
        format!(
            "listen {name}
    bind 127.0.0.1:{port}
    option httpchk OPTIONS {path}
    http-check expect status 200
    default-server inter 250ms downinter 100ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"
        )
    };
    format!(
        "global
    maxconn 1000

defaults
    mode tcp
    retries 4
    option redispatch 1
    timeout connect 250ms
    timeout client 30m
    timeout server 30m
    timeout check 1s

{}{}",
        section("read-write", read_write, "/primary"),
        section("read-only", read_only, "/replica"),
    )
}
