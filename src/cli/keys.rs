//! The agreed state in the words of Patroni's keys. Pure: what is not agreed on is given by the caller.

use std::collections::BTreeSet;

use pgherd_raft::model::{ClusterState, Member, MemberId, Revision, iso_time};
use serde_json::{Map, Value, json};

use crate::api::without_secrets;

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Leader,
    Initialize,
    Config,
    Sync,
    Failover,
    Failsafe,
    History,
    Status,
    /// A member's, by its name.
    Member(String),
    /// None that exists.
    Other,
}

impl Key {
    /// As it is written on the command line.
    pub(super) fn named(text: &str) -> Self {
        match text.trim_matches('/') {
            "leader" => Self::Leader,
            "initialize" => Self::Initialize,
            "config" => Self::Config,
            "sync" => Self::Sync,
            "failover" => Self::Failover,
            "failsafe" => Self::Failsafe,
            "history" => Self::History,
            "status" => Self::Status,
            other => match other.strip_prefix("members/") {
                Some(name) if !name.is_empty() => Self::Member(name.to_owned()),
                Some(_) | None => Self::Other,
            },
        }
    }
}

/// For how many milliseconds some voters have heard nothing of a holder.
pub(super) type Quiet = [(MemberId, u64)];

/// The name of the holder of the lease; none when nobody holds it, or when as many voters as could close it have heard
/// nothing of the holder for as long as it takes.
pub(super) fn leader(state: &ClusterState, quiet: &Quiet) -> Option<String> {
    let tenure = state.lease.tenure.as_ref()?;
    let silent: BTreeSet<MemberId> =
        quiet.iter().filter(|(_, ms)| *ms >= tenure.wait_ms).map(|(id, _)| *id).collect();
    if !tenure.pinned && state.lease.is_majority(&silent) {
        return None;
    }
    Some(state.name_of(tenure.holder))
}

/// The identifier of the database system.
pub(super) fn initialize(state: &ClusterState) -> Option<String> {
    state.system_identifier.map(|identifier| identifier.to_string())
}

/// The settings of the cluster.
pub(super) fn config(state: &ClusterState) -> Option<Value> {
    if state.settings.revision == Revision(0) {
        return None;
    }
    let document: Map<String, Value> = serde_json::from_str(&state.settings.document).ok()?;
    Some(Value::Object(without_secrets(&document)))
}

/// Who is synchronous. `quorum`: how many of them may be without a commit that was acknowledged.
pub(super) fn sync(state: &ClusterState) -> Option<Value> {
    let is_on = match config(state)?.get("synchronous_mode") {
        Some(Value::Bool(is_on)) => *is_on,
        Some(Value::String(word)) => {
            matches!(word.to_lowercase().as_str(), "on" | "true" | "yes" | "1" | "quorum")
        }
        Some(Value::Number(number)) => number.as_i64() == Some(1),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
    };
    if !is_on && !state.synchrony.needs_standbys() {
        return None;
    }
    let holder = state.lease.holder().or(state.lease.last_holder);
    // The last one is that to which PostgreSQL may go; the others are about to leave.
    let set = state.synchrony.sets.last();
    let names: Vec<&str> =
        set.map(|set| set.names.iter().map(|name| name.as_str()).collect()).unwrap_or_default();
    let quorum = set.map_or(0, |set| set.names.len().saturating_sub(set.needed));
    let standbys = if names.is_empty() { Value::Null } else { json!(names.join(",")) };
    Some(json!({
        "leader": holder.map(|id| state.name_of(id)),
        "sync_standby": standbys,
        "quorum": if names.is_empty() { 0 } else { quorum },
    }))
}

/// The switchover that is scheduled.
pub(super) fn failover(state: &ClusterState) -> Option<Value> {
    let scheduled = state.scheduled_switchover.as_ref()?;
    let mut key = Map::new();
    key.insert("scheduled_at".to_owned(), json!(iso_time(scheduled.at_ms)));
    for (name, id) in [("leader", scheduled.from), ("member", scheduled.to)] {
        if let Some(id) = id {
            key.insert(name.to_owned(), json!(state.name_of(id)));
        }
    }
    Some(Value::Object(key))
}

/// The only members to which the lease may be granted, with their REST APIs; none: there is no failsafe mode.
pub(super) fn failsafe(state: &ClusterState) -> Option<Value> {
    let url = |id: &MemberId| {
        let member = state.members.get(id)?;
        Some((member.name.to_string(), json!(api_url(member)?)))
    };
    Some(Value::Object(state.failsafe.as_ref()?.iter().filter_map(url).collect()))
}

