//! Durations of the lease and the clock they are counted on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of this machine's CLOCK_BOOTTIME, which runs on in suspend and never steps (clock_gettime(2)).
/// Meaningful on one machine and within one boot only; never stored, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// The time from `earlier` to this reading; zero when `earlier` is ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The reading this much later.
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// The fixed part of the margin: the time in which the guard silences PostgreSQL, with room (measured: below 0.05 s).
const SILENCING: Duration = Duration::from_millis(500);
/// Twice 500 ppm, the assumed greatest difference of one clock's rate from true time.
const CLOCK_RATES_PPM: u32 = 1000;

/// What the holder gives away of each ttl, so that it is silent before any voter counts it as expired.
pub fn margin(ttl: Duration) -> Duration {
    SILENCING + ttl / 1_000_000 * CLOCK_RATES_PPM
}

/// The instant until which a renewal is good, counted from the moment at which its round was SENT.
pub fn deadline(sent: BootTime, ttl: Duration) -> BootTime {
    sent.after(ttl.saturating_sub(margin(ttl)))
}

/// How often the holder renews: a tenth of the ttl, at least each 100 ms and at most each second.
pub fn renewal_interval(ttl: Duration) -> Duration {
    (ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

/// After this silence of the holder the others prepare for succession: three renewals were missed.
pub fn patience(ttl: Duration) -> Duration {
    renewal_interval(ttl) * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_good_for_the_ttl_less_the_margin() {
        let sent = BootTime(Duration::from_secs(100));
        assert_eq!(deadline(sent, Duration::from_secs(5)), sent.after(Duration::from_millis(4495)));
        assert_eq!(deadline(sent, Duration::from_secs(2)), sent.after(Duration::from_millis(1498)));
    }

    #[test]
    fn renewals_are_neither_too_rare_nor_too_many() {
        assert_eq!(renewal_interval(Duration::from_secs(5)), Duration::from_millis(500));
        assert_eq!(renewal_interval(Duration::from_secs(30)), Duration::from_secs(1));
        assert_eq!(renewal_interval(Duration::from_millis(500)), Duration::from_millis(100));
    }
}
