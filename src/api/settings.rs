//! The cluster's settings: `GET`, `PATCH` and `PUT /config`.
//!
//! A change is read, checked as a whole, and written only over the revision that it was made for; when somebody else was
//! faster it is made anew on theirs. What has a mistake is not written, and all mistakes are told at once.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use pgherd_raft::clock;
use pgherd_raft::config::{Problem, Severity, shown_key};
use pgherd_raft::group::Proposed;
use pgherd_raft::model::{
    ClusterState, Command, MAX_DOCUMENT_BYTES, MAX_SETTINGS_BY_BYTES, Outcome, Rejection, Revision,
};
use serde_json::{Map, Value};
use tracing::info;

use super::reply::Reply;
use super::{ApiState, Shared, body};
use crate::config;

/// How long the first settings are waited for.
const FIRST_SETTINGS: Duration = Duration::from_secs(2);
/// So often a change is made anew because somebody else was faster.
const ATTEMPTS: usize = 5;
/// Keys whose values are secrets, wherever they stand. They belong into the nodes' own files.
const SECRETS: [&str; 3] = ["password", "sslpassword", "passwd"];

/// It means nothing in the settings, and may hold a password all the same.
const PRIMARY_CONNINFO: &str = "primary_conninfo";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Merged into what is there.
    Patch,
    /// Instead of what is there.
    Put,
}

/// A change that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) wanted: Map<String, Value>,
    pub(super) way: Way,
    /// Who asks for it, for people.
    pub(super) by: String,
}

/// The primary of a new cluster writes the settings a moment after it can be seen: they are waited for, for a while.
pub(super) async fn await_first(api: &ApiState) {
    let mut watch = api.intents.watch();
    let is_being_made = {
        let state = &watch.borrow().state;
        state.lease.holder().is_some() && state.settings.revision == Revision(0)
    };
    if is_being_made {
        let made = watch.wait_for(|view| view.state.settings.revision > Revision(0));
        if tokio::time::timeout(FIRST_SETTINGS, made).await.is_err() {
            tracing::debug!("the new cluster has no settings yet");
        }
    }
}

/// `GET /config`.
pub(super) fn get(state: &ClusterState) -> Reply {
    match parsed(&state.settings.document) {
        Some(settings) => Reply::json(StatusCode::OK, &without_secrets(&settings)),
        None => Reply::text(StatusCode::BAD_GATEWAY, "the cluster has no configuration yet"),
    }
}

/// `PATCH` and `PUT /config`.
pub(super) async fn change(shared: Shared, request: Request, way: Way, by: String) -> Reply {
    let wanted = match body::object(request, MAX_DOCUMENT_BYTES).await {
        Ok(fields) if fields.is_empty() => {
            return Reply::text(StatusCode::BAD_REQUEST, "the body is an empty object");
        }
        Ok(fields) => fields,
        Err(refusal) => return refusal,
    };
    let api = shared.api.clone();
    let change = Change { wanted, way, by };
    let made = async move {
        await_first(&api).await;
        write(&api, &change).await
    };
    shared.operations.run(made).await
}

/// Makes the change, anew for each revision that somebody else was faster with.
pub(super) async fn write(api: &ApiState, change: &Change) -> Reply {
    for _ in 0..ATTEMPTS {
        let state = match api.intents.read().await {
            Ok(state) => state,
            Err(why) => return Reply::text(unwritten(change.way), why.to_string()),
        };
        let next = match next(&state, change) {
            Ok(Some(next)) => next,
            Ok(None) => return told(&state.settings.document),
            Err(refusal) => return refusal,
        };
        let mut mistakes = next.mistakes;
        for mistake in postgresqls_mistakes(api, &state, &next.document, change.way).await {
            if !mistakes.contains(&mistake) {
                mistakes.push(mistake);
            }
        }
        if !mistakes.is_empty() {
            return Reply::text(StatusCode::BAD_REQUEST, mistakes.join("\n"));
        }
        let command = Command::SetSettings {
            expected: next.revision,
            document: next.document.clone(),
            by: cut(&change.by),
            at_ms: clock::wall_ms(),
        };
        match api.intents.propose(command).await {
            Proposed::Outcome(Outcome::Applied) => {
                info!("{} changed the settings of revision {}", change.by, next.revision);
                let reply = told(&next.document);
                return if next.warnings.is_empty() { reply } else { reply.because(&next.warnings) };
            }
            // Its own lost answer looks the same: then nothing is left to be changed.
            Proposed::Outcome(Outcome::Rejected(Rejection::Revision { .. })) => {}
            Proposed::Outcome(Outcome::Rejected(why)) => {
                return Reply::text(StatusCode::BAD_REQUEST, why.to_string());
            }
            Proposed::Unknown(why) => {
                let text = format!("it is not known whether the settings were changed: {why}");
                return Reply::text(unwritten(change.way), text);
            }
        }
    }
    Reply::text(StatusCode::CONFLICT, "others changed the settings again and again: ask again")
}

