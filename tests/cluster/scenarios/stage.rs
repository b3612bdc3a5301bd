//! What several scenarios begin with: a whole cluster in a mode, watched by writers and probes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::ledger::Route;
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, processes, rest, tell, wait};

/// `synchronous_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Asynchronous,
    On,
    Quorum,
}

impl Mode {
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Asynchronous => "off",
            Self::On => "on",
            Self::Quorum => "quorum",
        }
    }

    /// Three data nodes in this mode.
    pub(crate) fn plan(self, ttl: u32) -> Result<Plan> {
        let setting = format!("synchronous_mode: '{}'", self.value());
        Ok(Plan::of(3)?.with_ttl(ttl).with_settings(&[&setting]))
    }

    /// How many of two standbys are synchronous.
    fn standbys(self) -> usize {
        match self {
            Self::Asynchronous => 0,
            Self::On => 1,
            Self::Quorum => 2,
        }
    }

    /// What the member table calls a synchronous standby.
    fn role(self) -> Option<&'static str> {
        match self {
            Self::Asynchronous => None,
            Self::On => Some("sync_standby"),
            Self::Quorum => Some("quorum_standby"),
        }
    }

    pub(crate) fn is_synchronous(self) -> bool {
        self != Self::Asynchronous
    }
}

pub(crate) fn ttl(cluster: &Cluster) -> Duration {
    Duration::from_secs(cluster.common.ttl.into())
}

pub(crate) fn others(cluster: &Cluster, primary: usize) -> Vec<usize> {
    cluster.data_nodes().map(|(index, _)| index).filter(|index| *index != primary).collect()
}

/// Starts a cluster of three, and writers when it is whole and in its mode.
pub(crate) async fn bring_up(cluster: &mut Cluster, mode: Mode) -> Result<(usize, Workload)> {
    cluster.start_all()?;
    let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
    wait_for_mode(cluster, primary, mode).await?;
    Ok((primary, Workload::watched(cluster, None).await?))
}

/// Waits until as many standbys are synchronous as this mode wants, and the primary counts on nobody else.
pub(crate) async fn wait_for_mode(cluster: &Cluster, primary: usize, mode: Mode) -> Result<()> {
    wait::until(&format!("synchronous_mode {}", mode.value()), HEAL_LIMIT, async || {
        let rows = cluster.rows().await.map_err(|error| error.to_string())?;
        let found = rows.iter().filter(|row| Some(row.role.as_str()) == mode.role()).count();
        let others = rows.iter().filter(|row| row.role.ends_with("_standby")).count() - found;
        let names = ask(cluster, primary, "SHOW synchronous_standby_names")
            .await
            .map_err(|error| format!("{error:#}"))?;
        // Until the first set is the only one the primary might still acknowledge alone, and nobody can fence it.
        let log = cluster.node(primary).map_err(|error| error.to_string())?.log();
        let is_settled = !mode.is_synchronous() || log.contains("(rule NarrowSync");
        let has_names = mode.is_synchronous() != names.is_empty();
        if found == mode.standbys() && others == 0 && has_names && is_settled {
            Ok(())
        } else {
            Err(format!("{names:?}, {rows:?}"))
        }
    })
    .await
}

/// Changes `synchronous_mode` at run time, and waits until nobody but those of the new mode acknowledges.
pub(crate) async fn change_mode(cluster: &Cluster, primary: usize, mode: Mode) -> Result<()> {
    let narrowed = |cluster: &Cluster| -> Result<usize> {
        Ok(cluster.node(primary)?.log().matches("(rule NarrowSync").count())
    };
    let before = narrowed(cluster)?;
    let body = format!("{{\"synchronous_mode\": \"{}\"}}", mode.value());
    let answer = rest::patch(cluster.node(primary)?.ports.rest_at(), "/config", &body).await?;
    ensure!(answer.status == 200, "PATCH /config: {answer:?}");
    wait_for_mode(cluster, primary, mode).await?;
    wait::until("the end of the sets of the former mode", HEAL_LIMIT, async || match narrowed(cluster) {
        Ok(count) if count > before => Ok(Ok(())),
        Ok(_) => Err("an earlier set is in force".to_owned()),
        Err(error) => Ok(Err(error)),
    })
    .await?
}

/// The first value of a query on one node.
pub(crate) async fn ask(cluster: &Cluster, index: usize, sql: &str) -> Result<String> {
    let session = Session::open_patiently(cluster.node(index)?.ports.postgresql_at()).await?;
    let messages = session.client.simple_query(sql).await.with_context(|| format!("running {sql}"))?;
    let first = messages.iter().find_map(|message| {
        let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    });
    first.with_context(|| format!("{sql} gave no row"))
}

/// Lets time pass while writing goes on; the last acknowledgement is later than this moment.
pub(crate) async fn write_until(workload: &Workload, moment: Instant) -> Result<()> {
    workload.wait_until_writing(moment, HEAL_LIMIT).await
}

/// Another node has taken over and clients write; says how long they could not.
pub(crate) async fn taken_over(
    cluster: &Cluster,
    workload: &Workload,
    old: usize,
    begin: Instant,
    what: &str,
) -> Result<usize> {
    let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
    workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
    let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
    tell(&format!("{what}: nobody could write for {gap:.2?}"));
    ensure!(gap < ttl(cluster) * 2 + Duration::from_secs(10), "{what}: nobody could write for {gap:?}");
    Ok(new)
}

/// Everything that was acknowledged is there, unless this mode promises less.
pub(crate) async fn nothing_is_lost(cluster: &Cluster, workload: &Workload, mode: Mode) -> Result<()> {
    let lost = workload.lost(cluster).await?.len();
    if mode.is_synchronous() {
        ensure!(lost == 0, "{lost} acknowledged writes were lost");
    }
    tell(&format!(
        "{} writes acknowledged to clients, {lost} of them and of the probes' lost",
        workload.ledger.count()
    ));
    Ok(())
}

/// Waits until a process is stopped or gone, as the kernel shows it.
pub(crate) async fn is_in_state(pid: i32, wanted: Option<char>) -> Result<()> {
    wait::until(&format!("state {wanted:?} of process {pid}"), HEAL_LIMIT, async || {
        let seen = processes::state(pid);
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
}
