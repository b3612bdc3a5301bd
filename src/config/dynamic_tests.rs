use serde_json::json;

use super::*;

fn read_json(document: &serde_json::Value) -> (Dynamic, Vec<String>) {
    let (dynamic, problems) = parse(document);
    (dynamic, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn an_empty_document_gives_the_defaults() {
    let (dynamic, problems) = read_json(&json!({}));
    assert_eq!(problems, [""; 0]);
    assert_eq!(dynamic, Dynamic::default());
    assert_eq!(dynamic.ttl, Duration::from_secs(5));
    assert_eq!(dynamic.loop_wait, Duration::from_secs(10));
    assert_eq!(dynamic.retry_timeout, Duration::from_secs(10));
    assert_eq!(dynamic.maximum_lag_on_failover, 1_048_576);
    assert_eq!(dynamic.maximum_lag_on_syncnode, None);
    assert_eq!(dynamic.primary_start_timeout, Duration::from_secs(300));
    assert_eq!(dynamic.primary_stop_timeout, None);
    assert_eq!(dynamic.synchronous_mode, SynchronousMode::Off);
    assert_eq!(dynamic.synchronous_node_count, 1);
    assert_eq!(dynamic.member_slots_ttl, Duration::from_secs(1800));
    assert!(!dynamic.pause && !dynamic.failsafe_mode && !dynamic.check_timeline);
    assert!(dynamic.postgresql.use_slots);
    assert_eq!(dynamic.standby_cluster, None);
}

#[test]
fn patronis_documents_mean_the_same() {
    let (dynamic, problems) = read_json(&json!({
        "ttl": 30, "loop_wait": 2, "retry_timeout": "10s",
        "maximum_lag_on_failover": "2MB", "maximum_lag_on_syncnode": 5,
        "master_start_timeout": 5, "primary_stop_timeout": 60,
        "synchronous_mode": "quorum", "synchronous_mode_strict": "on", "synchronous_node_count": 2,
        "member_slots_ttl": "5min", "pause": true,
        "permanent_slots": {"a": {"type": "physical"}}, "slots": {"b": null},
        "ignore_slots": [{"name": "x"}],
        "standby_cluster": {"host": "10.0.0.9", "port": 5432},
        "postgresql": {
            "use_slots": false, "use_pg_rewind": false,
            "parameters": {"Max_Connections": 50, "archive_mode": true, "x": null, "random_page_cost": 1.1},
            "pg_hba": ["local all all trust"]
        }
    }));
    let without_effect: Vec<&str> =
        problems.iter().map(|problem| problem.split_once(": has no effect yet").expect(problem).0).collect();
    assert_eq!(
        without_effect,
        ["member_slots_ttl", "slots", "permanent_slots", "ignore_slots", "standby_cluster"]
    );
    assert_eq!(dynamic.ttl, Duration::from_secs(30));
    assert_eq!(dynamic.retry_timeout, Duration::from_secs(10));
    assert_eq!(dynamic.maximum_lag_on_failover, 2 << 20);
    assert_eq!(dynamic.maximum_lag_on_syncnode, Some(5));
    assert_eq!(dynamic.primary_start_timeout, Duration::from_secs(5));
    assert_eq!(dynamic.primary_stop_timeout, Some(Duration::from_secs(60)));
    assert_eq!(dynamic.synchronous_mode, SynchronousMode::Quorum);
    assert!(dynamic.synchronous_mode_strict && dynamic.pause);
    assert_eq!(dynamic.member_slots_ttl, Duration::from_secs(300));
    assert_eq!(dynamic.slots, json!({"a": {"type": "physical"}, "b": null}));
    assert_eq!(dynamic.standby_cluster, Some(json!({"host": "10.0.0.9", "port": 5432})));
    let parameters: Vec<String> =
        dynamic.postgresql.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(parameters, ["archive_mode=on", "max_connections=50", "random_page_cost=1.1"]);
    assert!(!dynamic.postgresql.use_slots);
}

#[test]
fn wrong_values_are_reported_and_something_usable_stands_in() {
    let (dynamic, problems) = read_json(&json!({
        "ttl": 1, "loop_wait": 99999999, "retry_timeout": {}, "maximum_lag_on_failover": -1,
        "synchronous_node_count": 0,"synchronous_mode": "perhaps",
        "postgresql": {"parameters": {"max_connections": [1]}, "pg_hba": ["nonsense"]}, "failsafe": true
    }));
    let place = "(the cluster's settings)";
    assert_eq!(
        problems,
        [
            format!("ttl: 1 s is out of range {place}; write 2 to 3600 seconds"),
            format!("loop_wait: 99999999 s is out of range {place}; write 1 to 3600 seconds"),
            format!(
                "retry_timeout: a map is not a duration {place}; write a number of seconds, or a text with a unit like 30s or 5min"
            ),
            format!("maximum_lag_on_failover: -1 is out of range {place}; write 0 bytes or more"),
            format!(
                "synchronous_mode: \"perhaps\" is not off, on or quorum {place}; write off, on or quorum"
            ),
            format!("synchronous_node_count: 0 is out of range {place}; write 1 or more"),
            format!(
                "postgresql.parameters.max_connections: a list stands where one value is needed {place}; write one text or number; several go into one text with commas"
            ),
            format!(
                "postgresql.pg_hba[0]: \"nonsense\" cannot begin a line of pg_hba.conf {place}; begin it with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc"
            ),
            format!("failsafe: is not a known key and has no effect {place}; did you mean `failsafe_mode`?"),
        ]
    );
    assert_eq!(dynamic.ttl, Duration::from_secs(2));
    assert_eq!(dynamic.loop_wait, Duration::from_secs(3600));
    assert_eq!(dynamic.retry_timeout, Duration::from_secs(10));
    assert_eq!(dynamic.maximum_lag_on_failover, 0);
    assert_eq!(dynamic.synchronous_node_count, 1);
    let (dynamic, _) = read_json(&json!({"standby_cluster": {"create_replica_methods": []}}));
    assert_eq!(dynamic.standby_cluster, None, "it does not say where the WAL comes from");
}

#[test]
fn a_document_which_is_no_object_is_a_mistake_not_the_end() {
    for document in [json!([]), json!("text"), json!(5)] {
        let (dynamic, problems) = read_json(&document);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(dynamic, Dynamic::default());
    }
}
