//! Who can acknowledge a commit, and who has stopped doing so: the synchronous sets in force, and the fences.
//!
//! A primary waits for `needed` of the names of its `synchronous_standby_names`. What it may be using is agreed here
//! before it uses it, and leaves only after it was seen to use the next one: several sets may be in force at once, and
//! whoever wants to take over must reckon with each of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ids::{MemberId, MemberName};
use super::lsn::WalPosition;

/// The most sets in force at once. Each change that was interrupted leaves one, and take-overs may follow each other before
/// any of them settles; a new primary under whose first set nobody acknowledges must still have room for the next.
pub const MAX_SETS: usize = 32;

/// The names that can acknowledge a commit, and how many of them must (`ANY needed (names)`).
///
/// `needed` above the number of names: nobody can acknowledge at all (strict mode without a standby). Zero: the
/// primary acknowledges alone (asynchronous).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SyncSet {
    /// `application_name` of each standby: the member's name.
    pub names: BTreeSet<MemberName>,
    /// How many must have flushed a commit before the client is told.
    pub needed: usize,
}

impl SyncSet {
    /// The primary acknowledges alone.
    pub fn is_asynchronous(&self) -> bool {
        self.needed == 0
    }

    /// As many fences of its names leave fewer than `needed` that could acknowledge, and meet every set of names that
    /// has acknowledged.
    pub fn fences_needed(&self) -> usize {
        (self.names.len() + 1).saturating_sub(self.needed)
    }
}

/// Synchronous replication as agreed.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Synchrony {
    /// The number of changes of `sets`: a change names the number which it replaces, so that a late one does nothing.
    pub revision: u64,
    /// Every set under which a commit may have been acknowledged that a standby might not have. Empty: as if it held
    /// the asynchronous set alone. The last one is that to which the holder's PostgreSQL may go: a late end of the change
    /// before it has another revision, so it cannot take this one away.
    pub sets: Vec<SyncSet>,
    /// Standbys which follow nobody for the rest of the epoch, with the position that they had flushed after their
    /// walreceiver had ended.
    pub fences: BTreeMap<MemberId, WalPosition>,
}

impl Synchrony {
    /// Is any commit acknowledged only after a standby has it?
    pub fn needs_standbys(&self) -> bool {
        self.sets.iter().any(|set| !set.is_asynchronous())
    }

    /// Do fences alone silence the holder? Not while it may acknowledge without anybody.
    pub fn can_silence(&self) -> bool {
        !self.sets.is_empty() && self.sets.iter().all(|set| !set.is_asynchronous())
    }

    /// Is this name in a set in force?
    pub fn includes(&self, name: &MemberName) -> bool {
        self.sets.iter().any(|set| set.names.contains(name))
    }

    /// Is this set in force?
    pub fn is_in_force(&self, set: &SyncSet) -> bool {
        self.sets.contains(set) || self.sets.is_empty() && set.is_asynchronous()
    }

    /// May PostgreSQL begin to use this set?
    pub fn is_target(&self, set: &SyncSet) -> bool {
        self.sets.last().map_or(set.is_asynchronous(), |last| last == set)
    }

    /// The first set that lacks fences, with the number that it lacks; none: every acknowledged commit is below the
    /// highest fenced position. `name_of` maps a member to its name.
    pub fn unfenced(&self, name_of: impl Fn(MemberId) -> Option<MemberName>) -> Option<(&SyncSet, usize)> {
        let fenced: BTreeSet<MemberName> = self.fences.keys().filter_map(|id| name_of(*id)).collect();
        let lacks =
            |set: &SyncSet| set.fences_needed().saturating_sub(set.names.intersection(&fenced).count());
        let mut waiting = self.sets.iter().filter(|set| !set.is_asynchronous());
        waiting.find_map(|set| Some(lacks(set)).filter(|lacking| *lacking > 0).map(|lacking| (set, lacking)))
    }

    /// The highest fenced position.
    pub fn highest_fence(&self) -> Option<WalPosition> {
        self.fences.values().max().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &str, needed: usize) -> SyncSet {
        let names = names.chars().map(|c| c.to_string().parse().expect("valid")).collect();
        SyncSet { names, needed }
    }

    #[test]
    fn as_many_fences_as_meet_every_acknowledging_set() {
        assert_eq!(set("b", 1).fences_needed(), 1);
        assert_eq!(set("bc", 1).fences_needed(), 2);
        assert_eq!(set("bc", 2).fences_needed(), 1);
        assert_eq!(set("bcde", 2).fences_needed(), 3);
        assert_eq!(set("", 1).fences_needed(), 0, "nobody can acknowledge");
    }
}
