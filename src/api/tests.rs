//! What a node answers: by path and role, by method, by body; and who cannot keep it from answering.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use pgherd_raft::RenewerFacts;
use pgherd_raft::clock;
use pgherd_raft::lease::{BootTime, FailsafeFacts, FailsafeQuestion, Licence, StandingBack};
use pgherd_raft::model::{
    CandidateNote, Epoch, Event, EventKind, GroupId, Incarnation, Intent, Member, MemberId, RecordedEvent,
    Session, SyncSet, TagValue,
};
use serde_json::{Value, json};

use super::standing::Standing;
use super::testing::{EPOCH, FakeGroup, Fate, golden, licensed, member, protected, server, state, view};
use super::{
    ApiServer, MemberClient, auth, cluster, decisions, failsafe, health, intent, metrics, serve, settings,
    status,
};
use crate::agent::AskMember;
use crate::agent::view::View;
use crate::ha::{Fact, Job, JobKind, Process, State, SyncMode};
use crate::http_client::HttpClient;
use crate::tls::ClientSettings;

const NOW: BootTime = BootTime(Duration::from_secs(1000));

fn standing(view: View, renewer: RenewerFacts) -> Standing {
    Standing::new(Arc::new(view), renewer, NOW)
}

fn primary() -> Standing {
    standing(view(1, NOW), licensed(NOW))
}

fn standby() -> Standing {
    standing(view(3, NOW), RenewerFacts::default())
}

fn changed(number: u64, change: impl FnOnce(&mut View)) -> View {
    let mut view = view(number, NOW);
    change(&mut view);
    view
}

/// Commits wait for `node3`.
fn synchronous(view: &mut View, mode: SyncMode) {
    let observation = &mut view.observation;
    observation.policy.sync.mode = mode;
    observation.policy.sync.fast_failover = true;
    let names = std::iter::once("node3".parse().expect("a name")).collect();
    observation.cluster.synchrony.sets = vec![SyncSet { names, needed: 1 }];
}

#[test]
fn synchronous_standbys_are_named_in_every_document() {
    for (mode, role, flag, metric) in [
        (SyncMode::On, "sync_standby", "sync_standby", "patroni_sync_standby"),
        (SyncMode::Quorum, "quorum_standby", "quorum_standby", "patroni_quorum_standby"),
    ] {
        let of = |number| standing(changed(number, |view| synchronous(view, mode)), RenewerFacts::default());
        let document = cluster::document(&of(2));
        let roles: Vec<_> = (0..3).map(|row| document["members"][row]["role"].clone()).collect();
        assert_eq!(roles, ["leader", "replica", role]);
        assert_eq!(status::document(&of(3))[flag], true);
        assert_eq!(status::document(&of(2)).get(flag), None);
        let page = |number| metrics::page(&of(number)).body;
        assert!(page(3).contains(&format!("{metric}{{scope=\"demo\",name=\"node3\"}} 1")));
        assert!(page(2).contains(&format!("{metric}{{scope=\"demo\",name=\"node2\"}} 0")));
    }
}

