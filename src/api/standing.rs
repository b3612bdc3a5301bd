//! What may be said of this node at this moment: the last view, judged by the clock and the renewer's present licence.

use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::RenewerFacts;
use pgherd_raft::clock;
use pgherd_raft::lease::{BootTime, Licence, patience};
use pgherd_raft::model::{Lsn, MemberId};

use crate::agent::view::View;
use crate::ha::{Process, SERVER_FRESH, Server, State, SyncMode, holds_pinned, is_pause_in_force, streams};

/// The agent observes about each second. A view older than this says nothing about a stream any more.
const VIEW_FRESH: Duration = Duration::from_secs(5);

/// What a standby is to the primary's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncRole {
    /// Synchronous mode `on`, and in a set in force.
    Sync,
    /// Synchronous mode `quorum`, and in a set in force.
    Quorum,
}

/// A view at the moment of an answer.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) view: Arc<View>,
    pub(super) now: BootTime,
    licence: Option<Licence>,
    rests_on_promises: bool,
    has_ended: bool,
}

impl Standing {
    /// Judges a view by the renewer's facts and the clock of this moment.
    pub(super) fn new(view: Arc<View>, renewer: RenewerFacts, now: BootTime) -> Self {
        let licence = renewer.licence.filter(|won| won.epoch > renewer.given_up && won.deadline > now);
        let record = &view.observation.cluster.lease;
        let is_mine = record.holder() == Some(view.observation.me);
        // The licence is the proof. The view's record may be one wake-up of the agent older than it.
        let licence = licence.filter(|won| is_mine || won.epoch > record.epoch);
        let rests_on_promises = licence.is_some() && renewer.failsafe.rests_on_promises;
        Self { view, now, licence, rests_on_promises, has_ended: false }
    }

    /// The same, but the postmaster of the view has ended since: nobody is sent to it any more.
    pub(super) fn with_ended_server(self) -> Self {
        Self { has_ended: true, ..self }
    }

    /// The licence to write, if it is good at this moment.
    pub(super) fn licence(&self) -> Option<Licence> {
        self.licence
    }

    /// Failsafe is what keeps the primary: here, or because this node stands back for it.
    pub(super) fn is_failsafe_active(&self) -> bool {
        let promise = self.view.observation.stands_back_for(self.now);
        self.rests_on_promises || promise.is_some()
    }

    /// What the server said by SQL, however old.
    pub(super) fn server(&self) -> Option<&Server> {
        self.view.observation.postgres.server.of_any_age().filter(|_| self.is_running())
    }

    /// What it said lately: what documents show. Older figures are left out rather than shown as if they were present.
    pub(super) fn recent_server(&self) -> Option<&Server> {
        let is_recent = self.view.observation.postgres.server.within(SERVER_FRESH).is_some();
        self.server().filter(|_| is_recent && self.age() <= VIEW_FRESH)
    }

    /// The postmaster runs.
    pub(super) fn is_running(&self) -> bool {
        let seen = self.view.observation.postgres.process.of_any_age();
        !self.has_ended && matches!(seen, Some(Process::Running { .. }))
    }

    /// Clients may write here: the lease is proved, or pinned here, and PostgreSQL runs as a primary which is complete. A server which does not answer by
    /// SQL for the moment (a full connection table) stays what it was.
    pub(super) fn is_primary(&self) -> bool {
        let is_writable = match (self.server(), self.view.decision.state) {
            (_, State::Bootstrapping | State::Draining | State::Demoting | State::Stopping) => false,
            (Some(server), _) => !server.is_in_recovery,
            (None, state) => state == State::Primary && self.is_running(),
        };
        (self.licence.is_some() || holds_pinned(&self.view.observation)) && is_writable
    }

    /// Is this the primary as far as clients may be told? Where synchronous standbys can silence a holder before its lease
    /// ends, a holder that renewed nothing for their patience may have been replaced: it runs on, but is not recommended. A pinned lease is not
    /// taken over.
    pub(super) fn takes_clients(&self) -> bool {
        let observation = &self.view.observation;
        let may_be_silenced =
            observation.policy.sync.fast_failover && observation.cluster.synchrony.can_silence();
        let ttl =
            observation.cluster.lease.tenure.as_ref().map(|tenure| Duration::from_millis(tenure.ttl_ms));
        let patience = patience(ttl.unwrap_or(observation.policy.ttl));
        let is_recent = self.licence.is_some_and(|won| self.now.since(won.sent) <= patience);
        self.is_primary() && (is_recent || !may_be_silenced || holds_pinned(observation))
    }

    /// What a member is to the holder's commits, as the replicated sets and the mode say; none: nothing.
    pub(super) fn sync_role(&self, id: MemberId) -> Option<SyncRole> {
        let observation = &self.view.observation;
        let name = &observation.cluster.members.get(&id)?.name;
        if self.holder() == Some(id) || !observation.cluster.synchrony.includes(name) {
            return None;
        }
        match observation.policy.sync.mode {
            SyncMode::Off => None,
            SyncMode::On => Some(SyncRole::Sync),
            SyncMode::Quorum => Some(SyncRole::Quorum),
        }
    }

    /// Is what this node knows of the cluster young enough to say who is synchronous? As in Patroni, for a ttl after the
    /// last contact.
    pub(super) fn knows_cluster(&self) -> bool {
        let observation = &self.view.observation;
        let seen = self.view.consensus_seen.and_then(|seen| clock::wall().duration_since(seen).ok());
        observation.consensus.raft_leader.is_some() || seen.is_some_and(|ago| ago <= observation.policy.ttl)
    }

    /// What this node is to the holder's commits, while its PostgreSQL is a standby.
    pub(super) fn own_sync_role(&self) -> Option<SyncRole> {
        let is_standby = self.server().is_some_and(|server| server.is_in_recovery);
        self.sync_role(self.view.observation.me).filter(|_| is_standby)
    }

    /// A standby which streams, as far as a fresh answer of the server says.
    pub(super) fn streaming_server(&self) -> Option<&Server> {
        let ends = matches!(
            self.view.decision.state,
            State::Draining | State::Demoting | State::Stopping | State::Promoting
        );
        let fresh = self.view.observation.postgres.server.within(SERVER_FRESH);
        let is_recent = self.age() <= VIEW_FRESH;
        fresh.filter(|server| self.is_running() && !ends && is_recent && streams(server))
    }

    /// The agent's loop turns: the next observation is not overdue by more than the ttl (twice that, without lease). While
    /// automation is off, nothing depends on it.
    pub(super) fn is_alive(&self) -> bool {
        if is_pause_in_force(&self.view.observation) {
            return true;
        }
        let ttl = self.view.observation.policy.ttl;
        let patience = if self.licence.is_some() { ttl } else { ttl * 2 };
        self.now <= self.view.at().after(self.view.decision.wake_in + patience)
    }

    /// How old the view is.
    pub(super) fn age(&self) -> Duration {
        self.now.since(self.view.at())
    }

    /// The member which the record of the lease names.
    pub(super) fn holder(&self) -> Option<MemberId> {
        self.view.observation.cluster.lease.holder()
    }

    /// The last known write position of the holder.
    pub(super) fn holder_position(&self) -> Option<Lsn> {
        let observation = &self.view.observation;
        let holder = self.holder()?;
        if holder == observation.me {
            return observation.postgres.server.of_any_age().map(|server| server.position.lsn);
        }
        Some(observation.peers.get(&holder)?.of_any_age()?.position?.lsn)
    }
}
