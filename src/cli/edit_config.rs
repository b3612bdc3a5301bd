//! `edit-config`: changes the settings that all members share.
//!
//! The change is made on what a member showed, shown as a diff, and sent as a patch of just that, so that a change which
//! somebody else makes to another key at the same moment is kept.

use hyper::StatusCode;
use pgherd_raft::yaml;
use serde_json::{Map, Value, json};

use super::arguments::EditConfigArguments;
use super::client::{Answer, Client, NoAnswer};
use super::cluster::{self, Cluster};
use super::config::Sources;
use super::output::Output;
use super::show_config::{Revision, as_text, revisions};
use super::{Failure, diff, editor, settings};

/// The longest text of `--apply` and `--replace`: more than the settings may have.
const MAX_TEXT: u64 = 1024 * 1024;
/// Its keys are names of parameters, with dots or without.
const PARAMETERS: [&str; 2] = ["postgresql", "parameters"];

type Settings = Map<String, Value>;

/// Changes the settings as the options say, or as the operator edits them.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &EditConfigArguments,
) -> Result<(), Failure> {
    let (scope, rollback) = named(sources, options)?;
    let cluster = cluster::find(sources, client, &scope).await?;
    let addresses = cluster.rest_addrs(sources);
    let before = settings::read(sources, client, &cluster).await?;
    if let Some(wanted) = rollback {
        return roll_back(output, client, &cluster, &addresses, &before, wanted, options).await;
    }
    let after = changed(output, &scope, &before, options)?;
    let shown = diff::unified(&as_text(&before), &as_text(&after));
    if shown.is_empty() {
        output.say("Not changed");
        return Ok(());
    }
    if !options.quiet {
        editor::show_diff(output, &shown);
    }
    if !options.force && is_from_stdin(options) {
        output.say("Use --force option to apply changes");
        return Err(Failure::Told);
    }
    if !options.force && !output.confirm("Apply these changes?")? {
        return Err(Failure::Told);
    }
    if settings::read(sources, client, &cluster).await? != before {
        return Err(concurrent());
    }
    let patch = Value::Object(patch(&before, &after)).to_string();
    let answer =
        ask(&addresses, async |address| client.patch(address, "/config", patch.clone()).await).await?;
    tell(output, &answer)
}

/// The cluster, and the revision to go back to: zero is the one before the present. A word behind `--rollback` that is no
/// number is the cluster's name.
fn named(sources: &Sources, options: &EditConfigArguments) -> Result<(String, Option<u64>), Failure> {
    let scope = options.scope.as_deref();
    let Some(word) = options.rollback.as_deref() else { return Ok((sources.scope_or(scope)?, None)) };
    match (word, word.parse::<u64>()) {
        ("", _) => Ok((sources.scope_or(scope)?, Some(0))),
        (_, Ok(revision)) => Ok((sources.scope_or(scope)?, Some(revision))),
        (name, Err(_)) if scope.is_none() => Ok((name.to_owned(), Some(0))),
        (_, Err(_)) => {
            Err(Failure::because(format!("--rollback {word}: the number of a revision is needed")))
        }
    }
}

fn is_from_stdin(options: &EditConfigArguments) -> bool {
    [&options.apply, &options.replace].into_iter().any(|file| file.as_deref() == Some("-"))
}

fn concurrent() -> Failure {
    Failure::because("Config modification aborted due to concurrent changes")
}

/// The settings as they are wanted.
fn changed(
    output: &Output,
    scope: &str,
    before: &Settings,
    options: &EditConfigArguments,
) -> Result<Settings, Failure> {
    let is_edited = options.set.is_empty()
        && options.pg.is_empty()
        && options.apply.is_none()
        && options.replace.is_none();
    if is_edited {
        return map_of("the edited text", &editor::edit(output, &as_text(before), scope)?);
    }
    let mut after = match &options.replace {
        Some(file) => map_of(file, &text_of(output, file)?)?,
        None => before.clone(),
    };
    if let Some(file) = &options.apply {
        merge(&mut after, &map_of(file, &text_of(output, file)?)?);
    }
    let parameters = options.pg.iter().map(|setting| format!("{}.{setting}", PARAMETERS.join(".")));
    for setting in options.set.iter().cloned().chain(parameters) {
        set(&mut after, &setting)?;
    }
    Ok(after)
}

