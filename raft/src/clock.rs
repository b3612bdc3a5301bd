//! The only place of this crate that reads a clock.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::lease::BootTime;

/// This machine's CLOCK_BOOTTIME: runs on in suspend, never steps.
pub fn now() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    BootTime(Duration::new(seconds, nanoseconds))
}

/// CLOCK_MONOTONIC, for the service manager only: it compares it with its own.
pub(crate) fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The wall clock, for log lines and JSON only: it steps, so nothing may be decided by it.
#[expect(clippy::disallowed_methods, reason = "this is the module from which everybody takes time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The same in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since_1970 = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago the consensus library's stamp was taken.
pub(crate) fn age(stamp: impl openraft::Instant) -> Duration {
    stamp.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_back() {
        let first = now();
        assert!(now() >= first);
        assert!(first.0 > Duration::ZERO);
    }
}
