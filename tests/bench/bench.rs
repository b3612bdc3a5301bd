//! `make bench`: the figures of the README, as the clients and the kernel see them. Prints plain text; the
//! results of the fault classes are kept in `tests/bench/results/outages.jsonl`, from which the table and the picture in
//! `docs` are made.

#![expect(clippy::print_stdout, reason = "printing figures is its purpose")]

mod bring_up;
mod classes;
mod figures;
mod half_open;
#[path = "../harness/mod.rs"]
mod harness;
mod idle;
mod picture;
mod report;
mod requests;
mod results;
mod rounds;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use classes::Class;
use harness::cluster::{Cluster, Plan};
use harness::network::{self, Apart};

const USAGE: &str = "make bench [BENCH_ARGS='PART... [--repeat N] [--results FILE] [--keep]']

  --repeat N      faults of each class, 30 by default (a third as many bring-ups)
  --results FILE  where the runs of fault classes are kept, tests/bench/results/outages.jsonl by default
  --keep          keep the files of the clusters

PART, all by default; `faults` means all fault classes:

  bring-up              empty directories until a primary and two streaming standbys
  idle                  memory, CPU, writes and fsyncs of an idle cluster of two nodes and a witness
  requests              OPTIONS /primary over 16 connections
  half-open             OPTIONS /primary beside 400 connections that say nothing, or not enough
  picture               the table and the picture in docs, from the kept results; every run of fault classes makes
                        them, too

Fault classes, each on one cluster of three:
";

/// What is measured beside the fault classes.
const OTHERS: &[&str] = &["bring-up", "idle", "requests", "half-open"];
const PICTURE: &str = "picture";
const FAULTS: &str = "faults";

struct Arguments {
    parts: Vec<String>,
    repeat: usize,
    results: PathBuf,
    keeps_files: bool,
}

fn main() -> Result<()> {
    let Some(arguments) = parse(std::env::args().skip(1))? else {
        println!("{}", usage());
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

fn usage() -> String {
    let classes = classes::ALL.iter().map(|class| format!("\n  {:<22}{}", class.name, class.describe()));
    format!("{USAGE}{}", classes.collect::<String>())
}

fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>> {
    let mut arguments =
        Arguments { parts: Vec::new(), repeat: 30, results: results::default_file(), keeps_files: false };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--repeat" => {
                let number = given.next().context("--repeat needs a number")?;
                arguments.repeat = number.parse().context("--repeat needs a number")?;
            }
            "--results" => arguments.results = given.next().context("--results needs a file")?.into(),
            "--keep" => arguments.keeps_files = true,
            FAULTS => arguments.parts.extend(classes::ALL.iter().map(|class| class.name.to_owned())),
            part if part == PICTURE || OTHERS.contains(&part) || Class::named(part).is_some() => {
                arguments.parts.push(part.to_owned());
            }
            other => bail!("unknown argument {other}\n{}", usage()),
        }
    }
    if arguments.parts.is_empty() {
        let all = OTHERS.iter().copied().chain(classes::ALL.iter().map(|class| class.name));
        arguments.parts = all.map(str::to_owned).collect();
    }
    Ok(Some(arguments))
}

/// Has this process what the class needs? If not, another has run it.
fn is_here(class: &Class, arguments: &Arguments) -> Result<bool> {
    let (repeat, results) = (arguments.repeat.to_string(), arguments.results.display().to_string());
    let mut words = vec![class.name, "--repeat", &repeat, "--results", &results];
    if arguments.keeps_files {
        words.push("--keep");
    }
    match network::program_apart(&words)? {
        Apart::Here => Ok(true),
        Apart::Done => Ok(false),
        Apart::Refused(why) => bail!("{}: {why}", class.name),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    if arguments.parts.iter().all(|part| part == PICTURE) {
        return report::write(&arguments.results);
    }
    let cluster = Cluster::prepare(&Plan::of(1)?)?;
    let cores = std::thread::available_parallelism()?;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{cores} cores, {}, {build} build", cluster.tools.postgresql_version);
    drop(cluster);
    let mut ran_faults = false;
    for part in &arguments.parts {
        match part.as_str() {
            "bring-up" => bring_up::run(arguments.repeat.div_ceil(3)).await?,
            "idle" => idle::run().await?,
            "requests" => requests::run().await?,
            "half-open" => half_open::run().await?,
            name => {
                if let Some(class) = Class::named(name) {
                    if class.needs_network() && !is_here(class, arguments)? {
                        ran_faults = true;
                        continue;
                    }
                    let results = rounds::run(class, arguments.repeat, arguments.keeps_files).await?;
                    report::print(class, &results);
                    results::append(&arguments.results, &results)?;
                    ran_faults = true;
                }
            }
        }
    }
    if (ran_faults && !network::is_apart()) || arguments.parts.iter().any(|part| part == PICTURE) {
        report::write(&arguments.results)?;
    }
    Ok(())
}
