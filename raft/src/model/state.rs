//! The replicated state: one value.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::event::RecordedEvent;
use super::history::TimelineEnd;
use super::ids::{GroupId, MemberId, SystemIdentifier};
use super::intent::{EndedIntent, PendingIntent};
use super::lease::Lease;
use super::member::{Member, MemberKind};
use super::schedule::ScheduledSwitchover;
use super::settings::{Settings, SettingsRecord};
use super::synchrony::{MAX_SETS, Synchrony};
use super::timelines::Timelines;

/// What the group agreed on. Only things on which agreement matters are here.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterState {
    /// The group's identity; none before it is founded.
    pub group: Option<GroupId>,
    /// The cluster's name.
    pub scope: String,
    /// The database system; none before the first bootstrap has ended.
    pub system_identifier: Option<SystemIdentifier>,
    /// Everybody who belongs to the cluster.
    pub members: BTreeMap<MemberId, Member>,
    /// Members which stopped cleanly or are about to: they have given their vote back, or ask to.
    pub leaving: BTreeSet<MemberId>,
    /// The licence to be primary.
    pub lease: Lease,
    /// The numbers which promotions may have given to timelines.
    #[serde(default)]
    pub timelines: Timelines,
    /// Synchronous replication.
    #[serde(default)]
    pub synchrony: Synchrony,
    /// Failsafe: the only members to which the lease may be granted; none: anybody.
    #[serde(default)]
    pub failsafe: Option<BTreeSet<MemberId>>,
    /// What happened and why, the oldest first.
    #[serde(default)]
    pub events: VecDeque<RecordedEvent>,
    /// The timelines that the cluster has left behind, the oldest first.
    #[serde(default)]
    pub history: Vec<TimelineEnd>,
    /// The cluster-wide configuration.
    pub settings: Settings,
    /// Its last revisions, the oldest first; the last one is in force.
    #[serde(default)]
    pub settings_history: VecDeque<SettingsRecord>,
    /// The operator's pending request.
    pub intent: Option<PendingIntent>,
    /// The operator's last request which ended.
    pub last_intent: Option<EndedIntent>,
    /// The switchover which is to begin later.
    #[serde(default)]
    pub scheduled_switchover: Option<ScheduledSwitchover>,
}

impl ClusterState {
    /// The member with this name.
    pub fn member_named(&self, name: &str) -> Option<(MemberId, &Member)> {
        self.members.iter().find(|(_, member)| member.name.as_str() == name).map(|(id, member)| (*id, member))
    }

    /// A member that can run PostgreSQL.
    pub fn is_data_member(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.kind == MemberKind::Data)
    }

    /// Members without a vote: they hear the holder's renewals, and their answers count nowhere.
    pub fn listeners(&self) -> impl Iterator<Item = MemberId> {
        self.members.iter().filter(|(_, member)| !member.votes).map(|(id, _)| *id)
    }

    /// This member never votes.
    pub fn is_listener(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| !member.votes)
    }

    /// May fences end the pin of the present epoch? Only when two words of an operator say so: the daemon of the holder
    /// was stopped while the cluster was paused, which it told before it ended, and the pause is over. Its PostgreSQL
    /// may run on and execute, but with the fences it can acknowledge nothing that waits for standbys.
    pub fn may_fence_pinned(&self) -> bool {
        let has_left = self.lease.holder().is_some_and(|holder| self.leaving.contains(&holder));
        has_left && !self.settings.may_be_paused()
    }

    /// The name of a member for a sentence; its id when it is not known.
    pub fn name_of(&self, id: MemberId) -> String {
        self.members.get(&id).map_or_else(|| id.to_string(), |member| member.name.to_string())
    }

    /// Broken invariants, each as a sentence; empty when all hold. Tests call it after every [`super::apply`].
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for member in self.members.values() {
            if !names.insert(&member.name) {
                found.push(format!("two members are named {}", member.name));
            }
            if !addresses.insert(&member.raft_addr) {
                found.push(format!("two members have the address {}", member.raft_addr));
            }
        }
        for voter in &self.lease.voters {
            if !self.members.contains_key(voter) {
                found.push(format!("lease voter {voter} is not a member"));
            }
        }
        if self.group.is_some() && self.lease.voters.is_empty() {
            found.push("the lease has no voters".to_owned());
        }
        if let Some(tenure) = &self.lease.tenure {
            if !self.is_data_member(tenure.holder) {
                found.push(format!("holder {} is not a data member", tenure.holder));
            }
            if tenure.wait_ms < tenure.ttl_ms {
                found.push("the wait before a close is shorter than the ttl".to_owned());
            }
            if self.lease.epoch.0 == 0 {
                found.push("a held lease has epoch 0".to_owned());
            }
        }
        if self.synchrony.sets.len() > MAX_SETS {
            found.push(format!("{} synchronous sets are in force", self.synchrony.sets.len()));
        }
        for fenced in self.synchrony.fences.keys() {
            if self.lease.holder() == Some(*fenced) {
                found.push(format!("the holder {fenced} is fenced"));
            }
        }
        found
    }
}
