//! Samples and their quantiles.

use std::time::Duration;

/// The nearest-rank quantile of sorted or unsorted samples; zero for none.
pub(crate) fn quantile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// One line: `NAME: p50, p99, max of N`.
pub(crate) fn print(name: &str, samples: &[Duration]) {
    let seconds = |duration: Duration| match duration.as_micros() {
        small @ 0..100_000 => format!("{}.{:03} ms", small / 1000, small % 1000),
        _ => format!("{:.3} s", duration.as_secs_f64()),
    };
    println!(
        "{name}: p50 {}, p99 {}, max {}, N = {}",
        seconds(quantile(samples, 50)),
        seconds(quantile(samples, 99)),
        seconds(quantile(samples, 100)),
        samples.len(),
    );
}
