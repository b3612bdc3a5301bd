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
    assert_eq!(without_effect, ["standby_cluster"]);
    assert_eq!(dynamic.ttl, Duration::from_secs(30));
    assert_eq!(dynamic.retry_timeout, Duration::from_secs(10));
    assert_eq!(dynamic.maximum_lag_on_failover, 2 << 20);
    assert_eq!(dynamic.maximum_lag_on_syncnode, Some(5));
    assert_eq!(dynamic.primary_start_timeout, Duration::from_secs(5));
    assert_eq!(dynamic.primary_stop_timeout, Some(Duration::from_secs(60)));
    assert_eq!(dynamic.synchronous_mode, SynchronousMode::Quorum);
    assert!(dynamic.synchronous_mode_strict && dynamic.pause);
    assert_eq!(dynamic.member_slots_ttl, Duration::from_secs(300));
    let slots: Vec<&String> = dynamic.slots.keys().collect();
    assert_eq!(slots, ["a", "b"]);
    assert!(dynamic.slots.values().all(|slot| *slot == PermanentSlot::Physical));
    let x = IgnoredSlots { name: Some("x".to_owned()), ..IgnoredSlots::default() };
    assert_eq!(dynamic.ignore_slots, [x]);
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

#[test]
fn slots_are_physical_unless_they_say_how_to_decode() {
    let (dynamic, problems) = read_json(&json!({
        "slots": {
            "a": null, "b": 0, "c": {}, "d": {"type": "logical", "database": "db", "plugin": "pgoutput"},
            "e": {"database": "db", "plugin": "wal2json"}, "f": {"type": "physical", "cluster_type": "primary"},
            "g": {"cluster_type": "standby"},
        },
        "ignore_slots": [{"name": "x", "type": "logical", "plugin": "p"}, {"database": "other"}],
    }));
    assert_eq!(problems, [""; 0]);
    let logical =
        |plugin: &str| PermanentSlot::Logical { database: "db".to_owned(), plugin: plugin.to_owned() };
    let is = |name: &str| dynamic.slots.get(name).cloned();
    for name in ["a", "b", "c", "f"] {
        assert_eq!(is(name), Some(PermanentSlot::Physical), "{name}");
    }
    assert_eq!((is("d"), is("e"), is("g")), (Some(logical("pgoutput")), Some(logical("wal2json")), None));
    let matcher = dynamic.ignore_slots.first().expect("the first");
    assert_eq!((matcher.slot_type.as_deref(), &matcher.database), (Some("logical"), &None));
    assert_eq!(dynamic.ignore_slots.len(), 2);
}

#[test]
fn slots_that_cannot_be_made_are_refused() {
    let too_long = "s".repeat(64);
    for (document, why) in [
        (json!({"slots": {"My Slot": null}}), "slots: \"My Slot\" is no name for a slot"),
        (json!({"permanent_slots": {too_long: null}}), "is no name for a slot"),
        (
            json!({"slots": {"a": {"type": "logical", "database": "db"}}}),
            "slots.a: a logical slot needs a database",
        ),
        (json!({"slots": {"a": {"type": "magic"}}}), "slots.a.type: \"magic\" is not physical or logical"),
        (json!({"ignore_slots": [{}]}), "ignore_slots[0]: would leave every slot alone"),
        (json!({"ignore_slots": ["x"]}), "ignore_slots[0]: \"x\" is not a map"),
        (json!({"ignore_slots": [{"type": "magic", "name": "x"}]}), "ignore_slots[0].type: \"magic\" is not"),
    ] {
        let (_, problems) = read_json(&document);
        assert!(problems.iter().any(|problem| problem.contains(why)), "{document}: {problems:?}");
    }
    let many: serde_json::Map<String, serde_json::Value> =
        (0..300).map(|i| (format!("s{i}"), serde_json::Value::Null)).collect();
    let (dynamic, problems) = read_json(&json!({ "slots": many }));
    assert_eq!((dynamic.slots.len(), problems.len()), (256, 1), "{problems:?}");
}
