//! What a cluster costs when nothing happens.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::cluster::{Cluster, Plan};
use crate::harness::processes;

/// Bring-up has its own writes; they are over after this.
const SETTLE: Duration = Duration::from_secs(20);
const WATCHED: Duration = Duration::from_secs(60);

/// A program of ours with the counters of the kernel.
struct Watched {
    name: String,
    pid: i32,
    before: Counters,
}

struct Counters {
    cpu_ticks: u64,
    /// What went to the storage layer.
    written_bytes: u64,
    resident_kib: u64,
}

pub(crate) async fn run() -> Result<()> {
    let cluster = Cluster::start(&Plan::of(2)?.with_witness()).await?;
    tokio::time::sleep(SETTLE).await;
    let mut watched = Vec::new();
    for node in &cluster.nodes {
        for process in processes::of_node(&node.directory) {
            if process.program.starts_with("pgherd") {
                let is_guard = node.daemon_pid() != Some(process.pid);
                let name = if is_guard { format!("{} (guard)", node.name) } else { node.name.clone() };
                watched.push(Watched { name, pid: process.pid, before: Counters::of(process.pid)? });
            }
        }
    }
    let tracers: Vec<_> = watched.iter().map(|watched| count_syncs(watched.pid)).collect();
    tokio::time::sleep(WATCHED).await;
    println!("idle, two nodes and a witness, {} s:", WATCHED.as_secs());
    for (watched, tracer) in watched.iter().zip(tracers) {
        let after = Counters::of(watched.pid)?;
        let ticks = after.cpu_ticks - watched.before.cpu_ticks;
        // 100 ticks a second on Linux, so ticks per second are percent.
        let percent = f64::from(u32::try_from(ticks)?) / WATCHED.as_secs_f64();
        println!(
            "  {}: {:.1} MB resident, {percent:.2} % of a core, {} bytes written to disk, {}",
            watched.name,
            f64::from(u32::try_from(after.resident_kib)?) / 1024.0,
            after.written_bytes - watched.before.written_bytes,
            tracer.map_or_else(|| "fsyncs not counted (no strace here)".to_owned(), Tracer::finish),
        );
    }
    Ok(())
}

impl Counters {
    fn of(pid: i32) -> Result<Self> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .with_context(|| format!("reading /proc/{pid}/{file}"))
        };
        let stat = read("stat")?;
        // The command's name may hold blanks: fields are counted behind its bracket, user time is the 14th of all.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        Ok(Self {
            cpu_ticks: ticks(11) + ticks(12),
            written_bytes: number_after(&read("io")?, "write_bytes:"),
            resident_kib: number_after(&read("status")?, "VmRSS:"),
        })
    }
}

fn number_after(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// strace, if this machine has it and lets us.
struct Tracer {
    process: std::process::Child,
    output: tempfile::NamedTempFile,
}

fn count_syncs(pid: i32) -> Option<Tracer> {
    let output = tempfile::NamedTempFile::new().ok()?;
    let process = Command::new("strace")
        .args(["-f", "-e", "trace=fsync,fdatasync,sync_file_range,msync,syncfs,sync", "-o"])
        .arg(output.path())
        .args(["-p", &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some(Tracer { process, output })
}

impl Tracer {
    fn finish(mut self) -> String {
        let ended_early = self.process.try_wait().ok().flatten().is_some();
        let pid = i32::try_from(self.process.id()).unwrap_or(0);
        drop(processes::signal(pid, rustix::process::Signal::TERM));
        drop(self.process.wait());
        if ended_early {
            return "fsyncs not counted (strace may not)".to_owned();
        }
        let text = fs::read_to_string(self.output.path()).unwrap_or_default();
        let calls = text.lines().filter(|line| line.contains("sync") && line.contains('(')).count();
        format!("{calls} fsyncs")
    }
}
