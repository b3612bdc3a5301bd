//! What is remembered of the local PostgreSQL's health, which no probe tells: the daemon and the simulation use it.

use std::collections::VecDeque;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::WalPosition;

use super::action::{Action, PgAction};
use super::decision::Decision;
use super::facts::{ControlState, DataDir, Observation, PostgresFacts, Process};
use super::health::{CRASH_LOOP, CRASH_WINDOW, Condemned, Health};
use super::rule::Rule;

/// What no probe tells.
#[derive(Debug, Default)]
pub struct HealthMemory {
    crashes: VecDeque<BootTime>,
    /// The present end of the postmaster is counted: the attempts to start another one are not.
    is_counted: bool,
    last_position: Option<WalPosition>,
    condemned: Option<Condemned>,
    stood_down: Option<BootTime>,
}

impl HealthMemory {
    /// The probes' findings with what is remembered.
    pub fn complete(&mut self, found: Health, facts: &PostgresFacts, now: BootTime) -> Health {
        if let Some(server) = facts.server.of_any_age().filter(|server| !server.is_in_recovery) {
            self.last_position = Some(server.position);
        } else if may_be_standby(facts) {
            self.last_position = None;
        }
        if matches!(facts.process.of_any_age(), Some(Process::Running { .. })) {
            self.is_counted = false;
        }
        self.crashes.retain(|at| now.since(*at) <= CRASH_WINDOW);
        Health {
            crashes: self.crashes.iter().map(|at| now.since(*at)).collect(),
            last_position: self.last_position,
            condemned: self.condemned.clone(),
            stood_down: self.stood_down.map(|at| now.since(at)),
            ..found
        }
    }

    /// Takes note of a decision which is about to be carried out.
    pub fn note(&mut self, o: &Observation, decision: &Decision) {
        if decision.rule == Rule::Sick && !decision.actions.is_empty() {
            let (epoch, why) = (o.cluster.lease.epoch, decision.because.clone());
            self.condemned = Some(Condemned { epoch, why });
            self.stood_down = Some(o.now);
            self.crashes.clear();
        }
        let starts = |action: &Action| *action == Action::Postgres(PgAction::StartPrimary);
        if o.job.is_none() && decision.actions.iter().any(starts) {
            let state = o.postgres.control.of_any_age().map(|control| control.state);
            // A server that the guard killed for its deadline did not end by itself, but its epoch has ended, too.
            if state == Some(ControlState::InProduction) && self.condemned.is_none() && !self.is_counted {
                self.crashes.push_back(o.now);
                self.is_counted = true;
            }
            while self.crashes.len() > CRASH_LOOP {
                self.crashes.pop_front();
            }
            self.condemned = None;
        }
    }
}

/// A server with this data directory does not write, or is about to be told so.
pub fn may_be_standby(facts: &PostgresFacts) -> bool {
    matches!(facts.data_dir, DataDir::Initialised { has_standby_signal: true, .. })
}
