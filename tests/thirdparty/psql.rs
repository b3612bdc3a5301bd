//! psql with several hosts: libpq finds the right server by itself.

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::node::{PASSWORD, SUPERUSER};
use crate::harness::wait;
use crate::{programs, run};

/// The port of the server that libpq chose.
async fn chosen(cluster: &Cluster, attributes: &str) -> Result<u16> {
    let ports: Vec<String> =
        cluster.data_nodes().map(|(_, node)| node.ports.postgresql.to_string()).collect();
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let conninfo = format!(
        "host={hosts} port={} user={SUPERUSER} password={PASSWORD} dbname=postgres connect_timeout=3 \
         target_session_attrs={attributes}",
        ports.join(",")
    );
    let program = cluster.tools.postgresql.join("psql");
    let said = programs::said(&program, &["-XAtq", "-d", &conninfo, "-c", "SHOW port"]).await?;
    ensure!(said.status == Some(0), "psql with target_session_attrs={attributes}: {said:?}");
    said.text.trim().parse().with_context(|| format!("no port: {said:?}"))
}

#[test]
fn psql_finds_the_primary_and_a_standby_among_all_hosts() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let port = cluster.node(old)?.ports.postgresql;
        for attributes in ["read-write", "primary"] {
            ensure!(chosen(cluster, attributes).await? == port, "{attributes} found a standby");
        }
        for attributes in ["read-only", "standby", "prefer-standby"] {
            ensure!(chosen(cluster, attributes).await? != port, "{attributes} found the primary");
        }
        let new = (old + 1) % cluster.nodes.len();
        cluster.switchover(old, new).await?;
        let port = cluster.node(new)?.ports.postgresql;
        wait::until("the new primary", HEAL_LIMIT, async || match chosen(cluster, "primary").await {
            Ok(found) if found == port => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
    });
}
