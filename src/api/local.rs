//! What an operator asks of this node alone: `/restart`, `/reload` and `/reinitialize`.
//!
//! The agent does it, and says how it ended; the checks, their order and the texts are Patroni's.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use tracing::info;

use super::body;
use super::reply::{Reply, shown};
use super::schedule;
use super::{ApiState, Shared};
use crate::agent::operations::{Refused, RestartRequest};
use crate::ha::{RestartFilters, ScheduledRestart, is_paused};

/// The most bytes of a request's body; a restart with all its filters needs two hundred.
const MAX_BODY: usize = 16 * 1024;
/// Nobody waits longer for a start.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// The roles in which a restart may be asked for.
const ROLES: [&str; 3] = ["primary", "standby_leader", "replica"];

/// What the body of `POST /restart` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    filters: RestartFilters,
    timeout: Option<Duration>,
    at_ms: Option<i64>,
}

/// `POST /restart`.
pub(super) async fn restart(shared: Shared, request: Request) -> Reply {
    let fields = match body::optional_object(request, MAX_BODY).await {
        Ok(fields) => fields,
        Err(refusal) => return refusal,
    };
    if fields.contains_key("schedule") && is_paused(&shared.api.view.borrow().observation) {
        return refused(Refused::Paused);
    }
    let asked = match read(&fields) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let words = shown(&Value::Object(fields).to_string());
    info!("received restart request: {words}");
    let api = shared.api.clone();
    shared.operations.run(async move { begin(&api, asked).await }).await
}

async fn begin(api: &ApiState, asked: Asked) -> Reply {
    let Asked { filters, timeout, at_ms } = asked;
    let Some(at_ms) = at_ms else {
        return match api.actions.restart(RestartRequest { filters, timeout }).await {
            Ok(()) => Reply::text(StatusCode::OK, "restarted successfully"),
            Err(why) => refused(why),
        };
    };
    let timeout_ms = timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    match api.actions.schedule_restart(ScheduledRestart { at_ms, filters, timeout_ms }).await {
        Ok(()) => Reply::text(StatusCode::ACCEPTED, "Restart scheduled"),
        Err(why) => refused(why),
    }
}

