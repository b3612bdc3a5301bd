//! Writes events into the replicated state, beside everything else.
//!
//! It never delays a decision, an action or the lease: an event is put into a queue, and a task of its own proposes it
//! when what it is about has had its time. While there is no Raft leader, events are kept, with the time at which they
//! happened; the oldest go first when there are too many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use pgherd_raft::Group;
use pgherd_raft::clock;
use pgherd_raft::group::Proposed;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Command, Event, Outcome};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::ha::{Decision, Notebook, Observation};

/// As many events wait at most: more than any outage brings, less than the replicated state keeps.
const MAX_WAITING: usize = 64;
/// An event that could not be recorded in this time is dropped.
const KEEP_TRYING: Duration = Duration::from_secs(15 * 60);
/// A takeover's own proposals go first.
const TAKEOVER_FIRST: Duration = Duration::from_millis(700);
/// A proposal that is not answered after this time is made again; the state keeps it once.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(3);
/// The pause before it is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// So many events may follow each other at once; after that, one a [`PACE`].
const BURST: u32 = 8;
/// The average at most: a node that changes its mind all the time must not fill the log.
const PACE: Duration = Duration::from_secs(1);
/// How long the end of the daemon waits for its last events to be recorded.
const LAST_WORDS: Duration = Duration::from_millis(800);

/// Notes what is worth it, and owns the task that records it.
#[derive(Debug)]
pub(super) struct Recorder {
    notebook: Notebook,
    waiting: Arc<Waiting>,
    task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Mutex<VecDeque<(BootTime, Event)>>,
    changed: Notify,
    /// Nothing more comes: what waits goes at once.
    ends: std::sync::atomic::AtomicBool,
}

impl Recorder {
    pub(super) fn start(group: Group) -> Self {
        let waiting = Arc::new(Waiting::default());
        let mut task = JoinSet::new();
        task.spawn(record(group, Arc::clone(&waiting)));
        Self { notebook: Notebook::default(), waiting, task }
    }

    /// Queues what this decision is worth.
    pub(super) fn look(&mut self, o: &Observation, decision: &Decision) {
        let events = self.notebook.look(o, decision);
        if events.is_empty() {
            return;
        }
        let since_1970 = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        for event in events {
            self.waiting.push(clock::now(), Event { at_ms, ..event });
        }
    }

    /// Gives what waits a last chance.
    pub(super) async fn end(&mut self) {
        self.waiting.ends.store(true, std::sync::atomic::Ordering::Relaxed);
        self.waiting.changed.notify_one();
        let all = async { while self.task.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, all).await.is_err() {
            self.task.shutdown().await;
            debug!("the last events were not recorded in time");
        }
    }
}

impl Waiting {
    fn push(&self, at: BootTime, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= MAX_WAITING {
            events.pop_front();
        }
        events.push_back((at, event));
        self.changed.notify_one();
    }

    fn first(&self) -> Option<(BootTime, Event)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    /// It may have been pushed out meanwhile.
    fn remove(&self, event: &Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.front().is_some_and(|(_, first)| first == event) {
            events.pop_front();
        }
    }

    fn is_ending(&self) -> bool {
        self.ends.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits so long, or less when the daemon ends meanwhile.
    async fn pause(&self, time: Duration) {
        let ends = async {
            while !self.is_ending() {
                self.changed.notified().await;
            }
        };
        if tokio::time::timeout(time, ends).await.is_err() {
            // The usual case: the daemon goes on.
        }
    }
}

async fn record(group: Group, waiting: Arc<Waiting>) {
    let mut pace = Pace::new(clock::now());
    loop {
        let Some((at, event)) = waiting.first() else {
            if waiting.is_ending() {
                return;
            }
            waiting.changed.notified().await;
            continue;
        };
        let age = clock::now().since(at);
        if age > KEEP_TRYING {
            warn!("not recorded in {} minutes: {}", KEEP_TRYING.as_secs() / 60, event.because);
            waiting.remove(&event);
            continue;
        }
        waiting.pause(TAKEOVER_FIRST.saturating_sub(age).max(pace.wait(clock::now()))).await;
        let command = Command::Record { event: event.clone() };
        match tokio::time::timeout(PROPOSAL_PATIENCE, group.propose(command)).await {
            Ok(Proposed::Outcome(Outcome::Applied)) => {
                pace.spend();
                waiting.remove(&event);
            }
            Ok(Proposed::Outcome(Outcome::Rejected(why))) => {
                debug!("an event was not recorded: {why} ({})", event.because);
                waiting.remove(&event);
            }
            Ok(Proposed::Unknown(_)) | Err(_) if waiting.is_ending() => return,
            Ok(Proposed::Unknown(_)) | Err(_) => waiting.pause(AGAIN).await,
        }
    }
}

/// A bucket of [`BURST`] events that fills by one a [`PACE`].
#[derive(Debug)]
struct Pace {
    left: u32,
    filled_at: BootTime,
}

impl Pace {
    fn new(now: BootTime) -> Self {
        Self { left: BURST, filled_at: now }
    }

    /// How long to wait before the next event.
    fn wait(&mut self, now: BootTime) -> Duration {
        while self.left < BURST && now.since(self.filled_at) >= PACE {
            self.left += 1;
            self.filled_at = self.filled_at.after(PACE);
        }
        if self.left >= BURST {
            self.filled_at = now;
        }
        if self.left > 0 { Duration::ZERO } else { PACE.saturating_sub(now.since(self.filled_at)) }
    }

    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use pgherd_raft::model::{Epoch, EventKind};

    use super::*;

    fn event(number: u64) -> Event {
        Event {
            at_ms: number,
            by: "node1".parse().expect("a name"),
            kind: EventKind::Refused,
            epoch: Epoch(1),
            rule: String::new(),
            because: String::new(),
            facts: Vec::new(),
            candidates: Vec::new(),
        }
    }

    #[test]
    fn the_oldest_of_too_many_goes() {
        let waiting = Waiting::default();
        for number in 0..=u64::try_from(MAX_WAITING).expect("small") {
            waiting.push(BootTime(Duration::ZERO), event(number));
        }
        assert_eq!(waiting.first().expect("some").1.at_ms, 1);
        waiting.remove(&event(0));
        assert_eq!(waiting.first().expect("some").1.at_ms, 1, "what went already takes nothing with it");
        waiting.remove(&event(1));
        assert_eq!(waiting.first().expect("some").1.at_ms, 2);
    }

    #[test]
    fn a_flood_becomes_one_event_a_second() {
        let at = |ms| BootTime(Duration::from_millis(ms));
        let mut pace = Pace::new(at(0));
        for _ in 0..BURST {
            assert_eq!(pace.wait(at(100)), Duration::ZERO);
            pace.spend();
        }
        assert_eq!(pace.wait(at(200)), Duration::from_millis(900));
        assert_eq!(pace.wait(at(1100)), Duration::ZERO);
        pace.spend();
        assert_eq!(pace.wait(at(1100)), PACE);
        assert_eq!(pace.wait(at(100_000)), Duration::ZERO);
        assert_eq!(pace.left, BURST);
    }
}
