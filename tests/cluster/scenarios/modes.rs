//! `synchronous_mode` is changed while clients write.

use anyhow::{Result, ensure};

use super::stage::{self, Mode};
use crate::harness::cluster::{Cluster, HEAL_LIMIT};
use crate::harness::ledger::Route;
use crate::harness::workload::Workload;
use crate::harness::{clock, story, tell};
use crate::run;

/// Loses the primary node in this mode, and gets it back.
async fn lose_and_return(cluster: &mut Cluster, workload: &Workload, mode: Mode) -> Result<usize> {
    let (outcome, old) = story::lose_primary(cluster, workload).await?;
    tell(&format!("node killed in mode {}: nobody could write for {:.2?}", mode.value(), outcome.direct));
    ensure!(outcome.lost == 0, "mode {}: {} acknowledged writes were lost", mode.value(), outcome.lost);
    story::return_node(cluster, workload, old).await?;
    let primary = cluster.wait_for_primary(HEAL_LIMIT).await?;
    stage::wait_for_mode(cluster, primary, mode).await?;
    Ok(primary)
}

#[test]
fn the_mode_changes_under_writes_and_nothing_is_lost() {
    run(Mode::Asynchronous.plan(5), async |cluster| {
        let (mut primary, mut workload) = stage::bring_up(cluster, Mode::Asynchronous).await?;
        for mode in [Mode::On, Mode::Quorum] {
            let begin = clock::now();
            stage::change_mode(cluster, primary, mode).await?;
            let gap = workload.ledger.longest_gap_since(Route::Direct, begin);
            tell(&format!("to mode {}: longest time without a write {gap:.2?}", mode.value()));
            workload.nothing_failed_on(primary, begin)?;
            primary = lose_and_return(cluster, &workload, mode).await?;
        }
        let begin = clock::now();
        stage::change_mode(cluster, primary, Mode::Asynchronous).await?;
        workload.nothing_failed_on(primary, begin)?;
        stage::nothing_is_lost(cluster, &workload, Mode::Quorum).await?;
        workload.finish().await
    });
}
