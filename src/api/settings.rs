//! The cluster's settings: `GET`, `PATCH` and `PUT /config`.
//!
//! A change is read, checked as a whole, and written only over the revision that it was made for; when somebody else was
//! faster it is made anew on theirs. What has a mistake is not written, and all mistakes are told at once.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use pgherd_raft::clock;
use pgherd_raft::config::Severity;
use pgherd_raft::group::Proposed;
use pgherd_raft::model::{ClusterState, Command, MAX_DOCUMENT_BYTES, Outcome, Rejection, Revision};
use serde_json::{Map, Value};
use tokio::time::timeout;
use tracing::info;

use super::reply::Reply;
use super::standing::Standing;
use super::{ApiState, Shared};
use crate::config;

/// How long a client may take to send the body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
/// So often a change is made anew because somebody else was faster.
const ATTEMPTS: usize = 5;
/// Keys whose values are secrets, wherever they stand. They belong into the nodes' own files.
const SECRETS: [&str; 3] = ["password", "sslpassword", "passwd"];

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Merged into what is there.
    Patch,
    /// Instead of what is there.
    Put,
}

/// `GET /config`.
pub(super) fn get(standing: &Standing) -> Reply {
    match parsed(&standing.view.observation.cluster.settings.document) {
        Some(settings) => Reply::json(StatusCode::OK, &without_secrets(&settings)),
        None => Reply::text(StatusCode::BAD_GATEWAY, "the cluster has no configuration yet"),
    }
}

/// `PATCH` and `PUT /config`.
pub(super) async fn change(shared: Shared, request: Request, way: Way) -> Reply {
    let bad = |text: String| Reply::text(StatusCode::BAD_REQUEST, text);
    if !has_length(request.headers()) {
        return Reply::text(StatusCode::LENGTH_REQUIRED, "the length of the body is not given");
    }
    let body = axum::body::to_bytes(request.into_body(), MAX_DOCUMENT_BYTES);
    let body = match timeout(BODY_PATIENCE, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return bad(format!("the body is incomplete or longer than {MAX_DOCUMENT_BYTES} bytes"));
        }
        Err(_) => return Reply::text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let wanted = match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) if !fields.is_empty() => fields,
        Ok(Value::Object(_)) => return bad("the body is an empty object".to_owned()),
        Ok(_) => return bad("the body is not a JSON object".to_owned()),
        Err(source) => return bad(format!("not JSON: {source}")),
    };
    let api = shared.api.clone();
    shared.operations.run(async move { write(&api, &wanted, way).await }).await
}

fn has_length(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.is_some_and(|text| text.parse::<u64>().is_ok_and(|length| length > 0))
}

async fn write(api: &ApiState, wanted: &Map<String, Value>, way: Way) -> Reply {
    for _ in 0..ATTEMPTS {
        let state = match api.intents.read().await {
            Ok(state) => state,
            Err(why) => return Reply::text(unwritten(way), why.to_string()),
        };
        let (document, revision) = match next(&state, wanted, way) {
            Ok(Some(next)) => next,
            Ok(None) => return told(&state.settings.document),
            Err(refusal) => return refusal,
        };
        let command = Command::SetSettings {
            expected: revision,
            document: document.clone(),
            by: "operator".to_owned(),
            at_ms: clock::wall_ms(),
        };
        match api.intents.propose(command).await {
            Proposed::Outcome(Outcome::Applied) => {
                info!("an operator changed the settings of revision {revision}");
                return told(&document);
            }
            // Its own lost answer looks the same: then nothing is left to be changed.
            Proposed::Outcome(Outcome::Rejected(Rejection::Revision { .. })) => {}
            Proposed::Outcome(Outcome::Rejected(why)) => {
                return Reply::text(StatusCode::BAD_REQUEST, why.to_string());
            }
            Proposed::Unknown(why) => {
                let text = format!("it is not known whether the settings were changed: {why}");
                return Reply::text(unwritten(way), text);
            }
        }
    }
    Reply::text(StatusCode::CONFLICT, "others changed the settings again and again: ask again")
}

/// Patroni's code for what could not be written.
fn unwritten(way: Way) -> StatusCode {
    match way {
        Way::Patch => StatusCode::SERVICE_UNAVAILABLE,
        Way::Put => StatusCode::BAD_GATEWAY,
    }
}

