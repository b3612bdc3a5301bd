//! Runs the operator's callbacks, in order and one at a time, beside everything else.
//!
//! A callback never delays the loop or the lease: it is put into a queue, and a task of its own works it off. Each gets
//! the event, the role and the scope as its last arguments, and is ended, with everything it started, when it takes
//! longer than [`LIMIT`].

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::jobs::chain;
use crate::config::Callbacks as Commands;
use crate::ha::{Callback, CallbackEvent, CallbackMemory, Decision, Observation};
use crate::postgres::{run_hook, split_words};

/// How long one callback may take. The next ones wait for it.
const LIMIT: Duration = Duration::from_secs(60);
/// So many wait at most: more than any change brings while one callback takes its time.
const MOST_WAITING: usize = 256;
/// How long the end of the daemon waits for the last callbacks.
const LAST_CALLBACKS: Duration = Duration::from_secs(10);

/// Notes what happens to PostgreSQL, and owns the task that tells it.
#[derive(Debug)]
pub(super) struct Callbacks {
    memory: CallbackMemory,
    queue: Option<mpsc::Sender<Vec<String>>>,
    task: JoinSet<()>,
}

impl Callbacks {
    pub(super) fn start() -> Self {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let mut task = JoinSet::new();
        task.spawn(work_off(waiting));
        Self { memory: CallbackMemory::default(), queue: Some(queue), task }
    }

    /// Queues what this observation and the decision on it are worth.
    pub(super) fn look(&mut self, o: &Observation, decision: &Decision, commands: &Commands) {
        for callback in self.memory.look(o, decision) {
            self.call(callback, &o.cluster.scope, commands);
        }
    }

    /// PostgreSQL was told to read its configuration again.
    pub(super) fn reloaded(&self, scope: &str, commands: &Commands) {
        if let Some(callback) = self.memory.reloaded() {
            self.call(callback, scope, commands);
        }
    }

    fn call(&self, Callback { event, role }: Callback, scope: &str, commands: &Commands) {
        let command = match event {
            CallbackEvent::Start => &commands.on_start,
            CallbackEvent::Stop => &commands.on_stop,
            CallbackEvent::Restart => &commands.on_restart,
            CallbackEvent::Reload => &commands.on_reload,
            CallbackEvent::RoleChange => &commands.on_role_change,
        };
        let Some(command) = command else { return };
        let event = event.as_str();
        let mut words = match split_words(command) {
            Ok(words) => words,
            Err(why) => {
                warn!("postgresql.callbacks.{event} cannot be split into words: {why}");
                return;
            }
        };
        words.extend([event, role.as_str(), scope].map(str::to_owned));
        let queued = self.queue.as_ref().map(|queue| queue.try_send(words));
        if let Some(Err(_)) = queued {
            warn!("{MOST_WAITING} callbacks wait already: {event} {} is not called", role.as_str());
        }
    }

    /// What waits gets a last chance.
    pub(super) async fn end(&mut self) {
        self.queue = None;
        let all = async { while self.task.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_CALLBACKS, all).await.is_err() {
            warn!("callbacks that have not ended within {} s are ended", LAST_CALLBACKS.as_secs());
        }
        self.task.shutdown().await;
    }
}

async fn work_off(mut waiting: mpsc::Receiver<Vec<String>>) {
    while let Some(words) = waiting.recv().await {
        let told = words.iter().rev().take(3).rev().cloned().collect::<Vec<_>>().join(" ");
        info!("calling {told}");
        match run_hook(&words, &[], LIMIT).await {
            Ok(()) => debug!("{told} succeeded"),
            Err(error) => warn!("callback {told}: {}", chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::CallbackRole;

    fn commands(script: &str) -> Commands {
        let command = Some(format!("sh -c '{script}' callback"));
        Commands { on_start: command.clone(), on_role_change: command, ..Commands::default() }
    }

    #[tokio::test]
    async fn two_events_in_one_go_are_both_told_in_order_with_their_words() {
        let directory = tempfile::tempdir().expect("directory");
        let log = directory.path().join("log");
        let commands = commands(&format!("sleep 0.05; echo \"$*\" >> {}", log.display()));
        let mut callbacks = Callbacks::start();
        for (event, role) in [
            (CallbackEvent::Start, CallbackRole::Replica),
            (CallbackEvent::RoleChange, CallbackRole::Primary),
            (CallbackEvent::Stop, CallbackRole::Primary),
            (CallbackEvent::RoleChange, CallbackRole::Demoted),
        ] {
            callbacks.call(Callback { event, role }, "batman", &commands);
        }
        callbacks.end().await;
        let told = std::fs::read_to_string(&log).expect("the log");
        let golden =
            "on_start replica batman\non_role_change primary batman\non_role_change demoted batman\n";
        assert_eq!(told, golden);
    }

    #[tokio::test]
    async fn one_that_fails_does_not_keep_the_next_from_its_turn() {
        let directory = tempfile::tempdir().expect("directory");
        let log = directory.path().join("log");
        let commands = commands(&format!("echo \"$1\" >> {}; exit 7", log.display()));
        let mut callbacks = Callbacks::start();
        for event in [CallbackEvent::Start, CallbackEvent::RoleChange] {
            callbacks.call(Callback { event, role: CallbackRole::Replica }, "s", &commands);
        }
        callbacks.end().await;
        assert_eq!(std::fs::read_to_string(&log).expect("the log"), "on_start\non_role_change\n");
    }
}
