//! What the agent remembers of the local PostgreSQL's health, and which probes run.

use std::collections::VecDeque;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::WalPosition;

use super::Agent;
use crate::ha::{
    Action, CRASH_LOOP, CRASH_WINDOW, Condemned, ControlState, DataDir, Decision, Health, Observation,
    PgAction, PostgresFacts, Process, Rule,
};
use crate::postgres::Probing;

/// What no probe tells.
#[derive(Debug, Default)]
pub(super) struct Memory {
    crashes: VecDeque<BootTime>,
    last_position: Option<WalPosition>,
    condemned: Option<Condemned>,
    stood_down: Option<BootTime>,
}

impl Memory {
    /// The probes' findings with what is remembered.
    pub(super) fn complete(&mut self, found: Health, facts: &PostgresFacts, now: BootTime) -> Health {
        if let Some(server) = facts.server.of_any_age().filter(|server| !server.is_in_recovery) {
            self.last_position = Some(server.position);
        } else if may_be_standby(facts) {
            self.last_position = None;
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
    pub(super) fn note(&mut self, o: &Observation, decision: &Decision) {
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
            if state == Some(ControlState::InProduction) && self.condemned.is_none() {
                self.crashes.push_back(o.now);
            }
            while self.crashes.len() > CRASH_LOOP {
                self.crashes.pop_front();
            }
            self.condemned = None;
        }
    }
}

fn may_be_standby(facts: &PostgresFacts) -> bool {
    matches!(facts.data_dir, DataDir::Initialised { has_standby_signal: true, .. })
}

impl Agent {
    /// Tells the probes what this node's PostgreSQL is supposed to be.
    pub(super) fn direct_probes(&self, o: &Observation) {
        let runs = matches!(o.postgres.process.of_any_age(), Some(Process::Running { .. }));
        let leads = o.cluster.lease.holder() == Some(self.me) && !may_be_standby(&o.postgres);
        let limit = o.policy.primary_health_timeout;
        let probing = match (runs && limit > Duration::ZERO, leads) {
            (false, _) => Probing::Off,
            (true, false) => Probing::Disk,
            (true, true) => Probing::Primary,
        };
        self.parts.postgres.probe(probing, limit);
    }
}
