use std::path::Path;
use std::sync::mpsc;

use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::lease::{Holder, Licence};
use crate::model::{Basis, Incarnation, Member, MemberKind, Outcome, PostgresAddr, Session, Tags};
use crate::renewer::{LicenceSink, Renewer};

/// No condition of these tests takes longer on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn member(name: &str, raft_addr: &str) -> Member {
    Member {
        name: name.parse().expect("a valid name"),
        kind: MemberKind::Data,
        raft_addr: raft_addr.to_owned(),
        api_url: Some(format!("http://{raft_addr}")),
        postgres: Some(PostgresAddr { host: "127.0.0.1".to_owned(), port: 5432 }),
        tags: Tags::default(),
    }
}

fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(400),
    }
}

struct Running {
    server: PeerServer,
    group: Group,
}

impl Running {
    async fn start(server: PeerServer, name: &str, partners: Vec<String>, dir: &Path) -> Self {
        let config = GroupConfig {
            scope: "demo".to_owned(),
            member: member(name, &server.local_addr().to_string()),
            partner_addrs: partners,
            data_dir: dir.join(name),
            timing: timing(),
        };
        let group = Group::start(&server, config).await.expect("starts");
        Self { server, group }
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&GroupView) -> bool) -> Arc<GroupView> {
        let mut watch = self.group.watch();
        let seen = tokio::time::timeout(LIMIT, watch.wait_for(|view| condition(view))).await;
        match seen {
            Ok(Ok(view)) => Arc::clone(&view),
            _ => panic!("not seen within {LIMIT:?}: {what}; last: {:?}", self.group.watch().borrow()),
        }
    }

    async fn until_member(&self) {
        self.until("membership", |view| view.phase == Phase::Member).await;
    }

    async fn stop(self) {
        self.group.shutdown().await;
        self.server.shutdown().await;
    }
}

async fn listen() -> PeerServer {
    PeerServer::bind("127.0.0.1:0").await.expect("listens")
}

/// Three members that list each other.
async fn three(dir: &TempDir) -> Vec<Running> {
    let servers = [listen().await, listen().await, listen().await];
    let addrs: Vec<_> = servers.iter().map(|server| server.local_addr().to_string()).collect();
    let mut running = Vec::new();
    for (number, server) in servers.into_iter().enumerate() {
        let own = addrs[number].clone();
        let partners = addrs.iter().filter(|addr| **addr != own).cloned().collect();
        running.push(Running::start(server, &format!("node{number}"), partners, dir.path()).await);
    }
    running
}

struct Sink(mpsc::Sender<Licence>);

impl LicenceSink for Sink {
    fn may_renew(&mut self, _now: BootTime) -> bool {
        true
    }

    fn licensed(&mut self, licence: Licence) {
        let _gone = self.0.send(licence);
    }
}

fn grant(to: &Group, expected: u64) -> Command {
    Command::Grant {
        expected_epoch: Epoch(expected),
        to: to.id(),
        session: Session(7),
        ttl_ms: 2000,
        basis: Basis::Vacant,
    }
}

fn renew(group: &Group) -> (Renewer, mpsc::Receiver<Licence>) {
    let (sender, receiver) = mpsc::channel();
    let holder = Holder::new(group.id(), Session(7), Incarnation(1), group.given_up());
    (Renewer::start(group, holder, Box::new(Sink(sender))).expect("a thread"), receiver)
}

fn applied() -> Proposed {
    Proposed::Outcome(Outcome::Applied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_founds_alone_and_licenses_itself() {
    let dir = TempDir::new().expect("a directory");
    let one = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    one.until_member().await;
    let (renewer, licences) = renew(&one.group);
    assert_eq!(one.group.propose(grant(&one.group, 0)).await, applied());
    let licence = licences.recv_timeout(LIMIT).expect("a licence");
    assert_eq!(licence.epoch, Epoch(1));
    assert!(licence.deadline > clock::now());
    assert_eq!(one.group.read().await.expect("reads").lease.holder(), Some(one.group.id()));
    renewer.shutdown();
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_found_agree_renew_and_close() {
    let dir = TempDir::new().expect("a directory");
    let nodes = three(&dir).await;
    for node in &nodes {
        node.until_member().await;
    }
    let group = nodes[0].group.read().await.expect("reads").group;
    for node in &nodes {
        assert_eq!(node.group.watch().borrow().state.group, group);
        assert_eq!(node.group.watch().borrow().state.members.len(), 3);
    }
    for node in &nodes {
        node.group.publish_report(node.group.id().0.to_string().into_bytes());
    }
    let (renewer, licences) = renew(&nodes[1].group);
    assert_eq!(nodes[2].group.propose(grant(&nodes[1].group, 0)).await, applied());
    let first = licences.recv_timeout(LIMIT).expect("a licence");
    let second = licences.recv_timeout(LIMIT).expect("a renewed licence");
    assert!(second.deadline > first.deadline);
    nodes[0].until("the epoch", |view| view.state.lease.epoch == Epoch(1)).await;
    let request = CloseRequest { candidate: nodes[0].group.id(), epoch: Epoch(1), for_real: true };
    let refused = nodes[0].group.ask_close(nodes[2].group.id(), request.clone()).await.expect("answers");
    assert!(matches!(refused, CloseVerdict::NotYet { .. }), "{refused:?}");

    renewer.give_up(Epoch(1));
    nodes[1].group.record_given_up(Epoch(1)).await.expect("durable");
    assert_eq!(nodes[1].group.given_up(), Epoch(1));
    assert_eq!(renewer.facts().licence, None);
    for to in [&nodes[0], &nodes[2]] {
        let end = clock::now().after(LIMIT);
        loop {
            match nodes[0].group.ask_close(to.group.id(), request.clone()).await {
                Ok(CloseVerdict::Closed) => break,
                other if clock::now() < end => {
                    assert!(matches!(other, Ok(CloseVerdict::NotYet { .. })), "{other:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    nodes[0].group.ask_reports(LIMIT).await;
    let reports = nodes[0].group.reports();
    assert_eq!(reports[&nodes[2].group.id()].bytes, nodes[2].group.id().0.to_string().into_bytes());
    renewer.shutdown();
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_member_knows_what_was_agreed() {
    let dir = TempDir::new().expect("a directory");
    let one = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    one.until_member().await;
    let id = one.group.id();
    assert_eq!(one.group.propose(grant(&one.group, 0)).await, applied());
    one.group.record_given_up(Epoch(1)).await.expect("durable");
    one.stop().await;
    let again = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    assert_eq!(again.group.id(), id);
    assert_eq!(again.group.given_up(), Epoch(1));
    again.until("the epoch", |view| view.state.lease.epoch == Epoch(1)).await;
    again.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = listen().await;
    let addr = first.local_addr().to_string();
    let error = PeerServer::bind(&addr).await.expect_err("the port is taken").to_string();
    assert!(error.contains(&addr) && error.contains("in use"), "{error}");
    first.shutdown().await;
}
