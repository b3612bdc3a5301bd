//! What is under way: one long action, the proposals of one decision.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::Group;
use pgherd_raft::group::Proposed;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Command, Epoch, Outcome};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::clock;
use crate::ha::{Finished, Job, JobKind, PgAction};
use crate::postgres::Postgres;

#[derive(Debug)]
struct Running {
    kind: JobKind,
    action: PgAction,
    since: BootTime,
    epoch: Epoch,
}

#[derive(Debug)]
struct Ended {
    error: Option<String>,
    at: BootTime,
    took: Duration,
    failures: u32,
    epoch: Epoch,
}

/// The long actions: at most one runs.
#[derive(Debug)]
pub(super) struct Jobs {
    task: JoinSet<Result<(), String>>,
    running: Option<Running>,
    ended: BTreeMap<JobKind, Ended>,
    wake: Arc<Notify>,
}

impl Jobs {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { task: JoinSet::new(), running: None, ended: BTreeMap::new(), wake }
    }

    /// Starts a long action. One that runs already goes on; only a stop takes the place of another.
    pub(super) async fn start(&mut self, postgres: Postgres, action: &PgAction, epoch: Epoch) {
        let Some(kind) = action.job() else { return };
        if let Some(running) = &self.running {
            if running.action == *action || kind != JobKind::Stop {
                return;
            }
            info!("{:?} is cut short by {action:?}", running.kind);
            self.cut_short().await;
        }
        let (wake, performed) = (Arc::clone(&self.wake), action.clone());
        self.running = Some(Running { kind, action: action.clone(), since: clock::now(), epoch });
        self.task.spawn(async move {
            let result = postgres.perform(&performed).await.map_err(|error| chain(&error));
            wake.notify_one();
            result
        });
    }

    /// Ends the long action in progress; it is not counted as finished.
    pub(super) async fn cancel(&mut self) {
        self.task.shutdown().await;
        self.running = None;
    }

    async fn cut_short(&mut self) {
        self.task.shutdown().await;
        let Some(running) = self.running.take().filter(|running| running.kind != JobKind::Stop) else {
            return;
        };
        let failures = self.ended.get(&running.kind).map_or(0, |ended| ended.failures).saturating_add(1);
        let at = clock::now();
        let error = Some("it was cut short by a stop".to_owned());
        let ended = Ended { error, at, took: at.since(running.since), failures, epoch: running.epoch };
        self.ended.insert(running.kind, ended);
    }

    /// Takes note of an action that has ended.
    pub(super) fn collect(&mut self) {
        let Some(joined) = self.task.try_join_next() else { return };
        let Some(running) = self.running.take() else { return };
        let error = match joined {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(broken) => Some(format!("the task broke: {broken}")),
        };
        let took = clock::now().since(running.since);
        let before = self.ended.get(&running.kind).map_or(0, |ended| ended.failures);
        let failures = match &error {
            None => {
                info!("{:?} succeeded after {} ms", running.kind, took.as_millis());
                0
            }
            Some(error) => {
                warn!("{:?} failed after {} ms: {error}", running.kind, took.as_millis());
                before.saturating_add(1)
            }
        };
        let ended = Ended { error, at: clock::now(), took, failures, epoch: running.epoch };
        self.ended.insert(running.kind, ended);
        self.forget_after_success(running.kind, failures);
    }

    /// A server that came up, or a new copy, makes earlier failures meaningless.
    fn forget_after_success(&mut self, kind: JobKind, failures: u32) {
        if failures > 0 {
            return;
        }
        match kind {
            JobKind::StartPrimary | JobKind::StartStandby | JobKind::Promote => {
                self.ended.remove(&JobKind::Stop);
                self.ended.remove(&JobKind::Rewind);
            }
            JobKind::Clone | JobKind::Bootstrap => {
                self.ended.retain(|kind, _| matches!(kind, JobKind::Clone | JobKind::Bootstrap));
            }
            JobKind::Stop | JobKind::Rewind => {}
        }
    }

    /// A decision's reason for the log, where the error of an action that failed stands already.
    pub(super) fn without_told_errors(&self, because: &str) -> String {
        let errors = self.ended.values().filter_map(|ended| ended.error.as_deref());
        let told = errors.filter(|error| !error.is_empty());
        told.fold(because.to_owned(), |text, error| text.replace(error, "see above"))
    }

    pub(super) fn job(&self, now: BootTime) -> Option<Job> {
        self.running.as_ref().map(|running| Job {
            kind: running.kind,
            running_for: now.since(running.since),
            detail: describe(&running.action),
        })
    }

    pub(super) fn finished(&self, now: BootTime) -> BTreeMap<JobKind, Finished> {
        let facts = |ended: &Ended| Finished {
            error: ended.error.clone(),
            age: now.since(ended.at),
            took: ended.took,
            failures: ended.failures,
            epoch: ended.epoch,
        };
        self.ended.iter().map(|(kind, ended)| (*kind, facts(ended))).collect()
    }
}

