//! The cluster's settings and a node's own file are changed while everything runs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::stage::ask;
use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::{rest, wait};
use crate::run;

/// A small change on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

async fn patch(cluster: &Cluster, change: Value, expected: u16) -> Result<String> {
    let at = cluster.node(0)?.ports.rest_at();
    let answer = rest::patch(at, "/config", &change.to_string()).await?;
    ensure!(answer.status == expected, "{change}: {} {}", answer.status, answer.body);
    Ok(answer.body)
}

fn parameters(parameters: Value) -> Value {
    json!({"postgresql": {"parameters": parameters}})
}

/// Waits until a statement gives this on every node.
async fn everywhere(cluster: &Cluster, sql: &str, golden: &str) -> Result<()> {
    wait::until(&format!("{golden:?} from {sql:?} on every node"), LIMIT, async || {
        for (index, _) in cluster.data_nodes() {
            let found = ask(cluster, index, sql).await.map_err(|error| format!("{error:#}"))?;
            if found != golden {
                return Err(format!("{found:?} on node {index}"));
            }
        }
        Ok(())
    })
    .await
}

/// Waits until every node says that these parameters, and no others, wait for a restart.
async fn pending(cluster: &Cluster, golden: &Value) -> Result<()> {
    wait::until(&format!("{golden} to be pending"), LIMIT, async || {
        for (_, node) in cluster.data_nodes() {
            let answer =
                rest::get(node.ports.rest_at(), "/patroni").await.map_err(|error| error.to_string())?;
            let document = answer.json().map_err(|error| error.to_string())?;
            let is_pending = document.get("pending_restart").is_some();
            let reasons = document.get("pending_restart_reason").cloned().unwrap_or_else(|| json!({}));
            if reasons != *golden || is_pending != (*golden != json!({})) {
                return Err(format!("{}: {reasons}", node.name));
            }
        }
        Ok(())
    })
    .await
}

#[test]
fn a_parameter_arrives_everywhere_and_a_restart_is_the_operator_s() {
    run(Plan::of(2), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let started = ask(cluster, primary, "SELECT pg_postmaster_start_time()").await?;
        patch(cluster, parameters(json!({"work_mem": "7MB", "wal_level": "logical"})), 200).await?;
        everywhere(cluster, "SHOW work_mem", "7MB").await?;
        pending(cluster, &json!({"wal_level": {"old_value": "replica", "new_value": "logical"}})).await?;
        let refused =
            patch(cluster, parameters(json!({"shared_buffers": "banana", "work_mem": "8MB"})), 400).await?;
        ensure!(refused.starts_with("postgresql.parameters.shared_buffers: invalid value"), "{refused}");
        let refused = patch(cluster, json!({"ttl": -5, "loop_wait": 3}), 400).await?;
        ensure!(refused.starts_with("ttl: "), "{refused}");
        // Below Patroni's limit, and a name which no PostgreSQL has: the one becomes the default, the other is left out.
        patch(cluster, parameters(json!({"max_connections": 5, "no_such_parameter": 1})), 200).await?;
        let at = cluster.node(0)?.ports.rest_at();
        let config = rest::get(at, "/config").await?.json()?;
        ensure!(config.pointer("/postgresql/parameters/work_mem") == Some(&json!("7MB")), "{config}");
        ensure!(config.get("loop_wait") == Some(&json!(10)), "{config}");
        for (_, node) in cluster.data_nodes() {
            wait::until("the settings in the data directory", LIMIT, async || {
                let text = fs::read_to_string(node.data_dir().join("patroni.dynamic.json"));
                let kept: Option<Value> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
                if kept.as_ref() == Some(&config) { Ok(()) } else { Err(format!("{}: {kept:?}", node.name)) }
            })
            .await?;
        }
        let history = rest::get(at, "/config/history").await?.json()?;
        ensure!(history.as_array().is_some_and(|revisions| revisions.len() == 3), "{history}");
        let answer = rest::post(at, "/config/rollback", "{\"revision\": 1}", LIMIT).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        everywhere(cluster, "SHOW work_mem", "4MB").await?;
        pending(cluster, &json!({})).await?;
        let still = ask(cluster, primary, "SELECT pg_postmaster_start_time()").await?;
        ensure!(still == started, "PostgreSQL was restarted");
        Ok(())
    });
}

#[test]
fn a_node_s_file_is_read_again_and_a_broken_one_changes_nothing() {
    run(Plan::of(2), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let node = cluster.node(1 - primary)?;
        let good = node.read_config()?;
        let changed = good.replace("shared_buffers: 32MB", "shared_buffers: 33MB\n    work_mem: 9MB");
        node.write_config(&format!("{changed}tags: {{nofailover: true, zone: b}}\n"))?;
        node.signal_daemon(Signal::HUP)?;
        let tags = json!({"nofailover": true, "zone": "b"});
        wait::until("the tags in /cluster", HEAL_LIMIT, async || {
            let at = cluster.node(primary).map_err(|error| error.to_string())?.ports.rest_at();
            let answer = rest::get(at, "/cluster").await.map_err(|error| error.to_string())?;
            let document = answer.json().map_err(|error| error.to_string())?;
            let members = document.get("members").and_then(Value::as_array).cloned().unwrap_or_default();
            let own = members.iter().find(|member| member.get("name") == Some(&json!(node.name)));
            let found = own.and_then(|member| member.get("tags")).cloned();
            if found.as_ref() == Some(&tags) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await?;
        wait::until("the parameter of this node alone", LIMIT, async || {
            let found =
                ask(cluster, 1 - primary, "SHOW work_mem").await.map_err(|error| format!("{error:#}"))?;
            if found == "9MB" { Ok(()) } else { Err(found) }
        })
        .await?;
        ensure!(ask(cluster, primary, "SHOW work_mem").await? == "4MB", "it is this node's alone");
        // Two mistakes, told at once; nothing of the file counts.
        let broken = changed.replace("9MB", "[9]").replace("mode: off", "mode: perhaps");
        node.write_config(&broken.replace("33MB", "34MB"))?;
        let answer = rest::post(node.ports.rest_at(), "/reload", "", LIMIT).await?;
        ensure!(answer.status >= 400, "{} {}", answer.status, answer.body);
        for word in ["watchdog.mode", "postgresql.parameters.work_mem"] {
            ensure!(answer.body.contains(word), "{word} is missing in {}", answer.body);
        }
        wait::until("both mistakes in the log", LIMIT, async || {
            let log = node.log();
            let told = log.contains("watchdog.mode") && log.contains("postgresql.parameters.work_mem");
            if told { Ok(()) } else { Err(node.log_tail(5)) }
        })
        .await?;
        ensure!(
            ask(cluster, 1 - primary, "SHOW work_mem").await? == "9MB",
            "the broken file changed something"
        );
        let conf =
            fs::read_to_string(node.data_dir().join("postgresql.conf")).context("its configuration")?;
        ensure!(conf.contains("shared_buffers = '33MB'"), "{conf}");
        node.write_config(&format!("{changed}tags: {{nofailover: true, zone: b}}\n"))?;
        node.signal_daemon(Signal::HUP)?;
        wait::until("the line about an unchanged file", LIMIT, async || {
            let log = node.log();
            if log.contains("No local configuration items changed.") { Ok(()) } else { Err(node.log_tail(5)) }
        })
        .await
    });
}
