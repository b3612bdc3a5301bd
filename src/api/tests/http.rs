//! Methods, connections, headers, access.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use pgherd_raft::clock;
use serde_json::{Value, json};

use super::super::testing::{FakeGroup, Fate, protected, state, view, with_settings};
use super::super::{Allowlist, ApiSettings, auth, serve};
use super::{exchange, post, start};

#[test]
fn methods_and_versions() {
    let (server, _) = start(1, Fate::Done);
    let addr = server.local_addr();
    // What HAProxy's `option httpchk OPTIONS /primary` sends.
    let answer = exchange(addr, "OPTIONS /primary HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = exchange(addr, "OPTIONS /replica HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
    let answer = exchange(addr, "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = exchange(addr, "GET /patroni HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("server: pgherd/"), "{head}");
    let document: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(document["role"], json!("primary"));
    // Unknown: as Patroni.
    let answer = exchange(addr, "GET /nothing HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 503 ") && answer.contains("\"role\":\"primary\""), "{answer}");
    assert_eq!(post(addr, "/nothing", "").0, 501);
    let answer = exchange(addr, "DELETE /switchover HTTP/1.0\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.0 404 ") && answer.ends_with("no switchover is scheduled"),
        "{answer}"
    );
    // Not HTTP at all.
    assert!(exchange(addr, "\0\0\0\0nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn one_connection_carries_many_requests() {
    let (server, _) = start(1, Fate::Done);
    let request = "OPTIONS /primary HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let last = "OPTIONS /primary HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(server.local_addr(), &(request + last));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 101);
}

#[test]
fn unsafe_methods_need_the_password() {
    let now = clock::now();
    let open = state(view(1, now), FakeGroup::new(Fate::Done));
    let server = serve("127.0.0.1:0", protected(open)).expect("listens");
    let body = r#"{"leader":"node1"}"#;
    let ask = |header: &str| {
        let length = body.len();
        let request = format!("POST /switchover HTTP/1.0\r\nContent-Length: {length}\r\n{header}\r\n{body}");
        exchange(server.local_addr(), &request)
    };
    let answer = ask("");
    assert!(answer.starts_with("HTTP/1.0 401 ") && answer.ends_with("no auth header received"), "{answer}");
    let answer = ask(&format!("Authorization: {}\r\n", auth::basic("admin", "wrong")));
    assert!(answer.starts_with("HTTP/1.0 401 ") && answer.ends_with("not authenticated"), "{answer}");
    let answer = ask(&format!("Authorization: {}\r\n", auth::basic("admin", "secret")));
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(exchange(server.local_addr(), "GET /config HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "));
}

#[test]
fn a_port_in_use_is_told_with_the_cure() {
    let (server, _) = start(1, Fate::Done);
    let addr = server.local_addr().to_string();
    let now = clock::now();
    let again = serve(addr.as_str(), state(view(1, now), FakeGroup::new(Fate::Done)));
    let text = again.expect_err("in use").to_string();
    assert!(text.contains(&addr) && text.contains("set another restapi.listen"), "{text}");
    drop(server);
    for bad in ["localhost", "localhost:x", "localhost:99999"] {
        let wrong = serve(bad, state(view(1, now), FakeGroup::new(Fate::Done)));
        assert!(wrong.expect_err(bad).to_string().contains("restapi.listen"));
    }
}

/// A persistent connection, as a load balancer keeps it.
struct Checker {
    stream: TcpStream,
}

impl Checker {
    fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_nodelay(true).expect("at once");
        let mut checker = Self { stream };
        checker.check();
        checker
    }

    /// How long one check takes.
    fn check(&mut self) -> Duration {
        let begin = clock::now();
        self.stream.write_all(b"OPTIONS /primary HTTP/1.1\r\nHost: x\r\n\r\n").expect("still open");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(self.stream.read(&mut byte).expect("an answer"), 1, "the connection was closed");
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&head));
        clock::now().since(begin)
    }
}

fn half_open(addr: SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("connects");
    // Some say nothing, some begin a request and some a body.
    let begun: &[u8] = match number % 3 {
        0 => b"",
        1 => b"OPTIONS /primary HTTP/1.0\r\nX: ",
        _ => b"OPTIONS / HT",
    };
    stream.write_all(begun).expect("sent");
    stream
}

