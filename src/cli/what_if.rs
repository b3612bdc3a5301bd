//! `what-if`: who would take over if a member died at this moment.

use serde_json::Value;

use super::arguments::{Form, WhatIfArguments};
use super::client::Client;
use super::config::Sources;
use super::output::Output;
use super::wrap::{section, wrapped};
use super::{Failure, cluster, table};
use crate::ha::Forecast;

/// Asks a member and tells its forecast.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    arguments: &WhatIfArguments,
) -> Result<(), Failure> {
    let scope = sources.scope_or(arguments.scope.as_deref())?;
    let found = cluster::find(sources, client, &scope).await?;
    let path = format!("/what-if?member={}", super::why::encoded(&arguments.member));
    let document: Value = cluster::ask_any(client, &found, &path).await?;
    match arguments.output {
        Form::Json => output.say(&document.to_string()),
        Form::Yaml => output.say(table::yaml_object(&document).trim_end()),
        Form::Pretty => {
            let forecast: Forecast = serde_json::from_value(document)
                .map_err(|source| Failure::because(format!("the forecast cannot be read: {source}")))?;
            let width = output.width();
            output.say(told(&forecast, width).trim_end());
        }
    }
    Ok(())
}

fn told(forecast: &Forecast, width: usize) -> String {
    let mut out = String::new();
    for warning in &forecast.warnings {
        let text = format!("WARNING: {warning}.");
        out.push_str(&wrapped(&text, "", "  ", width));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let Forecast { member, role, because, .. } = forecast;
    let sum: u64 = forecast.waits.iter().map(|wait| wait.about_ms).sum();
    let headline = match &forecast.would_take_over {
        Some(next) => {
            format!("If {member} (the {role}) died now, {next} would take over after about {}.", seconds(sum))
        }
        None if forecast.role == "primary" => {
            format!("If {member} (the {role}) died now, NOBODY would take over.")
        }
        None if !forecast.writing_goes_on => {
            format!("If {member} (a {role}) died now, WRITING WOULD END.")
        }
        None => format!("If {member} (a {role}) died now, no role would change."),
    };
    out.push_str(&wrapped(&headline, "", "  ", width));
    out.push_str(&wrapped(&format!("{because}."), "  Why: ", "       ", width));
    let waits: Vec<String> = forecast
        .waits
        .iter()
        .map(|wait| format!("{}: about {}", wait.what, seconds(wait.about_ms)))
        .collect();
    out.push_str(&section("What would be waited for:", &waits, width));
    let others: Vec<String> =
        forecast.others.iter().map(|other| format!("{} {}", other.name, other.why_not)).collect();
    out.push_str(&section("Why not the others:", &others, width));
    out.push_str(&format!("\n(as {} sees the cluster at this moment)\n", forecast.seen_by));
    out
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