fn describe(action: &PgAction) -> String {
    match action {
        PgAction::Bootstrap => "making the cluster's database system".to_owned(),
        PgAction::StartPrimary => "starting PostgreSQL as the primary".to_owned(),
        PgAction::StartStandby { upstream: Some(upstream) } => {
            format!("starting PostgreSQL as a standby of {}", upstream.name)
        }
        PgAction::StartStandby { upstream: None } => "starting PostgreSQL as a standby".to_owned(),
        PgAction::Stop { mode, .. } => format!("stopping PostgreSQL ({mode:?})").to_lowercase(),
        PgAction::Promote { timeline } => format!("leaving recovery for timeline {timeline}"),
        PgAction::Rewind { source } => format!("rewinding to {}", source.name),
        PgAction::Clone { source } => format!("copying {}", source.name),
        PgAction::Follow { .. }
        | PgAction::Fence { .. }
        | PgAction::SetSync { .. }
        | PgAction::DiscardOldData
        | PgAction::DiscardIncomplete
        | PgAction::EnsureSlots { .. } => format!("{action:?}"),
    }
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// The proposals: those of one decision at a time. A lost answer is no harm, since every command is a compare-and-set and
/// the next observation shows what became of it.
#[derive(Debug)]
pub(super) struct Proposals {
    task: JoinSet<()>,
    wake: Arc<Notify>,
}

/// A proposal that is not answered after this time is not waited for any longer.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(3);

impl Proposals {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { task: JoinSet::new(), wake }
    }

    pub(super) fn propose(&mut self, group: &Group, commands: Vec<Command>) {
        while self.task.try_join_next().is_some() {}
        if !self.task.is_empty() {
            return;
        }
        // They go out together, and each is judged by itself.
        for command in commands {
            let (group, wake) = (group.clone(), Arc::clone(&self.wake));
            self.task.spawn(async move {
                match tokio::time::timeout(PROPOSAL_PATIENCE, group.propose(command.clone())).await {
                    Ok(Proposed::Outcome(Outcome::Applied)) => debug!("agreed: {command:?}"),
                    Ok(Proposed::Outcome(Outcome::Rejected(why))) => info!("not agreed: {why} ({command:?})"),
                    Ok(Proposed::Unknown(why)) => {
                        info!("it is not known whether this was agreed: {why} ({command:?})")
                    }
                    Err(_) => info!("no answer in time to a proposal ({command:?})"),
                }
                wake.notify_one();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_once() {
        let mut jobs = Jobs::new(Arc::new(Notify::new()));
        let ended = |error: Option<&str>| Ended {
            error: error.map(str::to_owned),
            at: clock::now(),
            took: Duration::ZERO,
            failures: 1,
            epoch: Epoch(1),
        };
        jobs.ended.insert(JobKind::Clone, ended(Some("password authentication failed")));
        jobs.ended.insert(JobKind::Stop, ended(Some("")));
        jobs.ended.insert(JobKind::Rewind, ended(None));
        let because = "the copy of node1 failed: password authentication failed";
        assert_eq!(jobs.without_told_errors(because), "the copy of node1 failed: see above");
        assert_eq!(jobs.without_told_errors("waiting for a primary"), "waiting for a primary");
    }
}
