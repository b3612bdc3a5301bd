//! A server that is told to listen elsewhere, or to speak TLS, while it runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use pgherd_raft::clock;

use super::super::testing::{FakeGroup, Fate, state, view};
use super::super::{ApiError, ApiServer, Listening, Mover, serve};
use super::{exchange, start};
use crate::config::TlsFiles;

fn movable() -> (ApiServer, Mover) {
    let (mut server, _) = start(1, Fate::Done);
    let mover = server.take_mover().expect("one");
    (server, mover)
}

fn is_answered(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_ok()
        && exchange(addr, "OPTIONS / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 ")
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port")
}

/// A connection that stays open after its first answer.
fn kept_open(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    stream
}

/// The other side has closed it without another word.
fn is_ended(mut stream: TcpStream) -> bool {
    stream.read(&mut [0]).is_ok_and(|length| length == 0)
}

/// It answers once more.
fn is_open(mut stream: TcpStream) -> bool {
    let asked = stream.write_all(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n");
    asked.is_ok() && stream.read(&mut [0]).is_ok_and(|length| length == 1)
}

#[tokio::test]
async fn a_new_address_takes_the_place_of_the_old_one() {
    let (server, mut mover) = movable();
    let (old, new) = (server.local_addr(), free());
    let kept = kept_open(old);
    assert!(mover.listen(&Listening::from(new.to_string().as_str())).await.expect("it is free"));
    assert!(is_answered(new));
    assert!(is_ended(kept), "who was connected goes on with the old address");
    assert!(TcpStream::connect(old).is_err(), "the old address is still listened on");
    let same = Listening { queue: 7, ..Listening::from(new.to_string().as_str()) };
    assert!(!mover.listen(&same).await.expect("only the queue"), "the address is the same");
    assert!(is_answered(new));
}

#[tokio::test]
async fn an_address_that_cannot_be_had_changes_nothing() {
    let (server, mut mover) = movable();
    let old = server.local_addr();
    let kept = kept_open(old);
    let guest = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = guest.local_addr().expect("an address").to_string();
    for (addr, words) in [(taken.as_str(), "in use"), ("203.0.113.7:8008", "restapi.listen")] {
        let refused = mover.listen(&Listening::from(addr)).await;
        assert!(refused.expect_err(addr).to_string().contains(words), "{addr}");
        assert!(is_answered(old));
    }
    assert!(is_open(kept));
}

#[tokio::test]
async fn one_address_becomes_all_of_them_and_one_again() {
    let addr = free();
    let api = || state(view(1, clock::now()), FakeGroup::new(Fate::Done));
    let mut server = serve(addr.to_string().as_str(), api()).expect("listens");
    let mut mover = server.take_mover().expect("one");
    let everywhere = format!("*:{}", addr.port());
    assert!(mover.listen(&Listening::from(everywhere.as_str())).await.expect("it is its own"));
    let other = SocketAddr::from(([127, 0, 0, 2], addr.port()));
    assert!(is_answered(addr) && is_answered(other));
    assert!(mover.listen(&Listening::from(addr.to_string().as_str())).await.expect("it is its own"));
    assert!(is_answered(addr) && TcpStream::connect(other).is_err());
    // Somebody else has one of all addresses: this one is had again.
    let _guest = TcpListener::bind(other).expect("free");
    let refused = mover.listen(&Listening::from(everywhere.as_str())).await;
    assert!(matches!(refused, Err(ApiError::PortInUse { .. })), "{refused:?}");
    assert!(is_answered(addr));
}

#[tokio::test]
async fn who_talked_without_encryption_does_not_go_on_so() {
    let group = FakeGroup::new(Fate::Done);
    let api = state(view(1, clock::now()), group);
    let tls = api.tls.clone();
    let mut server = serve("127.0.0.1:0", api).expect("listens");
    let mover = server.take_mover().expect("one");
    let addr = server.local_addr();
    let kept = kept_open(addr);
    let directory = tempfile::tempdir().expect("a directory");
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("writable");
        Some(path)
    };
    let certfile = file("server.crt", pair.cert.pem());
    let keyfile = file("server.key", pair.signing_key.serialize_pem());
    let files = TlsFiles { certfile, keyfile, ..TlsFiles::default() };
    tls.reload(&files).expect("a good certificate");
    mover.end_connections().await;
    assert!(is_ended(kept));
    let answer = TcpStream::connect(addr).and_then(|mut stream| {
        stream.write_all(b"OPTIONS / HTTP/1.0\r\n\r\n")?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).map(|_| said)
    });
    assert!(!answer.is_ok_and(|said| said.starts_with(b"HTTP/")), "it answers without encryption");
    tls.reload(&TlsFiles::default()).expect("nothing to read");
    mover.end_connections().await;
    assert!(is_answered(addr));
}
