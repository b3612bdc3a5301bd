//! Commands of the operator's which are asked before a promotion and told before a stop, and a restart at its time.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::ports::Place;
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, rest, wait};
use crate::run;

/// Agrees unless a file forbids it.
const PRE_PROMOTE: &str = "echo asked >> pre_promote.log\ntest ! -e refuse\n";

fn write_hooks(cluster: &Cluster) -> Result<()> {
    for (_, node) in cluster.data_nodes() {
        fs::write(node.directory.join("pre_promote.sh"), PRE_PROMOTE)?;
        // The server still runs then.
        let pid = node.data_dir().join("postmaster.pid");
        let before_stop =
            format!("kill -0 $(head -1 '{}') && echo running >> before_stop.log\n", pid.display());
        fs::write(node.directory.join("before_stop.sh"), before_stop)?;
        let lines = "  pre_promote: sh pre_promote.sh\n  before_stop: sh before_stop.sh\n";
        node.write_config(&format!("{}{lines}", node.read_config()?))?;
    }
    Ok(())
}

fn lines(cluster: &Cluster, index: usize, file: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(cluster.node(index)?.directory.join(file)).unwrap_or_default();
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

/// A moment as the REST API reads it, by the clock of this machine.
async fn in_seconds(cluster: &Cluster, primary: usize, seconds: u32) -> Result<String> {
    let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql).await?;
    let sql = format!(
        "SELECT to_char(now() AT TIME ZONE 'UTC' + interval '{seconds} s', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    );
    Ok(session.client.query_one(&sql, &[]).await?.get(0))
}

async fn shows_a_schedule(at: Place, wanted: bool) -> Result<()> {
    wait::until("the schedule in the status", HEAL_LIMIT, async || {
        let shown = rest::get(at, "/patroni").await.and_then(|answer| answer.json());
        let shown = shown.map_err(|error| error.to_string())?;
        if shown.get("scheduled_restart").is_some() == wanted { Ok(()) } else { Err(shown.to_string()) }
    })
    .await
}

#[test]
fn a_scheduled_restart_comes_due_and_before_stop_is_told() {
    run(Plan::of(3).map(|plan| plan.with_settings(&["synchronous_mode: on"])), async |cluster| {
        write_hooks(cluster)?;
        let (primary, others, mut workload) = super::synchronous::bring_up(cluster, 1).await?;
        let rows = cluster.rows().await?;
        let is_chosen = |index: &&usize| {
            let name = cluster.node(**index).map(|node| node.name.clone()).unwrap_or_default();
            rows.iter().any(|row| row.name == name && row.role == "sync_standby")
        };
        let chosen = *others.iter().find(is_chosen).context("a synchronous standby")?;
        let before = cluster.node(chosen)?.postmaster_pid()?;
        let schedule = json!({ "schedule": in_seconds(cluster, primary, 10).await?, "role": "replica" });
        let at = cluster.node(chosen)?.ports.rest_at();
        let answer = rest::post(at, "/restart", &schedule.to_string(), HEAL_LIMIT).await?;
        ensure!(answer.status == 202, "{} {}", answer.status, answer.body);
        shows_a_schedule(at, true).await?;
        wait::until("the scheduled restart", HEAL_LIMIT, async || {
            let now = cluster.node(chosen).and_then(|node| node.postmaster_pid());
            match now {
                Ok(pid) if pid != before => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        ensure!(lines(cluster, chosen, "before_stop.log")? == ["running"], "before_stop was not told once");
        shows_a_schedule(at, false).await?;
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == primary, "the primary is another one");
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        // Another standby was waited for meanwhile, so that no commit hung on the one which was restarted.
        let log = cluster.node(primary)?.log();
        ensure!(
            log.matches("(rule NarrowSync").count() > 1,
            "the standby was not released before its restart"
        );
        let lost = workload.lost(cluster).await?;
        ensure!(lost.is_empty(), "{} acknowledged writes were lost", lost.len());
        workload.finish().await
    });
}

#[test]
fn who_is_forbidden_by_pre_promote_leaves_the_lease_to_another() {
    run(Plan::of(3), async |cluster| {
        write_hooks(cluster)?;
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let others: Vec<usize> =
            cluster.data_nodes().map(|(index, _)| index).filter(|index| *index != old).collect();
        let [first, second] = others.as_slice() else { anyhow::bail!("two standbys") };
        let (first, second) = (*first, *second);
        // Of equals the name decides, so that this one is asked first.
        fs::write(cluster.node(first)?.directory.join("refuse"), "")?;
        let mut workload = Workload::watched(cluster, None).await?;
        cluster.node_mut(old)?.kill_everything()?;
        wait::until("the second candidate", HEAL_LIMIT, async || match cluster.primary().await {
            Ok(Some(primary)) if primary == second => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        ensure!(lines(cluster, second, "pre_promote.log")? == ["asked"]);
        let asked = lines(cluster, first, "pre_promote.log")?;
        ensure!(asked.len() <= 1, "asked {} times in one succession", asked.len());
        let log = cluster.node(first)?.log();
        ensure!(asked.is_empty() || log.contains("pre_promote"), "nobody said why");
        workload.finish().await
    });
}
