//! What happened and why, and what would happen.

use axum::http::StatusCode;
use pgherd_raft::RenewerFacts;
use pgherd_raft::model::{CandidateNote, Event, EventKind, RecordedEvent};
use serde_json::Value;

use super::super::decisions;
use super::super::standing::Standing;
use super::super::testing::{EPOCH, golden};
use super::{changed, query, standby, standing};

fn event(at_ms: u64, because: &str) -> Event {
    Event {
        at_ms,
        by: "node2".parse().expect("a name"),
        kind: EventKind::Promoted,
        epoch: EPOCH,
        rule: "TakeClosed".to_owned(),
        because: because.to_owned(),
        facts: vec!["node1 has not renewed the lease for 5012 ms".to_owned()],
        candidates: vec![CandidateNote {
            name: "node3".parse().expect("a name"),
            verdict: "lies 96 bytes behind node2".to_owned(),
        }],
    }
}

/// A standby that knows three events, one of which was recorded late.
fn informed() -> Standing {
    let events = [(11, event(1_790_000_000_500, "second")), (12, event(1_790_000_010_000, "third"))];
    let late = (13, event(1_790_000_000_000, "first"));
    let recorded = events.into_iter().chain([late]).map(|(id, event)| RecordedEvent { id, event });
    let recorded = recorded.collect();
    standing(changed(3, |view| view.observation.cluster.events = recorded), RenewerFacts::default())
}

#[test]
fn decisions_are_told_by_time() {
    let reply = decisions::list(&informed(), &query(""));
    assert_eq!(reply.code, StatusCode::OK);
    let document: Value = serde_json::from_str(&reply.body).expect("JSON");
    golden("decisions.json", &format!("{document:#}\n"));
}

#[test]
fn decisions_of_a_range() {
    let told = |text: &str| {
        let reply = decisions::list(&informed(), &query(text));
        assert_eq!(reply.code, StatusCode::OK, "{text}: {}", reply.body);
        let events: Vec<Value> = serde_json::from_str(&reply.body).expect("a list");
        let because = |event: &Value| event.get("because").and_then(Value::as_str).expect("text").to_owned();
        events.iter().map(because).collect::<Vec<_>>().join(" ")
    };
    for (text, events) in [
        ("", "first second third"),
        ("since=1790000000", "first second third"),
        ("since=1790000001", "third"),
        ("until=1790000001", "first second"),
        ("since=2026-09-21T14:13:20.1Z&until=2026-09-21T14:13:21Z", "second"),
        ("since=2026-09-21T16:13:20.1%2B02:00", "second third"),
        ("limit=1", "third"),
        ("limit=2&until=1790000009", "first second"),
        ("since=1900000000", ""),
    ] {
        assert_eq!(told(text), events, "{text}");
    }
    for text in
        ["since=yesterday", "until=", "limit=0", "limit=x", "last=3", "since=-1", "since=99999999999999999"]
    {
        let reply = decisions::list(&informed(), &query(text));
        assert_eq!(reply.code, StatusCode::BAD_REQUEST, "{text}");
        assert!(reply.body.contains(text.split('=').next().expect("a key")), "{text}: {}", reply.body);
    }
}

#[test]
fn a_forecast_names_the_successor() {
    let ask = |text: &str| decisions::what_if(&standby(), &query(text));
    let forecast: Value = serde_json::from_str(&ask("member=node1").body).expect("JSON");
    golden("what_if.json", &format!("{forecast:#}\n"));
    assert_eq!(ask("member=node9").code, StatusCode::NOT_FOUND);
    for text in ["", "member=", "node=node1", "member=node1&member=node2"] {
        assert_eq!(ask(text).code, StatusCode::BAD_REQUEST, "{text}");
    }
}
