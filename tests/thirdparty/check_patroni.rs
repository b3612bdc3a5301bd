//! check_patroni, the Nagios plugin: every one of its services, in both outcomes where they can be had.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::{rest, wait};
use crate::{programs, run};

const OK: i32 = 0;
const CRITICAL: i32 = 2;
const UNKNOWN: i32 = 3;

/// The plugin, asking these nodes.
struct Plugin {
    program: PathBuf,
    state: PathBuf,
}

impl Plugin {
    async fn ask(&self, nodes: &[String], arguments: &str) -> Result<programs::Said> {
        let mut words: Vec<&str> = Vec::new();
        for node in nodes {
            words.extend(["-e", node]);
        }
        let state = self.state.display().to_string();
        words.extend(arguments.split(' ').map(|word| if word == "STATE" { state.as_str() } else { word }));
        programs::said(&self.program, &words).await
    }

    async fn expect(&self, nodes: &[String], arguments: &str, status: i32) -> Result<()> {
        let said = self.ask(nodes, arguments).await?;
        ensure!(said.status == Some(status), "{arguments}: not {status}, but {said:?}");
        Ok(())
    }

    /// The same, as soon as it is so.
    async fn await_status(&self, nodes: &[String], arguments: &str, status: i32) -> Result<()> {
        wait::until(arguments, HEAL_LIMIT, async || {
            self.expect(nodes, arguments, status).await.map_err(|error| error.to_string())
        })
        .await
    }
}

fn endpoint(cluster: &Cluster, index: usize) -> Result<String> {
    Ok(format!("http://{}", cluster.node(index)?.ports.rest_at()))
}

async fn patch(cluster: &Cluster, index: usize, body: &str) -> Result<()> {
    let answer = rest::patch(cluster.node(index)?.ports.rest_at(), "/config", body).await?;
    ensure!(answer.status == 200, "PATCH /config: {answer:?}");
    Ok(())
}

async fn of_the_cluster(plugin: &Plugin, all: &[String]) -> Result<()> {
    for (arguments, status) in [
        ("cluster_node_count -w 3: -c 2: --healthy-warning 3: --healthy-critical 2:", OK),
        ("cluster_node_count -c 4:", CRITICAL),
        ("cluster_has_leader", OK),
        ("cluster_has_replica -w 2: -c 1: --max-lag 10MB", OK),
        ("cluster_has_replica -c 3:", CRITICAL),
        ("cluster_has_replica --sync-critical 1:", CRITICAL),
        ("cluster_is_in_maintenance", OK),
        ("cluster_has_scheduled_action", OK),
        // The first time there is nothing to compare with.
        ("cluster_config_has_changed -s STATE --save", CRITICAL),
        ("cluster_config_has_changed -s STATE", OK),
    ] {
        plugin.expect(all, arguments, status).await?;
    }
    Ok(())
}

async fn of_nodes(plugin: &Plugin, primary: &[String], replica: &[String]) -> Result<()> {
    for (arguments, of_primary, of_replica) in [
        ("node_is_primary", OK, CRITICAL),
        ("node_is_leader", OK, CRITICAL),
        ("node_is_leader --is-standby-leader", CRITICAL, CRITICAL),
        ("node_is_replica", CRITICAL, OK),
        ("node_is_replica --max-lag 100MB", CRITICAL, OK),
        ("node_is_replica --is-async", CRITICAL, OK),
        ("node_is_replica --is-sync", CRITICAL, CRITICAL),
        ("node_is_pending_restart", OK, OK),
        ("node_tl_has_changed --timeline 1", OK, OK),
        ("node_tl_has_changed --timeline 9", CRITICAL, CRITICAL),
        ("node_is_alive", OK, OK),
        ("node_patroni_version --patroni-version 0.0.0", CRITICAL, CRITICAL),
    ] {
        plugin.expect(primary, arguments, of_primary).await?;
        plugin.expect(replica, arguments, of_replica).await?;
    }
    Ok(())
}

async fn after_changes(
    plugin: &Plugin,
    cluster: &Cluster,
    primary: usize,
    all: &[String],
    replica: &[String],
) -> Result<()> {
    patch(cluster, primary, r#"{"postgresql": {"parameters": {"max_connections": 90}}}"#).await?;
    plugin.expect(all, "cluster_config_has_changed -s STATE", CRITICAL).await?;
    plugin.await_status(replica, "node_is_pending_restart", CRITICAL).await?;
    patch(cluster, primary, r#"{"synchronous_mode": "quorum"}"#).await?;
    plugin.await_status(replica, "node_is_replica --is-sync --sync-type quorum", OK).await?;
    plugin.await_status(all, "cluster_has_replica --sync-critical 2: --sync-type quorum", OK).await?;
    cluster.ctl(&["pause", "--wait"]).await?;
    plugin.await_status(all, "cluster_is_in_maintenance", CRITICAL).await?;
    cluster.ctl(&["resume", "--wait"]).await?;
    plugin.await_status(all, "cluster_is_in_maintenance", OK).await?;
    let leader = &cluster.node(primary)?.name;
    let body = format!(r#"{{"leader": "{leader}", "scheduled_at": "2099-01-01T00:00:00+00:00"}}"#);
    let at = cluster.node(primary)?.ports.rest_at();
    let answer = rest::post(at, "/switchover", &body, Duration::from_secs(10)).await?;
    ensure!(answer.status == 202, "POST /switchover: {answer:?}");
    plugin.await_status(all, "cluster_has_scheduled_action", CRITICAL).await
}

#[test]
fn all_services_of_check_patroni_answer() {
    run(Plan::of(3), async |cluster| {
        let plugin = Plugin {
            program: programs::of_python("check_patroni")?,
            state: Path::new(cluster.directory()).join("check_patroni.state"),
        };
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let all: Vec<String> =
            (0..cluster.nodes.len()).map(|index| endpoint(cluster, index)).collect::<Result<_>>()?;
        let first = [endpoint(cluster, primary)?];
        let down = (0..cluster.nodes.len()).find(|index| *index != primary).context("a standby")?;
        let replica = [endpoint(cluster, down)?];
        of_the_cluster(&plugin, &all).await?;
        of_nodes(&plugin, &first, &replica).await?;
        let document = rest::get(cluster.node(primary)?.ports.rest_at(), "/patroni").await?.json()?;
        let version = document.pointer("/patroni/version").and_then(|version| version.as_str());
        let same = format!("node_patroni_version --patroni-version {}", version.context("a version")?);
        plugin.expect(&first, &same, OK).await?;
        after_changes(&plugin, cluster, primary, &all, &replica).await?;
        cluster.node_mut(down)?.kill_everything()?;
        plugin.expect(&replica, "node_is_alive", UNKNOWN).await?;
        plugin.await_status(&first, "cluster_node_count --healthy-critical 3:", CRITICAL).await
    });
}
