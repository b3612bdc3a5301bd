//! What an operator asks of one node, and the commands which are told of what happens to its PostgreSQL.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::ledger::Route;
use crate::harness::workload::Workload;
use crate::harness::{clock, rest, tell, wait};
use crate::run;

/// A restart or a new copy of a small server on a busy machine.
const OPERATION_LIMIT: Duration = Duration::from_secs(60);

/// A callback which takes its time and writes down what it was told, into its working directory.
const SCRIPT: &str = "sleep 0.05\necho \"$@\" >> callbacks.log\n";

fn tell_everything(cluster: &Cluster) -> Result<()> {
    for (_, node) in cluster.data_nodes() {
        fs::write(node.directory.join("callback.sh"), SCRIPT)?;
        let events = ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"];
        let lines: String = events.iter().map(|event| format!("    {event}: sh callback.sh\n")).collect();
        node.write_config(&format!("{}  callbacks:\n{lines}", node.read_config()?))?;
    }
    Ok(())
}

fn told(cluster: &Cluster, index: usize) -> Result<Vec<String>> {
    let path = cluster.node(index)?.directory.join("callbacks.log");
    let scope = format!(" {}", cluster.common.scope);
    let text = fs::read_to_string(path).unwrap_or_default();
    Ok(text.lines().map(|line| line.strip_suffix(&scope).unwrap_or(line).to_owned()).collect())
}

/// Reloads come when settings do: only the others have an order.
async fn wait_until_told(cluster: &Cluster, index: usize, golden: &[&str]) -> Result<()> {
    wait::until("the callbacks", HEAL_LIMIT, async || {
        let told = told(cluster, index).map_err(|error| error.to_string())?;
        let told: Vec<&String> = told.iter().filter(|line| !line.starts_with("on_reload")).collect();
        if told == golden { Ok(()) } else { Err(format!("{told:?} instead of {golden:?}")) }
    })
    .await
}

async fn ask(cluster: &Cluster, index: usize, path: &str, body: &str) -> Result<String> {
    let at = cluster.node(index)?.ports.rest_at();
    let answer = rest::post(at, path, body, OPERATION_LIMIT).await?;
    ensure!(answer.status < 300, "POST {path}: {} {}", answer.status, answer.body);
    Ok(answer.body)
}

async fn epoch(cluster: &Cluster) -> Result<u64> {
    let (_, node) = cluster.data_nodes().next().context("a node")?;
    let document = rest::get(node.ports.rest_at(), "/cluster").await?.json()?;
    document.pointer("/pgherd/epoch").and_then(serde_json::Value::as_u64).context("the epoch")
}

#[test]
fn a_restart_keeps_the_lease_and_callbacks_are_told_in_order() {
    run(Plan::of(3), async |cluster| {
        tell_everything(cluster)?;
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let indices = cluster.data_nodes().map(|(index, _)| index);
        let standbys: Vec<usize> = indices.filter(|index| *index != primary).collect();
        let [standby, other] = standbys.as_slice() else { anyhow::bail!("two standbys") };
        let (standby, other) = (*standby, *other);
        wait_until_told(cluster, primary, &["on_start primary"]).await?;
        wait_until_told(cluster, standby, &["on_start replica"]).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let before = epoch(cluster).await?;
        let begin = clock::now();
        ask(cluster, primary, "/restart", "{}").await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        tell(&format!("restart of the primary: longest time without a write {gap:.2?}"));
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == primary, "the primary is another one");
        ensure!(epoch(cluster).await? == before, "the lease has changed");
        wait_until_told(cluster, primary, &["on_start primary", "on_restart primary"]).await?;
        ask(cluster, standby, "/restart", "").await?;
        wait_until_told(cluster, standby, &["on_start replica", "on_restart replica"]).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        cluster.switchover(primary, standby).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let golden = ["on_start primary", "on_restart primary", "on_stop demoted", "on_role_change replica"];
        wait_until_told(cluster, primary, &golden).await?;
        let golden = ["on_start replica", "on_restart replica", "on_role_change primary"];
        wait_until_told(cluster, standby, &golden).await?;
        cluster.node_mut(other)?.stop().await?;
        wait_until_told(cluster, other, &["on_start replica", "on_stop replica"]).await?;
        cluster.start_node(other)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let lost = workload.lost(cluster).await?;
        ensure!(lost.is_empty(), "{} acknowledged writes were lost", lost.len());
        workload.finish().await
    });
}

#[test]
fn a_standby_is_copied_anew_and_a_primary_is_not() {
    run(Plan::of(2).map(Plan::with_witness), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let standby = cluster.data_nodes().map(|(index, _)| index).find(|index| *index != primary);
        let standby = standby.context("a standby")?;
        let marker = cluster.node(standby)?.data_dir().join("marker");
        fs::write(&marker, "x")?;
        let refused = rest::post(
            cluster.node(primary)?.ports.rest_at(),
            "/reinitialize",
            r#"{"force": true}"#,
            OPERATION_LIMIT,
        );
        let refused = refused.await?;
        ensure!((refused.status, refused.body.as_str()) == (503, "I am the leader, can not reinitialize"));
        ask(cluster, standby, "/reinitialize", r#"{"force": true}"#).await?;
        wait::until("the old data to be gone", OPERATION_LIMIT, async || {
            if marker.exists() { Err("it is there".to_owned()) } else { Ok(()) }
        })
        .await?;
        cluster.wait_until_whole(OPERATION_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(primary));
        Ok(())
    });
}
