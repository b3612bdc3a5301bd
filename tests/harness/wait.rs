//! Waiting for conditions, never for time.

use std::time::Duration;

use anyhow::{Result, bail};

use super::clock;

/// Between two looks: short beside everything that is waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`; the error is what was seen instead, and the last one is reported.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T> {
    let started = clock::now();
    loop {
        let seen = match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if started.elapsed() > limit {
            bail!("waited {} s for: {what}; last seen: {seen}", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks until a claim is true.
pub(crate) async fn until_true(
    what: &str,
    limit: Duration,
    mut claim: impl AsyncFnMut() -> bool,
) -> Result<()> {
    until(what, limit, async || if claim().await { Ok(()) } else { Err("not yet".to_owned()) }).await
}
