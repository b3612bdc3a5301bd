//! What the REST API shows of what was agreed on, on every node, and what it refuses.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::{rest, wait};
use crate::run;

async fn document(cluster: &Cluster, index: usize, path: &str) -> Result<Value> {
    let answer = rest::get(cluster.node(index)?.ports.rest_at(), path).await?;
    ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.body);
    answer.json()
}

async fn patch(cluster: &Cluster, index: usize, body: &Value) -> Result<(u16, String)> {
    let answer = rest::patch(cluster.node(index)?.ports.rest_at(), "/config", &body.to_string()).await?;
    Ok((answer.status, answer.body))
}

async fn post(cluster: &Cluster, index: usize, path: &str, body: &Value) -> Result<(u16, String)> {
    let at = cluster.node(index)?.ports.rest_at();
    let answer = rest::post(at, path, &body.to_string(), HEAL_LIMIT).await?;
    Ok((answer.status, answer.body))
}

/// Waits until a document of each node says it.
async fn shown_by_all(cluster: &Cluster, path: &str, says: impl Fn(&Value) -> bool) -> Result<()> {
    for (index, _) in cluster.data_nodes() {
        wait::until(path, HEAL_LIMIT, async || {
            let shown = document(cluster, index, path).await.map_err(|error| error.to_string())?;
            if says(&shown) { Ok(()) } else { Err(shown.to_string()) }
        })
        .await?;
    }
    Ok(())
}

#[test]
fn every_node_shows_what_was_agreed_on() {
    run(Plan::of(2).map(Plan::with_witness), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let standby = cluster.data_nodes().map(|(index, _)| index).find(|index| *index != primary);
        let standby = standby.context("a standby")?;

        let parameters = |work_mem: &str| json!({"postgresql": {"parameters": {"work_mem": work_mem}}});
        let before = document(cluster, primary, "/config").await?;
        ensure!(patch(cluster, standby, &parameters("5MB")).await?.0 == 200);
        let work_mem = |shown: &Value| shown.pointer("/postgresql/parameters/work_mem").cloned();
        ensure!(work_mem(&document(cluster, standby, "/config").await?) == Some(json!("5MB")), "not at once");
        shown_by_all(cluster, "/config", |shown| work_mem(shown) == Some(json!("5MB"))).await?;

        for (wrong, word) in [(json!({"ttl": -5}), "ttl"), (parameters("much"), "work_mem")] {
            let (status, said) = patch(cluster, primary, &wrong).await?;
            ensure!(status == 400 && said.contains(word), "{wrong}: {status} {said}");
        }
        let revisions = document(cluster, primary, "/config/history").await?;
        let revisions = revisions.as_array().context("a list")?;
        let [.., first, second] = revisions.as_slice() else { anyhow::bail!("two revisions: {revisions:?}") };
        ensure!(second.get("by") == Some(&json!("127.0.0.1")), "{second}");
        let back = json!({"revision": first.get("revision")});
        ensure!(post(cluster, standby, "/config/rollback", &back).await?.0 == 200);
        shown_by_all(cluster, "/config", |shown| *shown == before).await?;

        cluster.switchover(primary, standby).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let successor = json!(cluster.node(standby)?.name);
        shown_by_all(cluster, "/history", |shown| {
            let newest = shown.as_array().and_then(|entries| entries.last()).and_then(Value::as_array);
            newest.is_some_and(|entry| match entry.as_slice() {
                [timeline, lsn, reason, at, leader] => {
                    *timeline == 1
                        && lsn.is_u64()
                        && reason.as_str().is_some_and(|reason| reason.contains("recovery"))
                        && at.is_string()
                        && *leader == successor
                }
                _ => false,
            })
        })
        .await?;

        let names = |index| cluster.node(index).map(|node| node.name.clone());
        let schedule = json!({
            "leader": names(standby)?, "candidate": names(primary)?, "scheduled_at": "2999-01-01T00:00:00Z",
        });
        ensure!(post(cluster, primary, "/switchover", &schedule).await?.0 == 202);
        shown_by_all(cluster, "/cluster", |shown| {
            shown.pointer("/scheduled_switchover/to") == schedule.get("candidate")
        })
        .await?;
        let at = cluster.node(standby)?.ports.rest_at();
        ensure!(rest::delete(at, "/switchover").await?.body == "scheduled switchover deleted");
        shown_by_all(cluster, "/cluster", |shown| shown.get("scheduled_switchover").is_none()).await
    });
}