/// The keys in the order in which they were sent: the first wrong one is told.
fn read(fields: &Map<String, Value>) -> Result<Asked, Reply> {
    let bad = |text: String| Reply::text(StatusCode::BAD_REQUEST, text);
    let mut asked = Asked::default();
    for (key, value) in fields {
        match key.as_str() {
            "schedule" => {
                let text = value.as_str().ok_or_else(schedule::unreadable)?;
                asked.at_ms = Some(schedule::parse(text, "restart")?);
            }
            "role" => {
                let role = value.as_str().filter(|role| ROLES.contains(role)).ok_or_else(|| {
                    bad("PostgreSQL role should be either primary, standby_leader, or replica".to_owned())
                })?;
                asked.filters.role = Some(role.to_owned());
            }
            "postgres_version" => {
                let version = postgres_version(value);
                asked.filters.postgres_version =
                    Some(version.ok_or_else(|| {
                        bad(format!("Invalid PostgreSQL version: {}", shown(&plain(value))))
                    })?);
            }
            "timeout" => {
                let wrong = || bad("Timeout should be a positive number of seconds".to_owned());
                asked.timeout = Some(timeout(value).ok_or_else(wrong)?);
            }
            // Its presence counts, whatever it says.
            "restart_pending" => asked.filters.restart_pending = true,
            other => {
                return Err(bad(format!("Unknown filter for the scheduled restart: {}", shown(other))));
            }
        }
    }
    Ok(asked)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `15.8` as 150008; before version 10 three numbers, `9.6.3`.
fn postgres_version(value: &Value) -> Option<u32> {
    let parts: Vec<u32> = plain(value)
        .split('.')
        .map(|part| part.parse().ok().filter(|number| *number < 100))
        .collect::<Option<_>>()?;
    match parts.as_slice() {
        [major, minor] if *major >= 10 => Some(major * 10_000 + minor),
        [major, middle, minor] => Some(major * 10_000 + middle * 100 + minor),
        _ => None,
    }
}

/// Whole seconds, or a text with a unit.
fn timeout(value: &Value) -> Option<Duration> {
    let place = pgherd_raft::yaml::Place::named("timeout");
    let node = pgherd_raft::yaml::Node::from_json(value, &place);
    let milliseconds = u64::try_from(pgherd_raft::config::milliseconds(&node)?).ok()?;
    let timeout = Duration::from_millis(milliseconds);
    (!timeout.is_zero()).then(|| timeout.min(LONGEST_TIMEOUT))
}

fn refused(why: Refused) -> Reply {
    let unavailable = |text: String| Reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
    match why {
        Refused::ConditionsNotMet(why) => {
            unavailable("restart conditions are not satisfied".to_owned()).because(&why)
        }
        Refused::InProgress(what) => unavailable(format!("{what} already in progress")),
        Refused::StillStarting => unavailable("postgres is still starting".to_owned()),
        Refused::Failed(why) => unavailable("restart failed".to_owned()).because(&why),
        Refused::Paused => {
            let text = "Can't schedule restart in the paused state";
            Reply::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
        Refused::AlreadyScheduled => {
            Reply::text(StatusCode::CONFLICT, "Another restart is already scheduled")
        }
        Refused::NotPossible(why) => unavailable(why),
    }
}

/// `DELETE /restart`.
pub(super) async fn cancel_restart(shared: Shared) -> Reply {
    if shared.api.actions.cancel_scheduled_restart().await {
        Reply::text(StatusCode::OK, "scheduled restart deleted")
    } else {
        Reply::text(StatusCode::NOT_FOUND, "no restarts are scheduled")
    }
}

/// `POST /reload`. The body says nothing.
pub(super) async fn reload(shared: Shared, request: Request) -> Reply {
    if let Err(refusal) = body::optional_object(request, MAX_BODY).await {
        return refusal;
    }
    info!("received reload request: the configuration is read again");
    match shared.api.actions.reload().await {
        Ok(()) => Reply::text(StatusCode::ACCEPTED, "reload scheduled"),
        Err(why) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

/// `POST /reinitialize`.
pub(super) async fn reinitialize(shared: Shared, request: Request) -> Reply {
    let fields = match body::optional_object(request, MAX_BODY).await {
        Ok(fields) => fields,
        Err(refusal) => return refusal,
    };
    let flags = flag(&fields, &["force"])
        .and_then(|force| Ok((force, flag(&fields, &["from_leader", "from-leader"])?)));
    let (force, from_leader) = match flags {
        Ok(flags) => flags,
        Err(refusal) => return refusal,
    };
    let unavailable = |text: &str| Reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
    let standing = shared.api.standing();
    match standing.holder() {
        None => return unavailable("Cluster has no leader, can not reinitialize"),
        Some(holder) if holder == standing.view.observation.me => {
            return unavailable("I am the leader, can not reinitialize");
        }
        Some(_) => {}
    }
    info!("received reinitialize request: force={force} from_leader={from_leader}");
    let api = shared.api.clone();
    let begin = async move {
        match api.actions.reinitialize(force, from_leader).await {
            Ok(()) => Reply::text(StatusCode::OK, "reinitialize started"),
            Err(Refused::Failed(why)) => {
                Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("reinitialize failed: {why}"))
            }
            Err(why) => refused(why),
        }
    };
    shared.operations.run(begin).await
}

/// A boolean under one of these names, or one of the texts that Patroni takes for one.
fn flag(fields: &Map<String, Value>, names: &[&str]) -> Result<bool, Reply> {
    let Some((name, value)) = names.iter().find_map(|name| Some((name, fields.get(*name)?))) else {
        return Ok(false);
    };
    let place = pgherd_raft::yaml::Place::named(name);
    let node = pgherd_raft::yaml::Node::from_json(value, &place);
    match pgherd_raft::config::read_boolean(&node) {
        Some(value) => Ok(value),
        None if value.is_null() => Ok(false),
        None => Err(Reply::text(StatusCode::BAD_REQUEST, format!("{name} is not a boolean"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(body: Value) -> Result<Asked, (u16, String)> {
        let fields = body.as_object().expect("an object");
        read(fields).map_err(|reply| (reply.code.as_u16(), reply.body))
    }

    #[test]
    fn filters_are_read() {
        let all = asked(json!({
            "role": "replica", "postgres_version": "15.8", "timeout": "2min", "restart_pending": false,
            "schedule": "2999-01-01T00:00:00Z",
        }));
        let filters = RestartFilters {
            role: Some("replica".to_owned()),
            postgres_version: Some(150_008),
            restart_pending: true,
        };
        let timeout = Some(Duration::from_secs(120));
        assert_eq!(all, Ok(Asked { filters, timeout, at_ms: Some(32_472_144_000_000) }));
        assert_eq!(asked(json!({})), Ok(Asked::default()));
        assert_eq!(postgres_version(&json!("9.6.3")), Some(90_603));
        assert_eq!(postgres_version(&json!(15.8)), Some(150_008));
    }

    #[test]
    fn wrong_filters_are_told_in_patronis_words() {
        let role = "PostgreSQL role should be either primary, standby_leader, or replica";
        let timeout = "Timeout should be a positive number of seconds";
        for (body, code, text) in [
            (json!({"role": "leader"}), 400, role),
            (json!({"role": 1}), 400, role),
            (json!({"postgres_version": "15"}), 400, "Invalid PostgreSQL version: 15"),
            (json!({"postgres_version": "9.6"}), 400, "Invalid PostgreSQL version: 9.6"),
            (json!({"postgres_version": "x.y"}), 400, "Invalid PostgreSQL version: x.y"),
            (json!({"postgres_version": null}), 400, "Invalid PostgreSQL version: null"),
            (json!({"timeout": 0}), 400, timeout),
            (json!({"timeout": -1}), 400, timeout),
            (json!({"timeout": "soon"}), 400, timeout),
            (json!({"timeout": [1]}), 400, timeout),
            (json!({"when": 1, "role": "x"}), 400, "Unknown filter for the scheduled restart: when"),
            (json!({"schedule": "2020-01-01T00:00:00Z"}), 422, "Cannot schedule restart in the past"),
            (
                json!({"schedule": 5}),
                422,
                "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
            ),
        ] {
            assert_eq!(asked(body.clone()), Err((code, text.to_owned())), "{body}");
        }
    }

    #[test]
    fn flags_are_read_under_either_name() {
        let read = |body: Value| {
            let fields = body.as_object().expect("an object").clone();
            flag(&fields, &["from_leader", "from-leader"]).map_err(|reply| reply.body)
        };
        assert_eq!(read(json!({})), Ok(false));
        assert_eq!(read(json!({"from-leader": true})), Ok(true));
        assert_eq!(read(json!({"from_leader": "on"})), Ok(true));
        assert_eq!(read(json!({"from_leader": null})), Ok(false));
        assert_eq!(read(json!({"from_leader": "perhaps"})), Err("from_leader is not a boolean".to_owned()));
    }
}