fn text_of(output: &Output, file: &str) -> Result<String, Failure> {
    let text = if file == "-" { output.read_all(MAX_TEXT) } else { std::fs::read_to_string(file) };
    text.map_err(|source| Failure::because(format!("cannot read {file}: {source}")))
}

fn map_of(name: &str, text: &str) -> Result<Settings, Failure> {
    let document = yaml::load(text).map_err(|error| Failure::because(format!("{name}: {error}")))?;
    match document.root.to_json() {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Failure::because(format!("{name}: the settings are a map of keys and values")))
        }
    }
}

/// Maps are merged, null takes a key away.
fn merge(settings: &mut Settings, change: &Settings) {
    for (key, value) in change {
        match (settings.get_mut(key), value) {
            (_, Value::Null) => {
                settings.shift_remove(key);
            }
            (Some(Value::Object(inner)), Value::Object(change)) => merge(inner, change),
            (_, value) => {
                settings.insert(key.clone(), value.clone());
            }
        }
    }
}

/// `key.in.key=value`; null takes the key away, and maps that become empty by that.
fn set(settings: &mut Settings, setting: &str) -> Result<(), Failure> {
    let invalid = || Failure::because(format!("Invalid parameter setting {setting}"));
    let (path, text) = setting.split_once('=').ok_or_else(invalid)?;
    let value = yaml::load(text).map_err(|_| invalid())?.root.to_json();
    let path = path_of(path.trim());
    if path.iter().any(String::is_empty) {
        Err(invalid())
    } else {
        put(settings, &path, value).ok_or_else(invalid)
    }
}

/// Behind `postgresql.parameters.` all is one name.
fn path_of(path: &str) -> Vec<String> {
    let mut words: Vec<String> = path.split('.').map(str::to_owned).collect();
    if words.iter().take(PARAMETERS.len()).eq(PARAMETERS.iter()) && words.len() > PARAMETERS.len() {
        let name = words.split_off(PARAMETERS.len()).join(".");
        words.push(name);
    }
    words
}

/// None: something on the way is no map.
fn put(settings: &mut Settings, path: &[String], value: Value) -> Option<()> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        if value.is_null() {
            settings.shift_remove(first);
        } else {
            settings.insert(first.clone(), value);
        }
        return Some(());
    }
    if value.is_null() && !settings.contains_key(first) {
        return Some(());
    }
    let is_removal = value.is_null();
    let below = settings.entry(first.clone()).or_insert_with(|| json!({}));
    if below.is_null() {
        *below = json!({});
    }
    let map = below.as_object_mut()?;
    put(map, rest, value)?;
    if is_removal && map.is_empty() {
        settings.shift_remove(first);
    }
    Some(())
}

/// What makes `after` of `before` when it is merged into it.
fn patch(before: &Settings, after: &Settings) -> Settings {
    let mut patch = Settings::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match (before.get(key), value) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(key.clone(), Value::Object(self::patch(old, new)));
            }
            (_, new) => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    patch
}

/// The next member is asked only when nothing was sent to the one before.
async fn ask(
    addresses: &[String],
    request: impl AsyncFn(&str) -> Result<Answer, NoAnswer>,
) -> Result<Answer, Failure> {
    for address in addresses {
        match request(address).await {
            Ok(answer) => return Ok(answer),
            Err(NoAnswer::Connect(_)) => {}
            Err(NoAnswer::Lost(why)) => {
                return Err(Failure::because(format!(
                    "{address} was asked to change the settings, but the answer was lost ({why}): look at `pgherdctl \
                     show-config` before asking again"
                )));
            }
        }
    }
    Err(Failure::because("Can not find accessible cluster member"))
}

fn tell(output: &mut Output, answer: &Answer) -> Result<(), Failure> {
    if answer.status.is_success() {
        output.say("Configuration changed");
        if let Some(warnings) = &answer.reason {
            output.complain(&format!("Warning: {warnings}"));
        }
        return Ok(());
    }
    if answer.status == StatusCode::CONFLICT {
        return Err(concurrent());
    }
    output.say(&format!("Failed: edit-config, {}", answer.refusal()));
    Err(Failure::Told)
}

