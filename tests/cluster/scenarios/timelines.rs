//! Two standbys are promoted one after the other at the same position.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::workload::Session;
use crate::harness::{processes, wait};
use crate::run;

const LIMIT: Duration = Duration::from_secs(30);
/// PostgreSQL calls the history of timeline 2 by this name.
const SECOND_HISTORY: &str = "pg_wal/00000002.history";

/// A signal to a node's PostgreSQL, its children included; the daemon and the guard go on.
fn signal_postgres(cluster: &Cluster, index: usize, signal: Signal) -> Result<()> {
    for process in processes::of_node(&cluster.node(index)?.directory) {
        if process.program == "postgres" {
            processes::signal(process.pid, signal)?;
        }
    }
    Ok(())
}

async fn ask(cluster: &Cluster, index: usize, sql: &str) -> Result<String> {
    let session = Session::open_patiently(cluster.node(index)?.ports.postgresql).await?;
    let messages = session.client.simple_query(sql).await.with_context(|| format!("running {sql}"))?;
    let first = messages.iter().find_map(|message| {
        let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    });
    first.with_context(|| format!("{sql} gave no row"))
}

/// Is there a history of timeline 2 with something in it? A placeholder has comments only.
fn has_second_timeline(data_dir: &Path) -> bool {
    let text = fs::read_to_string(data_dir.join(SECOND_HISTORY)).unwrap_or_default();
    text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

async fn wait_for_row(cluster: &Cluster, indices: &[usize], row: &str) -> Result<()> {
    for index in indices {
        let sql = format!("SELECT count(*) FROM story WHERE what = '{row}'");
        wait::until_true(&format!("the row {row} on node {index}"), LIMIT, async || {
            ask(cluster, *index, &sql).await.is_ok_and(|count| count == "1")
        })
        .await?;
    }
    Ok(())
}

/// The first primary dies, and of its standbys only one can go on: it is promoted, writes a row, and dies before
/// another one follows it. The first primary and the successor.
async fn promote_and_kill(cluster: &mut Cluster, all: &[usize]) -> Result<(usize, usize)> {
    let first = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
    let sql = "CREATE TABLE story AS SELECT 'common'::text AS what";
    let session = Session::open_patiently(cluster.node(first)?.ports.postgresql).await?;
    session.client.batch_execute(sql).await.context("making the table")?;
    wait_for_row(cluster, all, "common").await?;
    let standbys: Vec<usize> = all.iter().copied().filter(|index| *index != first).collect();
    let (second, held) = standbys.split_first().context("a standby")?;
    let mut positions = BTreeSet::new();
    for index in &standbys {
        positions.insert(ask(cluster, *index, "SELECT pg_last_wal_replay_lsn()").await?);
    }
    ensure!(positions.len() == 1, "the standbys are at different positions: {positions:?}");
    for index in held {
        signal_postgres(cluster, *index, Signal::STOP)?;
    }
    cluster.node_mut(first)?.kill_everything()?;
    wait::until_true("the second timeline to be written to", HEAL_LIMIT, async || {
        let sql = "INSERT INTO story VALUES ('of the second timeline') RETURNING what";
        ask(cluster, *second, sql).await.is_ok()
    })
    .await?;
    cluster.node_mut(*second)?.kill_everything()?;
    ensure!(has_second_timeline(&cluster.node(*second)?.data_dir()), "no timeline 2 was made");
    for index in held {
        let data_dir = cluster.node(*index)?.data_dir();
        ensure!(!data_dir.join(SECOND_HISTORY).exists(), "a standby learned of timeline 2: nothing is shown");
        signal_postgres(cluster, *index, Signal::CONT)?;
    }
    Ok((first, *second))
}

#[test]
fn two_promotions_at_one_position_make_two_timelines_and_the_first_one_comes_back() {
    // Two may be dead: three of five voters are left.
    run(Plan::of(4).map(Plan::with_witness), async |cluster| {
        cluster.start_all()?;
        let all: Vec<usize> = cluster.data_nodes().map(|(index, _)| index).collect();
        let (first, second) = promote_and_kill(cluster, &all).await?;
        let third = cluster.wait_for_primary(HEAL_LIMIT).await?;
        ensure!(third != first && third != second, "a dead node is the primary");
        let data_dir = cluster.node(third)?.data_dir();
        ensure!(!has_second_timeline(&data_dir), "the number 2 was used twice");
        let history =
            fs::read_to_string(data_dir.join("pg_wal/00000003.history")).context("no timeline 3")?;
        let forked_at = |text: &str| text.split_whitespace().nth(1).map(str::to_owned);
        let other = fs::read_to_string(cluster.node(second)?.data_dir().join(SECOND_HISTORY))?;
        ensure!(forked_at(&history) == forked_at(&other), "not at the same position: {history} {other}");
        ask(cluster, third, "INSERT INTO story VALUES ('of the third timeline') RETURNING what").await?;

        cluster.start_node(second)?;
        cluster.start_node(first)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(third), "the primary changed again");
        ask(cluster, third, "INSERT INTO story VALUES ('at the end') RETURNING what").await?;
        wait_for_row(cluster, &all, "at the end").await?;
        for index in all {
            let rows = ask(cluster, index, "SELECT string_agg(what, ', ' ORDER BY what) FROM story").await?;
            ensure!(rows == "at the end, common, of the third timeline", "node {index} has {rows}");
        }
        Ok(())
    });
}
