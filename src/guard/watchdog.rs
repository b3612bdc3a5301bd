//! The watchdog device behind the guard: it resets the machine when the guard itself is stopped.
//!
//! Everything else is the guard's own work: at the deadline D no process of the data directory is left which could
//! acknowledge a write, whatever the daemon does. What the guard cannot do is work while it is stopped itself, or while
//! the whole machine stands still. So the guard holds the device, not the daemon, and pings it in its loop, each
//! [`PING`], as long as
//!
//! > now + W <= D + [`LATE`]
//!
//! where W is the device's timeout. From that:
//!
//! - *It fires in time.* After the last ping at t the device fires at t + W <= D + 250 ms, for the D which the guard knew
//!   at t. A renewal that the daemon writes into the page of a stopped guard only moves the real deadline further away.
//!   No voter counts the lease as expired before D + 500 ms (the fixed part of the lease's margin), so 250 ms are left
//!   for a device that counts whole ticks.
//! - *It does not fire when the guard does its work.* A guard that runs pings for the last time after
//!   D + 150 ms - W, so that the device fires after D + 150 ms. By D + 50 ms (measured) nothing is left, and the
//!   device is disarmed. Where processes wait for a disk, the kill counts once it was sent, and pings go on.
//! - *It does not fire when renewals are late.* W is so short that, after a renewal, pings go on for at least two more
//!   of the renewal intervals: [`timeout`].
//!
//! A guard which ended PostgreSQL disarms the device, as long as its daemon shows life. When the daemon hangs or is gone,
//! pings end half a second earlier ([`EARLY`] before D - W) and the device is left alone: nothing would bring this node
//! back but the restart of the machine, which is what an operator who gives pgherd a watchdog asks for. A daemon that comes back in time has it disarmed.
//!
//! A guard which is killed leaves the device counting. The next guard finds the note in the private directory and takes
//! it over.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use pgherd_raft::lease::{margin, patience, renewal_interval};

use super::clock::{Nanos, nanos};
use super::device::{self, Device};
use super::message::{Note, WatchdogConfig};

/// The device may fire so long after the deadline; see the module.
const LATE: Duration = Duration::from_millis(250);
/// For a daemon that shows no life it fires so long before the deadline, at least: it is meant to, and nothing of this
/// machine is left when the lease ends.
const EARLY: Duration = Duration::from_millis(500);
/// How often it is pinged; a little less than the guard's loop takes.
const PING: Duration = Duration::from_millis(90);
/// A daemon shows life at least each second, with its rounds or its looks.
const DAEMON_LIFE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// A daemon that showed life so long ago still lives.
pub(super) fn daemon_life(ttl: Duration) -> Duration {
    patience(ttl).clamp(DAEMON_LIFE.0, DAEMON_LIFE.1)
}

