//! Processes that do nothing but use the processor. They end with their owner, and by themselves after a while.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// They end by themselves after so many seconds, whatever became of the test.
const LONGEST: &str = "180";

/// Running loops; dropped, they end.
#[derive(Debug)]
pub(crate) struct Busy {
    group: Child,
}

impl Busy {
    /// So many loops of ordinary priority, in a process group of their own.
    pub(crate) fn start(count: usize) -> Result<Self> {
        // Its input ends with this process, whatever ends it.
        let script = "n=0; while [ $n -lt $1 ]; do (while :; do :; done) & n=$((n+1)); done; \
                      timeout \"$2\" cat >/dev/null; kill -KILL 0";
        let group = Command::new("sh")
            .args(["-c", script, "sh", &count.to_string(), LONGEST])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting busy loops")?;
        Ok(Self { group })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.group.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.group.wait().ok();
    }
}

/// The load average of the last minute, and how many threads want a processor at this moment.
pub(crate) fn load() -> Result<(f64, u32)> {
    let text = std::fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    let mut fields = text.split_whitespace();
    let average = fields.next().and_then(|field| field.parse().ok());
    let running = fields.nth(2).and_then(|field| field.split_once('/')?.0.parse().ok());
    average.zip(running).with_context(|| format!("an odd /proc/loadavg: {text}"))
}
