//! The network between the daemons fails; PostgreSQL's and the clients' works on.

use std::time::Duration;

use anyhow::ensure;

use crate::harness::cluster::{BRING_UP_LIMIT, HEAL_LIMIT, Plan};
use crate::harness::ledger::Route;
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, wait};
use crate::run;

#[test]
fn an_isolated_primary_is_silenced_before_another_writes() {
    run(Plan::of(3).map(Plan::with_links), async |cluster| {
        cluster.start_links().await?;
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let session = Session::open_patiently(cluster.node(old)?.ports.postgresql).await?;
        let begin = clock::now();
        cluster.links()?.isolate(old, cluster.nodes.len());
        // Its clients are told by the guard, which kills PostgreSQL; another may be primary only after that.
        wait::until_true("the end of the isolated PostgreSQL", HEAL_LIMIT, async || {
            session.client.simple_query("SELECT 1").await.is_err()
        })
        .await?;
        let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
        ensure!(gap < Duration::from_secs(20), "nobody could write for {gap:?}");
        cluster.links()?.heal();
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        ensure!(
            cluster.primary().await? == Some(new),
            "the primary changed again when the network came back"
        );
        workload.finish().await?;
        Ok(())
    });
}

#[test]
fn an_isolated_standby_disturbs_nobody() {
    run(Plan::of(3).map(Plan::with_links), async |cluster| {
        cluster.start_links().await?;
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let standby = (primary + 1) % cluster.nodes.len();
        let mut workload = Workload::watched(cluster, None).await?;
        let failures = workload.ledger.failures(Route::Direct);
        let begin = clock::now();
        cluster.links()?.isolate(standby, cluster.nodes.len());
        let ttl = Duration::from_secs(cluster.common.ttl.into());
        workload.wait_until_writing(begin + ttl * 2, HEAL_LIMIT).await?;
        cluster.links()?.heal();
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now() + ttl, HEAL_LIMIT).await?;
        ensure!(cluster.primary().await? == Some(primary), "the primary changed");
        ensure!(workload.ledger.failures(Route::Direct) == failures, "a client's connection or write failed");
        workload.finish().await?;
        Ok(())
    });
}
