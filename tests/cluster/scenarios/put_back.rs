//! A node's store is put back from an old copy, as a volume's snapshot would.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::wait;
use crate::harness::workload::Workload;
use crate::run;

const LIMIT: Duration = Duration::from_secs(30);

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().context("running cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

/// How often the log of a node has a line with this text.
fn lines(cluster: &Cluster, index: usize, text: &str) -> Result<usize> {
    Ok(cluster.node(index)?.log().lines().filter(|line| line.contains(text)).count())
}

/// Copies a dead node's store, lets the node live and die once more, and puts the copy back. It must come back whole
/// in one run of its program, under a new id.
async fn put_back(cluster: &mut Cluster, index: usize, witnessed_by: usize) -> Result<()> {
    let scope = cluster.common.scope.clone();
    let raft = cluster.node(index)?.directory.join("raft");
    let (store, old) = (raft.join(&scope), raft.join("copy"));
    cluster.node_mut(index)?.kill_everything()?;
    copy(&store, &old)?;
    let memory = cluster.node(witnessed_by)?.directory.join("raft").join(&scope).join("memory");
    let before = fs::read(&memory).context("reading what another member remembers")?;
    cluster.start_node(index)?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    wait::until_true("the new opening to be remembered", LIMIT, async || {
        fs::read(&memory).is_ok_and(|now| now != before)
    })
    .await?;
    let starts = lines(cluster, index, "node id ")?;
    cluster.node_mut(index)?.kill_everything()?;
    fs::remove_dir_all(&store).context("removing the store")?;
    copy(&old, &store)?;

    cluster.start_node(index)?;
    let pid = cluster.node(index)?.daemon_pid();
    wait::until_true("the second start of the same process", LIMIT, async || {
        lines(cluster, index, "node id ").is_ok_and(|now| now >= starts + 2)
    })
    .await?;
    cluster.wait_until_whole(HEAL_LIMIT).await?;
    let node = cluster.node_mut(index)?;
    ensure!(node.is_daemon_running() && node.daemon_pid() == pid, "another process runs");
    ensure!(raft.join(format!("{scope}.aside-1/seal")).exists(), "the old store was not kept");
    for text in ["was put back from an older copy: ", "never put back copies of raft.data_dir", "is kept as "]
    {
        ensure!(lines(cluster, index, text)? > 0, "the log does not say {text:?}");
    }
    Ok(())
}

#[test]
fn a_store_put_back_from_an_old_copy_is_found_out_and_its_node_comes_back() {
    run(Plan::of(2).map(Plan::with_witness), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        put_back(cluster, 1 - primary, primary).await?;
        let witness = cluster.nodes.len() - 1;
        put_back(cluster, witness, primary).await?;
        workload.finish().await?;
        Ok(())
    });
}