/// Every situation in which a node can be, with a name.
fn situations() -> Vec<(&'static str, Standing)> {
    let none = RenewerFacts::default;
    let expired = RenewerFacts {
        licence: Some(Licence { epoch: EPOCH, deadline: NOW, sent: BootTime(Duration::ZERO) }),
        ..none()
    };
    let given_up = RenewerFacts { given_up: EPOCH, ..licensed(NOW) };
    let of_old_epoch = changed(1, |view| {
        view.observation.cluster.lease.epoch = Epoch(9);
        view.observation.cluster.lease.tenure.as_mut().expect("held").holder = MemberId(2);
    });
    let in_state = |number, state| changed(number, |view| view.decision.state = state);
    let with_process = |number, process| {
        changed(number, |view| {
            view.observation.postgres.process = Fact::fresh(process);
            view.observation.postgres.server = Fact::Unknown("not running".into());
        })
    };
    let without_sql =
        |number| changed(number, |view| view.observation.postgres.server = Fact::Unknown("timed out".into()));
    let stream = |status: &str| {
        changed(3, |view| {
            let mut server = server(true);
            server.receiver.as_mut().expect("a receiver").status = status.into();
            view.observation.postgres.server = Fact::fresh(server);
        })
    };
    let promoting = changed(1, |view| {
        view.decision.state = State::Promoting;
        view.observation.postgres.server = Fact::fresh(server(true));
    });
    let cloning = changed(3, |view| {
        view.observation.job =
            Some(Job { kind: JobKind::Clone, running_for: Duration::from_secs(3), detail: "node1".into() });
        view.observation.postgres.process = Fact::fresh(Process::Stopped);
        view.observation.postgres.server = Fact::Unknown("not running".into());
    });
    let noloadbalance = changed(3, |view| {
        view.member.tags.0.push(("noloadbalance".into(), TagValue::Bool(true)));
    });
    let stale = View { ..view(3, BootTime(Duration::from_secs(970))) };
    let slow = View { ..view(3, BootTime(Duration::from_secs(994))) };
    let stale_sql = changed(3, |view| {
        view.observation.postgres.server = Fact::Known { value: server(true), age: Duration::from_secs(4) };
    });
    vec![
        ("primary", primary()),
        ("primary without an answer by SQL", standing(without_sql(1), licensed(NOW))),
        ("primary, licence expired", standing(view(1, NOW), expired)),
        ("primary, no licence yet", standing(view(1, NOW), none())),
        ("primary, epoch given up", standing(view(1, NOW), given_up)),
        ("primary, lease went to another", standing(of_old_epoch, licensed(NOW))),
        ("primary being bootstrapped", standing(in_state(1, State::Bootstrapping), licensed(NOW))),
        ("primary handing over", standing(in_state(1, State::Draining), licensed(NOW))),
        ("holder, PostgreSQL crashed", standing(with_process(1, Process::Stopped), licensed(NOW))),
        ("holder being promoted", standing(promoting, licensed(NOW))),
        ("streaming standby", standby()),
        ("standby, receiver waiting", standing(stream("waiting"), none())),
        ("standby without an answer by SQL", standing(without_sql(3), none())),
        ("standby, old answer by SQL", standing(stale_sql, none())),
        ("standby with noloadbalance", standing(noloadbalance, none())),
        ("standby being cloned", standing(cloning, none())),
        ("standby, stopped", standing(with_process(3, Process::Stopped), none())),
        ("standby, daemon slow", standing(slow, none())),
        ("standby, daemon stuck", standing(stale, none())),
    ]
}

/// Those in which commits wait for standbys.
fn synchronous_situations() -> Vec<(&'static str, Standing)> {
    let none = RenewerFacts::default;
    let in_mode = |number, mode| changed(number, |view| synchronous(view, mode));
    let silent = RenewerFacts {
        licence: Some(Licence {
            epoch: EPOCH,
            deadline: NOW.after(Duration::from_secs(3)),
            sent: BootTime(Duration::from_millis(998_499)),
        }),
        ..none()
    };
    let waiting = changed(1, |view| {
        synchronous(view, SyncMode::Quorum);
        view.observation.policy.sync.fast_failover = false;
    });
    vec![
        ("primary, no renewal for 1.5 s", standing(view(1, NOW), silent.clone())),
        ("primary in quorum mode", standing(in_mode(1, SyncMode::Quorum), licensed(NOW))),
        (
            "primary in quorum mode, no renewal for 1.5 s",
            standing(in_mode(1, SyncMode::Quorum), silent.clone()),
        ),
        ("primary in quorum mode without fast_failover, no renewal for 1.5 s", standing(waiting, silent)),
        ("standby in quorum mode", standing(in_mode(3, SyncMode::Quorum), none())),
        ("synchronous standby", standing(in_mode(3, SyncMode::On), none())),
        ("standby in synchronous mode, not chosen", standing(in_mode(2, SyncMode::On), none())),
    ]
}

