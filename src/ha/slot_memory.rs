//! What is remembered of slots, which no server tells: which members have been away for how long, and which copied slots
//! are not known to be good yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::MemberKind;

use super::action::{Action, PgAction};
use super::decision::Decision;
use super::facts::{Fact, Observation};
use super::slot::SlotFacts;

/// A member that has not reported for so long is away.
const ABSENT_AFTER: Duration = Duration::from_secs(10);
/// So many names are remembered at most: more slots than that nobody has.
const MOST_NAMES: usize = 1024;

/// What no server tells of slots.
#[derive(Debug, Default)]
pub struct SlotMemory {
    /// When a member was heard of last, by the name of its slot.
    seen: BTreeMap<String, BootTime>,
    unready: BTreeSet<String>,
}

impl SlotMemory {
    /// What is to be known for a decision. After a restart of the daemon the time that members are away begins anew.
    pub fn facts(&mut self, o: &Observation) -> SlotFacts {
        let now = o.now;
        let mut members = BTreeSet::new();
        for (id, member) in &o.cluster.members {
            if member.kind != MemberKind::Data {
                continue;
            }
            let name = member.name.slot_name();
            let seen = match o.peers.get(id) {
                _ if *id == o.me => Some(now),
                Some(Fact::Known { age, .. }) => Some(BootTime(now.0.saturating_sub(*age))),
                Some(Fact::Unknown(_)) | None => None,
            };
            let known = self.seen.entry(name.clone()).or_insert(now);
            *known = seen.map_or(*known, |seen| seen.max(*known));
            members.insert(name);
        }
        let holder = o.cluster.lease.holder().and_then(|holder| o.peers.get(&holder)?.of_any_age());
        for name in holder.iter().flat_map(|report| &report.retained_slots) {
            if self.seen.len() < MOST_NAMES {
                self.seen.entry(name.clone()).or_insert(now);
            }
        }
        let ttl = o.policy.slots.member_ttl;
        self.seen.retain(|name, seen| members.contains(name) || now.since(*seen) < ttl);
        let away = self.seen.iter().map(|(name, seen)| (name.clone(), now.since(*seen)));
        let absent =
            away.filter(|(name, absent)| *absent >= ABSENT_AFTER || !members.contains(name)).collect();
        SlotFacts { absent, unready: self.unready.clone(), ..SlotFacts::default() }
    }

    /// Takes note of a decision which is about to be carried out.
    pub fn note(&mut self, decision: &Decision) {
        for action in &decision.actions {
            if let Action::Postgres(PgAction::CopySlots { slots, .. }) = action {
                self.unready.extend(slots.keys().cloned());
            }
        }
    }

    /// Copied slots that have become good for a failover: what decoding needs is kept for this standby by the primary.
    pub fn become_ready(&mut self, o: &Observation) -> Vec<String> {
        let Some(server) = o.postgres.server.of_any_age().filter(|_| !self.unready.is_empty()) else {
            return Vec::new();
        };
        let own = o.cluster.members.get(&o.me).map(|own| own.name.slot_name()).unwrap_or_default();
        let holder = o.cluster.lease.holder().filter(|holder| *holder != o.me);
        let report = holder.and_then(|holder| o.peers.get(&holder)?.of_any_age());
        let kept = report.and_then(|report| report.slots.get(&own)?.catalog_xmin);
        let is_ready = |name: &String| {
            let slot = server.slots.iter().find(|slot| slot.name == *name);
            let needed = slot.and_then(|slot| slot.catalog_xmin);
            needed.zip(kept).is_some_and(|(needed, kept)| !is_newer(kept, needed))
        };
        let ready: Vec<String> = self.unready.iter().filter(|name| is_ready(name)).cloned().collect();
        self.unready.retain(|name| !ready.contains(name));
        ready
    }

    /// Copied slots that had not become good when this server left recovery; told once.
    pub fn promoted(&mut self, o: &Observation) -> Vec<String> {
        let server = o.postgres.server.of_any_age().filter(|server| !server.is_in_recovery);
        let Some(server) = server.filter(|_| !self.unready.is_empty()) else { return Vec::new() };
        let names = std::mem::take(&mut self.unready);
        names.into_iter().filter(|name| server.slots.iter().any(|slot| slot.name == *name)).collect()
    }
}

/// Transaction ids go round: the nearer way decides.
fn is_newer(one: u32, other: u32) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_go_round() {
        assert!(is_newer(5, 4) && !is_newer(4, 5) && !is_newer(4, 4));
        assert!(is_newer(3, u32::MAX - 10) && !is_newer(u32::MAX - 10, 3));
    }
}
