//! The story of the demo without an audience.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::harness::cluster::{Cluster, HEAL_LIMIT};
use crate::harness::story::{self, Outcome};
use crate::harness::workload::Workload;

/// Runs the story; success only if the planned steps lost nothing and the cluster is whole at the end.
pub(crate) async fn run() -> Result<ExitCode> {
    let (mut cluster, proxy, took) = crate::bring_up().await?;
    println!("\nbring-up of three nodes: {:.1} s", took.as_secs_f64());
    let told = tell(&mut cluster, proxy.read_write).await;
    told.with_context(|| cluster.logs(30))
}

async fn tell(cluster: &mut Cluster, read_write: u16) -> Result<ExitCode> {
    let mut workload = Workload::start(cluster, Some(read_write)).await?;
    let mut planned_losses = 0;

    let (lost, old) = story::lose_primary(cluster, &workload).await?;
    let name = cluster.node(old)?.name.clone();
    print(&format!("kill -9 of {name}: daemon, guard, PostgreSQL"), &lost);

    let back = story::return_node(cluster, &workload, old).await?;
    planned_losses += back.lost;
    print(&format!("{name} comes back as a standby"), &back);

    let over = story::switch_over(cluster, &workload, Some(old)).await?;
    planned_losses += over.lost;
    print(&format!("switchover back to {name}"), &over);

    cluster.wait_until_whole(HEAL_LIMIT).await?;
    workload.stop().await;
    println!("acknowledged writes: {}", workload.ledger.count());
    if planned_losses > 0 {
        println!("FAILED: planned steps lost {planned_losses} acknowledged writes");
        return Ok(ExitCode::FAILURE);
    }
    println!("the cluster is whole, planned steps lost nothing");
    Ok(ExitCode::SUCCESS)
}

fn print(step: &str, outcome: &Outcome) {
    let seconds = |duration: std::time::Duration| format!("{:.2} s", duration.as_secs_f64());
    println!(
        "{step}: no writes for {} directly, {} through HAProxy; {} acknowledged writes lost; whole after {}",
        seconds(outcome.direct),
        outcome.proxy.map_or_else(|| "-".to_owned(), seconds),
        outcome.lost,
        seconds(outcome.whole_after),
    );
}