/// The device's timeout for leases of this ttl, in whole seconds: the ttl less the safety margin (none: half of the ttl),
/// which takes half of the ttl at most, and no more than [`longest`].
pub(super) fn timeout(ttl: Duration, safety_margin: Option<Duration>) -> u32 {
    let half = ttl / 2;
    let wanted = ttl.saturating_sub(safety_margin.unwrap_or(half).min(half));
    let whole = wanted.as_secs().saturating_add(u64::from(wanted.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(u32::MAX).min(longest(ttl)).max(1)
}

/// The longest timeout, in whole seconds, with which pings go on for two renewal intervals after a renewal.
fn longest(ttl: Duration) -> u32 {
    let most = (ttl + LATE).saturating_sub(margin(ttl) + renewal_interval(ttl) * 2);
    u32::try_from(most.as_secs()).unwrap_or(u32::MAX)
}

#[derive(Debug)]
struct Armed {
    device: Box<dyn Device>,
    /// What the device was asked for, in seconds.
    wanted: u32,
    /// W of the module.
    counted: Nanos,
}

/// What daemons may know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchdogState {
    /// No device is open.
    Off,
    /// It counts.
    Active,
    /// There should be one, and there is none that works.
    Failed,
}

type Opener = Box<dyn Fn(&WatchdogConfig) -> Result<Box<dyn Device>, String>>;

/// The device and what it is for.
pub(super) struct Watchdog {
    opener: Opener,
    /// Says which device is open, for the next guard.
    note_file: PathBuf,
    config: Option<WatchdogConfig>,
    armed: Option<Armed>,
    has_failed: bool,
    next_ping: Nanos,
    is_left_alone: bool,
    /// The last trouble: the same again is not told again.
    told: String,
    notes: Vec<Note>,
}

impl Watchdog {
    /// No device yet.
    pub(super) fn new(note_file: PathBuf) -> Self {
        Self::with(note_file, Box::new(device::open))
    }

    fn with(note_file: PathBuf, opener: Opener) -> Self {
        Self {
            opener,
            note_file,
            config: None,
            armed: None,
            has_failed: false,
            next_ping: 0,
            is_left_alone: false,
            told: String::new(),
            notes: Vec::new(),
        }
    }

    /// Takes over the device which a killed guard left counting.
    ///
    /// `ttl`: what that guard was armed with; none: it was not, and nothing but disarming is left to do.
    pub(super) fn take_over(&mut self, ttl: Option<Duration>) {
        let left = fs::read(&self.note_file).ok();
        let Some(config) = left.and_then(|left| serde_json::from_slice::<WatchdogConfig>(&left).ok()) else {
            return;
        };
        match (self.opener)(&config) {
            Ok(device) => {
                let text = format!("{} of an earlier guard is taken over", device.describe());
                self.notes.push(Note::info(text));
                let seconds = ttl.map(|ttl| u64::from(timeout(ttl, config.safety_margin)));
                let counted = seconds.map_or(Nanos::MAX, |seconds| nanos(Duration::from_secs(seconds)));
                self.armed = Some(Armed { device, wanted: 0, counted });
                self.config = Some(config);
            }
            Err(why) => self.notes.push(Note::warning(format!("cannot take the watchdog over: {why}"))),
        }
    }

    /// Sees to it that this device counts, with the timeout for this ttl; none: no device does. Its trouble, if any.
    pub(super) fn arm(&mut self, config: Option<&WatchdogConfig>, ttl: Duration) -> Option<String> {
        let device = |config: &WatchdogConfig| (config.device.clone(), config.is_testing);
        if self.config.as_ref().map(device) != config.map(device) {
            self.disarm();
        }
        self.config = config.cloned();
        self.has_failed = false;
        let trouble = self.activate(config?, ttl).err();
        match &trouble {
            None => self.told.clear(),
            Some(why) => self.fail(why.clone()),
        }
        trouble
    }

    fn activate(&mut self, config: &WatchdogConfig, ttl: Duration) -> Result<(), String> {
        let wanted = timeout(ttl, config.safety_margin);
        if self.armed.as_ref().is_some_and(|armed| armed.wanted == wanted) {
            return Ok(());
        }
        let mut device = match self.armed.take() {
            Some(armed) => armed.device,
            None => (self.opener)(config)?,
        };
        self.write_note(config);
        let name = device.describe();
        let taken = match device.set_timeout(wanted).and_then(|taken| device.ping().map(|()| taken)) {
            Ok(taken) => taken,
            Err(error) => {
                self.close(device);
                return Err(format!("{name} does not take a timeout of {wanted} seconds: {error}"));
            }
        };
        if taken > longest(ttl).max(1) {
            let why = format!(
                "Watchdog timeout {taken} seconds does not ensure safe termination within {} seconds",
                ttl.as_secs()
            );
            if config.is_required {
                self.close(device);
                return Err(why);
            }
            self.notes.push(Note::warning(why));
        }
        if !device.can_disarm() {
            let text = format!(
                "{name} does not say that it can be disarmed: when PostgreSQL is stopped it may reset the machine"
            );
            self.notes.push(Note::warning(text));
        }
        let counted = Duration::from_secs(u64::from(taken.min(wanted)));
        let slack = (ttl + LATE).saturating_sub(margin(ttl) + counted).as_secs();
        let text = format!("{name} activated with {taken} second timeout, timing slack {slack} seconds");
        self.notes.push(Note::info(text));
        self.armed = Some(Armed { device, wanted, counted: nanos(counted) });
        Ok(())
    }

    /// Once in each round of the guard's loop. `is_killed`: everything was sent SIGKILL.
    pub(super) fn step(&mut self, deadline: Option<Nanos>, is_killed: bool, daemon_lives: bool, now: Nanos) {
        let Some(armed) = &mut self.armed else { return };
        let is_due = match deadline {
            None if daemon_lives => return self.disarm(),
            None => {
                if !std::mem::replace(&mut self.is_left_alone, true) {
                    let text = "PostgreSQL is ended and the daemon shows no life: the watchdog is left to reset this machine";
                    self.notes.push(Note::warning(text.to_owned()));
                }
                false
            }
            Some(deadline) => {
                let fires = now.saturating_add(armed.counted);
                match daemon_lives {
                    true => is_killed || fires <= deadline.saturating_add(nanos(LATE)),
                    false => fires.saturating_add(nanos(EARLY)) <= deadline,
                }
            }
        };
        if !is_due || now < self.next_ping {
            return;
        }
        self.is_left_alone = false;
        self.next_ping = now.saturating_add(nanos(PING));
        if let Err(error) = armed.device.ping() {
            let why = format!("{} cannot be pinged: {error}", armed.device.describe());
            if let Some(armed) = self.armed.take() {
                self.close(armed.device);
            }
            self.fail(why);
        }
    }

    /// Disarms and closes the device.
    pub(super) fn disarm(&mut self) {
        if let Some(armed) = self.armed.take() {
            self.close(armed.device);
            self.notes.push(Note::info("the watchdog is disarmed".to_owned()));
        }
        self.has_failed = false;
    }

    fn close(&mut self, device: Box<dyn Device>) {
        let name = device.describe();
        if let Err(error) = device.disarm() {
            let text = format!("{name} cannot be disarmed and may reset the machine: {error}");
            self.notes.push(Note::warning(text));
        }
        self.is_left_alone = false;
        fs::remove_file(&self.note_file).ok();
    }

    fn fail(&mut self, why: String) {
        self.has_failed = true;
        if self.told == why {
            return;
        }
        let is_required = self.config.as_ref().is_some_and(|config| config.is_required);
        let text = format!("Could not activate the watchdog: {why}");
        // Most machines have none, and `automatic` is the default.
        let is_missing =
            self.config.as_ref().is_some_and(|config| !is_required && is_not_there(&config.device));
        self.notes.push(if is_missing { Note::info(text) } else { Note::warning(text) });
        self.told = why;
    }

    fn write_note(&mut self, config: &WatchdogConfig) {
        let written = serde_json::to_vec(config)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&self.note_file, text));
        if let Err(error) = written {
            let text = format!("the next guard will not know of the watchdog: {error}");
            self.notes.push(Note::warning(text));
        }
    }

    /// What daemons may know.
    pub(super) fn state(&self) -> WatchdogState {
        match (&self.armed, self.has_failed) {
            (Some(_), _) => WatchdogState::Active,
            (None, true) => WatchdogState::Failed,
            (None, false) => WatchdogState::Off,
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Option<&WatchdogConfig> {
        self.config.as_ref()
    }

    /// Sentences for the log since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

fn is_not_there(path: &std::path::Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests;