fn api_url(member: &Member) -> Option<String> {
    Some(format!("{}/patroni", member.api_url.as_deref()?.trim_end_matches('/')))
}

/// Boolean tags of the product, which are not shown when they are false.
const FLAGS: [&str; 5] = ["clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"];

/// The tags as members publish them.
fn tags(tags: &Map<String, Value>) -> Map<String, Value> {
    let is_shown = |name: &str, value: &Value| {
        !FLAGS.contains(&name)
            || *value != json!(false)
            || name == "nofailover" && tags.contains_key("failover_priority")
            || name == "nosync" && tags.contains_key("sync_priority")
    };
    tags.iter()
        .filter(|(name, value)| is_shown(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A member's key: its addresses as they were agreed on, the rest as it says of itself (`status`, from `/patroni`). Of a
/// member that does not answer `state_word` is told.
pub(super) fn member(
    state: &ClusterState,
    name: &str,
    status: Option<&Value>,
    state_word: &str,
) -> Option<Value> {
    let (id, member) = state.member_named(name)?;
    let mut key = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            key.insert(name.to_owned(), value);
        }
    };
    if let Some(address) = &member.postgres {
        put("conn_url", json!(format!("postgres://{address}/postgres")));
    }
    put("api_url", json!(api_url(member)));
    let known: Map<String, Value> =
        member.tags.0.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let Some(status) = status else {
        put("state", json!(state_word));
        put("role", json!(if state.lease.holder() == Some(id) { "primary" } else { "replica" }));
        if !tags(&known).is_empty() {
            put("tags", Value::Object(tags(&known)));
        }
        return Some(Value::Object(key));
    };
    let get = |path: &str| status.pointer(path).cloned().unwrap_or(Value::Null);
    put("state", get("/state"));
    put("role", get("/role"));
    put("proxy_url", get("/pgherd/proxy_url"));
    put("version", get("/patroni/version"));
    let shown = tags(status.get("tags").and_then(Value::as_object).unwrap_or(&known));
    if !shown.is_empty() {
        put("tags", Value::Object(shown));
    }
    for name in ["pending_restart", "pending_restart_reason", "scheduled_restart", "pause", "timeline"] {
        put(name, get(&format!("/{name}")));
    }
    put("xlog_location", location(status));
    put("receive_lsn", get("/xlog/received_location"));
    put("replay_lsn", get("/xlog/replayed_location"));
    put("replication_state", get("/replication_state"));
    Some(Value::Object(key))
}

/// How far a member's WAL has come, in bytes.
pub(super) fn location(status: &Value) -> Value {
    let at = |name: &str| status.pointer(&format!("/xlog/{name}")).and_then(Value::as_u64);
    let standby = at("received_location").into_iter().chain(at("replayed_location")).max();
    json!(at("location").or(standby))
}

/// The key `status`, from what the leader says of itself (`/patroni`).
pub(super) fn status(leader: &Value) -> Value {
    let mut key = Map::new();
    key.insert("optime".to_owned(), location(leader));
    for name in ["slots", "retain_slots"] {
        if let Some(value) = leader.pointer(&format!("/pgherd/{name}")) {
            key.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(key)
}

#[cfg(test)]
mod tests {
    use pgherd_raft::model::{Lease, MemberKind, PostgresAddr, SyncSet, TagValue, Tags, Tenure};

    use super::*;

    fn state() -> ClusterState {
        let member = |name: &str, port: u16| Member {
            name: name.parse().expect("a name"),
            api_url: Some(format!("http://127.0.0.1:{port}")),
            postgres: Some(PostgresAddr { host: "127.0.0.1".to_owned(), port: 5432 }),
            ..serde_json::from_value(json!({
                "name": name, "kind": MemberKind::Data, "raft_addr": format!("127.0.0.1:{}", port + 1),
                "api_url": null, "postgres": null, "tags": [],
            }))
            .expect("a member")
        };
        let members = [("a", 8008), ("b", 8010), ("c", 8012)];
        let mut state = ClusterState::default();
        for (id, (name, port)) in (1..).zip(members) {
            state.members.insert(MemberId(id), member(name, port));
        }
        let tenure = json!({"holder": 1, "session": 1, "ttl_ms": 5000, "wait_ms": 5500, "pinned": false});
        let tenure: Tenure = serde_json::from_value(tenure).expect("a tenure");
        let voters = state.members.keys().copied().collect();
        state.lease =
            Lease { voters, tenure: Some(tenure), last_holder: Some(MemberId(1)), ..Lease::default() };
        state.settings.revision = Revision(1);
        state.settings.document = r#"{"synchronous_mode": "quorum"}"#.to_owned();
        state
    }

    #[test]
    fn the_leader_is_the_holder_unless_a_majority_heard_nothing_for_too_long() {
        let mut state = state();
        let quiet = |ms: [u64; 3]| (1..).map(MemberId).zip(ms).collect::<Vec<_>>();
        assert_eq!(leader(&state, &[]).as_deref(), Some("a"));
        assert_eq!(leader(&state, &quiet([0, 9000, 100])).as_deref(), Some("a"));
        assert_eq!(leader(&state, &quiet([0, 9000, 9000])), None);
        if let Some(tenure) = &mut state.lease.tenure {
            tenure.pinned = true;
        }
        assert_eq!(leader(&state, &quiet([9000, 9000, 9000])).as_deref(), Some("a"));
        state.lease.tenure = None;
        assert_eq!(leader(&state, &[]), None);
    }

    #[test]
    fn the_synchronous_standbys() {
        let mut state = state();
        let none = json!({"leader": "a", "sync_standby": null, "quorum": 0});
        assert_eq!(sync(&state), Some(none.clone()));
        let names = |names: &[&str]| names.iter().map(|name| name.parse().expect("a name")).collect();
        state.synchrony.sets = vec![SyncSet::default(), SyncSet { names: names(&["b", "c"]), needed: 1 }];
        assert_eq!(sync(&state), Some(json!({"leader": "a", "sync_standby": "b,c", "quorum": 1})));
        state.synchrony.sets = vec![SyncSet { names: names(&["b"]), needed: 1 }];
        state.lease.tenure = None;
        assert_eq!(sync(&state), Some(json!({"leader": "a", "sync_standby": "b", "quorum": 0})));
        // Nobody may acknowledge: strict mode without a standby.
        state.synchrony.sets = vec![SyncSet { names: names(&[]), needed: 1 }];
        assert_eq!(sync(&state), Some(none));
        state.settings.document = "{}".to_owned();
        state.synchrony.sets.clear();
        assert_eq!(sync(&state), None);
    }

    #[test]
    fn a_member_that_answers_and_one_that_does_not() {
        let mut state = state();
        let priority = ("failover_priority".to_owned(), TagValue::Text("0".to_owned()));
        let tags = vec![
            priority,
            ("nofailover".to_owned(), TagValue::Bool(false)),
            ("nosync".to_owned(), TagValue::Bool(false)),
        ];
        if let Some(member) = state.members.get_mut(&MemberId(2)) {
            member.tags = Tags(tags);
        }
        let dead = json!({
            "conn_url": "postgres://127.0.0.1:5432/postgres", "api_url": "http://127.0.0.1:8010/patroni",
            "state": "unreachable", "role": "replica", "tags": {"failover_priority": "0", "nofailover": false},
        });
        assert_eq!(member(&state, "b", None, "unreachable"), Some(dead));
        let status = json!({
            "state": "running", "role": "replica", "timeline": 3, "replication_state": "streaming",
            "xlog": {"received_location": 10, "replayed_location": 8}, "patroni": {"version": "1.0"},
            "pgherd": {"proxy_url": "postgres://proxy:6432/postgres"},
        });
        let alive = member(&state, "c", Some(&status), "").expect("a key");
        for (name, value) in [
            ("state", json!("running")),
            ("xlog_location", json!(10)),
            ("replay_lsn", json!(8)),
            ("proxy_url", json!("postgres://proxy:6432/postgres")),
        ] {
            assert_eq!(alive.get(name), Some(&value), "{alive}");
        }
        assert_eq!(alive.get("tags"), None);
        assert_eq!(member(&state, "x", None, ""), None);
    }

    #[test]
    fn keys_by_name() {
        assert_eq!(Key::named("/members/a"), Key::Member("a".to_owned()));
        assert_eq!(Key::named("members/"), Key::Other);
        assert_eq!(Key::named("leader"), Key::Leader);
        assert_eq!(Key::named("nothing"), Key::Other);
    }
}