#[test]
fn every_path_in_every_situation() {
    let paths = [
        "/",
        "/primary",
        "/master",
        "/leader",
        "/read-write",
        "/replica",
        "/read-only",
        "/health",
        "/liveness",
        "/readiness",
        "/async",
        "/sync",
        "/quorum",
        "/read-only-sync",
        "/read-only-quorum",
        "/standby-leader",
        "/primary/x",
        "/nothing",
    ];
    let mut table = String::new();
    for (name, standing) in situations().into_iter().chain(synchronous_situations()) {
        table.push_str(&format!("{name}\n"));
        for path in paths {
            let well = match path {
                "/liveness" => standing.is_alive(),
                "/readiness" => health::is_ready(&standing, ""),
                _ => health::is_well(&standing, path, ""),
            };
            let state = if well { "200" } else { "503" };
            table.push_str(&format!("    {state} {path}\n"));
        }
    }
    golden("status_codes", &table);
}

#[test]
fn a_licence_newer_than_the_view_counts() {
    let renewer = RenewerFacts {
        licence: Some(Licence { epoch: Epoch(8), deadline: NOW.after(Duration::from_secs(1)), sent: NOW }),
        ..RenewerFacts::default()
    };
    assert!(standing(view(1, NOW), renewer).is_primary());
}

#[test]
fn a_replica_is_asked_for_lag_and_tags() {
    let standby = standby();
    let well = |path: &str, query: &str| health::is_well(&standby, path, query);
    // It lies 0x38 bytes behind.
    assert!(well("/replica", "lag=56"));
    assert!(!well("/replica", "lag=55"));
    assert!(well("/replica", "lag=1kB&tag_clonefrom=true&tag_rack=b"));
    assert!(!well("/replica", "tag_rack=a"));
    assert!(!well("/replica", "tag_missing=1"));
    assert!(!well("/read-only", "tag_rack=a"));
    assert!(well("/health", "tag_clonefrom=True"));
    assert!(health::is_ready(&standby, "lag=56"));
    assert!(!health::is_ready(&standby, "lag=55"));
    assert!(health::is_ready(&standby, "lag=0&mode=write"));
}

#[test]
fn documents() {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON") + "\n";
    golden("patroni_primary.json", &pretty(&status::document(&primary())));
    golden("patroni_standby.json", &pretty(&status::document(&standby())));
    golden("cluster_seen_by_primary.json", &pretty(&cluster::document(&primary())));
    let mixed = changed(3, |view| {
        view.observation.peers.insert(MemberId(1), Fact::Unknown("no answer".into()));
        view.observation.cluster.leaving.insert(MemberId(2));
        view.decision.waiting_for = Some("a new primary".into());
    });
    let mixed = standing(mixed, RenewerFacts::default());
    golden("cluster_seen_by_standby_of_silent_primary.json", &pretty(&cluster::document(&mixed)));
    // As in Patroni, who holds the lease is the leader, whatever its PostgreSQL does.
    let crashed = changed(1, |view| {
        view.observation.postgres.process = Fact::fresh(Process::Stopped);
        view.observation.postgres.server = Fact::Unknown("not running".into());
        view.observation.postgres.control = Fact::fresh(crate::ha::ControlData {
            system_identifier: pgherd_raft::model::SystemIdentifier(1),
            state: crate::ha::ControlState::InProduction,
            timeline: pgherd_raft::model::TimelineId(1),
            checkpoint: pgherd_raft::model::Lsn(1),
            min_recovery_end: pgherd_raft::model::Lsn(0),
        });
    });
    let crashed = cluster::document(&standing(crashed, licensed(NOW)));
    let leader = &crashed["members"][0];
    assert_eq!((&leader["role"], &leader["state"]), (&json!("leader"), &json!("crashed")));
    golden("metrics_primary", &metrics::page(&primary()).body);
    golden("metrics_standby", &metrics::page(&standby()).body);
    assert_eq!(settings::get(&primary()).body, "{\"ttl\":5,\"loop_wait\":10}");
    let unset = changed(1, |view| view.observation.cluster.settings.document.clear());
    assert_eq!(settings::get(&standing(unset, licensed(NOW))).code, StatusCode::BAD_GATEWAY);
}

// The server.

fn start(number: u64, fate: Fate) -> (ApiServer, Arc<FakeGroup>) {
    let group = FakeGroup::new(fate);
    let server = serve("127.0.0.1:0", state(view(number, clock::now()), Arc::clone(&group)));
    (server.expect("listens"), group)
}

