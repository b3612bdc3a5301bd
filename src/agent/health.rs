//! Which probes of the local PostgreSQL run.

use std::time::Duration;

use super::Agent;
use crate::ha::{Observation, Process, may_be_standby};
use crate::postgres::Probing;

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
