//! The kinds of world, by name.

use crate::faults::{ALL, Fault};
use crate::mutants::Mutant;

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// How many nodes there are.
    pub(crate) nodes: usize,
    /// So many of them, the last ones, are witnesses.
    pub(crate) witnesses: usize,
    /// Each seed draws a synchronous mode; else there is none.
    pub(crate) sync: bool,
    /// Operators pause the cluster, and say that machines are dead.
    pub(crate) pause: bool,
    /// Each seed begins with failsafe, and operators switch it off and on.
    pub(crate) failsafe: bool,
    /// Half of all messages are late while there are faults.
    pub(crate) harsh: bool,
    /// The faults to choose from.
    pub(crate) faults: &'static [Fault],
    pub(crate) mutant: Option<Mutant>,
}

/// A kind of world, and how many of its seeds the tests run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) setting: Setting,
    pub(crate) seeds: u64,
}

pub(crate) const THREE: Setting = Setting {
    nodes: 3,
    witnesses: 0,
    sync: false,
    pause: false,
    failsafe: false,
    harsh: false,
    faults: &ALL,
    mutant: None,
};
const WITNESS: Setting = Setting { witnesses: 1, ..THREE };
pub(crate) const HARSH: Setting = Setting { harsh: true, ..THREE };
pub(crate) const SYNC: Setting = Setting { sync: true, ..THREE };
const SYNC_WITNESS: Setting = Setting { sync: true, ..WITNESS };
pub(crate) const SYNC_FOUR: Setting = Setting { nodes: 4, ..SYNC };

pub(crate) const PAUSE: Setting = Setting { pause: true, ..THREE };
pub(crate) const PAUSE_SYNC: Setting = Setting { pause: true, ..SYNC };
const PAUSE_WITNESS: Setting = Setting { pause: true, ..SYNC_WITNESS };

/// Two data nodes of five: without the witnesses there is no majority.
pub(crate) const FAILSAFE: Setting = Setting { nodes: 5, witnesses: 3, failsafe: true, ..THREE };
const FAILSAFE_SYNC: Setting = Setting { sync: true, pause: true, ..FAILSAFE };

pub(crate) const KINDS: [Kind; 11] = [
    Kind { name: "three", setting: THREE, seeds: 1_000 },
    Kind { name: "witness", setting: WITNESS, seeds: 1_000 },
    Kind { name: "harsh", setting: HARSH, seeds: 1_000 },
    Kind { name: "sync", setting: SYNC, seeds: 1_000 },
    Kind { name: "sync-witness", setting: SYNC_WITNESS, seeds: 1_000 },
    Kind { name: "sync-four", setting: SYNC_FOUR, seeds: 1_000 },
    Kind { name: "pause", setting: PAUSE, seeds: 1_000 },
    Kind { name: "pause-sync", setting: PAUSE_SYNC, seeds: 1_000 },
    Kind { name: "pause-witness", setting: PAUSE_WITNESS, seeds: 1_000 },
    Kind { name: "failsafe", setting: FAILSAFE, seeds: 1_000 },
    Kind { name: "failsafe-sync", setting: FAILSAFE_SYNC, seeds: 1_000 },
];
