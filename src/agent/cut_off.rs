//! Runs `fencing.command`, one at a time and beside everything else.
//!
//! The command learns from its environment whom it is to cut off: `FENCE_CLUSTER`, `FENCE_NAME`, `FENCE_MEMBER_ID`,
//! `FENCE_HOST` and `FENCE_PORT` of its PostgreSQL, `FENCE_RAFT_ADDRESS`, `FENCE_EPOCH`. Exit status 0 says that nothing
//! which ran there when it was started can run any more. Everything else says nothing.

use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Epoch, Member, MemberId};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::clock;
use super::jobs::chain;
use crate::config::Config;
use crate::ha::{CutOff, CutOffEnd};
use crate::postgres::{run_command, split_words};

/// As much of what the command said is logged.
const LOGGED: usize = 300;

/// The command of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencingCommand {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// It is ended after this time, and has failed.
    pub timeout: Duration,
}

impl FencingCommand {
    /// The configuration's; none: there is none.
    ///
    /// # Errors
    /// It cannot be split into words; a sentence.
    pub fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(fencing) = &config.fencing else { return Ok(None) };
        let words = split_words(&fencing.command)
            .map_err(|why| format!("fencing.command cannot be split into words: {why}"))?;
        Ok(Some(Self { words, timeout: fencing.timeout }))
    }
}

#[derive(Debug)]
struct Run {
    epoch: Epoch,
    since: BootTime,
    name: String,
}

/// The last run.
#[derive(Clone, Debug, Default)]
struct Last {
    epoch: Epoch,
    /// In that epoch.
    attempts: u32,
    /// When it ended, and its error.
    end: Option<(BootTime, Option<String>)>,
}

/// The runs of the command.
#[derive(Debug)]
pub(super) struct CutOffs {
    command: Option<FencingCommand>,
    task: JoinSet<Result<String, String>>,
    running: Option<Run>,
    last: Last,
    wake: Arc<Notify>,
}

impl CutOffs {
    pub(super) fn new(command: Option<FencingCommand>, wake: Arc<Notify>) -> Self {
        Self { command, task: JoinSet::new(), running: None, last: Last::default(), wake }
    }

    /// The configuration was read again; a run goes on as it is.
    pub(super) fn configure(&mut self, command: Option<FencingCommand>) {
        self.command = command;
    }

    /// Runs the command against this member, unless it runs already.
    pub(super) fn start(&mut self, scope: &str, epoch: Epoch, id: MemberId, member: &Member) {
        let Some(command) = self.command.clone().filter(|_| self.running.is_none()) else { return };
        let before = if self.last.epoch == epoch { self.last.attempts } else { 0 };
        let name = member.name.to_string();
        warn!(
            "running fencing.command to cut {name} off (epoch {epoch}, attempt {}, {} s at most)",
            before + 1,
            command.timeout.as_secs()
        );
        let environment = environment(scope, epoch, id, member);
        self.last = Last { epoch, attempts: before.saturating_add(1), end: None };
        self.running = Some(Run { epoch, since: clock::now(), name });
        let wake = Arc::clone(&self.wake);
        self.task.spawn(async move {
            let ended = run_command(&command.words, &environment, command.timeout).await;
            wake.notify_one();
            ended.map_err(|error| chain(&error))
        });
    }

    /// Takes note of a run that has ended.
    pub(super) fn collect(&mut self) {
        let Some(joined) = self.task.try_join_next() else { return };
        let Some(run) = self.running.take() else { return };
        let now = clock::now();
        let took = now.since(run.since).as_millis();
        let error = match joined {
            Ok(Ok(said)) => {
                let said = cut(&said);
                warn!("fencing.command confirmed after {took} ms that {} is cut off: {said}", run.name);
                None
            }
            Ok(Err(error)) => Some(error),
            Err(broken) => Some(format!("its task broke: {broken}")),
        };
        if let Some(error) = &error {
            warn!("fencing.command failed after {took} ms: {}", cut(error));
        }
        if self.last.epoch == run.epoch {
            self.last.end = Some((now, error));
        }
    }

