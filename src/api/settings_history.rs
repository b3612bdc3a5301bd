//! The last revisions of the cluster's settings: `GET /config/history` and `POST /config/rollback`.

use axum::extract::Request;
use axum::http::StatusCode;
use pgherd_raft::model::{ClusterState, Revision, SettingsRecord};
use serde_json::{Map, Value, json};

use super::reply::Reply;
use super::schedule::iso8601;
use super::settings::{self, Change, Way, parsed, without_secrets};
use super::{Shared, body};

/// The most bytes of a rollback's body: it has one number.
const MAX_BODY: usize = 4 * 1024;

/// The revisions that are kept, the oldest first; the last one is in force.
pub(super) fn list(state: &ClusterState) -> Reply {
    let records = state.settings_history.iter().map(shown);
    Reply::json(StatusCode::OK, &records.collect::<Vec<Value>>())
}

fn shown(record: &SettingsRecord) -> Value {
    let at = (record.at_ms > 0).then(|| iso8601(i64::try_from(record.at_ms).unwrap_or(i64::MAX)));
    json!({
        "revision": record.revision,
        "at": at,
        "by": Some(&record.by).filter(|by| !by.is_empty()),
        "config": without_secrets(&parsed(&record.document).unwrap_or_default()),
    })
}

/// Makes a new revision out of an earlier one, checked like any other change.
pub(super) async fn rollback(shared: Shared, request: Request, by: String) -> Reply {
    let wanted = match body::object(request, MAX_BODY).await.and_then(|fields| revision(&fields)) {
        Ok(revision) => revision,
        Err(refusal) => return refusal,
    };
    let state = match shared.api.intents.read().await {
        Ok(state) => state,
        Err(why) => return Reply::text(StatusCode::SERVICE_UNAVAILABLE, why.to_string()),
    };
    let record = state.settings_history.iter().find(|record| record.revision == wanted);
    let Some(document) = record.and_then(|record| parsed(&record.document)) else {
        let kept: Vec<String> =
            state.settings_history.iter().map(|record| record.revision.to_string()).collect();
        let text = format!("revision {wanted} is not kept; these are: {}", kept.join(", "));
        return Reply::text(StatusCode::NOT_FOUND, text);
    };
    let api = shared.api.clone();
    let change = Change { wanted: document, way: Way::Put, by: format!("{by}, back to revision {wanted}") };
    shared.operations.run(async move { settings::write(&api, &change).await }).await
}

fn revision(fields: &Map<String, Value>) -> Result<Revision, Reply> {
    let bad = |text: &str| Reply::text(StatusCode::BAD_REQUEST, text);
    match (fields.get("revision"), fields.len()) {
        (Some(value), 1) => {
            let number = value.as_u64().filter(|number| *number > 0);
            number.map(Revision).ok_or_else(|| bad("revision is not a number above 0"))
        }
        _ => Err(bad("give the number of a revision: {\"revision\": NUMBER}")),
    }
}
