//! Failsafe mode over REST, both sides of it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use pgherd_raft::RenewerFacts;
use pgherd_raft::clock;
use pgherd_raft::lease::{FailsafeFacts, FailsafeQuestion, StandingBack};
use pgherd_raft::model::{Epoch, GroupId, Incarnation, Member, MemberId, Session};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::standing::Standing;
use super::super::testing::{EPOCH, FakeGroup, Fate, licensed, member, protected, state, view};
use super::super::{ApiServer, MemberClient, authorization, failsafe, metrics, serve, status};
use super::{NOW, changed, post, primary, standby, standing, start};
use crate::agent::AskMember;
use crate::http_client::HttpClient;
use crate::tls::ClientSettings;

fn called_by(authorization: Option<HeaderValue>) -> watch::Receiver<HttpClient> {
    watch::Sender::new(HttpClient::new(ClientSettings::default(), authorization)).subscribe()
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
    // A promise does not depend on what the question says of slots.
    for slots in [json!({"a": 5, "b": "x"}), json!([1]), json!("x"), Value::Null] {
        let body = json!({"slots": slots, "pgherd": question}).to_string();
        assert_eq!(post(addr, "/failsafe", &body).0, 200, "{body}");
    }
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
    let client = MemberClient::new(member(1), called_by(None), Arc::default());
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
    let authorization = authorization("admin", "secret");
    let known = MemberClient::new(member(1), called_by(authorization), Arc::default());
    let said = runtime.block_on(known.ask(&at(locked.local_addr()), &question));
    assert!(said.is_err_and(|why| why.contains("status 502")));
}
