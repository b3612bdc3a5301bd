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
use crate::ha::{Finished, Job, JobKind, JobMemory, JobRun, PgAction};
use crate::postgres::Postgres;

#[derive(Debug)]
struct Running {
    run: JobRun,
    action: PgAction,
}

/// The long actions: at most one runs.
#[derive(Debug)]
pub(super) struct Jobs {
    task: JoinSet<Result<(), String>>,
    running: Option<Running>,
    memory: JobMemory,
    wake: Arc<Notify>,
}

impl Jobs {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { task: JoinSet::new(), running: None, memory: JobMemory::default(), wake }
    }

    /// Starts a long action. One that runs already goes on; only a stop takes the place of another, and
    /// whatever is decided that of a hook whose answer does not matter any more.
    pub(super) async fn start(&mut self, postgres: Postgres, action: &PgAction, epoch: Epoch) {
        let Some(kind) = action.job() else { return };
        if let Some(running) = &self.running {
            let makes_way = kind == JobKind::Stop || running.run.kind == JobKind::PrePromote;
            if running.action == *action || !makes_way {
                return;
            }
            info!("{:?} is cut short by {action:?}", running.run.kind);
            self.cut_short().await;
        }
        let (wake, performed) = (Arc::clone(&self.wake), action.clone());
        let run = JobRun { kind, since: clock::now(), epoch };
        self.running = Some(Running { run, action: action.clone() });
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
        if let Some(running) = self.running.take() {
            self.memory.note_cut_short(running.run, clock::now());
        }
    }

    /// Takes note of an action that has ended.
    pub(super) fn collect(&mut self) {
        let Some(joined) = self.task.try_join_next() else { return };
        let Some(Running { run, .. }) = self.running.take() else { return };
        let error = match joined {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(broken) => Some(format!("the task broke: {broken}")),
        };
        let now = clock::now();
        let took = now.since(run.since).as_millis();
        match &error {
            None => info!("{:?} succeeded after {took} ms", run.kind),
            Some(error) => warn!("{:?} failed after {took} ms: {error}", run.kind),
        }
        self.memory.note(run, error, now);
    }

    /// A decision's reason for the log, where the error of an action that failed stands already.
    pub(super) fn without_told_errors(&self, because: &str) -> String {
        let told = self.memory.errors().filter(|error| !error.is_empty());
        told.fold(because.to_owned(), |text, error| text.replace(error, "see above"))
    }

    pub(super) fn job(&self, now: BootTime) -> Option<Job> {
        self.running.as_ref().map(|running| Job {
            kind: running.run.kind,
            running_for: now.since(running.run.since),
            detail: describe(&running.action),
        })
    }

    pub(super) fn finished(&self, now: BootTime) -> BTreeMap<JobKind, Finished> {
        self.memory.finished(now)
    }
}

fn describe(action: &PgAction) -> String {
    match action {
        PgAction::Bootstrap => "bootstrap in progress".to_owned(),
        PgAction::StartPrimary => "starting PostgreSQL as the primary".to_owned(),
        PgAction::StartStandby { upstream: Some(upstream) } => {
            format!("starting PostgreSQL as a standby of {}", upstream.name)
        }
        PgAction::StartStandby { upstream: None } => "starting PostgreSQL as a standby".to_owned(),
        PgAction::Stop { mode, .. } => format!("stopping PostgreSQL ({mode:?})").to_lowercase(),
        PgAction::Promote { timeline } => format!("leaving recovery for timeline {timeline}"),
        PgAction::Rewind { source } => format!("running pg_rewind from {} in progress", source.name),
        PgAction::Clone { source } => format!("bootstrap from leader '{}' in progress", source.name),
        PgAction::PrePromote => "running the pre_promote script".to_owned(),
        PgAction::Restart { .. } => "restart in progress".to_owned(),
        PgAction::Restore => "bootstrap without leader in progress".to_owned(),
        PgAction::Reinitialize { .. } => "reinitialize in progress".to_owned(),
        PgAction::CopySlots { .. } => "copy_logical_slots in progress".to_owned(),
        PgAction::Follow { .. }
        | PgAction::Fence { .. }
        | PgAction::SetSync { .. }
        | PgAction::DiscardOldData
        | PgAction::DiscardIncomplete
        | PgAction::KeepSlots { .. } => format!("{action:?}"),
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
        let mut note = |kind, error: Option<&str>| {
            let run = JobRun { kind, since: clock::now(), epoch: Epoch(1) };
            jobs.memory.note(run, error.map(str::to_owned), clock::now());
        };
        note(JobKind::Clone, Some("password authentication failed"));
        note(JobKind::Stop, Some(""));
        note(JobKind::Rewind, None);
        let because = "the copy of node1 failed: password authentication failed";
        assert_eq!(jobs.without_told_errors(because), "the copy of node1 failed: see above");
        assert_eq!(jobs.without_told_errors("waiting for a primary"), "waiting for a primary");
    }
}
