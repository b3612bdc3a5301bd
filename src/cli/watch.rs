//! Pages that are printed again and again.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::output::Output;

/// Once, or again and again.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Watch {
    /// Print again every two seconds
    #[arg(short = 'W')]
    two: bool,
    /// Print again every so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = pause)]
    watch: Option<Duration>,
}

impl Watch {
    /// The pause between two pages; none: one page.
    pub(super) fn pause(self) -> Option<Duration> {
        const USUAL: Duration = Duration::from_secs(2);
        self.watch.or(self.two.then_some(USUAL))
    }
}

/// Seconds, also with a fraction: at least a tenth, since members are asked each time, and a day at most.
fn pause(text: &str) -> Result<Duration, String> {
    const LIMITS: RangeInclusive<f64> = 0.1..=86_400.0;
    let seconds = text.parse::<f64>().ok().filter(|seconds| LIMITS.contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "write 0.1 to 86400 seconds".to_owned())
}

/// Prints a page once, or again and again. Whoever watches wants to see the end of an outage, too: an error is a page.
pub(super) async fn pages(
    output: &mut Output,
    watch: Watch,
    mut page: impl AsyncFnMut() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let Some(pause) = watch.pause() else {
        let text = page().await?;
        output.say(&text);
        return Ok(());
    };
    loop {
        let text = match page().await {
            Ok(text) => text,
            Err(Failure::Error(error)) => format!("Error: {error:#}"),
            Err(failure) => return Err(failure),
        };
        output.clear();
        output.say(&text);
        tokio::time::sleep(pause).await;
    }
}
