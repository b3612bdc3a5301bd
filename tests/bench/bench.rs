//! `make bench`: the figures of the README, as the clients and the kernel see them. Prints plain text; the results of
//! a run are kept in `tests/bench/results`.

#![expect(clippy::print_stdout, reason = "printing figures is its purpose")]

mod figures;
#[path = "../harness/mod.rs"]
mod harness;
mod idle;
mod outages;
mod requests;

use anyhow::{Context, Result, bail};

use harness::cluster::{Cluster, Plan};

const USAGE: &str = "make bench [BENCH_ARGS='PART... [--repeat N]']

  bring-up    empty directories until a primary and two streaming standbys
  node        kill -9 of the primary's daemon, guard and PostgreSQL, at ttl 5 and ttl 2
  quorum      the same in quorum mode at ttl 5: fences in place of the lease's end
  postmaster  kill -9 of the postmaster only
  switchover  planned change of the primary
  idle        memory, CPU, writes and fsyncs of an idle cluster of two nodes and a witness
  requests    OPTIONS /primary over 16 connections

Without PART: all.";

const PARTS: &[&str] = &["bring-up", "node", "quorum", "postmaster", "switchover", "idle", "requests"];

struct Arguments {
    parts: Vec<String>,
    repeat: usize,
}

fn main() -> Result<()> {
    let Some(arguments) = parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = run(&arguments) => done,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("interrupted"),
        }
    })
}

fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>> {
    let mut arguments = Arguments { parts: Vec::new(), repeat: 10 };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--repeat" => {
                let number = given.next().context("--repeat needs a number")?;
                arguments.repeat = number.parse().context("--repeat needs a number")?;
            }
            part if PARTS.contains(&part) => arguments.parts.push(part.to_owned()),
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    if arguments.parts.is_empty() {
        arguments.parts = PARTS.iter().map(|part| (*part).to_owned()).collect();
    }
    Ok(Some(arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let cluster = Cluster::prepare(&Plan::of(1)?)?;
    let cores = std::thread::available_parallelism()?;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{cores} cores, {}, {build} build", cluster.tools.postgresql_version);
    drop(cluster);
    for part in &arguments.parts {
        match part.as_str() {
            "bring-up" => outages::bring_up(arguments.repeat).await?,
            "node" => {
                outages::node(5, arguments.repeat).await?;
                outages::node(2, arguments.repeat).await?;
            }
            "quorum" => outages::node_in_quorum_mode(arguments.repeat).await?,
            "postmaster" => outages::postmaster(arguments.repeat).await?,
            "switchover" => outages::switchover(arguments.repeat).await?,
            "idle" => idle::run().await?,
            _ => requests::run().await?,
        }
    }
    Ok(())
}