/// Sends bytes, and reads until the other side closes.
fn exchange(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn post(addr: SocketAddr, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = exchange(addr, &request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a code"), body.to_owned())
}

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
            r#"{"leader":"node1","scheduled_at":"2999-01-01T00:00:00Z"}"#,
            501,
            "this version of pgherd cannot schedule a switchover yet; ask again at that time",
        ),
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
    assert_eq!(post(addr, "/switchover", &long).0, 400);
    assert_eq!(group.state().intent, None);
    assert_eq!(group.state().last_intent, None);
}

#[test]
fn the_failsafe_list_is_shown_while_there_is_one() {
    let off = failsafe::get(&standby());
    assert_eq!(off.code, StatusCode::BAD_GATEWAY);
    let listed = changed(3, |view| {
        view.observation.cluster.failsafe = Some([MemberId(1), MemberId(3)].into());
    });
    let on = failsafe::get(&standing(listed, RenewerFacts::default()));
    assert_eq!(on.code, StatusCode::OK);
    assert_eq!(
        on.body,
        r#"{"node1":"http://127.0.0.1:8009/patroni","node3":"http://127.0.0.1:8011/patroni"}"#
    );
}

#[test]
fn failsafe_shows_where_it_keeps_the_primary() {
    let flag = |standing: &Standing| status::document(standing)["failsafe_mode_is_active"].clone();
    assert_eq!(flag(&primary()), Value::Null);
    let by_promises = || {
        let failsafe = FailsafeFacts { rests_on_promises: true, ..FailsafeFacts::default() };
        RenewerFacts { failsafe, ..licensed(NOW) }
    };
    assert_eq!(flag(&standing(view(1, NOW), by_promises())), json!(true));
    let expired = RenewerFacts { licence: None, ..by_promises() };
    assert_eq!(flag(&standing(view(1, NOW), expired)), Value::Null);
    let of_promise = |holder, ms| {
        let remaining = Duration::from_millis(ms);
        let view = changed(3, |view| {
            view.observation.lease.stands_back = Some(StandingBack { holder, remaining });
        });
        let later = NOW.after(Duration::from_millis(500));
        flag(&Standing::new(Arc::new(view), RenewerFacts::default(), later))
    };
    assert_eq!(of_promise(Some(MemberId(1)), 501), json!(true));
    assert_eq!(of_promise(Some(MemberId(1)), 500), Value::Null);
    assert_eq!(of_promise(None, 5000), Value::Null, "a start alone is no outage");
    assert!(
        metrics::page(&standing(view(1, NOW), by_promises()))
            .body
            .contains("failsafe_mode_is_active{scope=\"demo\",name=\"node1\"} 1")
    );
}

/// A member that stands back on demand, and another one's question to it.
fn failsafe_member(number: u64) -> (ApiServer, FailsafeQuestion) {
    let group = FakeGroup::new(Fate::Done);
    let list = Some([MemberId(1), MemberId(3)].into());
    group.set_failsafe(list.clone());
    let mut view = view(number, clock::now());
    view.observation.cluster.failsafe = list;
    let server = serve("127.0.0.1:0", state(view, group)).expect("listens");
    let question = FailsafeQuestion {
        group: GroupId(1),
        member: MemberId(3),
        holder: MemberId(1),
        epoch: EPOCH,
        session: Session(11),
        incarnation: Incarnation(u64::MAX - 1),
        round: 7,
    };
    (server, question)
}

