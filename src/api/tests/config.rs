//! The cluster's settings over HTTP.

use pgherd_raft::model::ClusterState;
use serde_json::{Value, json};

use super::super::settings;
use super::super::testing::{Fate, cluster};
use super::{exchange, post, start};

#[test]
fn settings_are_shown_once_there_are_some() {
    assert_eq!(settings::get(&cluster()).body, "{\"ttl\":5,\"loop_wait\":10}");
    assert_eq!(settings::get(&ClusterState::default()).code.as_u16(), 502);
}

#[test]
fn settings_are_changed_over_http() {
    let (server, group) = start(3, Fate::Done);
    let ask = |request: &str| exchange(server.local_addr(), request);
    let answer = ask("PATCH /config HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 411 "), "{answer}");
    for (body, code) in [("{}", 400), ("[1]", 400), ("{", 400), ("{\"pause\":true}", 200)] {
        let answer = ask(&format!("PATCH /config HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.starts_with(&format!("HTTP/1.0 {code} ")), "{body}: {answer}");
    }
    assert!(group.state().settings.document.contains("\"pause\":true"));
}

#[test]
fn a_body_may_come_in_pieces_and_not_be_too_long() {
    let (server, group) = start(3, Fate::Done);
    let chunked = "PATCH /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        8\r\n{\"pause\"\r\n6\r\n:true}\r\n0\r\n\r\n";
    let answer = exchange(server.local_addr(), chunked);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(300 * 1024));
    let request = format!("PATCH /config HTTP/1.0\r\nContent-Length: {}\r\n\r\n{long}", long.len());
    let answer = exchange(server.local_addr(), &request);
    assert!(answer.starts_with("HTTP/1.0 413 "), "{answer}");
    let expects = "PUT /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
        Content-Length: 999999999\r\n\r\n";
    let answer = exchange(server.local_addr(), expects);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(group.state().settings.document.contains("\"pause\":true"));
}

#[test]
fn earlier_revisions_are_shown_and_come_back() {
    let (server, group) = start(3, Fate::Done);
    let addr = server.local_addr();
    let patch = |body: &str| {
        let length = body.len();
        exchange(addr, &format!("PATCH /config HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"))
    };
    patch(r#"{"ttl":6}"#);
    patch(r#"{"loop_wait":3,"ttl":null}"#);
    let answer = exchange(addr, "GET /config/history HTTP/1.0\r\n\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let revisions: Vec<Value> = serde_json::from_str(body).expect("a list");
    let numbers: Vec<_> = revisions.iter().map(|one| one["revision"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(revisions[1]["by"], "127.0.0.1");
    assert_eq!(revisions[1]["config"], json!({"ttl": 6, "loop_wait": 10}));
    assert!(revisions[1]["at"].as_str().is_some_and(|at| at.ends_with("+00:00")), "{}", revisions[1]);
    let back = |body: &str| post(addr, "/config/rollback", body);
    assert_eq!(back(r#"{"revision":2}"#), (200, r#"{"ttl":6,"loop_wait":10}"#.to_owned()));
    let last = group.state().settings_history.back().cloned().expect("a record");
    assert_eq!((last.revision.0, last.by.as_str()), (4, "127.0.0.1, back to revision 2"));
    for (body, code) in [
        (r#"{"revision":9}"#, 404),
        (r#"{"revision":0}"#, 400),
        (r#"{"revision":"2"}"#, 400),
        (r#"{}"#, 400),
        (r#"{"revision":1,"force":true}"#, 400),
    ] {
        assert_eq!(back(body).0, code, "{body}");
    }
    assert_eq!(post(addr, "/config", "{}").0, 501);
}