/// Parameters with which PostgreSQL would not start, as far as it can tell. It is not asked about what stays as it is: most
/// changes are not about parameters, and some are urgent.
async fn postgresqls_mistakes(api: &ApiState, state: &ClusterState, next: &str, way: Way) -> Vec<String> {
    let read = |document: &str| serde_json::from_str(document).unwrap_or(Value::Null);
    let (before, after): (Value, Value) = (read(&state.settings.document), read(next));
    let parameters = |document: &Value| document.pointer("/postgresql/parameters").cloned();
    if way == Way::Patch && parameters(&before) == parameters(&after) {
        return Vec::new();
    }
    let mut mistakes = api.parameters.mistakes(&after).await;
    if !mistakes.is_empty() && way == Way::Patch {
        // What was wrong before is not this change's.
        let known = api.parameters.mistakes(&before).await;
        mistakes.retain(|mistake| !known.contains(mistake));
    }
    mistakes
}

fn cut(by: &str) -> String {
    let mut by = by.to_owned();
    while by.len() > MAX_SETTINGS_BY_BYTES {
        by.pop();
    }
    by
}

/// Patroni's code for what could not be written.
fn unwritten(way: Way) -> StatusCode {
    match way {
        Way::Patch => StatusCode::SERVICE_UNAVAILABLE,
        Way::Put => StatusCode::BAD_GATEWAY,
    }
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Next {
    document: String,
    /// The revision which it replaces.
    revision: Revision,
    /// Why it must not be written.
    mistakes: Vec<String>,
    /// What whoever asked should know.
    warnings: String,
}

/// The document to write; none: nothing changes.
fn next(state: &ClusterState, change: &Change) -> Result<Option<Next>, Reply> {
    let present = parsed(&state.settings.document).filter(|_| state.settings.revision != Revision(0));
    let document = match (change.way, &present) {
        (Way::Patch, None) => {
            let text = "the cluster has no configuration yet";
            return Err(Reply::text(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        (Way::Patch, Some(present)) => merged(present, &change.wanted),
        (Way::Put, _) => change.wanted.clone(),
    };
    if present.as_ref() == Some(&document) {
        return Ok(None);
    }
    // What was wrong before is not this change's.
    let known = present.map(|present| problems(&present)).unwrap_or_default();
    let mut found = problems(&document);
    let tolerates = |severity| severity == Severity::Warning || change.way == Way::Patch;
    found.retain(|(severity, problem)| {
        !tolerates(*severity) || !known.contains(&(*severity, problem.clone()))
    });
    let of = |wanted| {
        let texts = found.iter().filter(|(severity, _)| *severity == wanted).map(|(_, text)| text.as_str());
        texts.collect::<Vec<_>>()
    };
    let mistakes = of(Severity::Error).into_iter().map(str::to_owned).collect();
    let warnings = of(Severity::Warning).join("; ");
    let document = Value::Object(document).to_string();
    Ok(Some(Next { document, revision: state.settings.revision, mistakes, warnings }))
}

pub(super) fn parsed(document: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(document) {
        Ok(Value::Object(fields)) => Some(fields),
        Ok(_) | Err(_) => None,
    }
}

/// Objects are merged at every depth, and null removes. An object where there was none is taken as it is, with its nulls:
/// `slots: {name: null}` is a slot.
fn merged(present: &Map<String, Value>, change: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = present.clone();
    for (key, value) in change {
        match (merged.get(key), value) {
            (_, Value::Null) => {
                merged.shift_remove(key);
            }
            (Some(Value::Object(inner)), Value::Object(change)) => {
                let inner = self::merged(inner, change);
                merged.insert(key.clone(), Value::Object(inner));
            }
            (_, value) => {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    merged
}

/// What is wrong or worth a word, a sentence each.
fn problems(document: &Map<String, Value>) -> Vec<(Severity, String)> {
    let (_, problems) = config::parse(&Value::Object(document.clone()));
    let said = |problem: &Problem| (problem.severity, problem.to_string());
    let mut problems: Vec<(Severity, String)> = problems.iter().map(said).collect();
    name_unwanted(document, "", &mut problems);
    problems
}

fn is_secret(key: &str) -> bool {
    SECRETS.iter().any(|secret| key.eq_ignore_ascii_case(secret))
}

/// Does a connection string have one?
fn holds_password(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.to_ascii_lowercase().contains("password"))
}

fn name_unwanted(document: &Map<String, Value>, path: &str, problems: &mut Vec<(Severity, String)>) {
    for (key, value) in document {
        let is_odd = |c: char| c.is_control() || matches!(c, '"' | '\'' | '\\' | '`');
        if key.is_empty() || key.chars().any(is_odd) {
            let path = if path.is_empty() { "the settings" } else { path };
            let text =
                format!("{path}: {:?} is no name of a key; use letters, digits, - and _", shown_key(key));
            problems.push((Severity::Error, text));
            continue;
        }
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if is_secret(key) || key == PRIMARY_CONNINFO && holds_password(value) {
            let text = format!(
                "{path}: a password in the settings is shown to everybody; write it into the nodes' configuration files"
            );
            problems.push((Severity::Error, text));
        } else if let Value::Object(inner) = value {
            name_unwanted(inner, &path, problems);
        }
    }
}

/// What a cluster was founded with may hold a password all the same.
pub(crate) fn without_secrets(document: &Map<String, Value>) -> Map<String, Value> {
    let is_shown =
        |key: &str, value: &Value| !(is_secret(key) || key == PRIMARY_CONNINFO && holds_password(value));
    let shown = document.iter().filter(|(key, value)| is_shown(key, value)).map(|(key, value)| {
        let value = match value.as_object() {
            Some(inner) => Value::Object(without_secrets(inner)),
            None => value.clone(),
        };
        (key.clone(), value)
    });
    shown.collect()
}

fn told(document: &str) -> Reply {
    Reply::json(StatusCode::OK, &without_secrets(&parsed(document).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::testing::{FakeGroup, Fate, state, view};
    use super::*;

    fn fields(value: &Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    fn change(way: Way, wanted: &Value) -> Change {
        Change { wanted: fields(wanted), way, by: "admin".to_owned() }
    }

    async fn ask(group: &Arc<FakeGroup>, way: Way, body: Value) -> (u16, String) {
        let api = state(view(3, clock::now()), Arc::clone(group));
        let reply = write(&api, &change(way, &body)).await;
        (reply.code.as_u16(), reply.body)
    }

    #[test]
    fn objects_are_merged_and_null_removes() {
        let present =
            json!({"ttl": 5, "postgresql": {"parameters": {"a": 1, "b": 2}, "use_slots": true}, "pause": 1});
        let change = json!({
            "ttl": null, "pause": {"x": null}, "loop_wait": null,
            "postgresql": {"parameters": {"a": null, "c": 3}}, "slots": {"x": null, "y": {"z": null}},
        });
        let expected = json!({
            "postgresql": {"parameters": {"b": 2, "c": 3}, "use_slots": true}, "pause": {"x": null},
            "slots": {"x": null, "y": {"z": null}},
        });
        assert_eq!(merged(&fields(&present), &fields(&change)), fields(&expected));
    }

    #[tokio::test]
    async fn a_change_waits_for_the_first_settings() {
        let group = FakeGroup::new(Fate::Done);
        group.forget_settings();
        let api = state(view(3, clock::now()), Arc::clone(&group));
        let document = "{\"ttl\":7}".to_owned();
        let first = Command::SetSettings { expected: Revision(0), document, by: String::new(), at_ms: 0 };
        let patch = async {
            await_first(&api).await;
            write(&api, &change(Way::Patch, &json!({"pause": true}))).await
        };
        let (reply, _) = tokio::join!(patch, api.intents.propose(first));
        assert_eq!(reply.body, r#"{"ttl":7,"pause":true}"#);
    }

    #[tokio::test]
    async fn a_change_is_written_once_and_told() {
        let group = FakeGroup::new(Fate::Done);
        let (code, body) = ask(&group, Way::Patch, json!({"pause": true})).await;
        assert_eq!((code, body.as_str()), (200, r#"{"ttl":5,"loop_wait":10,"pause":true}"#));
        assert_eq!(group.state().settings.revision, Revision(2));
        let record = group.state().settings_history.back().cloned().expect("a record");
        assert_eq!((record.by.as_str(), record.document.as_str()), ("admin", body.as_str()));
        assert!(record.at_ms > 0);
        // The same again writes nothing.
        assert_eq!(ask(&group, Way::Patch, json!({"pause": true})).await, (200, body));
        assert_eq!(group.state().settings.revision, Revision(2));
        let (code, body) = ask(&group, Way::Put, json!({"ttl": 20})).await;
        assert_eq!((code, body.as_str()), (200, r#"{"ttl":20}"#));
        assert_eq!(group.state().settings.document, body);
    }

    #[tokio::test]
    async fn all_mistakes_are_told_and_nothing_is_written() {
        let group = FakeGroup::new(Fate::Done);
        let wrong = json!({
            "ttl": -5, "pause": 7, "standby_cluster": {"host": "a", "password": "hidden"}, "a\"b": 1, "slots": {"\t": 1},
            "postgresql": {
                "recovery_conf": {"primary_conninfo": "host=a password=hidden"}, "parameters": {"work_mem": "much"},
            },
        });
        for way in [Way::Patch, Way::Put] {
            let (code, body) = ask(&group, way, wrong.clone()).await;
            assert_eq!(code, 400, "{body}");
            let secret = "postgresql.recovery_conf.primary_conninfo";
            let own = "postgresql.parameters.work_mem";
            for word in ["ttl", "pause", "standby_cluster.password", "the settings: ", "slots: ", secret, own]
            {
                assert!(body.lines().any(|line| line.starts_with(word)), "{word} is missing in {body}");
            }
            assert!(!body.contains("hidden"), "{body}");
        }
        assert_eq!(group.state().settings.revision, Revision(1));
    }

    #[tokio::test]
    async fn what_postgresql_would_not_start_with_is_refused() {
        let group = FakeGroup::new(Fate::Done);
        let wrong = json!({"postgresql": {"parameters": {"work_mem": "much"}}});
        let (code, body) = ask(&group, Way::Patch, wrong).await;
        assert_eq!((code, body.as_str()), (400, "postgresql.parameters.work_mem: PostgreSQL refuses it"));
        assert_eq!(group.state().settings.revision, Revision(1));
        // A document which has it already can be changed elsewhere.
        let document = r#"{"postgresql":{"parameters":{"work_mem":"much"}}}"#.to_owned();
        group.set_settings(&document);
        assert_eq!(ask(&group, Way::Patch, json!({"ttl": 6})).await.0, 200);
        assert_eq!(
            ask(&group, Way::Put, json!({"postgresql": {"parameters": {"work_mem": "much"}}})).await.0,
            400
        );
    }

    #[tokio::test]
    async fn what_has_no_effect_is_taken_and_named() {
        let group = FakeGroup::new(Fate::Done);
        let api = state(view(3, clock::now()), Arc::clone(&group));
        let reply = write(&api, &change(Way::Patch, &json!({"ttll": 5}))).await;
        assert_eq!(reply.code, StatusCode::OK);
        let answer = axum::response::IntoResponse::into_response(reply);
        let why = answer.headers().get("pgherd-reason").and_then(|why| why.to_str().ok()).unwrap_or_default();
        assert!(why.starts_with("ttll"), "{why}");
        // It was there before: it is not told again.
        let reply = write(&api, &change(Way::Patch, &json!({"ttl": 6}))).await;
        let answer = axum::response::IntoResponse::into_response(reply);
        assert_eq!(answer.headers().get("pgherd-reason"), None);
    }

    #[test]
    fn passwords_are_not_shown() {
        let document = json!({"a": {"password": "x", "b": 1}, "password": "y"});
        assert_eq!(Value::Object(without_secrets(&fields(&document))), json!({"a": {"b": 1}}));
    }

    #[tokio::test]
    async fn a_faster_change_of_somebody_else_is_kept() {
        let group = FakeGroup::new(Fate::Done);
        let before = group.state();
        assert_eq!(ask(&group, Way::Patch, json!({"loop_wait": 3})).await.0, 200);
        // What was made for the revision of before is refused, and made anew.
        let made = next(&before, &change(Way::Patch, &json!({"ttl": 7})));
        let Next { document, revision, .. } = made.ok().flatten().expect("a change");
        let command = Command::SetSettings { expected: revision, document, by: "late".to_owned(), at_ms: 1 };
        let late = super::super::Intents::propose(&*group, command).await;
        assert!(matches!(late, Proposed::Outcome(Outcome::Rejected(Rejection::Revision { .. }))), "{late:?}");
        let (_, body) = ask(&group, Way::Patch, json!({"ttl": 7})).await;
        assert_eq!(body, r#"{"ttl":7,"loop_wait":3}"#);
    }
}
