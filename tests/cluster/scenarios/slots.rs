//! Permanent slots outlive the primary, and their consumers go on.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::stage::{ask, others};
use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::{rest, wait};
use crate::run;

/// Some turns of the loop with `loop_wait: 1`, a copy and a restart.
const LIMIT: Duration = Duration::from_secs(60);

const POSITIONS: &str = "SELECT coalesce(json_object_agg(slot_name, coalesce(confirmed_flush_lsn, restart_lsn))::text, '{}') \
                         FROM pg_replication_slots WHERE slot_name IN ('backup', 'sink')";

/// Waits until the standby's permanent slots stand where the primary's do.
async fn in_step(cluster: &Cluster, primary: usize, standby: usize) -> Result<()> {
    wait::until("both slots to be where the primary's are", LIMIT, async || {
        let text = async |index| ask(cluster, index, POSITIONS).await.map_err(|error| format!("{error:#}"));
        let (there, here) = (text(primary).await?, text(standby).await?);
        let count =
            serde_json::from_str::<Value>(&here).ok().and_then(|slots| Some(slots.as_object()?.len()));
        if count == Some(2) && parsed(&here) == parsed(&there) {
            Ok(())
        } else {
            Err(format!("{here}, {there}"))
        }
    })
    .await
}

fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// What the consumer of the logical slot gets.
async fn consume(cluster: &Cluster, node: usize) -> Result<String> {
    let sql = "SELECT coalesce(string_agg(data, '; '), '') FROM pg_logical_slot_get_changes('sink', NULL, NULL) \
               WHERE data LIKE 'table%'";
    ask(cluster, node, sql).await
}

#[test]
fn permanent_slots_survive_the_primary_and_their_consumers_go_on() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let first = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let settings = json!({
            "loop_wait": 1,
            "slots": {
                "backup": {"type": "physical"},
                "sink": {"type": "logical", "database": "postgres", "plugin": "test_decoding"},
            },
            "ignore_slots": [{"name": "mine"}],
            "postgresql": {"parameters": {"wal_level": "logical"}},
        });
        let answer =
            rest::patch(cluster.node(first)?.ports.rest_at(), "/config", &settings.to_string()).await?;
        ensure!(answer.status == 200, "{answer:?}");
        let scope = cluster.common.scope.clone();
        cluster.ctl(&["restart", &scope, "--force"]).await?;
        let first = cluster.wait_until_whole(HEAL_LIMIT).await?;
        for name in ["mine", "nobodys"] {
            ask(
                cluster,
                first,
                &format!("SELECT slot_name FROM pg_create_physical_replication_slot('{name}')"),
            )
            .await?;
        }
        ask(cluster, first, "CREATE TABLE t (i int); SELECT 1").await?;
        for standby in others(cluster, first) {
            in_step(cluster, first, standby).await?;
            ensure!(ask(cluster, standby, "SHOW hot_standby_feedback").await? == "on");
        }
        ask(cluster, first, "INSERT INTO t VALUES (1); SELECT 1").await?;
        ensure!(consume(cluster, first).await?.contains("i[integer]:1"));
        let advance = "SELECT pg_replication_slot_advance('backup', pg_current_wal_lsn())::text";
        ask(cluster, first, advance).await?;
        ask(cluster, first, "INSERT INTO t VALUES (2); SELECT 1").await?;
        for standby in others(cluster, first) {
            in_step(cluster, first, standby).await?;
            let mine =
                "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'node%' AND NOT active";
            ensure!(ask(cluster, standby, mine).await? == "2", "slots of both other members");
        }
        wait::until("only the unknown slot to be dropped", LIMIT, async || {
            let left = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE NOT active";
            let left = ask(cluster, first, left).await.map_err(|error| format!("{error:#}"))?;
            if left == "backup mine sink" { Ok(()) } else { Err(left) }
        })
        .await?;
        let log = cluster.node(first)?.log();
        ensure!(log.contains("Trying to drop unknown replication slot 'nobodys'"));
        ensure!(log.contains("Dropped replication slot 'nobodys'"));
        let status = rest::get(cluster.node(first)?.ports.rest_at(), "/patroni").await?.json()?;
        let names = status.pointer("/pgherd/slots").and_then(Value::as_object);
        let names: Vec<&str> = names.into_iter().flat_map(|slots| slots.keys().map(String::as_str)).collect();
        ensure!(names == ["backup", "node1", "node2", "node3", "sink"], "{status}");
        let retained = status.pointer("/pgherd/retain_slots");
        ensure!(retained == Some(&json!(["node1", "node2", "node3"])), "{status}");

        cluster.node_mut(first)?.kill_everything()?;
        let second = cluster.wait_for_takeover(first, HEAL_LIMIT).await?;
        ask(cluster, second, "INSERT INTO t VALUES (3); SELECT 1").await?;
        let got = consume(cluster, second).await?;
        let is_each_once = !got.contains(":1") && got.contains("]:2") && got.contains("]:3");
        ensure!(is_each_once, "the consumer got {got}");
        cluster.start_node(first)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        // A physical slot that is made anew cannot begin before the last checkpoint.
        ask(cluster, second, advance).await?;
        in_step(cluster, second, first).await
    });
}
