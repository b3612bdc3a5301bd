//! What a user can get wrong: one clear message each, no panic, nothing of the user's deleted.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, Plan};
use crate::harness::wait;
use crate::run;

/// A daemon that cannot start says so at once; one that must look for others first takes a little longer.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the log of a node has a line with all these words.
async fn wait_for_line(cluster: &Cluster, index: usize, words: &[&str]) -> Result<String> {
    let node = cluster.node(index)?;
    let what = format!("a line with {words:?} in the log of {}", node.name);
    let line = wait::until(&what, LIMIT, async || {
        let log = node.log();
        let found = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
        found.map(str::to_owned).ok_or_else(|| node.log_tail(10))
    })
    .await?;
    ensure!(!node.log().contains("panicked at"), "a panic:\n{}", node.log());
    Ok(line)
}

/// Starts a node which must end by itself, with one line that has all these words.
async fn refuses(cluster: &mut Cluster, index: usize, words: &[&str]) -> Result<()> {
    cluster.start_node(index)?;
    let status = cluster.node_mut(index)?.wait_for_end(LIMIT).await?;
    ensure!(!status.success(), "it ended as if all were well");
    wait_for_line(cluster, index, words).await?;
    Ok(())
}

fn edit(cluster: &Cluster, index: usize, from: &str, to: &str) -> Result<()> {
    let node = cluster.node(index)?;
    let text = node.read_config()?;
    ensure!(text.contains(from), "{from} is not in the configuration");
    node.write_config(&text.replace(from, to))
}

#[test]
fn a_broken_file_is_refused_with_every_mistake_and_its_place() {
    run(Plan::of(1), async |cluster| {
        edit(cluster, 0, "ttl: 5", "ttl: [5")?;
        refuses(cluster, 0, &["pgherd.yml:", "YAML"]).await?;
        ensure!(!cluster.node(0)?.data_dir().exists(), "a data directory was made");
        Ok(())
    });
}

#[test]
fn all_mistakes_are_told_at_once() {
    run(Plan::of(1), async |cluster| {
        edit(cluster, 0, "ttl: 5", "ttl: soon")?;
        let node = cluster.node(0)?;
        edit(cluster, 0, &format!("connect_address: 127.0.0.1:{}", node.ports.rest), "connect_address: 17")?;
        refuses(cluster, 0, &["bootstrap.dcs.ttl"]).await?;
        wait_for_line(cluster, 0, &["restapi.connect_address"]).await?;
        Ok(())
    });
}

#[test]
fn a_port_in_use_is_named() {
    run(Plan::of(1), async |cluster| {
        let port = cluster.node(0)?.ports.rest;
        let _listener = TcpListener::bind(("127.0.0.1", port)).context("taking the port")?;
        refuses(cluster, 0, &[&port.to_string(), "restapi.listen"]).await
    });
}

#[test]
fn a_missing_postgresql_is_named() {
    run(Plan::of(1), async |cluster| {
        let directory = cluster.common.bin_dir.display().to_string();
        edit(cluster, 0, &directory, "/nonexistent/bin")?;
        refuses(cluster, 0, &["/nonexistent/bin", "postgresql.bin_dir"]).await
    });
}

#[test]
fn a_second_daemon_with_the_same_name_is_refused_before_it_has_a_vote() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let twin = cluster.extra_node("twin", "node2")?;
        refuses(cluster, twin, &["there is already a node named 'node2' running"]).await?;
        ensure!(!cluster.node(twin)?.data_dir().join("PG_VERSION").exists(), "the twin got a data directory");
        cluster.nodes.pop();
        cluster.wait_until_whole(LIMIT).await?;
        Ok(())
    });
}

#[test]
fn the_data_directory_of_another_cluster_is_not_touched() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mistaken = (primary + 1) % cluster.nodes.len();
        cluster.node_mut(mistaken)?.stop().await?;
        let data_dir = cluster.node(mistaken)?.data_dir();
        fs::rename(&data_dir, data_dir.with_extension("old"))?;
        initdb(cluster, mistaken)?;
        let control = fs::read(data_dir.join("global/pg_control"))?;
        refuses(cluster, mistaken, &["system ID mismatch", "data_dir"]).await?;
        ensure!(
            fs::read(data_dir.join("global/pg_control"))? == control,
            "the other cluster's data was changed"
        );
        ensure!(cluster.primary().await? == Some(primary), "the cluster was disturbed");
        Ok(())
    });
}

fn initdb(cluster: &Cluster, index: usize) -> Result<()> {
    let mut command = std::process::Command::new(cluster.tools.postgresql.join("initdb"));
    command.arg("-D").arg(cluster.node(index)?.data_dir()).args(["-U", "postgres", "--auth", "trust"]);
    if let Some(user) = &cluster.user {
        user.run(&mut command);
    }
    let output = command.output().context("starting initdb")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_wrong_replication_password_is_told_and_not_shown() {
    run(Plan::of(2), async |cluster| {
        edit(cluster, 1, "password: demo-replicator", "password: mistyped-secret")?;
        cluster.start_all()?;
        // Either of the two may have made the user with its own idea of the password; the other cannot clone then.
        let (first, second) = (cluster.node(0)?, cluster.node(1)?);
        wait::until("a message about the password", LIMIT, async || {
            let logs = first.log() + &second.log();
            if logs.contains("password authentication failed") { Ok(()) } else { Err(cluster.logs(10)) }
        })
        .await?;
        let logs = first.log() + &second.log();
        ensure!(!logs.contains("mistyped-secret"), "the password is in a log:\n{logs}");
        ensure!(!logs.contains("panicked at"), "a panic:\n{logs}");
        Ok(())
    });
}
