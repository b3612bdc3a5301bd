//! Keeps replication slots, beside everything else: to move a logical slot on takes as long as decoding the WAL in
//! between, and the loop does not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::clock;
use super::slot_board::SlotBoard;
use crate::ha::{self, Decision, MemberReport, Observation, SlotFacts, SlotMemory, SlotStep};
use crate::postgres::Postgres;

/// A step that failed is tried again after so long, and a step more each time, up to the limit.
const RETRY_STEP: Duration = Duration::from_secs(2);
const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// A failure is forgotten after so long.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// What became of the steps: the slot, and why it did not succeed.
type Outcome = Vec<(String, Result<(), String>)>;

#[derive(Debug)]
struct Trouble {
    why: String,
    failures: u32,
    at: BootTime,
}

/// Owns the task that does the steps, and what is remembered of slots.
#[derive(Debug)]
pub(super) struct SlotKeeper {
    task: JoinSet<Outcome>,
    wake: Arc<Notify>,
    board: Arc<SlotBoard>,
    memory: SlotMemory,
    /// When positions were moved last.
    advanced: Option<BootTime>,
    troubles: BTreeMap<String, Trouble>,
    /// Unknown slots in use that were told.
    told: BTreeSet<String>,
}

impl SlotKeeper {
    pub(super) fn new(wake: Arc<Notify>, board: Arc<SlotBoard>) -> Self {
        Self {
            task: JoinSet::new(),
            wake,
            board,
            memory: SlotMemory::default(),
            advanced: None,
            troubles: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Does the steps, unless earlier ones are still being done. Positions are moved once in `loop_wait`, and what failed
    /// rests for a while.
    pub(super) fn start(&mut self, postgres: &Arc<Postgres>, steps: &[SlotStep], o: &Observation) {
        if !self.task.is_empty() {
            return;
        }
        let may_advance = self.advanced.is_none_or(|at| o.now.since(at) >= o.policy.loop_wait);
        let is_due =
            |step: &&SlotStep| (may_advance || !step.is_advance()) && !self.rests(step.name(), o.now);
        let steps: Vec<SlotStep> = steps.iter().filter(is_due).cloned().collect();
        if steps.is_empty() {
            return;
        }
        if steps.iter().any(SlotStep::is_advance) {
            self.advanced = Some(o.now);
        }
        let (postgres, wake) = (Arc::clone(postgres), Arc::clone(&self.wake));
        self.task.spawn(async move {
            let outcome = postgres.keep_slots(&steps).await;
            wake.notify_one();
            outcome
        });
    }

    fn rests(&self, name: &str, now: BootTime) -> bool {
        self.troubles.get(name).is_some_and(|trouble| {
            now.since(trouble.at) < RETRY_STEP.saturating_mul(trouble.failures).min(RETRY_LIMIT)
        })
    }

    /// Takes note of what became of the steps.
    pub(super) fn collect(&mut self) {
        let now = clock::now();
        while let Some(joined) = self.task.try_join_next() {
            let outcome = joined.unwrap_or_else(|broken| {
                warn!("keeping replication slots broke: {broken}");
                Vec::new()
            });
            for (name, result) in outcome {
                match result {
                    Ok(()) => drop(self.troubles.remove(&name)),
                    Err(why) => self.failed(name, why, now),
                }
            }
        }
        self.troubles.retain(|_, trouble| now.since(trouble.at) < FORGOTTEN);
    }

    fn failed(&mut self, name: String, why: String, now: BootTime) {
        let before = self.troubles.get(&name);
        if before.is_none_or(|before| before.why != why) {
            warn!("replication slot '{name}': {why}");
        }
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        self.troubles.insert(name, Trouble { why, failures, at: now });
    }

    /// What is remembered, for a decision.
    pub(super) fn facts(&mut self, o: &Observation) -> SlotFacts {
        let facts = self.memory.facts(o);
        self.board.complete(facts, o.cluster.lease.holder(), o.now)
    }

    /// Shows the positions to the REST API's questions.
    pub(super) fn publish(&self, report: &MemberReport) {
        self.board.publish(report.slots.iter().map(|(name, slot)| (name.clone(), slot.lsn.0)).collect());
    }

    /// Says what an operator should know.
    pub(super) fn tell(&mut self, o: &Observation, decision: &Decision) {
        self.memory.note(decision);
        for name in self.memory.become_ready(o) {
            info!("Logical slot {name} is safe to be used after a failover");
        }
        let unsafe_ones = self.memory.promoted(o);
        if !unsafe_ones.is_empty() {
            let names = unsafe_ones.join(", ");
            warn!("Logical replication slots that might be unsafe to use after promote: {names}");
        }
        let in_use = ha::unknown_in_use(o);
        for name in in_use.difference(&self.told) {
            warn!("Unable to drop replication slot '{name}', slot is active");
        }
        self.told = in_use;
    }

    pub(super) async fn end(&mut self) {
        self.task.shutdown().await;
    }
}