/// The document to write and the revision which it replaces; none: nothing changes.
fn next(
    state: &ClusterState,
    wanted: &Map<String, Value>,
    way: Way,
) -> Result<Option<(String, Revision)>, Reply> {
    let present = parsed(&state.settings.document).filter(|_| state.settings.revision != Revision(0));
    let document = match (way, &present) {
        (Way::Patch, None) => {
            let text = "the cluster has no configuration yet";
            return Err(Reply::text(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        (Way::Patch, Some(present)) => merged(present, wanted),
        (Way::Put, _) => wanted.clone(),
    };
    if present.as_ref() == Some(&document) {
        return Ok(None);
    }
    let known = present.filter(|_| way == Way::Patch).map(|present| mistakes(&present)).unwrap_or_default();
    let mut mistakes = mistakes(&document);
    // What was wrong before is not this change's.
    mistakes.retain(|mistake| !known.contains(mistake));
    if !mistakes.is_empty() {
        return Err(Reply::text(StatusCode::BAD_REQUEST, mistakes.join("\n")));
    }
    Ok(Some((Value::Object(document).to_string(), state.settings.revision)))
}

fn parsed(document: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(document) {
        Ok(Value::Object(fields)) => Some(fields),
        Ok(_) | Err(_) => None,
    }
}

/// Objects are merged at every depth, and null removes.
fn merged(present: &Map<String, Value>, change: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = present.clone();
    for (key, value) in change {
        if value.is_null() {
            merged.shift_remove(key);
            continue;
        }
        let value = match value.as_object() {
            Some(change) => {
                let inner = merged.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
                Value::Object(self::merged(&inner, change))
            }
            None => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

/// What is wrong, a sentence each.
fn mistakes(document: &Map<String, Value>) -> Vec<String> {
    let (_, problems) = config::parse(&Value::Object(document.clone()));
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let mut mistakes: Vec<String> = errors.map(ToString::to_string).collect();
    name_secrets(document, "", &mut mistakes);
    mistakes
}

fn is_secret(key: &str) -> bool {
    SECRETS.iter().any(|secret| key.eq_ignore_ascii_case(secret))
}

fn name_secrets(document: &Map<String, Value>, path: &str, mistakes: &mut Vec<String>) {
    for (key, value) in document {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if is_secret(key) {
            mistakes.push(format!(
                "{path}: a password in the settings is shown to everybody; write it into the nodes' configuration files"
            ));
        } else if let Value::Object(inner) = value {
            name_secrets(inner, &path, mistakes);
        }
    }
}

/// What a cluster was founded with may hold a password all the same.
fn without_secrets(document: &Map<String, Value>) -> Map<String, Value> {
    let shown = document.iter().filter(|(key, _)| !is_secret(key)).map(|(key, value)| {
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

    async fn ask(group: &Arc<FakeGroup>, way: Way, body: Value) -> (u16, String) {
        let api = state(view(3, clock::now()), Arc::clone(group));
        let reply = write(&api, &fields(&body), way).await;
        (reply.code.as_u16(), reply.body)
    }

    #[test]
    fn objects_are_merged_and_null_removes() {
        let present = json!({"ttl": 5, "postgresql": {"parameters": {"a": 1, "b": 2}, "use_slots": true}});
        let change = json!({"ttl": null, "postgresql": {"parameters": {"a": null, "c": 3}}, "slots": {"x": {"y": null}}});
        let expected =
            json!({"postgresql": {"parameters": {"b": 2, "c": 3}, "use_slots": true}, "slots": {"x": {}}});
        assert_eq!(merged(&fields(&present), &fields(&change)), fields(&expected));
    }

    #[tokio::test]
    async fn a_change_is_written_once_and_told() {
        let group = FakeGroup::new(Fate::Done);
        let (code, body) = ask(&group, Way::Patch, json!({"pause": true})).await;
        assert_eq!((code, body.as_str()), (200, r#"{"ttl":5,"loop_wait":10,"pause":true}"#));
        assert_eq!(group.state().settings.revision, Revision(2));
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
        let wrong =
            json!({"ttl": "soon", "pause": 7, "standby_cluster": {"host": "a", "password": "hidden"}});
        for way in [Way::Patch, Way::Put] {
            let (code, body) = ask(&group, way, wrong.clone()).await;
            assert_eq!(code, 400, "{body}");
            for word in ["ttl", "pause", "standby_cluster.password"] {
                assert!(body.lines().any(|line| line.starts_with(word)), "{word} is missing in {body}");
            }
            assert!(!body.contains("hidden"), "{body}");
        }
        assert_eq!(group.state().settings.revision, Revision(1));
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
        let (document, revision) =
            next(&before, &fields(&json!({"ttl": 7})), Way::Patch).ok().flatten().expect("a change");
        let command = Command::SetSettings { expected: revision, document, by: String::new(), at_ms: 0 };
        let late = super::super::Intents::propose(&*group, command).await;
        assert!(matches!(late, Proposed::Outcome(Outcome::Rejected(Rejection::Revision { .. }))), "{late:?}");
        let (_, body) = ask(&group, Way::Patch, json!({"ttl": 7})).await;
        assert_eq!(body, r#"{"ttl":7,"loop_wait":3}"#);
    }
}
