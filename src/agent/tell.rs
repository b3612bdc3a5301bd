//! What is said beside the decisions, in the words that operators of Patroni look for.

use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Epoch, MemberId, WalPosition, iso_time};
use tracing::{info, warn};

use super::Agent;
use crate::ha::{self, Decision, Due, Observation, Rule};

/// Who held the lease when this node looked last, and what was said about not taking it.
#[derive(Debug, Default)]
pub(super) struct Race {
    holder: Option<MemberId>,
    is_told: bool,
    /// Whose name was said last as that of the lease's holder.
    owner_told: Option<Option<MemberId>>,
    /// What a standby had when it missed the holder, and whether that it grew was said.
    received: Option<(Epoch, WalPosition, bool)>,
}

impl Race {
    /// What a standby says when it finds another member with the lease and has not said yet why it did not take it
    /// itself: the lease may have changed hands between two looks.
    fn look(&mut self, o: &Observation, decision: &Decision) -> Option<String> {
        self.is_told |= ha::LOST_RACE.iter().any(|words| decision.because.contains(words));
        let holder = o.cluster.lease.holder()?;
        let before = self.holder.replace(holder)?;
        if before == holder {
            return None;
        }
        let was_told = std::mem::take(&mut self.is_told);
        if was_told || before == o.me { None } else { ha::lost_race(o) }
    }

    /// Who holds the lease, when that is not what was said last.
    fn new_owner(&mut self, o: &Observation) -> Option<String> {
        let own = &o.cluster.members.get(&o.me)?.name;
        let holder = o.cluster.lease.holder();
        if self.owner_told.replace(holder) == Some(holder) {
            return None;
        }
        let owner = holder.map_or_else(|| "None".to_owned(), |holder| o.cluster.name_of(holder));
        Some(format!("Lock owner: {owner}; I am {own}"))
    }

    /// Does the WAL of a holder that is missed still come? Nobody takes over before its lease has ended; where
    /// `primary_race_backoff` is set, that is said once.
    fn still_receives(&mut self, o: &Observation, decision: &Decision) -> bool {
        let at = o.postgres.server.of_any_age().map(|server| server.position);
        let Some(at) = at.filter(|_| decision.rule == Rule::Suspect) else {
            self.received = None;
            return false;
        };
        let epoch = o.cluster.lease.epoch;
        let (_, before, was_told) =
            self.received.filter(|(of, ..)| *of == epoch).unwrap_or((epoch, at, false));
        let moved = at > before;
        self.received = Some((epoch, at, was_told || moved));
        moved && !was_told
    }
}

impl Agent {
    pub(super) fn tell(&mut self, o: &Observation, decision: &Decision) {
        if let Some(owner) = self.race.new_owner(o) {
            info!("{owner}");
        }
        if let Some(why) = self.race.look(o, decision) {
            info!("{why}");
        }
        if self.race.still_receives(o, decision) && !self.parts.policy.primary_race_backoff().is_zero() {
            info!("wal position moved since last heart beat loop");
        }
        let is_alone = ha::is_strict_and_alone(o);
        if is_alone && !self.is_alone_told {
            warn!("{}", ha::STRICT_ALONE);
        }
        self.is_alone_told = is_alone;
        self.tell_schedule(o);
    }

    fn tell_schedule(&mut self, o: &Observation) {
        let holds = o.cluster.lease.holder() == Some(o.me) && !ha::is_paused(o);
        let Some(schedule) = o.cluster.scheduled_switchover.filter(|_| holds) else { return };
        let Due::In(rest) = ha::due(o, schedule.at_ms) else { return };
        let is_due = |(at, told): (i64, BootTime)| {
            at != schedule.at_ms || o.now.since(told) >= o.policy.loop_wait.max(Duration::from_secs(1))
        };
        if rest > o.policy.loop_wait && self.schedule_told.is_none_or(is_due) {
            info!("Awaiting switchover at {} (in {} seconds)", iso_time(schedule.at_ms), rest.as_secs());
            self.schedule_told = Some((schedule.at_ms, o.now));
        }
    }
}