#[test]
fn a_promise_needs_a_whole_question_of_the_holder() {
    let (server, question) = failsafe_member(3);
    let addr = server.local_addr();
    let ask = |question: &FailsafeQuestion| {
        post(addr, "/failsafe", &json!({"name": "node1", "slots": {}, "pgherd": question}).to_string())
    };
    assert_eq!(ask(&question), (200, "Accepted".to_owned()));
    let patronis = r#"{"name":"node1","conn_url":"postgres://x","api_url":"http://x/patroni","slots":{}}"#;
    let (code, said) = post(addr, "/failsafe", patronis);
    assert!(code == 400 && said.contains("nothing is promised"), "{code} {said}");
    for (body, expected) in [("", 400), ("{", 400), ("[]", 400), (r#"{"pgherd":{"epoch":7}}"#, 400)] {
        assert_eq!(post(addr, "/failsafe", body).0, expected, "{body}");
    }
    let refused = [
        (FailsafeQuestion { group: GroupId(2), ..question.clone() }, "another group"),
        (FailsafeQuestion { member: MemberId(2), ..question.clone() }, "listens here"),
        (FailsafeQuestion { epoch: Epoch(6), ..question.clone() }, "knows of epoch 7"),
        (FailsafeQuestion { epoch: Epoch(8), ..question.clone() }, "has not applied"),
        (FailsafeQuestion { session: Session(99), ..question.clone() }, "asking life"),
        (FailsafeQuestion { holder: MemberId(2), ..question }, "asking life"),
    ];
    for (question, why) in refused {
        let (code, said) = ask(&question);
        assert!(code == 412 && said.contains(why), "{code} {said}");
    }
    // A primary stands back for nobody; without a list there is nothing to promise.
    let (leader, question) = failsafe_member(1);
    let body = json!({ "pgherd": question }).to_string();
    assert_eq!(post(leader.local_addr(), "/failsafe", &body), (500, "Running as a leader".to_owned()));
    let (off, _) = start(3, Fate::Done);
    assert_eq!(post(off.local_addr(), "/failsafe", &body).0, 502);
}

#[test]
fn only_the_repeated_promise_counts() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (server, question) = failsafe_member(3);
    let at = |addr: SocketAddr| Member { api_url: Some(format!("http://{addr}")), ..member(3) };
    let client = MemberClient::new(member(1), HttpClient::new(ClientSettings::default(), None));
    let ask = |addr, question: &FailsafeQuestion| runtime.block_on(client.ask(&at(addr), question));
    assert_eq!(ask(server.local_addr(), &question), Ok(()));
    let refused = FailsafeQuestion { epoch: Epoch(6), ..question.clone() };
    assert!(ask(server.local_addr(), &refused).is_err_and(|why| why.contains("status 412")));
    // Something that says 200 to everything.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let addr = listener.local_addr().expect("its address");
    let yes = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 4096];
        let length = stream.read(&mut request).expect("a request");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nAccepted";
        stream.write_all(answer.as_bytes()).expect("sent");
        length
    });
    assert!(ask(addr, &question).is_err(), "it promised nothing");
    assert!(yes.join().expect("it answered") > 0);
    // Nobody.
    assert!(ask(addr, &question).is_err());
    // Who may not use the API may not bind a member.
    let group = FakeGroup::new(Fate::Done);
    let locked = serve("127.0.0.1:0", protected(state(view(3, clock::now()), group))).expect("listens");
    assert!(ask(locked.local_addr(), &question).is_err_and(|why| why.contains("status 401")));
    let authorization = super::authorization("admin", "secret");
    let known = MemberClient::new(member(1), HttpClient::new(ClientSettings::default(), authorization));
    let said = runtime.block_on(known.ask(&at(locked.local_addr()), &question));
    assert!(said.is_err_and(|why| why.contains("status 502")));
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
        (Fate::Refused, 503, "Failover failed: it is not its day"),
        (Fate::LostAndDone, 200, "Successfully failed over to \"node2\""),
    ];
    for (fate, code, text) in cases {
        let (server, _) = start(3, fate);
        assert_eq!(post(server.local_addr(), "/failover", body), (code, text.to_owned()));
    }
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
fn a_paused_cluster_says_so() {
    let wanted = |view: &mut View| view.observation.policy.pause = true;
    let pinned = |view: &mut View| {
        wanted(view);
        view.observation.cluster.lease.tenure.as_mut().expect("held").pinned = true;
    };
    let says = |view: View| {
        let standing = standing(view, RenewerFacts::default());
        let metric =
            metrics::page(&standing).body.contains("patroni_is_paused{scope=\"demo\",name=\"node1\"} 1");
        let is_true = |document: Value| document.get("pause") == Some(&json!(true));
        (
            metric,
            is_true(cluster::document(&standing)),
            is_true(status::document(&standing)),
            standing.is_primary(),
        )
    };
    assert_eq!(says(changed(1, |_| {})), (false, false, false, false));
    // Only once the pin is there may the daemon be stopped, and is a licence not needed to go on.
    assert_eq!(says(changed(1, wanted)), (true, true, false, false));
    assert_eq!(says(changed(1, pinned)), (true, true, true, true));
    let armed = |view: &mut View| {
        pinned(view);
        let Fact::Known { value, .. } = &mut view.observation.guard else { panic!("a guard") };
        value.deadline = Some(NOW);
    };
    assert_eq!(says(changed(1, armed)), (true, true, false, true));
}

