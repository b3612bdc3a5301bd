//! An operator's command that cuts a silent primary off.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::ledger::Route;
use crate::harness::workload::Workload;
use crate::harness::{clock, processes, wait};
use crate::run;

/// Events are recorded after the takeover that they are about.
const RECORDED_LIMIT: Duration = Duration::from_secs(20);

/// Kills every process of the node, as a power switch would, and looks whether any is left.
const CUT_OFF: &str = r#"#!/bin/sh
node="BASE/$FENCE_NAME"
[ "$FENCE_CLUSTER" = batch ] && [ -d "$node" ] && [ "$FENCE_HOST" = 127.0.0.1 ] || exit 2
while :; do
  left=
  for process in /proc/[0-9]*; do
    cwd=$(readlink "$process/cwd" 2>/dev/null)
    arguments=$(tr '\0' '\n' < "$process/cmdline" 2>/dev/null)
    case "$cwd/
$arguments
" in
      *"$node/"*) left="$left ${process#/proc/}" ;;
    esac
  done
  [ -z "$left" ] && echo "$FENCE_NAME is off" && exit 0
  kill -KILL $left 2>/dev/null
done
"#;
const REFUSE: &str = "#!/bin/sh\necho the power switch does not answer >&2\nexit 1\n";

/// Every node runs this script.
fn arrange(cluster: &Cluster, script: &str) -> Result<()> {
    let path = cluster.directory().join("fence");
    std::fs::write(&path, script.replace("BASE", &cluster.directory().display().to_string()))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    for (_, node) in cluster.data_nodes() {
        let text = node.read_config()?;
        let section = format!("fencing: {{command: {}, timeout: 10}}\n", path.display());
        node.write_config(&(text + &section))?;
    }
    Ok(())
}

async fn told(cluster: &Cluster, what: &str) -> Result<String> {
    wait::until(what, RECORDED_LIMIT, async || match cluster.ctl(&["why"]).await {
        Ok(output) => {
            let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
            if words.contains(what) { Ok(output) } else { Err(output) }
        }
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

/// Daemon and guard are both stopped: nothing on that machine ends its PostgreSQL.
#[test]
fn a_frozen_primary_is_cut_off_and_its_lease_is_not_waited_for() {
    run(Plan::of(3).map(|plan| plan.with_ttl(15)), async |cluster| {
        arrange(cluster, CUT_OFF)?;
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let directory = cluster.node(old)?.directory.clone();
        let begin = clock::now();
        for process in processes::of_node(&directory) {
            processes::signal(process.pid, Signal::STOP)?;
        }
        let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
        let took = begin.elapsed();
        let left = processes::of_node(&directory);
        ensure!(left.is_empty(), "another primary while the old one is there: {left:?}");
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        println!("ttl 15 s, everything stopped: another primary after {took:.1?}, no writes for {gap:.1?}");
        ensure!(took < Duration::from_secs(12), "the lease was waited for: {took:?}");
        let story = told(cluster, "By rule TakeCutOff").await?;
        println!("{story}");
        let name = cluster.node(old)?.name.clone();
        told(cluster, &format!("fencing.command confirmed that {name} is cut off")).await?;
        // Its daemon is waited for, then started again: a former primary like any other.
        cluster.node_mut(old)?.kill_everything()?;
        cluster.start_node(old)?;
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == new, "another primary again");
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn a_fencing_command_that_fails_costs_the_lease_and_is_told() {
    run(Plan::of(3), async |cluster| {
        arrange(cluster, REFUSE)?;
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let name = cluster.node(old)?.name.clone();
        let mut workload = Workload::watched(cluster, None).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let begin = clock::now();
        cluster.node_mut(old)?.kill_everything()?;
        cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
        let took = begin.elapsed();
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        println!("the command failed: another primary after {took:.1?}");
        let ttl = Duration::from_secs(cluster.common.ttl.into());
        ensure!(took > ttl - Duration::from_secs(1), "the lease was not waited for: {took:?}");
        let story = told(cluster, "By rule TakeClosed").await?;
        println!("{story}");
        let words = story.split_whitespace().collect::<Vec<_>>().join(" ");
        let failure = format!("fencing.command did not cut {name} off");
        ensure!(words.contains(&failure) && words.contains("the power switch does not answer"), "{story}");
        workload.finish().await?;
        Ok(())
    });
}
