//! The unit of the shared page: nanoseconds on CLOCK_BOOTTIME.

use std::time::Duration;

use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;

/// Nanoseconds on CLOCK_BOOTTIME; 64 bits last for 584 years of uptime.
pub(super) type Nanos = u64;

/// The clock in the page's unit.
pub(super) fn now() -> Nanos {
    from_boot_time(clock::now())
}

/// A duration in the page's unit.
pub(super) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A reading in the page's unit.
pub(super) fn from_boot_time(time: BootTime) -> Nanos {
    nanos(time.0)
}

/// A reading from the page.
pub(super) fn to_boot_time(time: Nanos) -> BootTime {
    BootTime(Duration::from_nanos(time))
}
