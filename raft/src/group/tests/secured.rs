//! Members with a password, with another one, and with none.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::Secret;
use crate::network::PeerSecurity;

fn password(word: &str) -> PeerSecurity {
    PeerSecurity::from_password(&Secret::new(word)).expect("a key")
}

async fn listen_with(security: &PeerSecurity) -> PeerServer {
    PeerServer::bind_secured("127.0.0.1:0", security.clone()).await.expect("listens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_with_one_password_are_a_group() {
    let dir = TempDir::new().expect("a directory");
    let security = password("the same everywhere");
    let servers = [listen_with(&security).await, listen_with(&security).await, listen_with(&security).await];
    let addrs: Vec<_> = servers.iter().map(|server| server.local_addr().to_string()).collect();
    let mut nodes = Vec::new();
    for (number, server) in servers.into_iter().enumerate() {
        let partners = addrs.iter().filter(|addr| **addr != addrs[number]).cloned().collect();
        nodes.push(Running::start(server, &format!("node{number}"), partners, dir.path()).await);
    }
    for node in &nodes {
        node.until_member().await;
    }
    let (renewer, licences) = renew(&nodes[0].group);
    assert_eq!(nodes[2].group.propose(grant(&nodes[0].group, 0)).await, applied());
    for _round in 0..3 {
        licences.recv_timeout(LIMIT).expect("a licence");
    }
    let known = ask_members("demo", &addrs[1], &security, LIMIT).await.expect("the same password");
    assert_eq!(known.len(), 3);
    for (security, words) in [(password("another"), "another raft.password"), (PeerSecurity::none(), "")] {
        let refused = ask_members("demo", &addrs[1], &security, LIMIT).await.expect_err("a stranger");
        assert!(matches!(refused, CallError::Unreachable { .. }), "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    renewer.shutdown();
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_another_password_or_none_stays_outside() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen_with(&password("one")).await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    for (number, security) in [password("two"), PeerSecurity::none()].into_iter().enumerate() {
        let server = listen_with(&security).await;
        let name = format!("other{number}");
        let other = Running::start(server, &name, vec![first.addr()], dir.path()).await;
        // It has had time to ask more than once.
        tokio::time::sleep(timing().election_max * 3).await;
        assert_eq!(first.group.watch().borrow().state.members.len(), 1);
        assert_ne!(other.group.watch().borrow().phase, Phase::Member);
        other.stop().await;
    }
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_delay_nobody() {
    let dir = TempDir::new().expect("a directory");
    let security = password("one");
    let node = Running::start(listen_with(&security).await, "node0", Vec::new(), dir.path()).await;
    node.until_member().await;
    let mut open = Vec::new();
    for number in 0..400 {
        let mut stream = tokio::net::TcpStream::connect(node.addr()).await.expect("connects");
        if number % 2 == 0 {
            // The beginning of a handshake.
            stream.write_all(&[0x16, 0x03, 0x01]).await.ok();
        }
        open.push(stream);
    }
    let asked = clock::now();
    let known = ask_members("demo", &node.addr(), &security, LIMIT).await.expect("an answer");
    assert_eq!(known.len(), 1);
    assert!(clock::now().since(asked) < Duration::from_secs(2), "{:?}", clock::now().since(asked));
    // What begins with something else than a handshake is ended at once.
    let mut plain = tokio::net::TcpStream::connect(node.addr()).await.expect("connects");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("writes");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(LIMIT, plain.read_to_end(&mut answer)).await.expect("it is ended");
    assert!(ended.is_err() || answer.is_empty(), "{answer:?}");
    node.stop().await;
}
