//! What a run of a class measured, and the file in which all runs are kept: one JSON document a line.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::classes::Class;
use crate::figures;
use crate::harness::story::Outcome;

/// The version of the lines.
const VERSION: u64 = 1;

/// One fault as the clients saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Write gaps.
    pub(crate) direct: Duration,
    pub(crate) proxy: Duration,
    /// Acknowledged writes that are gone.
    pub(crate) lost: usize,
    /// Connections and writes that failed, of the client that knows all nodes.
    pub(crate) failed: usize,
    pub(crate) two_writers: Duration,
    /// The longest write gap while everything was put back in place.
    pub(crate) second: Duration,
    /// How long that took.
    pub(crate) back: Duration,
}

impl Sample {
    pub(crate) fn of(outcome: &Outcome, second: Duration, back: Duration) -> Self {
        Self {
            direct: outcome.direct,
            proxy: outcome.proxy.unwrap_or_default(),
            lost: outcome.lost,
            failed: outcome.failed,
            two_writers: outcome.two_writers,
            second,
            back,
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "{:.3} s direct, {:.3} s through HAProxy, {} lost, {} failed, {:.3} s of two writers; {:.3} s when put back, which took {:.1} s",
            self.direct.as_secs_f64(),
            self.proxy.as_secs_f64(),
            self.lost,
            self.failed,
            self.two_writers.as_secs_f64(),
            self.second.as_secs_f64(),
            self.back.as_secs_f64(),
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "direct_us": micros(self.direct),
            "proxy_us": micros(self.proxy),
            "lost": self.lost,
            "failed": self.failed,
            "two_writers_us": micros(self.two_writers),
            "second_us": micros(self.second),
            "back_us": micros(self.back),
        })
    }

    fn parse(value: &Value) -> Option<Self> {
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        let time = |key: &str| number(key).map(Duration::from_micros);
        let count = |key: &str| number(key).and_then(|number| usize::try_from(number).ok());
        Some(Self {
            direct: time("direct_us")?,
            proxy: time("proxy_us")?,
            lost: count("lost")?,
            failed: count("failed")?,
            two_writers: time("two_writers_us")?,
            second: time("second_us")?,
            back: time("back_us")?,
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A run of a class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) class: String,
    /// UTC.
    pub(crate) at: String,
    pub(crate) cores: usize,
    pub(crate) build: String,
    pub(crate) postgresql: String,
    /// Load averages of a minute, before and after.
    pub(crate) load: (String, String),
    pub(crate) took: Duration,
    /// Acknowledged writes missing at the end of all rounds.
    pub(crate) lost_in_all: usize,
    pub(crate) samples: Vec<Sample>,
}

impl Results {
    pub(crate) fn begin(class: &Class) -> Result<Self> {
        let at = jiff::Timestamp::try_from(pgherd_raft::clock::wall()).context("an odd wall clock")?;
        Ok(Self {
            class: class.name.to_owned(),
            at: format!("{at:.0}"),
            cores: std::thread::available_parallelism()?.get(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            load: (load()?, String::new()),
            ..Self::default()
        })
    }

    pub(crate) fn end(&mut self, took: Duration) -> Result<()> {
        self.load.1 = load()?;
        self.took = took;
        Ok(())
    }

    pub(crate) fn of(&self, what: impl Fn(&Sample) -> Duration) -> Vec<Duration> {
        self.samples.iter().map(what).collect()
    }

    pub(crate) fn lost(&self) -> usize {
        self.samples.iter().map(|sample| sample.lost).sum::<usize>().max(self.lost_in_all)
    }

    pub(crate) fn failed(&self) -> usize {
        self.samples.iter().map(|sample| sample.failed).sum()
    }

    pub(crate) fn two_writers(&self) -> Duration {
        figures::quantile(&self.of(|sample| sample.two_writers), 100)
    }

    fn to_json(&self) -> Value {
        json!({
            "version": VERSION,
            "class": self.class,
            "at": self.at,
            "cores": self.cores,
            "build": self.build,
            "postgresql": self.postgresql,
            "load_before": self.load.0,
            "load_after": self.load.1,
            "took_us": micros(self.took),
            "lost_in_all": self.lost_in_all,
            "samples": self.samples.iter().map(Sample::to_json).collect::<Vec<_>>(),
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        if number("version") != Some(VERSION) {
            return None;
        }
        Some(Self {
            class: text("class")?,
            at: text("at")?,
            cores: usize::try_from(number("cores")?).ok()?,
            build: text("build")?,
            postgresql: text("postgresql")?,
            load: (text("load_before")?, text("load_after")?),
            took: Duration::from_micros(number("took_us")?),
            lost_in_all: usize::try_from(number("lost_in_all")?).ok()?,
            samples: value
                .get("samples")?
                .as_array()?
                .iter()
                .map(Sample::parse)
                .collect::<Option<Vec<_>>>()?,
        })
    }
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// The repository's place for this file.
fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn default_file() -> PathBuf {
    in_repository("tests/bench/results/outages.jsonl")
}

/// Where the table and the picture go.
pub(crate) fn documents() -> PathBuf {
    in_repository("docs")
}

pub(crate) fn append(file: &Path, results: &Results) -> Result<()> {
    let mut opened = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .with_context(|| format!("opening {}", file.display()))?;
    writeln!(opened, "{}", results.to_json()).with_context(|| format!("writing {}", file.display()))
}

/// The last run of each class, in the order of the table.
pub(crate) fn last_of_each(file: &Path) -> Result<Vec<(&'static Class, Results)>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut runs = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let run = Results::parse(line)
            .with_context(|| format!("{}, line {}: not a run", file.display(), number + 1))?;
        runs.push(run);
    }
    let last = |class: &'static Class| {
        let run = runs.iter().rev().find(|run| run.class == class.name && !run.samples.is_empty())?;
        Some((class, run.clone()))
    };
    Ok(crate::classes::ALL.iter().filter_map(last).collect())
}
