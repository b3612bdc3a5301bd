//! The daemon of one node: what the agent, the renewal thread and the group's tasks do around the pure parts, in the
//! same order, with the same limits. Everything here is volatile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ha::{
    Closes, Finished, HealthMemory, Job, JobKind, JobMemory, JobRun, MemberReport, PgAction, Rule, State,
};
use crate::lease::{BootTime, Holder, Licence, Promise, Voter};
use crate::model::{ClusterState, Epoch, Incarnation, MemberId, Session};
use crate::network::Message;

use crate::streams::SyncUse;

/// One life of the daemon.
pub(crate) struct Daemon {
    pub(crate) incarnation: Incarnation,
    pub(crate) voter: Voter,
    /// How much of the log it has applied.
    pub(crate) applied: usize,
    /// It has applied what was agreed on before it started: until then it decides nothing about the lease.
    pub(crate) takes_part: bool,
    /// The epoch of the record then.
    pub(crate) known_at_start: Epoch,
    pub(crate) holder: Option<(Session, Holder)>,
    pub(crate) next_round: BootTime,
    pub(crate) next_report: BootTime,
    pub(crate) next_heartbeat: BootTime,
    pub(crate) next_decision: BootTime,
    pub(crate) jobs: Jobs,
    /// The proposal that is waited for: its number, since when.
    pub(crate) proposal: Option<(u64, BootTime)>,
    pub(crate) closing: Option<Closing>,
    pub(crate) closes: Option<(Closes, BootTime)>,
    pub(crate) reports: BTreeMap<MemberId, (BootTime, MemberReport)>,
    pub(crate) published: Option<MemberReport>,
    /// The pending request of an operator, and when this daemon learned of it.
    pub(crate) intent_seen: std::cell::Cell<Option<(u64, BootTime)>>,
    pub(crate) shutting_down: bool,
    pub(crate) promise: Promise,
    /// The group knows of it, and not as of one that left.
    pub(crate) is_welcome: bool,
    pub(crate) next_join: BootTime,
    pub(crate) next_lead: BootTime,
    /// Its vote is being given back, until this time at most.
    pub(crate) leaves_until: Option<BootTime>,
    pub(crate) memory: std::cell::RefCell<HealthMemory>,
    /// Answers that wait for the consensus disk.
    pub(crate) held: Vec<Held>,
    pub(crate) sync_use: Option<SyncUse>,
    pub(crate) streamed_at: BTreeMap<usize, BootTime>,
    /// What a mutant believes to have won.
    pub(crate) mutated: Option<Licence>,
    /// The last decision as the log would show it.
    pub(crate) logged: Option<(State, Rule)>,
}

/// An answer that may not leave before the floor is durable.
pub(crate) struct Held {
    pub(crate) to: usize,
    pub(crate) floor: Epoch,
    pub(crate) message: Message,
}

/// A round of questions to the voters.
pub(crate) struct Closing {
    pub(crate) number: u64,
    pub(crate) since: BootTime,
    pub(crate) asked: usize,
    pub(crate) answered: usize,
    pub(crate) answers: Closes,
}

/// A voter which has not answered a close after this time is not waited for.
const CLOSE_PATIENCE: Duration = Duration::from_millis(400);

impl Daemon {
    pub(crate) fn new(incarnation: Incarnation, floor: Epoch, applied: usize, now: BootTime) -> Self {
        Self {
            incarnation,
            voter: Voter::new(floor, now),
            applied,
            takes_part: false,
            known_at_start: Epoch(u64::MAX),
            holder: None,
            next_round: now,
            next_report: now,
            next_heartbeat: now,
            next_decision: now,
            jobs: Jobs::default(),
            proposal: None,
            closing: None,
            closes: None,
            reports: BTreeMap::new(),
            published: None,
            intent_seen: std::cell::Cell::default(),
            shutting_down: false,
            promise: Promise::new(MemberId(0), Duration::ZERO, now),
            is_welcome: false,
            next_join: now,
            next_lead: now,
            leaves_until: None,
            memory: std::cell::RefCell::default(),
            held: Vec::new(),
            sync_use: None,
            streamed_at: BTreeMap::new(),
            mutated: None,
            logged: None,
        }
    }

    pub(crate) fn intent_for(&self, cluster: &ClusterState, now: BootTime) -> Duration {
        let pending = cluster.intent.as_ref().map(|pending| pending.id);
        let known = self.intent_seen.get().filter(|(id, _)| Some(*id) == pending);
        self.intent_seen.set(known.or(pending.map(|id| (id, now))));
        self.intent_seen.get().map_or(Duration::ZERO, |(_, since)| now.since(since))
    }

    pub(crate) fn wake(&mut self, now: BootTime) {
        self.next_decision = self.next_decision.min(now);
    }

    /// Ends a round of questions when a majority is willing, all have answered, or time is over.
    pub(crate) fn finish_closing(&mut self, now: BootTime) {
        let Some(closing) = &self.closing else { return };
        let answers = &closing.answers;
        let willing = answers.would.len() + answers.closed.len() + answers.silent.len();
        let over = willing * 2 > closing.asked
            || closing.answered >= closing.asked
            || now.since(closing.since) >= CLOSE_PATIENCE;
        if !over {
            return;
        }
        let is_answered = closing.answered * 2 > closing.asked;
        let (earlier, ago) = self.closes.as_ref().map(|(old, at)| (old, now.since(*at))).unzip();
        let answers =
            Closes { is_answered, ..closing.answers.clone() }.after(earlier, ago.unwrap_or_default());
        self.closes = Some((answers, now));
        self.closing = None;
        self.wake(now);
    }

    pub(crate) fn licence(&self) -> Option<Licence> {
        let won = self.holder.as_ref().and_then(|(_, holder)| holder.licence());
        won.map(|won| self.mutated.filter(|mutated| mutated.epoch == won.epoch).unwrap_or(won))
    }

    pub(crate) fn answering(&self) -> BTreeSet<MemberId> {
        self.holder.as_ref().map(|(_, holder)| holder.answering()).unwrap_or_default()
    }
}

/// The long action in progress.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) run: JobRun,
    pub(crate) action: PgAction,
    /// True time at which a tool ends.
    pub(crate) ends_at: u64,
    /// The tool fails at its end.
    pub(crate) fails: bool,
}

/// The long actions: at most one runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) running: Option<Running>,
    memory: JobMemory,
}

impl Jobs {
    /// May this action begin? One that runs already goes on; only a stop takes the place of another.
    pub(crate) fn makes_way(&mut self, action: &PgAction, kind: JobKind, now: BootTime) -> bool {
        let Some(running) = &self.running else { return true };
        if running.action == *action || kind != JobKind::Stop {
            return false;
        }
        self.memory.note_cut_short(running.run, now);
        self.running = None;
        true
    }

    pub(crate) fn end(&mut self, error: Option<String>, now: BootTime) {
        if let Some(running) = self.running.take() {
            self.memory.note(running.run, error, now);
        }
    }

    pub(crate) fn job(&self, now: BootTime) -> Option<Job> {
        self.running.as_ref().map(|running| Job {
            kind: running.run.kind,
            running_for: now.since(running.run.since),
            detail: format!("{:?}", running.run.kind),
        })
    }

    pub(crate) fn finished(&self, now: BootTime) -> BTreeMap<JobKind, Finished> {
        self.memory.finished(now)
    }
}
