//! What the agent knows of the watchdog device, which the guard owns.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use rustix::fs::{Access, access};

use crate::config::{Config, WatchdogMode};
use crate::guard::{Guard, WatchdogConfig};
use crate::ha::{STAND_BACK, WatchdogFacts};

/// The configured device and what became of the last attempt to use it.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// None: no device is used.
    pub(super) config: Option<WatchdogConfig>,
    trouble: Option<(String, BootTime)>,
}

impl Watchdog {
    pub(super) fn new(config: Option<WatchdogConfig>) -> Self {
        Self { config, trouble: None }
    }

    /// The configuration was read again; the guard takes it when it is armed the next time.
    pub(super) fn configure(&mut self, config: Option<WatchdogConfig>) {
        if self.config != config {
            *self = Self::new(config);
        }
    }

    pub(super) fn is_required(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.is_required)
    }

    /// Takes note of what the guard said when it was armed.
    pub(super) fn armed(&mut self, trouble: Option<String>, now: BootTime) {
        self.trouble = trouble.map(|why| (why, now));
    }

    /// What is known now. After an attempt that failed, the device counts as unusable for a while.
    pub(super) fn facts(&self, guard: &Guard, now: BootTime) -> WatchdogFacts {
        let is_outdated = !guard.is_watched_by(self.config.as_ref());
        let Some(config) = self.config.as_ref().filter(|config| config.is_required) else {
            return WatchdogFacts { is_outdated, ..WatchdogFacts::default() };
        };
        let last = self.trouble.as_ref().filter(|(_, at)| now.since(*at) < STAND_BACK);
        let trouble = match last {
            Some((why, _)) => Some(why.clone()),
            None if guard.has_watchdog_failed() => {
                Some(format!("{} does not work any more; the guard's log tells why", config.device.display()))
            }
            None if guard.is_watched() => None,
            None => unusable(&config.device),
        };
        WatchdogFacts { is_required: true, trouble, is_outdated }
    }
}

/// A look that opens nothing: an open watchdog counts.
fn unusable(device: &Path) -> Option<String> {
    let path = device.display();
    match std::fs::metadata(device) {
        Err(error) => return Some(format!("{path} cannot be looked at: {error}")),
        Ok(found) if !found.file_type().is_char_device() && !found.file_type().is_fifo() => {
            return Some(format!("{path} is no watchdog device"));
        }
        Ok(_) => {}
    }
    access(device, Access::WRITE_OK).err().map(|error| format!("{path} may not be opened: {error}"))
}

/// The device as the guard needs to know it; none: none is used.
pub fn watchdog_of(config: &Config) -> Option<WatchdogConfig> {
    let section = &config.watchdog;
    (section.mode != WatchdogMode::Off).then(|| WatchdogConfig {
        device: section.device.clone(),
        is_testing: section.is_testing,
        is_required: section.mode == WatchdogMode::Required,
        // -1 is half of the ttl.
        safety_margin: u64::try_from(section.safety_margin_seconds).ok().map(Duration::from_secs),
    })
}
