//! What is remembered of the long actions that have ended: the daemon and the simulation use it.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::Epoch;

use super::action::JobKind;
use super::facts::Finished;

/// A long action that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobRun {
    /// What it does.
    pub kind: JobKind,
    /// When it was begun.
    pub since: BootTime,
    /// Under which epoch.
    pub epoch: Epoch,
}

#[derive(Clone, Debug)]
struct Ended {
    error: Option<String>,
    at: BootTime,
    took: Duration,
    failures: u32,
    epoch: Epoch,
}

/// How the last long action of each kind ended.
#[derive(Clone, Debug, Default)]
pub struct JobMemory {
    ended: BTreeMap<JobKind, Ended>,
}

impl JobMemory {
    /// An action came to its end at `now`, by itself.
    pub fn note(&mut self, run: JobRun, error: Option<String>, now: BootTime) {
        let succeeded = error.is_none();
        self.remember(run, error, now);
        if succeeded {
            self.forget_after(run.kind);
        }
    }

    /// A stop took its place. A stop that another one replaced was none.
    pub fn note_cut_short(&mut self, run: JobRun, now: BootTime) {
        if run.kind != JobKind::Stop {
            self.remember(run, Some("it was cut short by a stop".to_owned()), now);
        }
    }

    fn remember(&mut self, run: JobRun, error: Option<String>, at: BootTime) {
        let before = self.ended.get(&run.kind).map_or(0, |ended| ended.failures);
        let failures = if error.is_some() { before.saturating_add(1) } else { 0 };
        let ended = Ended { error, at, took: at.since(run.since), failures, epoch: run.epoch };
        self.ended.insert(run.kind, ended);
    }

    /// A server that came up, or a new copy, makes earlier failures meaningless.
    fn forget_after(&mut self, succeeded: JobKind) {
        match succeeded {
            JobKind::StartPrimary
            | JobKind::StartStandby
            | JobKind::Promote
            | JobKind::Restart
            | JobKind::CopySlots => {
                self.ended.remove(&JobKind::Stop);
                self.ended.remove(&JobKind::Rewind);
                self.ended.remove(&JobKind::Reinitialize);
                self.ended.retain(|kind, ended| *kind != JobKind::Restart || ended.error.is_none());
            }
            JobKind::Clone | JobKind::Bootstrap | JobKind::Reinitialize => {
                self.ended.retain(|kind, _| {
                    matches!(kind, JobKind::Clone | JobKind::Bootstrap | JobKind::Reinitialize)
                });
            }
            JobKind::Stop | JobKind::Rewind | JobKind::PrePromote => {}
        }
    }

    /// For an observation.
    pub fn finished(&self, now: BootTime) -> BTreeMap<JobKind, Finished> {
        let facts = |ended: &Ended| Finished {
            error: ended.error.clone(),
            age: now.since(ended.at),
            took: ended.took,
            failures: ended.failures,
            epoch: ended.epoch,
        };
        self.ended.iter().map(|(kind, ended)| (*kind, facts(ended))).collect()
    }

    /// The errors that are remembered.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        self.ended.values().filter_map(|ended| ended.error.as_deref())
    }
}