async fn roll_back(
    output: &mut Output,
    client: &Client,
    cluster: &Cluster,
    addresses: &[String],
    before: &Settings,
    wanted: u64,
    options: &EditConfigArguments,
) -> Result<(), Failure> {
    let known = revisions(client, cluster).await?;
    let target = target(&known, wanted)?;
    if let Some(after) = &target.config {
        let shown = diff::unified(&as_text(before), &as_text(after));
        if shown.is_empty() {
            output.say("Not changed");
            return Ok(());
        }
        if !options.quiet {
            editor::show_diff(output, &shown);
        }
    }
    let question = format!("Go back to revision {}?", target.revision);
    if !options.force && !output.confirm(&question)? {
        return Err(Failure::Told);
    }
    let body = json!({ "revision": target.revision }).to_string();
    let answer =
        ask(addresses, async |address| client.post(address, "/config/rollback", body.clone()).await).await?;
    tell(output, &answer)
}

/// The revision with this number; zero: the one before the present.
fn target(known: &[Revision], wanted: u64) -> Result<&Revision, Failure> {
    let found = if wanted == 0 {
        known.len().checked_sub(2).and_then(|place| known.get(place))
    } else {
        known.iter().find(|revision| revision.revision == wanted)
    };
    found.ok_or_else(|| {
        let numbers: Vec<String> = known.iter().map(|revision| revision.revision.to_string()).collect();
        Failure::because(match wanted {
            0 => "there is no revision before the present one".to_owned(),
            _ => format!("revision {wanted} is not kept; these are: {}", numbers.join(", ")),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: &Value) -> Settings {
        value.as_object().expect("a map").clone()
    }

    fn set_all(before: &Value, settings: &[&str]) -> Value {
        let mut map = map(before);
        for setting in settings {
            set(&mut map, setting).expect("set");
        }
        Value::Object(map)
    }

    #[test]
    fn keys_are_paths_and_values_are_yaml() {
        let before = json!({"ttl": 30, "postgresql": {"parameters": {"max_connections": 100}}});
        let after = set_all(
            &before,
            &[
                "ttl=20",
                "postgresql.parameters.pg_stat_statements.max=10",
                "slots.a={type: physical}",
                "pause=on",
            ],
        );
        let expected = json!({
            "ttl": 20, "pause": true, "slots": {"a": {"type": "physical"}},
            "postgresql": {"parameters": {"max_connections": 100, "pg_stat_statements.max": 10}},
        });
        assert_eq!(after, expected);
        let gone = set_all(
            &after,
            &["slots.a=null", "postgresql.parameters.pg_stat_statements.max=", "x.y=null", "pause="],
        );
        assert_eq!(gone, set_all(&before, &["ttl=20"]));
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let mut settings = map(&json!({"ttl": 30}));
        for setting in ["ttl", "ttl.x=1", "=1", "a..b=1", "a=[1"] {
            assert!(set(&mut settings, setting).is_err(), "{setting}");
        }
        assert_eq!(Value::Object(settings), json!({"ttl": 30}));
    }

    #[test]
    fn a_patch_makes_the_one_of_the_other() {
        let before = map(&json!({"ttl": 30, "a": {"b": 1, "c": {"d": 2}}, "gone": 1, "kind": {"x": 1}}));
        let after = map(&json!({"ttl": 30, "a": {"b": 1, "c": {"e": 3}}, "new": [1], "kind": 5}));
        let patch = patch(&before, &after);
        let expected = json!({"gone": null, "a": {"c": {"d": null, "e": 3}}, "new": [1], "kind": 5});
        assert_eq!(Value::Object(patch.clone()), expected);
        let mut merged = before;
        merge(&mut merged, &patch);
        assert_eq!(merged, after);
    }

    #[test]
    fn the_revision_before_the_present() {
        let known: Vec<Revision> =
            [4, 5, 9].map(|revision| Revision { revision, at: None, by: None, config: None }).to_vec();
        assert_eq!(target(&known, 0).ok().map(|found| found.revision), Some(5));
        assert_eq!(target(&known, 4).ok().map(|found| found.revision), Some(4));
        assert!(target(&known, 3).is_err() && target(known.get(..1).expect("one"), 0).is_err());
    }
}
