//! The settings of a simulated cluster: words which the product does not know, and `pause`, which it does.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// A settings document.
#[derive(Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) pause: bool,
    /// Failsafe or not.
    pub(crate) safe: bool,
    /// In seconds.
    pub(crate) ttl: u64,
    /// `off`, `on` or `quorum`.
    pub(crate) mode: String,
    pub(crate) strict: bool,
    /// How many standbys acknowledge.
    pub(crate) count: usize,
    /// Are fences alone enough?
    pub(crate) fast: bool,
}

impl Settings {
    pub(crate) fn read(document: &str) -> Self {
        serde_json::from_str(document).expect("the settings of a simulated cluster")
    }

    pub(crate) fn document(&self) -> String {
        serde_json::to_string(self).expect("json")
    }

    pub(crate) fn random(random: &mut Random, safe: bool, sync: bool) -> Self {
        let mode = "off".to_owned();
        let mut settings = Self { pause: false, safe, ttl: 5, mode, strict: false, count: 1, fast: true };
        if sync {
            let mut one = |of: &[&'static str]| of[random.index(of.len())];
            settings.ttl = if one(&["2", "5"]) == "2" { 2 } else { 5 };
            one(&["off", "on", "on", "quorum", "quorum"]).clone_into(&mut settings.mode);
            settings.strict = one(&["lax", "strict"]) == "strict";
            settings.count = if one(&["1", "1", "2"]) == "2" { 2 } else { 1 };
            settings.fast = one(&["fast", "fast", "slow"]) == "fast";
        }
        settings
    }
}
