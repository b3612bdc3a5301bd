//! HAProxy with Patroni's sample configuration, and with checks that carry conditions over one connection.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::{ports, wait};
use crate::{programs, run};

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        // A process that has ended already is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn servers(cluster: &Cluster) -> String {
    let server = |name: &str, port: u16, rest: u16| {
        format!("    server postgresql_{name} 127.0.0.1:{port} maxconn 100 check port {rest}\n")
    };
    cluster.data_nodes().map(|(_, node)| server(&node.name, node.ports.postgresql, node.ports.rest)).collect()
}

/// As in Patroni's documentation: OPTIONS on `/` every three seconds, down after three failures, up after two successes.
fn sample(cluster: &Cluster, port: u16) -> String {
    format!(
        "listen batch
    bind 127.0.0.1:{port}
    option httpchk
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
{}
",
        servers(cluster)
    )
}

/// Checks with conditions.
fn tagged(cluster: &Cluster, port: u16) -> String {
    format!(
        "listen tagged
    bind 127.0.0.1:{port}
    option httpchk
    http-check send meth OPTIONS uri /replica?lag=100MB&tag_k=v ver HTTP/1.1 hdr Host check hdr Connection keep-alive
    http-check expect status 200
    default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{}
",
        servers(cluster)
    )
}

fn start(cluster: &Cluster, sample_port: u16, tagged_port: u16) -> Result<Proxy> {
    let path = cluster.directory().join("haproxy.cfg");
    let head = "global
    maxconn 100

defaults
    log global
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s

";
    fs::write(&path, format!("{head}{}{}", sample(cluster, sample_port), tagged(cluster, tagged_port)))?;
    let log = fs::File::create(cluster.directory().join("haproxy.log"))?;
    let mut command = Command::new(programs::installed("haproxy")?);
    command.arg("-db").arg("-f").arg(&path).current_dir(cluster.directory()).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    Ok(Proxy(command.spawn().context("starting haproxy")?))
}

/// The port of the server behind one of HAProxy's ports.
async fn behind(port: u16) -> Result<u16> {
    let connecting =
        Cluster::client(port.into()).connect_timeout(Duration::from_secs(2)).connect(NoTls).await;
    let (client, connection) = connecting?;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let row = client.query_one("SELECT inet_server_port()", &[]).await?;
    Ok(u16::try_from(row.get::<_, i32>(0))?)
}

async fn leads_to(port: u16, wanted: u16, what: &str) -> Result<()> {
    wait::until(what, HEAL_LIMIT, async || match behind(port).await {
        Ok(found) if found == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// HAProxy takes a server for well until it has asked it: from some moment on all connections go to these.
async fn leads_only_to(port: u16, wanted: &[u16]) -> Result<()> {
    wait::until("the tagged standbys behind HAProxy, and nobody else", HEAL_LIMIT, async || {
        for _ in 0..6 {
            match behind(port).await {
                Ok(found) if wanted.contains(&found) => {}
                other => return Err(format!("{other:?}, not one of {wanted:?}")),
            }
        }
        Ok(())
    })
    .await
}

/// The statuses of many checks over one connection, as proxies that keep theirs open ask them.
async fn persistent(port: u16, path: &str, count: usize) -> Result<Vec<String>> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let question = format!("OPTIONS {path} HTTP/1.1\r\nHost: check\r\nConnection: keep-alive\r\n\r\n");
    let mut statuses = Vec::new();
    for _ in 0..count {
        stream.write_all(question.as_bytes()).await?;
        let (mut status, mut length) = (String::new(), 0);
        stream.read_line(&mut status).await?;
        loop {
            let mut line = String::new();
            ensure!(stream.read_line(&mut line).await? > 0, "the connection ended after {statuses:?}");
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        statuses.push(status.split(' ').nth(1).unwrap_or_default().to_owned());
    }
    Ok(statuses)
}

#[test]
fn haproxy_with_patronis_sample_and_with_conditions_leads_to_the_right_servers() {
    run(Plan::of(3), async |cluster| {
        // Only node2 and node3 have the tag.
        for index in 1..3 {
            let node = cluster.node(index)?;
            let text = node.read_config()?;
            node.write_config(&format!("{text}tags:\n  k: v\n"))?;
        }
        cluster.start_all()?;
        let first = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        if first != 0 {
            cluster.switchover(first, 0).await?;
            cluster.wait_until_whole(HEAL_LIMIT).await?;
        }
        let (by_sample, by_tag) = (ports::free()?, ports::free()?);
        let _proxy = start(cluster, by_sample, by_tag)?;
        let port = |index: usize| cluster.node(index).map(|node| node.ports.postgresql);
        leads_to(by_sample, port(0)?, "the primary behind HAProxy").await?;
        leads_only_to(by_tag, &[port(1)?, port(2)?]).await?;
        for (index, wanted) in [(0, "503"), (1, "200"), (2, "200")] {
            let rest = cluster.node(index)?.ports.rest;
            let statuses = persistent(rest, "/replica?lag=100MB&tag_k=v", 50).await?;
            ensure!(statuses.iter().all(|status| status == wanted), "{index}: {statuses:?}");
        }
        cluster.switchover(0, 1).await?;
        leads_to(by_sample, port(1)?, "the new primary behind HAProxy").await?;
        // Of the tagged ones node3 is the only standby.
        leads_only_to(by_tag, &[port(2)?]).await
    });
}
