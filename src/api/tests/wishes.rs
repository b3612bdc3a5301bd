//! Switchover and failover.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use pgherd_raft::clock;
use pgherd_raft::model::{Intent, MemberId, ScheduledSwitchover};

use super::super::testing::{FakeGroup, Fate, state, view};
use super::super::wish::Word;
use super::super::{Intents, intent, serve};
use super::{exchange, post, start, synchronous};
use crate::agent::view::View;
use crate::ha::{Fact, SyncMode};

#[test]
fn bodies_are_checked_as_patroni_does() {
    let (server, group) = start(1, Fate::Done);
    let addr = server.local_addr();
    let cases = [
        ("/switchover", "", 400, ""),
        ("/switchover", "{", 400, ""),
        ("/switchover", "[]", 400, "the body is not a JSON object"),
        ("/switchover", "{\"leader\": 1}", 400, "leader is not a string"),
        ("/switchover", "{}", 400, "Switchover could be performed only from a specific leader"),
        (
            "/switchover",
            r#"{"leader":"a","candidate":"a"}"#,
            400,
            "Switchover target and source are the same",
        ),
        ("/switchover", r#"{"leader":"node2"}"#, 412, "leader name does not match"),
        ("/switchover", r#"{"leader":"node1","candidate":"x"}"#, 412, "candidate does not exists"),
        (
            "/switchover",
            r#"{"leader":"node1","scheduled_at":"2020-01-01T00:00:00+00:00"}"#,
            422,
            "Cannot schedule switchover in the past",
        ),
        (
            "/switchover",
            r#"{"leader":"node1","scheduled_at":"2999-01-01 00:00"}"#,
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            "/switchover",
            r#"{"leader":"node1","scheduled_at":"soon"}"#,
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        ),
        (
            "/switchover",
            r#"{"leader":"node9","scheduled_at":"2999-01-01T00:00:00Z"}"#,
            412,
            "leader name does not match",
        ),
        (
            "/switchover",
            r#"{"leader":"node1","candidate":"node9","scheduled_at":"2999-01-01T00:00:00Z"}"#,
            412,
            "candidate does not exists",
        ),
        (
            "/failover",
            r#"{"leader":"node1"}"#,
            400,
            "Failover could be performed only to a specific candidate",
        ),
        ("/failover", r#"{"leader":"node2","candidate":"node3"}"#, 412, "leader name does not match"),
        ("/failover", r#"{"candidate":"a\u0000'\"<b>"}"#, 412, "candidate does not exists"),
        ("/failover", r#"{"candidate":"node2","candidate":"node3"}"#, 400, ""),
        ("/failover", "{}", 400, "Failover could be performed only to a specific candidate"),
        (
            "/failover",
            r#"{"candidate":"node2","scheduled_at":"2999-01-01"}"#,
            400,
            "Failover can't be scheduled",
        ),
        (
            "/failover",
            r#"{"candidate":"node1"}"#,
            412,
            "failover is not possible: the candidate is the leader",
        ),
    ];
    for (path, body, code, text) in cases {
        let (answered, said) = post(addr, path, body);
        assert_eq!(answered, code, "{path} {body}: {said}");
        assert!(text.is_empty() || said == text, "{path} {body}: {said}");
    }
    let long = format!("{{\"leader\":\"{}\"}}", "x".repeat(20_000));
    assert_eq!(post(addr, "/switchover", &long).0, 413);
    assert!(exchange(addr, "POST /switchover HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 411 "));
    assert_eq!(group.state().intent, None);
    assert_eq!(group.state().last_intent, None);
    assert_eq!(group.state().scheduled_switchover, None);
}

#[test]
fn a_candidate_must_be_able() {
    let now = clock::now();
    let alone = {
        let mut view = view(1, now);
        view.observation.cluster.members.retain(|id, _| id.0 == 1);
        view
    };
    let silent = {
        let mut view = view(1, now);
        for fact in view.observation.peers.values_mut() {
            *fact = Fact::Unknown("no answer".into());
        }
        view
    };
    let ask = |view: View, path: &str, body: &str| {
        let server = serve("127.0.0.1:0", state(view, FakeGroup::new(Fate::Done)));
        let server = server.expect("listens");
        exchange(
            server.local_addr(),
            &format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        )
    };
    let answer = ask(alone, "/switchover", r#"{"leader":"node1"}"#);
    assert!(answer.starts_with("HTTP/1.0 412 "), "{answer}");
    assert!(answer.ends_with("\r\nswitchover is not possible: cluster does not have members except leader"));
    let answer = ask(silent, "/failover", r#"{"candidate":"node2"}"#);
    assert!(answer.ends_with("\r\nfailover is not possible: no good candidates have been found"), "{answer}");
    assert!(answer.contains("pgherd-reason: node2 does not answer\r\n"), "{answer}");
}

#[test]
fn a_switchover_is_answered_when_it_has_happened() {
    // Any member may be asked.
    for number in [1, 3] {
        let (server, group) = start(number, Fate::Done);
        let body = r#"{"leader":"node1","candidate":"node2"}"#;
        let (code, text) = post(server.local_addr(), "/switchover", body);
        assert_eq!((code, text.as_str()), (200, "Successfully switched over to \"node2\""));
        assert_eq!(group.state().lease.holder(), Some(MemberId(2)));
    }
}

#[test]
fn whatever_becomes_of_a_wish_is_told() {
    let body = r#"{"candidate":"node2"}"#;
    let cases = [
        (Fate::WonByAnother, 200, "Failed over to \"node3\" instead of \"node2\""),
        (Fate::Refused, 503, "Failover failed"),
        (Fate::LostAndDone, 200, "Successfully failed over to \"node2\""),
    ];
    for (fate, code, text) in cases {
        let (server, _) = start(3, fate);
        assert_eq!(post(server.local_addr(), "/failover", body), (code, text.to_owned()));
    }
}

#[tokio::test]
async fn a_wish_that_nobody_carries_out_is_withdrawn() {
    let group = FakeGroup::new(Fate::Ignored);
    let api = state(view(3, clock::now()), Arc::clone(&group));
    let wish = Intent::Failover { to: MemberId(2), accepts_loss: false, holder_is_dead: false };
    let reply = intent::carry_out(&api, Word::Failover, wish.clone(), Duration::from_millis(10)).await;
    assert_eq!(reply.code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.body, "Failover failed");
    assert!(reply.reason().contains("nobody carried it out in time, so it was withdrawn"), "{reply:?}");
    assert_eq!(group.state().intent, None);
    // Two at a time are refused.
    let pending = pgherd_raft::model::Command::SetIntent { intent: wish.clone() };
    Intents::propose(&*group, pending).await;
    let reply = intent::carry_out(&api, Word::Failover, wish, Duration::from_millis(10)).await;
    assert_eq!(reply.code, StatusCode::CONFLICT);
}

fn served(view: View) -> super::ApiServer {
    serve("127.0.0.1:0", state(view, FakeGroup::new(Fate::Done))).expect("listens")
}

#[test]
fn in_a_synchronous_cluster_only_a_synchronous_standby_will_do() {
    let mut chosen = view(1, clock::now());
    synchronous(&mut chosen, SyncMode::On);
    let mut none = view(1, clock::now());
    none.observation.policy.sync.mode = SyncMode::On;
    let no_match = "candidate name does not match with sync_standby";
    let cases = [
        (chosen.clone(), "/switchover", r#"{"leader":"node1","candidate":"node2"}"#, 412, no_match),
        // Even one that is not there at all.
        (chosen.clone(), "/switchover", r#"{"leader":"node1","candidate":"x"}"#, 412, no_match),
        (
            none.clone(),
            "/switchover",
            r#"{"leader":"node1"}"#,
            412,
            "switchover is not possible: can not find sync_standby",
        ),
        (
            chosen,
            "/switchover",
            r#"{"leader":"node1","candidate":"node3"}"#,
            200,
            "Successfully switched over to \"node3\"",
        ),
        (none, "/failover", r#"{"candidate":"x"}"#, 412, "candidate does not exists"),
    ];
    for (view, path, body, code, text) in cases {
        let server = served(view);
        assert_eq!(post(server.local_addr(), path, body), (code, text.to_owned()), "{path} {body}");
    }
}

#[test]
fn in_pause_a_candidate_must_be_named_and_nothing_is_scheduled() {
    let mut paused = view(1, clock::now());
    paused.observation.policy.pause = true;
    let server = served(paused);
    let cases = [
        (
            r#"{"leader":"node1","scheduled_at":"2999-01-01T00:00:00Z"}"#,
            400,
            "Can't schedule switchover in the paused state",
        ),
        // The pause comes before the time is read.
        (r#"{"leader":"node1","scheduled_at":"soon"}"#, 400, "Can't schedule switchover in the paused state"),
        (
            r#"{"leader":"node1"}"#,
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
    ];
    for (body, code, text) in cases {
        assert_eq!(post(server.local_addr(), "/switchover", body), (code, text.to_owned()), "{body}");
    }
}

#[test]
fn a_switchover_is_scheduled_shown_and_deleted() {
    let (server, group) = start(3, Fate::Done);
    let addr = server.local_addr();
    let body = r#"{"leader":"node1","candidate":"node2","scheduled_at":"2999-01-01T01:00:00+01:00"}"#;
    assert_eq!(post(addr, "/switchover", body), (202, "Switchover scheduled".to_owned()));
    let (from, to) = (Some(MemberId(1)), Some(MemberId(2)));
    let schedule = ScheduledSwitchover { at_ms: 32_472_144_000_000, from, to };
    assert_eq!(group.state().scheduled_switchover, Some(schedule));
    let shown = exchange(addr, "GET /cluster HTTP/1.0\r\n\r\n");
    let expected = r#""scheduled_switchover":{"at":"2999-01-01T00:00:00+00:00","from":"node1","to":"node2"}"#;
    assert!(shown.contains(expected), "{shown}");
    let delete = || exchange(addr, "DELETE /switchover HTTP/1.0\r\n\r\n");
    let answer = delete();
    assert!(
        answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("scheduled switchover deleted"),
        "{answer}"
    );
    let answer = delete();
    assert!(
        answer.starts_with("HTTP/1.0 404 ") && answer.ends_with("no switchover is scheduled"),
        "{answer}"
    );
}
