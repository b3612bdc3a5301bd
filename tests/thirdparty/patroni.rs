//! Patroni: a running cluster of it is taken over by pgherd with the same files, and no PostgreSQL is restarted.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::{rest, wait};
use crate::{programs, run};

const DAEMON: &str = "from patroni.__main__ import main; main()";
const CTL: &str = "from patroni.ctl import ctl; ctl(None)";

/// Patroni on every node of a cluster; killed when dropped.
struct Patroni {
    /// Its packages, readable for the user that PostgreSQL runs as.
    packages: PathBuf,
    daemons: Vec<Child>,
}

impl Drop for Patroni {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ended = daemon.kill().and_then(|()| daemon.wait());
        }
    }
}

impl Patroni {
    fn start(cluster: &Cluster) -> Result<Self> {
        let packages = cluster.directory().join("python");
        copy(&programs::python_packages()?, &packages)?;
        let mut patroni = Self { packages, daemons: Vec::new() };
        for (_, node) in cluster.data_nodes() {
            let log = fs::File::create(node.directory.join("patroni.log")).context("making patroni.log")?;
            let mut command = patroni.command(cluster, DAEMON, &node.config_path());
            command.stdout(log.try_clone()?).stderr(log).process_group(0);
            patroni.daemons.push(command.spawn().context("starting Patroni")?);
        }
        Ok(patroni)
    }

    fn command(&self, cluster: &Cluster, program: &str, config: &Path) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", program]);
        command.args(if program == CTL { &["-c"][..] } else { &[] }).arg(config);
        command.env("PYTHONPATH", &self.packages).current_dir(cluster.directory()).stdin(Stdio::null());
        if let Some(user) = &cluster.user {
            user.run(&mut command);
        }
        command
    }

    fn ctl(&self, cluster: &Cluster, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(cluster, CTL, &cluster.node(0)?.config_path());
        let output = command.args(arguments).output().context("running patronictl")?;
        ensure!(output.status.success(), "patronictl {}: {output:?}", arguments.join(" "));
        Ok(())
    }

    /// Ends every daemon in order.
    fn stop(mut self) -> Result<()> {
        for daemon in &self.daemons {
            let pid = Pid::from_raw(i32::try_from(daemon.id())?).context("an odd pid")?;
            kill_process(pid, Signal::TERM)?;
        }
        for mut daemon in self.daemons.drain(..) {
            let status = daemon.wait()?;
            ensure!(status.success(), "Patroni ended with {status}");
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().context("running cp")?;
    ensure!(status.success(), "copying {}: {status}", from.display());
    Ok(())
}

/// A session with each node's PostgreSQL and when that was started.
async fn sessions(cluster: &Cluster, tasks: &mut JoinSet<()>) -> Result<Vec<(Client, String)>> {
    let mut sessions = Vec::new();
    for (_, node) in cluster.data_nodes() {
        let (client, connection) = Cluster::client(node.ports.postgresql_at()).connect(NoTls).await?;
        tasks.spawn(async { connection.await.unwrap_or_default() });
        let started = started(&client).await?;
        sessions.push((client, started));
    }
    Ok(sessions)
}

async fn started(client: &Client) -> Result<String> {
    Ok(client.query_one("SELECT pg_postmaster_start_time()::text", &[]).await?.try_get(0)?)
}

#[test]
fn a_cluster_of_patroni_is_taken_over_while_it_runs() {
    run(Plan::of(3).map(|plan| plan.with_ttl(20)), async |cluster| {
        let patroni = Patroni::start(cluster)?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut tasks = JoinSet::new();
        let sessions = sessions(cluster, &mut tasks).await?;
        let (writer, _) = sessions.get(old).context("no session")?;
        writer.batch_execute("CREATE TABLE ledger (n int)").await?;
        patroni.ctl(cluster, &["pause", "--wait"])?;
        patroni.stop()?;
        writer.execute("INSERT INTO ledger VALUES (1)", &[]).await.context("writing without a daemon")?;

        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        ensure!(primary == old, "the primary is node {primary} and was node {old}");
        writer.execute("INSERT INTO ledger VALUES (2)", &[]).await.context("writing afterwards")?;
        // The settings are written just after the lease is taken.
        let at = cluster.node(primary)?.ports.rest_at();
        wait::until("the settings", HEAL_LIMIT, async || match rest::get(at, "/config").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        let table = cluster.ctl(&["list"]).await?;
        ensure!(table.contains("Maintenance mode: on"), "the pause is forgotten:\n{table}");
        cluster.ctl(&["resume", "--wait"]).await?;
        for (client, before) in &sessions {
            let now = started(client).await.context("a session did not last")?;
            ensure!(now == *before, "restarted: {before} and {now}");
        }
        // What Patroni left, slots and files and all, is good for a change of the primary.
        let new = (old + 1) % cluster.nodes.len();
        cluster.switchover(old, new).await?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let (reader, _) = sessions.get(new).context("no session")?;
        wait::until("both rows", HEAL_LIMIT, async || {
            let row = reader.query_one("SELECT count(*) FROM ledger", &[]).await;
            let count = row.and_then(|row| row.try_get::<_, i64>(0)).map_err(|error| error.to_string())?;
            if count == 2 { Ok(()) } else { Err(format!("{count} rows")) }
        })
        .await
    });
}
