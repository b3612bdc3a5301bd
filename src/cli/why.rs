//! `why`: what happened and why, so that nobody has to read log files.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::Deserialize;
use serde_json::Value;

use super::arguments::{Form, WhyArguments};
use super::client::Client;
use super::config::Sources;
use super::output::Output;
use super::wrap::{section, wrapped};
use super::{Failure, cluster, table};

/// What led to a change of roles happened within this time before it.
const BEFORE_MS: i64 = 10 * 60 * 1000;
/// So many later events are told with a story.
const MAX_LATER: usize = 10;

/// Between events that are told one after the other.
const BETWEEN: &str = "\n----\n\n";

/// A recorded event, as `/decisions` shows it.
#[derive(Clone, Debug, Deserialize)]
struct Event {
    at_ms: i64,
    by: String,
    kind: String,
    epoch: u64,
    rule: String,
    #[serde(default)]
    meaning: Option<String>,
    because: String,
    #[serde(default)]
    facts: Vec<String>,
    #[serde(default)]
    candidates: Vec<Candidate>,
}

#[derive(Clone, Debug, Deserialize)]
struct Candidate {
    name: String,
    verdict: String,
}

/// Asks a member for the events and tells them.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    arguments: &WhyArguments,
) -> Result<(), Failure> {
    let scope = sources.scope_or(arguments.scope.as_deref())?;
    let path = path(arguments)?;
    let found = cluster::find(sources, client, &scope).await?;
    let document: Value = cluster::ask_any(client, &found, &path).await?;
    match arguments.output {
        Form::Json => output.say(&document.to_string()),
        Form::Yaml => {
            output.say(table::yaml_list(document.as_array().map_or(&[], Vec::as_slice)).trim_end());
        }
        Form::Pretty => {
            let events: Vec<Event> = serde_json::from_value(document)
                .map_err(|source| Failure::because(format!("the events cannot be read: {source}")))?;
            let width = output.width();
            let is_range = arguments.since.is_some() || arguments.until.is_some() || arguments.last.is_some();
            let text = if is_range { all(&events, width) } else { story(&scope, &events, width) };
            output.say(text.trim_end());
        }
    }
    Ok(())
}

fn path(arguments: &WhyArguments) -> Result<String, Failure> {
    let mut query = Vec::new();
    for (key, value) in [("since", &arguments.since), ("until", &arguments.until)] {
        if let Some(text) = value {
            query.push(format!("{key}={}", encoded(&moment(text)?.to_string())));
        }
    }
    if let Some(last) = arguments.last {
        query.push(format!("limit={last}"));
    }
    let mark = if query.is_empty() { "" } else { "?" };
    Ok(format!("/decisions{mark}{}", query.join("&")))
}

/// A text for a URL's query.
pub(super) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A time stamp, seconds since 1970, a local time, or a time ago.
fn moment(text: &str) -> Result<Timestamp, Failure> {
    let seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    let local = || {
        let time: civil::DateTime = text.parse().ok()?;
        Some(time.to_zoned(TimeZone::system()).ok()?.timestamp())
    };
    let ago = || Timestamp::try_from(pgherd_raft::clock::wall().checked_sub(duration(text)?)?).ok();
    text.parse().ok().or_else(seconds).or_else(local).or_else(ago).ok_or_else(|| {
        Failure::because(format!(
            "{text:?} is no time: give 2026-11-20T17:02:00Z, '2026-11-20 18:02:00' (local time), seconds since 1970, \
             or 30m, 2h, 7d for a time ago"
        ))
    })
}

/// `90s`, `30m`, `2h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?))
}

fn local(at_ms: i64, format: &str) -> String {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    time.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// The events of a range, one after the other.
fn all(events: &[Event], width: usize) -> String {
    if events.is_empty() {
        return "Nothing was recorded in that time.\n".to_owned();
    }
    events.iter().map(|event| full(event, width)).collect::<Vec<_>>().join(BETWEEN)
}

/// The last change of the primary: what led to it, why it came like that, and what happened since.
fn story(scope: &str, events: &[Event], width: usize) -> String {
    let Some((place, main)) = last_change(events) else {
        return match events {
            [] => format!("Nothing has been recorded in the cluster {scope} yet.\n"),
            _ => all(events, width),
        };
    };
    let is_same = |event: &Event| event.by == main.by && event.rule == main.rule && event.kind == "candidacy";
    let led_to_it = |event: &&Event| {
        event.at_ms >= main.at_ms - BEFORE_MS && event.epoch + 1 >= main.epoch && !is_same(event)
    };
    let before: Vec<String> = events.iter().take(place).filter(led_to_it).map(line).collect();
    let later: Vec<&Event> = events.iter().skip(place + 1).collect();
    let untold = later.len().saturating_sub(MAX_LATER);
    let mut later: Vec<String> = later.into_iter().skip(untold).map(line).collect();
    if untold > 0 {
        later.insert(0, format!("{untold} more events (pgherdctl why --since)"));
    }
    let mut out = full(main, width);
    out.push_str(&section("What led to it:", &before, width));
    out.push_str(&section("Since then:", &later, width));
    out
}

/// The last promotion, unless the one who was promoted has ceased to be the primary since.
fn last_change(events: &[Event]) -> Option<(usize, &Event)> {
    let last =
        |wanted: &dyn Fn(&Event) -> bool| events.iter().enumerate().rev().find(|(_, event)| wanted(event));
    let promoted = last(&|event| event.kind == "promoted");
    let Some((place, primary)) = promoted else { return last(&|event| event.kind == "demoted") };
    last(&|event| event.kind == "demoted" && event.by == primary.by)
        .filter(|(later, _)| *later > place)
        .or(promoted)
}

/// An event in a line or two.
fn line(event: &Event) -> String {
    format!("{}  {} ({}): {}", local(event.at_ms, "%H:%M:%S%.3f"), event.by, event.kind, event.because)
}

/// An event with everything that is known about it.
fn full(event: &Event, width: usize) -> String {
    let time = local(event.at_ms, "%Y-%m-%d %H:%M:%S%.3f %Z");
    let said = format!("{time}  {} ({}): {}.", event.by, event.kind, event.because);
    let mut out = wrapped(&said, "", "  ", width);
    let meaning = event.meaning.as_ref().map_or(String::new(), |words| format!(": {words}"));
    let decided = format!("rule {}, in epoch {}{meaning}.", event.rule, event.epoch);
    out.push('\n');
    out.push_str(&wrapped(&decided, "By ", "  ", width));
    out.push_str(&section("On these facts:", &event.facts, width));
    let notes: Vec<String> =
        event.candidates.iter().map(|note| format!("{} {}", note.name, note.verdict)).collect();
    out.push_str(&section("The members:", &notes, width));
    out
}
