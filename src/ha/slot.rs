//! Replication slots: what there is, what is wanted, and the steps from one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_raft::model::Lsn;
use serde::{Deserialize, Serialize};

/// A replication slot of the local server that is not temporary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// `slot_name`.
    pub name: String,
    /// What it is for.
    pub kind: SlotKind,
    /// Somebody streams through it.
    pub is_active: bool,
    /// `restart_lsn`; none: it keeps no WAL yet.
    pub restart: Option<Lsn>,
    /// `confirmed_flush_lsn` of a logical slot.
    pub confirmed: Option<Lsn>,
    /// `xmin`.
    pub xmin: Option<u32>,
    /// `catalog_xmin`.
    pub catalog_xmin: Option<u32>,
    /// WAL which it needs is gone, or PostgreSQL has invalidated it.
    pub is_lost: bool,
    /// PostgreSQL itself carries it over to standbys (17 and later).
    pub is_failover: bool,
}

impl Slot {
    /// How far its consumer has come, as far as other members need to know.
    pub fn position(&self) -> Option<Lsn> {
        match self.kind {
            SlotKind::Physical => self.restart,
            SlotKind::Logical { .. } => self.confirmed,
        }
    }
}

/// What a slot is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotKind {
    /// Streams WAL.
    Physical,
    /// Decodes WAL.
    Logical {
        /// The database.
        database: String,
        /// The output plugin.
        plugin: String,
    },
}

/// Which slots the cluster's settings ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPolicy {
    /// How long the slots of vanished members are kept; zero: not at all, and only by whom the member streams from.
    pub member_ttl: Duration,
    /// Slots that exist whoever is the primary.
    pub permanent: BTreeMap<String, SlotKind>,
    /// Slots to leave alone.
    pub ignored: Vec<SlotMatcher>,
}

impl Default for SlotPolicy {
    fn default() -> Self {
        Self { member_ttl: Duration::from_secs(30 * 60), permanent: BTreeMap::new(), ignored: Vec::new() }
    }
}

/// Which slots are meant; what is not given matches any.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotMatcher {
    /// `slot_name`.
    pub name: Option<String>,
    /// `slot_type`: `physical` or `logical`.
    pub slot_type: Option<String>,
    /// `database`.
    pub database: Option<String>,
    /// `plugin`.
    pub plugin: Option<String>,
}

impl SlotMatcher {
    /// Is this slot meant?
    pub fn matches(&self, slot: &Slot) -> bool {
        let (slot_type, database, plugin) = match &slot.kind {
            SlotKind::Physical => ("physical", None, None),
            SlotKind::Logical { database, plugin } => {
                ("logical", Some(database.as_str()), Some(plugin.as_str()))
            }
        };
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == is)
        };
        fits(&self.name, Some(&slot.name))
            && fits(&self.slot_type, Some(slot_type))
            && fits(&self.database, database)
            && fits(&self.plugin, plugin)
    }
}

/// How far a slot of the primary has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPosition {
    /// `restart_lsn` of a physical slot, `confirmed_flush_lsn` of a logical one.
    pub lsn: Lsn,
    /// `catalog_xmin`: for a member's slot, what that member's logical slots can rely on.
    #[serde(default)]
    pub catalog_xmin: Option<u32>,
}

/// What a holder without a majority says of its slots when it asks a member to stand back.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToldSlots {
    /// How long ago.
    pub age: Duration,
    /// The positions.
    pub slots: BTreeMap<String, Lsn>,
}

/// What is remembered of slots, which the server does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotFacts {
    /// The names of members' slots whose member has not been heard of for a while, and for how long.
    pub absent: BTreeMap<String, Duration>,
    /// What the holder told with failsafe's question.
    pub told: Option<ToldSlots>,
    /// What members answered to failsafe's question: how far they have received, by the slot's name.
    pub answered: BTreeMap<String, Lsn>,
    /// Logical slots which were copied and are not known yet to be good for a failover.
    pub unready: BTreeSet<String>,
}

/// One step of keeping slots on the local server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotStep {
    /// Make a slot; WAL is kept from this moment on.
    Create {
        /// Its name.
        name: String,
        /// Its kind; a logical one only on a primary.
        kind: SlotKind,
    },
    /// Let go of WAL up to a position.
    Advance {
        /// The slot.
        name: String,
        /// The database of a logical slot.
        database: Option<String>,
        /// The position.
        to: Lsn,
    },
    /// Drop a slot that nobody uses at the moment.
    Drop {
        /// The slot.
        name: String,
        /// Why.
        why: DropReason,
    },
}

impl SlotStep {
    /// A physical slot is made.
    pub fn physical(name: impl Into<String>) -> Self {
        Self::Create { name: name.into(), kind: SlotKind::Physical }
    }

    /// The slot's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Create { name, .. } | Self::Advance { name, .. } | Self::Drop { name, .. } => name,
        }
    }

    /// Only a position moves.
    pub fn is_advance(&self) -> bool {
        matches!(self, Self::Advance { .. })
    }
}

/// Why a slot is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// No member, no setting and no matcher knows it.
    Unknown,
    /// A slot of that name but of another kind is wanted.
    Differs,
    /// WAL which it needs is gone.
    Lost,
    /// A physical slot that nobody streams through holds back vacuum for ever.
    Xmin(u32),
}
