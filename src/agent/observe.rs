//! Gathers an [`Observation`]. A late answer is unknown, not an error.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_raft::group::{GroupView, Phase};
use pgherd_raft::lease::{BootTime, Holder};
use pgherd_raft::model::{ClusterState, Epoch, Lease, MemberId, MemberKind, TimelineId};
use pgherd_raft::{Renewer, clock};
use tracing::{info, warn};

use super::Agent;
use super::licence::ExtendGuard;
use crate::guard::Guard;
use crate::ha::{
    Closes, Consensus, DataDir, Fact, GuardFacts, Health, LeaseFacts, MemberReport, Observation,
    PostgresFacts, SlotFacts, SyncNames,
};

/// The local PostgreSQL is given this long to show itself; its parts have shorter limits of their own.
const POSTGRES_PATIENCE: Duration = Duration::from_millis(1000);

impl Agent {
    /// Sees to it that there is a guard, and a renewer for its session.
    pub(super) async fn ensure_guard(&mut self) {
        if self.parts.guard.get().is_some_and(|guard| guard.watch().borrow().is_alive) {
            return;
        }
        self.replace_guard().await;
    }

    /// Attaches to the living guard, or starts one. The renewer of an earlier session ends first: it must not extend a
    /// deadline of another life.
    pub(super) async fn replace_guard(&mut self) {
        self.parts.renewer.end();
        self.parts.guard.set(None);
        self.guard_news = None;
        let guard = match Guard::ensure(&self.parts.data_dir, &self.parts.exe).await {
            Ok(guard) => guard,
            Err(error) => {
                // It is tried again several times a second; only news is worth a line.
                let trouble = super::jobs::chain(&error);
                if self.guard_trouble != trouble {
                    warn!("no guard: {trouble}");
                    self.guard_trouble = trouble;
                }
                return;
            }
        };
        self.guard_trouble.clear();
        for warning in guard.warnings() {
            warn!("guard: {warning}");
        }
        info!("the guard's session is {}", guard.session());
        let armed = guard_epoch(&guard);
        self.parts.group.guard_was_armed_for(armed);
        let mut holder = Holder::new(self.me, guard.session(), self.incarnation, self.given_up());
        holder.armed_for(armed);
        self.guard_news = Some(guard.watch());
        self.parts.guard.set(Some(guard));
        let slot = std::sync::Arc::clone(&self.parts.guard);
        let sink = ExtendGuard {
            slot,
            pulse: std::sync::Arc::clone(&self.pulse),
            told: false,
            wake: std::sync::Arc::clone(&self.wake),
            members: std::sync::Arc::clone(&self.parts.members),
            last: None,
        };
        match Renewer::start(&self.parts.group, holder, Box::new(sink)) {
            Ok(renewer) => self.parts.renewer.set(renewer),
            Err(error) => warn!("the renewal thread did not start: {error}"),
        }
    }

    /// Looks at everything. The replicated state is read last, so that it is the youngest.
    pub(super) async fn observe(&mut self) -> Observation {
        self.jobs.collect();
        self.collect_closes();
        self.cut_offs.collect();
        self.slots.collect();
        let mut postgres = self.observe_postgres().await;
        let view = std::sync::Arc::clone(&self.parts.group.watch().borrow());
        if view.phase == Phase::Member {
            self.known_at_start.get_or_insert(view.state.lease.epoch);
        }
        let now = clock::now();
        postgres.health = self.health.complete(self.parts.postgres.health(), &postgres, now);
        let policy = self.parts.policy.policy();
        let mut observation = Observation {
            now,
            me: self.me,
            consensus: Consensus {
                is_raft_leader: view.raft.is_raft_leader,
                raft_leader: view.raft.raft_leader,
                term: view.raft.term,
                voters: view.raft.voters.clone(),
                waiting_for: match &view.phase {
                    Phase::Founding { waiting_for } | Phase::Joining { waiting_for } => {
                        Some(waiting_for.clone())
                    }
                    Phase::Member | Phase::Refused(_) | Phase::StartAgain(_) | Phase::Failed(_) => None,
                },
            },
            lease: self.lease_facts(now),
            guard: self.guard_facts(now),
            postgres,
            peers: self.peers(&view.state.members, now),
            job: self.jobs.job(now),
            finished: self.jobs.finished(now),
            intent_for: self.intent_for(&view.state, now),
            shutting_down: self.shutting_down_since.is_some(),
            wall_ms: wall_ms(),
            operation: None,
            scheduled_restart: None,
            slots: SlotFacts::default(),
            policy,
            cluster: state_to_decide_on(&view),
        };
        observation.slots = self.slots.facts(&observation);
        observation
    }