    pub(super) fn facts(&self, now: BootTime) -> CutOff {
        let Last { epoch, attempts, end } = self.last.clone();
        CutOff {
            is_configured: self.command.is_some(),
            epoch,
            attempts,
            running_for: self.running.as_ref().map(|run| now.since(run.since)),
            ended: end.map(|(at, error)| CutOffEnd { error: error.map(|why| cut(&why)), age: now.since(at) }),
        }
    }

    /// Ends a run with the daemon.
    pub(super) async fn end(&mut self) {
        if self.running.take().is_some() {
            info!("fencing.command is ended with the daemon");
        }
        self.task.shutdown().await;
    }
}

fn environment(scope: &str, epoch: Epoch, id: MemberId, member: &Member) -> Vec<(&'static str, String)> {
    let postgres = member.postgres.as_ref();
    vec![
        ("FENCE_CLUSTER", scope.to_owned()),
        ("FENCE_NAME", member.name.to_string()),
        ("FENCE_MEMBER_ID", id.to_string()),
        ("FENCE_HOST", postgres.map(|addr| addr.host.clone()).unwrap_or_default()),
        ("FENCE_PORT", postgres.map(|addr| addr.port.to_string()).unwrap_or_default()),
        ("FENCE_RAFT_ADDRESS", member.raft_addr.clone()),
        ("FENCE_EPOCH", epoch.to_string()),
    ]
}

/// One line, not too long.
fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return "it said nothing".to_owned();
    }
    if line.chars().count() <= LOGGED {
        line
    } else {
        line.chars().take(LOGGED).chain("…".chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use pgherd_raft::model::{MemberKind, PostgresAddr, Tags};

    use super::*;

    fn member() -> Member {
        Member {
            name: "node1".parse().expect("a name"),
            kind: MemberKind::Data,
            raft_addr: "10.0.0.1:2222".to_owned(),
            votes: true,
            api_url: None,
            postgres: Some(PostgresAddr { host: "10.0.0.1".to_owned(), port: 5432 }),
            tags: Tags::default(),
        }
    }

    async fn ended(script: &str, timeout: Duration) -> CutOff {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        let wake = Arc::new(Notify::new());
        let mut runs = CutOffs::new(Some(FencingCommand { words, timeout }), Arc::clone(&wake));
        runs.start("demo", Epoch(3), MemberId(7), &member());
        assert!(runs.facts(clock::now()).running_for.is_some());
        // One at a time.
        runs.start("demo", Epoch(3), MemberId(7), &member());
        assert_eq!(runs.task.len(), 1);
        wake.notified().await;
        while runs.running.is_some() {
            tokio::task::yield_now().await;
            runs.collect();
        }
        runs.facts(clock::now())
    }

    #[tokio::test]
    async fn the_exit_status_is_the_word() {
        let limit = Duration::from_secs(30);
        let facts = ended("test $FENCE_NAME-$FENCE_HOST-$FENCE_EPOCH = node1-10.0.0.1-3", limit).await;
        assert_eq!((facts.epoch, facts.attempts), (Epoch(3), 1));
        assert_eq!(facts.ended.expect("ended").error, None);
        let failed = ended("echo no such machine >&2; exit 1", limit).await;
        assert!(failed.ended.expect("ended").error.is_some_and(|why| why.contains("no such machine")));
        let slow = ended("sleep 60", Duration::from_millis(50)).await;
        assert!(slow.ended.expect("ended").error.is_some_and(|why| why.contains("did not finish")));
    }

    #[test]
    fn what_it_says_is_cut() {
        assert_eq!(cut(" \n"), "it said nothing");
        assert_eq!(cut("a\n b"), "a b");
        assert_eq!(cut(&"x".repeat(1000)).chars().count(), LOGGED + 1);
    }
}