#[tokio::test]
async fn a_wish_that_nobody_carries_out_is_withdrawn() {
    let group = FakeGroup::new(Fate::Ignored);
    let api = state(view(3, clock::now()), Arc::clone(&group));
    let wish = Intent::Failover { to: MemberId(2), accepts_loss: false, holder_is_dead: false };
    let reply =
        intent::carry_out(&api, intent::Word::Failover, wish.clone(), Duration::from_millis(10)).await;
    assert_eq!(reply.code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.body, "Failover failed: nobody carried it out in time, so it was withdrawn");
    assert_eq!(group.state().intent, None);
    // Two at a time are refused.
    let pending = pgherd_raft::model::Command::SetIntent { intent: wish.clone() };
    super::Intents::propose(&*group, pending).await;
    let reply = intent::carry_out(&api, intent::Word::Failover, wish, Duration::from_millis(10)).await;
    assert_eq!(reply.code, StatusCode::CONFLICT);
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
    let again = serve(&addr, state(view(1, now), FakeGroup::new(Fate::Done)));
    let text = again.expect_err("in use").to_string();
    assert!(text.contains(&addr) && text.contains("set another restapi.listen"), "{text}");
    drop(server);
    for bad in ["localhost", "localhost:x", "localhost:99999"] {
        let wrong = serve(bad, state(view(1, now), FakeGroup::new(Fate::Done)));
        assert!(wrong.expect_err(bad).to_string().contains("restapi.listen"));
    }
}

#[test]
fn half_open_connections_do_not_delay_a_check() {
    let (server, _) = start(1, Fate::Done);
    let addr = server.local_addr();
    let half_open: Vec<TcpStream> = (0..400)
        .map(|number| {
            let mut stream = TcpStream::connect(addr).expect("connects");
            if number % 2 == 0 {
                stream.write_all(b"OPTIONS /primary HTTP/1.0\r\nX: ").expect("sent");
            }
            stream
        })
        .collect();
    let begin = clock::now();
    for _ in 0..20 {
        let answer = exchange(addr, "OPTIONS /primary HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    }
    let time = clock::now().since(begin);
    assert!(time < Duration::from_secs(1), "20 checks took {time:?}");
    drop(half_open);
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
    let reply = decisions::list(&informed(), "");
    assert_eq!(reply.code, StatusCode::OK);
    let document: Value = serde_json::from_str(&reply.body).expect("JSON");
    golden("decisions.json", &format!("{document:#}\n"));
}

#[test]
fn decisions_of_a_range() {
    let told = |query: &str| {
        let reply = decisions::list(&informed(), query);
        assert_eq!(reply.code, StatusCode::OK, "{query}: {}", reply.body);
        let events: Vec<Value> = serde_json::from_str(&reply.body).expect("a list");
        let because = |event: &Value| event.get("because").and_then(Value::as_str).expect("text").to_owned();
        events.iter().map(because).collect::<Vec<_>>().join(" ")
    };
    for (query, events) in [
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
        assert_eq!(told(query), events, "{query}");
    }
    for query in
        ["since=yesterday", "until=", "limit=0", "limit=x", "last=3", "since=-1", "since=99999999999999999"]
    {
        let reply = decisions::list(&informed(), query);
        assert_eq!(reply.code, StatusCode::BAD_REQUEST, "{query}");
        assert!(reply.body.contains(query.split('=').next().expect("a key")), "{query}: {}", reply.body);
    }
}

#[test]
fn a_forecast_names_the_successor() {
    let ask = |query: &str| decisions::what_if(&standby(), query);
    let forecast: Value = serde_json::from_str(&ask("member=node1").body).expect("JSON");
    golden("what_if.json", &format!("{forecast:#}\n"));
    assert_eq!(ask("member=node9").code, StatusCode::NOT_FOUND);
    for query in ["", "member=", "node=node1", "member=node1&member=node2"] {
        assert_eq!(ask(query).code, StatusCode::BAD_REQUEST, "{query}");
    }
}
