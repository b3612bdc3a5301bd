//! A watchdog device that is required, with a fifo in its place.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::workload::Workload;
use crate::harness::{clock, rest, wait};
use crate::run;

/// Two seconds would do on a machine that is not busy.
const SOON: Duration = Duration::from_secs(10);

struct Device {
    reader: File,
    said: String,
}

impl Device {
    fn make(path: &Path) -> Result<Self> {
        mkfifoat(CWD, path, Mode::RWXU)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
        let flags = i32::try_from(OFlags::NONBLOCK.bits())?;
        let reader = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Self { reader, said: String::new() })
    }

    /// All that it was told since the last call of this.
    fn heard(&mut self) -> String {
        self.listen();
        std::mem::take(&mut self.said)
    }

    fn listen(&mut self) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.reader.read(&mut chunk) {
            self.said += &String::from_utf8_lossy(chunk.get(..count).unwrap_or_default());
        }
    }

    async fn hears(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = clock::now() + SOON;
        loop {
            self.listen();
            if holds(&self.said) {
                return Ok(());
            }
            ensure!(clock::now() < deadline, "the device was not told {what}: {:?}", self.said);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn require(cluster: &Cluster, index: usize, device: &Path) -> Result<()> {
    let node = cluster.node(index)?;
    let text = node.read_config()?;
    let section = format!("watchdog: {{mode: required, driver: testing, device: {}}}", device.display());
    let changed = text.replace("watchdog: {mode: off}", &section);
    ensure!(changed != text, "the configuration has changed");
    node.write_config(&changed)
}

async fn says_that_it_failed(cluster: &Cluster, index: usize) -> Result<bool> {
    let status = rest::get(cluster.node(index)?.ports.rest, "/patroni").await?.json()?;
    Ok(status.get("watchdog_failed").and_then(serde_json::Value::as_bool).unwrap_or(false))
}

#[test]
fn a_node_is_the_primary_only_with_the_watchdog_that_it_needs() {
    run(Plan::of(3), async |cluster| {
        let path: PathBuf = cluster.node(0)?.directory.join("watchdog");
        // By its name the first node would make the cluster, and be the best of equal standbys.
        require(cluster, 0, &path)?;
        cluster.start_all()?;
        let first = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        ensure!(first != 0, "a node without the watchdog that it needs made the cluster");
        let mut workload = Workload::watched(cluster, None).await?;
        ensure!(says_that_it_failed(cluster, 0).await?, "/patroni does not say watchdog_failed");
        let refused = cluster.switchover(first, 0).await.err().context("a switchover to it was done")?;
        ensure!(format!("{refused:#}").contains("needs a watchdog device"), "{refused:#}");

        cluster.node_mut(first)?.kill_everything()?;
        let second = cluster.wait_for_takeover(first, HEAL_LIMIT).await?;
        ensure!(second != 0, "a node without the watchdog that it needs took over");
        cluster.start_node(first)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;

        let mut device = Device::make(&path)?;
        wait::until("the device to be found", SOON, async || {
            let failed = says_that_it_failed(cluster, 0).await.map_err(|error| error.to_string())?;
            if failed { Err("watchdog_failed".to_owned()) } else { Ok(()) }
        })
        .await?;
        cluster.switchover(second, 0).await?;
        ensure!(cluster.wait_until_whole(HEAL_LIMIT).await? == 0, "the switchover was not done");
        device.hears("a timeout and pings", |said| said.starts_with("Ctimeout=3\n111")).await?;
        // Pause and resume, and another ttl.
        cluster.ctl(&["pause", "--wait"]).await?;
        device.hears("to be disarmed", |said| said.ends_with('V')).await?;
        device.heard();
        cluster.ctl(&["resume", "--wait"]).await?;
        device.hears("a timeout and pings again", |said| said.starts_with("Ctimeout=3\n111")).await?;
        device.heard();
        let body = r#"{"ttl": 20}"#;
        let patched = rest::patch(cluster.node(0)?.ports.rest, "/config", body).await?;
        ensure!(patched.status == 200, "{patched:?}");
        device.hears("another timeout", |said| said.contains("Ctimeout=15\n1")).await?;
        ensure!(!device.heard().contains('V'), "it was disarmed for the change");
        // A daemon that is killed and comes back finds its guard and the device.
        cluster.node_mut(0)?.kill_daemon()?;
        cluster.start_node(0)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        device.heard();
        device.hears("pings", |said| said.starts_with("111")).await?;
        ensure!(!device.heard().contains(['V', 'C']), "the restart of the daemon was felt");

        // The device breaks: nobody holds the other end.
        drop(device);
        let third = cluster.wait_for_takeover(0, HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let log = cluster.node(0)?.log();
        ensure!(log.contains("Demoting self because watchdog could not be activated"), "not told");
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(third), "it did not stay so");
        let lost = workload.lost(cluster).await?;
        workload.finish().await?;
        // Asynchronous: what the killed primary had not sent is the price.
        println!("{} acknowledged writes of {} are gone", lost.len(), workload.ledger.count());
        Ok(())
    });
}
