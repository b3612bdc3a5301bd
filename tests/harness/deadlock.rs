//! A daemon whose threads stand still but for one, as in a deadlock.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/hold.c");

/// What is logged is written by this one.
const LOG: &str = "log";

/// Lasts until it is dropped.
#[derive(Debug)]
pub(crate) struct Deadlock {
    holder: Child,
}

impl Deadlock {
    /// All threads of this process but those of this name, and the one that writes the log, stand still when this
    /// returns.
    pub(crate) fn of(pid: i32, but: &str, directory: &Path) -> Result<Self> {
        let program = directory.join("hold");
        let compiled = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(SOURCE).status();
        ensure!(compiled.context("cc")?.success(), "cc could not compile {SOURCE}");
        let mut command = Command::new(program);
        command.arg(pid.to_string()).arg(but).arg(LOG).stdin(Stdio::piped()).stdout(Stdio::piped());
        let holder = command.spawn().context("hold")?;
        let mut deadlock = Self { holder };
        let mut line = String::new();
        let output = deadlock.holder.stdout.take().context("hold has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(matches!(words[..], [held, "held,", "2", "spared"] if held != "0"), "hold said {line:?}");
        Ok(deadlock)
    }
}

impl Drop for Deadlock {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}