/// The median says what a check takes: on a loaded machine any single one may be late for another reason.
#[test]
fn half_open_connections_neither_delay_a_check_nor_push_out_a_checker() {
    let (server, _) = start(1, Fate::Done);
    let addr = server.local_addr();
    let mut checker = Checker::new(addr);
    let flood: Vec<TcpStream> = (0..400).map(|number| half_open(addr, number)).collect();
    let mut kept: Vec<Duration> = (0..25).map(|_| checker.check()).collect();
    let mut fresh: Vec<Duration> = (0..25)
        .map(|_| {
            let begin = clock::now();
            let answer = exchange(addr, "OPTIONS /primary HTTP/1.0\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
            clock::now().since(begin)
        })
        .collect();
    // More of them come while the checker is idle.
    let more: Vec<TcpStream> = (0..400).map(|number| half_open(addr, number)).collect();
    checker.check();
    for times in [&mut kept, &mut fresh] {
        times.sort();
        let median = times.get(times.len() / 2).copied().expect("some");
        assert!(median < Duration::from_millis(20), "a check takes {median:?}: {times:?}");
    }
    drop((flood, more));
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let (server, _) = start(1, Fate::Done);
    let addr = server.local_addr();
    let request = format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    let answer = exchange(addr, &request);
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.0 431 "), "{answer}");
    for (target, code) in [("/replica?lag=%zz", 400), ("/replica?lag=ten", 400), ("/replica?lag=1MB", 503)] {
        let answer = exchange(addr, &format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.0 {code} ")), "{target}: {answer}");
    }
    let answer = exchange(addr, "GET /what-if?member=%3Cscript%3E HTTP/1.0\r\n\r\n");
    assert!(answer.contains("content-type: text/plain") && answer.contains("<script> is not"), "{answer}");
}

#[test]
fn every_safe_path_has_head_and_options() {
    let (server, _) = start(1, Fate::Done);
    let addr = server.local_addr();
    for path in [
        "/",
        "/primary",
        "/replica",
        "/read-only",
        "/health",
        "/liveness",
        "/readiness",
        "/patroni",
        "/cluster",
        "/history",
        "/config",
        "/config/history",
        "/failsafe",
        "/metrics",
        "/decisions",
    ] {
        let code = |method: &str| {
            let answer = exchange(addr, &format!("{method} {path} HTTP/1.0\r\n\r\n"));
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(method == "GET" || body.is_empty(), "{method} {path}: {answer}");
            head[9..12].to_owned()
        };
        let expected = code("GET");
        assert_eq!((code("HEAD"), code("OPTIONS")), (expected.clone(), expected), "{path}");
    }
}

#[test]
fn what_the_configuration_says_about_answers_holds_at_once() {
    let settings = tokio::sync::watch::Sender::new(Arc::new(ApiSettings::default()));
    let api = with_settings(state(view(1, clock::now()), FakeGroup::new(Fate::Done)), settings.subscribe());
    let server = serve("127.0.0.1:0", api).expect("listens");
    let addr = server.local_addr();
    let reload = || exchange(addr, "POST /reload HTTP/1.0\r\n\r\n");
    let answer = reload();
    assert!(answer.starts_with("HTTP/1.0 202 ") && answer.contains("\r\nserver: pgherd/"), "{answer}");
    settings.send_replace(Arc::new(ApiSettings {
        allowlist: Some(Allowlist::default()),
        headers: vec![(HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY"))],
        hides_version: true,
        ..ApiSettings::default()
    }));
    let answer = reload();
    assert!(answer.starts_with("HTTP/1.0 403 ") && answer.ends_with("Access is denied"), "{answer}");
    assert!(answer.contains("\r\nserver: pgherd\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-frame-options: DENY\r\n"), "{answer}");
    // What only looks is open to everybody, and no unsafe path is left out.
    assert!(exchange(addr, "GET /primary HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "));
    for (method, path) in [
        ("POST", "/switchover"),
        ("POST", "/failover"),
        ("DELETE", "/switchover"),
        ("POST", "/restart"),
        ("DELETE", "/restart"),
        ("POST", "/reload"),
        ("POST", "/reinitialize"),
        ("POST", "/failsafe"),
        ("POST", "/citus"),
        ("POST", "/mpp"),
        ("PATCH", "/config"),
        ("PUT", "/config"),
        ("POST", "/config/rollback"),
    ] {
        let answer = exchange(addr, &format!("{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.0 403 "), "{method} {path}: {answer}");
    }
    settings
        .send_replace(Arc::new(ApiSettings { allowlist_include_members: true, ..ApiSettings::default() }));
    assert!(reload().starts_with("HTTP/1.0 202 "));
    let citus = post(addr, "/citus", "{}");
    assert_eq!(citus, (503, "this cluster is not part of a Citus cluster".to_owned()));
    assert_eq!(post(addr, "/sigterm", "").0, 501);
}

#[test]
fn the_server_ends_although_connections_are_open() {
    let (server, _) = start(1, Fate::Done);
    let addr = server.local_addr();
    let open = TcpStream::connect(addr).expect("connects");
    server.shutdown();
    assert!(TcpStream::connect(addr).is_err());
    drop(open);
}
