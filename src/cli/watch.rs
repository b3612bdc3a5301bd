//! Pages that are printed again and again.

use std::time::Duration;

use super::Failure;
use super::arguments::Watch;
use super::output::Output;

/// Prints a page once, or again and again. Whoever watches wants to see the end of an outage, too: an error is a page.
pub(super) async fn pages(
    output: &mut Output,
    watch: Watch,
    mut page: impl AsyncFnMut() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let Some(seconds) = watch.seconds() else {
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
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
