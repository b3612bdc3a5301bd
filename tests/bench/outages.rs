//! How long nobody can write.

use std::time::Duration;

use anyhow::Result;

use crate::figures;
use crate::harness::clock;
use crate::harness::cluster::{Cluster, Plan};
use crate::harness::haproxy::HaProxy;
use crate::harness::story::{self, Outcome};
use crate::harness::workload::Workload;

pub(crate) async fn bring_up(repeat: usize) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..repeat {
        let begin = clock::now();
        let cluster = Cluster::start(&Plan::of(3)?).await?;
        samples.push(begin.elapsed());
        drop(cluster);
    }
    figures::print("bring-up of three nodes", &samples);
    Ok(())
}

/// A cluster of three with clients.
async fn stage(ttl: u32) -> Result<(Cluster, HaProxy, Workload)> {
    // So many killed postmasters would be taken for a crash loop.
    stage_as(&Plan::of(3)?.with_ttl(ttl).with_settings(&["primary_health_timeout: 0"])).await
}

async fn stage_as(plan: &Plan) -> Result<(Cluster, HaProxy, Workload)> {
    let cluster = Cluster::start(plan).await?;
    let proxy = HaProxy::start_anywhere(&cluster).await?;
    let workload = Workload::start(&cluster, Some(proxy.read_write)).await?;
    Ok((cluster, proxy, workload))
}

fn print(name: &str, outcomes: &[Outcome]) {
    let direct: Vec<Duration> = outcomes.iter().map(|outcome| outcome.direct).collect();
    let proxy: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.proxy).collect();
    figures::print(&format!("{name}, write gap, direct"), &direct);
    figures::print(&format!("{name}, write gap, through HAProxy"), &proxy);
    let lost: usize = outcomes.iter().map(|outcome| outcome.lost).sum();
    println!("{name}, acknowledged writes lost: {lost} in {} runs", outcomes.len());
}

pub(crate) async fn node(ttl: u32, repeat: usize) -> Result<()> {
    kill_nodes(&Plan::of(3)?.with_ttl(ttl), &format!("ttl {ttl}"), repeat).await
}

pub(crate) async fn node_in_quorum_mode(repeat: usize) -> Result<()> {
    let plan = Plan::of(3)?.with_settings(&["synchronous_mode: quorum"]);
    kill_nodes(&plan, "quorum mode, ttl 5", repeat).await
}

async fn kill_nodes(plan: &Plan, name: &str, repeat: usize) -> Result<()> {
    let (mut cluster, _proxy, mut workload) = stage_as(plan).await?;
    let mut outcomes = Vec::new();
    let mut returns = Vec::new();
    for _ in 0..repeat {
        let (outcome, old) = story::lose_primary(&mut cluster, &workload).await?;
        outcomes.push(outcome);
        returns.push(story::return_node(&mut cluster, &workload, old).await?.whole_after);
    }
    workload.stop().await;
    print(&format!("kill -9 of the primary node, {name}"), &outcomes);
    figures::print(&format!("return of the killed node as a standby, {name}"), &returns);
    Ok(())
}

pub(crate) async fn postmaster(repeat: usize) -> Result<()> {
    let (mut cluster, _proxy, mut workload) = stage(5).await?;
    let mut outcomes = Vec::new();
    for _ in 0..repeat {
        outcomes.push(story::lose_postmaster(&mut cluster, &workload).await?);
    }
    workload.stop().await;
    print("kill -9 of the postmaster", &outcomes);
    Ok(())
}

pub(crate) async fn switchover(repeat: usize) -> Result<()> {
    let (mut cluster, _proxy, mut workload) = stage(5).await?;
    let mut outcomes = Vec::new();
    for _ in 0..repeat {
        outcomes.push(story::switch_over(&mut cluster, &workload, None).await?);
    }
    workload.stop().await;
    print("switchover", &outcomes);
    Ok(())
}
