//! What a node answers: by path and role, by method, by body; and who cannot keep it from answering.

mod config;
mod documents;
mod failsafe;
mod health;
mod http;
mod listening;
mod local;
mod told;
mod wishes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::RenewerFacts;
use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::SyncSet;

use super::query::Query;
use super::standing::Standing;
use super::testing::{FakeGroup, Fate, licensed, state, view};
use super::{ApiServer, serve};
use crate::agent::view::View;
use crate::ha::SyncMode;

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

/// A well-formed query.
fn query(text: &str) -> Query {
    Query::parse(text).expect("a query")
}
