//! The clock of the tests, which measure from outside.

use std::time::Instant;

/// Now, for durations between events that are seen by one process.
#[expect(clippy::disallowed_methods, reason = "no lease depends on it, and nothing here survives a suspend")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