    async fn observe_postgres(&mut self) -> PostgresFacts {
        let before = clock::now();
        if let Ok(facts) = tokio::time::timeout(POSTGRES_PATIENCE, self.parts.postgres.observe()).await {
            self.last_postgres = Some((facts.clone(), before));
            return facts;
        }
        let why = "PostgreSQL's files and processes could not be looked at in time";
        match &self.last_postgres {
            Some((facts, at)) => aged(facts.clone(), before.since(*at)),
            None => nothing_known(why),
        }
    }

    fn intent_for(&mut self, state: &ClusterState, now: BootTime) -> Duration {
        let pending = state.intent.as_ref().map(|pending| pending.id);
        let known = self.intent_seen.filter(|(id, _)| Some(*id) == pending);
        self.intent_seen = known.or(pending.map(|id| (id, now)));
        self.intent_seen.map_or(Duration::ZERO, |(_, since)| now.since(since))
    }

    fn lease_facts(&self, now: BootTime) -> LeaseFacts {
        let renewer = self.parts.renewer.facts();
        LeaseFacts {
            licence: renewer.licence,
            disputed: renewer.disputed,
            given_up: self.given_up(),
            known_at_start: self.known_at_start.unwrap_or(Epoch(u64::MAX)),
            quiet_for: self.parts.group.quiet_for(now),
            answering: renewer.answering,
            failsafe: renewer.failsafe,
            stands_back: self.parts.group.stands_back(now),
            cut_off: self.cut_offs.facts(now),
            closes: self.closes.as_ref().map(|(closes, at)| Closes { age: now.since(*at), ..closes.clone() }),
        }
    }

    fn guard_facts(&self, now: BootTime) -> Fact<GuardFacts> {
        match self.parts.guard.get() {
            Some(guard) if !self.parts.renewer.is_empty() => {
                guard.deadline().beat();
                let mut facts = guard.facts();
                if let Fact::Known { value, .. } = &mut facts {
                    value.watchdog = self.watchdog.facts(&guard, now);
                }
                facts
            }
            Some(_) => Fact::Unknown("the renewal thread does not run".to_owned()),
            None => Fact::Unknown("the guard process could not be started".to_owned()),
        }
    }

    fn peers(
        &self,
        members: &BTreeMap<MemberId, pgherd_raft::model::Member>,
        now: BootTime,
    ) -> BTreeMap<MemberId, Fact<MemberReport>> {
        let received = self.parts.group.reports();
        let data = members.iter().filter(|(id, member)| **id != self.me && member.kind == MemberKind::Data);
        data.map(|(id, _)| {
            let fact = match received.get(id) {
                Some(report) => match serde_json::from_slice(&report.bytes) {
                    Ok(value) => Fact::Known { value, age: now.since(report.at) },
                    Err(error) => Fact::Unknown(format!("its report cannot be read: {error}")),
                },
                None => Fact::Unknown("no report yet".to_owned()),
            };
            (*id, fact)
        })
        .collect()
    }
}

fn wall_ms() -> i64 {
    let since_1970 = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// The epoch for which the guard is armed; zero: it is not.
fn guard_epoch(guard: &Guard) -> Epoch {
    let facts = guard.facts();
    let armed = facts.of_any_age().filter(|facts| facts.deadline.is_some());
    armed.map(|facts| facts.epoch).unwrap_or_default()
}

/// The replicated state, once this node takes part. Before, what it has applied may be long out of date, and a lease
/// read from it would be a wrong reason to stop a primary: the guard alone watches over one that runs.
fn state_to_decide_on(view: &GroupView) -> ClusterState {
    match view.phase {
        Phase::Member => view.state.clone(),
        Phase::Founding { .. }
        | Phase::Joining { .. }
        | Phase::Refused(_)
        | Phase::StartAgain(_)
        | Phase::Failed(_) => ClusterState { group: None, lease: Lease::default(), ..view.state.clone() },
    }
}

/// Nothing was seen yet: a data directory that cannot be looked at is not empty.
fn nothing_known(why: &str) -> PostgresFacts {
    PostgresFacts {
        data_dir: DataDir::Initialised { has_backup_label: false, has_standby_signal: false },
        control: Fact::Unknown(why.to_owned()),
        process: Fact::Unknown(why.to_owned()),
        server: Fact::Unknown(why.to_owned()),
        configured_upstream: None,
        history: Vec::new(),
        never_ready: false,
        newest_history: TimelineId(0),
        has_old_data: false,
        sync_configured: SyncNames::Own,
        sync_in_use: None,
        left_stream: BTreeMap::new(),
        stalled_stream: BTreeMap::new(),
        fenced: Epoch(u64::MAX),
        health: Health::default(),
        pending_restart: BTreeMap::new(),
    }
}

/// The last facts, as old as they are by now.
fn aged(mut facts: PostgresFacts, by: Duration) -> PostgresFacts {
    fn older<T>(fact: &mut Fact<T>, by: Duration) {
        if let Fact::Known { age, .. } = fact {
            *age = age.saturating_add(by);
        }
    }
    older(&mut facts.control, by);
    older(&mut facts.process, by);
    older(&mut facts.server, by);
    facts
}
