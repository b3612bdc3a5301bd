use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;

use openraft::async_runtime::WatchReceiver;
use tempfile::TempDir;
use tonic::Status;
use tonic::codegen::BoxFuture;

use super::*;
use crate::clock;
use crate::lease::{Holder, Licence};
use crate::model::{
    Basis, Incarnation, Member, MemberKind, Outcome, PostgresAddr, Revision, Session, SystemIdentifier, Tags,
};
use crate::network::{Answer, Envelope, Handler, PeerSecurity};
use crate::renewer::{LicenceSink, Renewer};

mod secured;

/// No condition of these tests takes longer on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Memories are written once a second at most: a window without a write must be longer.
const QUIET: Duration = Duration::from_millis(2500);

fn member(name: &str, raft_addr: &str) -> Member {
    Member {
        name: name.parse().expect("a valid name"),
        kind: MemberKind::Data,
        raft_addr: raft_addr.to_owned(),
        votes: true,
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
        Self::start_as(MemberKind::Data, server, name, partners, dir).await
    }

    async fn start_as(
        kind: MemberKind,
        server: PeerServer,
        name: &str,
        partners: Vec<String>,
        dir: &Path,
    ) -> Self {
        Self::start_with(kind, None, server, name, partners, dir).await
    }

    async fn start_with(
        kind: MemberKind,
        system_identifier: Option<SystemIdentifier>,
        server: PeerServer,
        name: &str,
        partners: Vec<String>,
        dir: &Path,
    ) -> Self {
        let config = GroupConfig {
            scope: "demo".to_owned(),
            member: Member { kind, ..member(name, &server.local_addr().to_string()) },
            partner_addrs: partners,
            system_identifier,
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

    fn addr(&self) -> String {
        self.server.local_addr().to_string()
    }

    /// Until this member and no other set votes, in Raft and for the lease.
    async fn until_voters(&self, voters: &[&Self]) {
        let wanted: BTreeSet<_> = voters.iter().map(|voter| voter.group.id()).collect();
        self.until("the voters", |view| view.raft.voters == wanted && view.state.lease.voters == wanted)
            .await;
    }

    async fn until_refused(&self) -> String {
        let view = self.until("a refusal", |view| matches!(view.phase, Phase::Refused(_))).await;
        let Phase::Refused(sentence) = &view.phase else { panic!("{view:?}") };
        sentence.clone()
    }

    async fn stop(self) -> String {
        let addr = self.addr();
        self.group.shutdown().await;
        self.server.shutdown().await;
        addr
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
    let known = ask_members("demo", &one.addr(), &PeerSecurity::none(), LIMIT)
        .await
        .expect("an answer to a stranger");
    assert_eq!(known, [member("node0", &one.addr())]);
    assert!(matches!(
        ask_members("other", &one.addr(), &PeerSecurity::none(), LIMIT).await,
        Err(CallError::Refused { .. })
    ));
    match ask_state("demo", &one.addr(), &PeerSecurity::none(), LIMIT).await.expect("an answer to a stranger")
    {
        StateAnswer::State(read) => {
            assert_eq!((read.by, read.state.lease.holder()), (one.group.id(), Some(one.group.id())));
        }
        StateAnswer::Unknown(why) => panic!("{why}"),
    }
    assert!(matches!(
        ask_state("other", &one.addr(), &PeerSecurity::none(), LIMIT).await,
        Err(CallError::Refused { .. })
    ));
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
    let floors = || nodes.iter().all(|node| node.group.node().store.floor() == Epoch(1));
    let end = clock::now().after(LIMIT);
    while !floors() {
        assert!(clock::now() < end, "each voter's first acknowledgement is durable");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A memory that is written again is another file.
    let memory = |number| {
        std::fs::metadata(dir.path().join(format!("node{number}/demo/memory"))).map(|file| file.ino())
    };
    let written = |(number, node): (usize, &Running)| (node.group.node().store.mark(), memory(number).ok());
    let marks = || nodes.iter().enumerate().map(written).collect::<Vec<_>>();
    let mut last = first;
    loop {
        // An election of a busy machine writes, too; if renewals did, no window would be quiet.
        let (before, begin) = (marks(), clock::now());
        while clock::now().since(begin) < QUIET {
            let next = licences.recv_timeout(LIMIT).expect("a renewed licence");
            assert!(next.deadline > last.deadline);
            last = next;
        }
        if marks() == before {
            break;
        }
        assert!(clock::now() < end, "renewals write nothing");
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_agrees_without_a_dead_member_which_finds_its_way_back() {
    let dir = TempDir::new().expect("a directory");
    let mut nodes = three(&dir).await;
    for node in &nodes {
        node.until_member().await;
    }
    let all: Vec<String> = nodes.iter().map(Running::addr).collect();
    let view = nodes[0].until("a leader", |view| view.raft.raft_leader.is_some()).await;
    let leads =
        nodes.iter().position(|node| Some(node.group.id()) == view.raft.raft_leader).expect("one of them");
    let dead = nodes.remove(leads);
    let (name, id) = (format!("node{leads}"), dead.group.id());
    let addr = dead.stop().await;
    assert_eq!(propose_until_known(&nodes[0].group, grant(&nodes[1].group, 0)).await, Outcome::Applied);
    let server = PeerServer::bind(&addr).await.expect("the port is free again");
    let partners = all.into_iter().filter(|other| *other != addr).collect();
    let back = Running::start(server, &name, partners, dir.path()).await;
    assert_eq!(back.group.id(), id);
    back.until("the epoch", |view| view.state.lease.epoch == Epoch(1)).await;
    back.until_member().await;
    back.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

/// Proposes again while the outcome is unknown: what a caller with a compare-and-set may do.
async fn propose_until_known(group: &Group, command: Command) -> Outcome {
    for _ in 0..10 {
        if let Proposed::Outcome(outcome) = group.propose(command.clone()).await {
            return outcome;
        }
    }
    panic!("no outcome of {command:?}");
}

/// Nobody acknowledges anything to the only voter: it leads all the same, and lets others in however late they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_leads_without_end() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    let node = first.group.node();
    let limit = node.config.timing.election_max * follow::CONTACT_TIMES;
    let is_young = || {
        let metrics = node.raft.metrics();
        let acked = metrics.borrow_watched().last_quorum_acked;
        acked.is_some_and(|acked| clock::age(*acked) <= limit)
    };
    let aged = async {
        while is_young() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, aged).await.expect("nobody acknowledges");
    assert!(node.raft_view().is_raft_leader);
    let second = Running::start(listen().await, "node1", vec![first.addr()], dir.path()).await;
    first.until_voters(&[&first, &second]).await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_is_let_in_and_gets_its_votes() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    let second = Running::start(listen().await, "node1", vec![first.addr()], dir.path()).await;
    second.until_member().await;
    first.until_voters(&[&first, &second]).await;
    let third = Running::start(listen().await, "node2", vec![second.addr(), first.addr()], dir.path()).await;
    third.until_member().await;
    third.until_voters(&[&first, &second, &third]).await;
    for node in [third, second, first] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_use_is_refused_and_a_wiped_bearer_replaced() {
    let dir = TempDir::new().expect("a directory");
    let mut nodes = three(&dir).await;
    for node in &nodes {
        node.until_member().await;
    }
    let partners: Vec<String> = nodes.iter().map(Running::addr).collect();
    let other_dir = TempDir::new().expect("a directory");
    let imitator = Running::start(listen().await, "node2", partners.clone(), other_dir.path()).await;
    let sentence = imitator.until_refused().await;
    assert!(sentence.contains("already a node named 'node2' running"), "{sentence}");
    imitator.stop().await;
    assert_eq!(nodes[0].group.watch().borrow().state.members.len(), 3);

    let wiped = nodes.pop().expect("three");
    let former = wiped.group.id();
    let addr = wiped.stop().await;
    std::fs::remove_dir_all(dir.path().join("node2")).expect("wipes");
    let server = PeerServer::bind(&addr).await.expect("the port is free again");
    let back = Running::start(server, "node2", partners[..2].to_vec(), dir.path()).await;
    assert_ne!(back.group.id(), former);
    back.until_member().await;
    nodes[0].until_voters(&[&nodes[0], &nodes[1], &back]).await;
    assert!(!nodes[0].group.watch().borrow().state.members.contains_key(&former));
    back.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_gives_the_vote_back_and_the_last_one_says_whom_it_waits_for() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    let second = Running::start(listen().await, "node1", vec![first.addr()], dir.path()).await;
    second.until_member().await;
    first.until_voters(&[&first, &second]).await;

    assert_eq!(second.group.leave(LIMIT).await, LeaveOutcome::Left);
    let addr = second.stop().await;
    first.until_voters(&[&first]).await;
    assert_eq!(propose_until_known(&first.group, grant(&first.group, 0)).await, Outcome::Applied);
    let kept = first.group.leave(LIMIT).await;
    assert!(matches!(kept, LeaveOutcome::KeptVote(_)), "{kept:?}");
    let first_addr = first.stop().await;

    let server = PeerServer::bind(&addr).await.expect("the port is free again");
    let second = Running::start(server, "node1", vec![first_addr.clone()], dir.path()).await;
    let waits = |view: &GroupView| matches!(&view.phase, Phase::Joining { waiting_for } if waiting_for.contains("node0"));
    second.until("whom it waits for", waits).await;
    let server = PeerServer::bind(&first_addr).await.expect("the port is free again");
    let first = Running::start(server, "node0", Vec::new(), dir.path()).await;
    second.until_member().await;
    first.until("two Raft voters", |view| view.raft.voters.len() == 2).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_comes_back_under_a_new_id_and_is_kept() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    let second = Running::start(listen().await, "node1", vec![first.addr()], dir.path()).await;
    let third = Running::start(listen().await, "node2", vec![first.addr()], dir.path()).await;
    first.until_voters(&[&first, &second, &third]).await;
    let former = third.group.id();
    let addr = third.stop().await;
    std::fs::remove_file(dir.path().join("node2/demo/seal")).expect("damages");
    let server = PeerServer::bind(&addr).await.expect("the port is free again");
    let back = Running::start(server, "node2", vec![first.addr()], dir.path()).await;
    assert_ne!(back.group.id(), former);
    assert!(dir.path().join("node2/demo.aside-1").exists());
    first.until_voters(&[&first, &second, &back]).await;
    back.until_member().await;
    for node in [back, second, first] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_damaged_store_founds_nothing_and_names_the_cure() {
    let dir = TempDir::new().expect("a directory");
    let one = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    one.until_member().await;
    let addr = one.stop().await;
    std::fs::remove_file(dir.path().join("node0/demo/seal")).expect("damages");
    for _ in 0..2 {
        let server = PeerServer::bind(&addr).await.expect("the port is free again");
        let back = Running::start(server, "node0", Vec::new(), dir.path()).await;
        let told = |view: &GroupView| matches!(&view.phase, Phase::Joining { waiting_for } if waiting_for.contains("remove"));
        back.until("the cure", told).await;
        assert_eq!(back.group.watch().borrow().state.group, None);
        back.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_store_ends_the_part() {
    let dir = TempDir::new().expect("a directory");
    let one = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    one.until_member().await;
    one.group.node().store.close().await.expect("closes");
    let outcome = one.group.propose(grant(&one.group, 0)).await;
    assert!(matches!(outcome, Proposed::Unknown(_)), "{outcome:?}");
    one.until("the failure", |view| matches!(view.phase, Phase::Failed(_))).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_of_one_name_are_told_apart() {
    let dirs = [TempDir::new().expect("a directory"), TempDir::new().expect("a directory")];
    let servers = [listen().await, listen().await];
    let addrs: Vec<_> = servers.iter().map(|server| server.local_addr().to_string()).collect();
    let mut nodes = Vec::new();
    for ((server, dir), partner) in servers.into_iter().zip(&dirs).zip([addrs[1].clone(), addrs[0].clone()]) {
        nodes.push(Running::start(server, "node0", vec![partner], dir.path()).await);
    }
    let refused = |node: &Running| matches!(node.group.watch().borrow().phase, Phase::Refused(_));
    let end = clock::now().after(LIMIT);
    while !nodes.iter().any(refused) {
        assert!(clock::now() < end, "one of the two has to go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_votes_and_leads_rather_than_the_holder() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    let server = listen().await;
    let witness =
        Running::start_as(MemberKind::Witness, server, "witness", vec![first.addr()], dir.path()).await;
    let second = Running::start(listen().await, "node1", vec![first.addr()], dir.path()).await;
    first.until_voters(&[&first, &second, &witness]).await;
    let id = witness.group.id();
    assert_eq!(propose_until_known(&first.group, grant(&first.group, 0)).await, Outcome::Applied);
    let refused = propose_until_known(&first.group, grant(&witness.group, 1)).await;
    assert!(matches!(refused, Outcome::Rejected(_)), "{refused:?}");
    second.until("the witness leads", |view| view.raft.raft_leader == Some(id)).await;
    for node in [second, witness, first] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_a_newcomer_and_a_restarted_member_up_to_date() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    for revision in 0..5 {
        let document = format!("{{\"quoted \\\" number\": {revision}}}");
        let command = Command::SetSettings {
            expected: Revision(revision),
            document,
            by: "operator".to_owned(),
            at_ms: 0,
        };
        assert_eq!(propose_until_known(&first.group, command).await, Outcome::Applied);
    }
    let node = first.group.node();
    node.raft.trigger().snapshot().await.expect("asks for a snapshot");
    let end = clock::now().after(LIMIT);
    while node.store.load_snapshot().expect("reads").is_none() {
        assert!(clock::now() < end, "a snapshot is made");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let upto = first.group.watch().borrow().applied;
    node.raft.trigger().purge_log(upto).await.expect("asks for a purge");

    let second = Running::start(listen().await, "node1", vec![first.addr()], dir.path()).await;
    second.until("the settings", |view| view.state.settings.revision == Revision(5)).await;
    assert!(second.group.node().store.load_snapshot().expect("reads").is_some(), "it came by snapshot");
    first.until_voters(&[&first, &second]).await;
    let agreed = first.group.watch().borrow().state.clone();
    let addr = first.stop().await;
    let server = PeerServer::bind(&addr).await.expect("the port is free again");
    let first = Running::start(server, "node0", Vec::new(), dir.path()).await;
    first.until("what was agreed", |view| view.state == agreed).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founding_cut_off_at_any_point_ends_in_one_group() {
    let promised = |node: &Running| node.group.node().store.promise().is_some();
    let accepted = |node: &Running| node.group.node().store.group().is_some();
    let agreed = |node: &Running| node.group.watch().borrow().state.group.is_some();
    let cuts: [&dyn Fn(&Running) -> bool; 3] = [&promised, &accepted, &agreed];
    for cut in cuts {
        let dir = TempDir::new().expect("a directory");
        let nodes = three(&dir).await;
        let end = clock::now().after(LIMIT);
        while !nodes.iter().any(cut) {
            assert!(clock::now() < end, "the founding comes to the cut");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut addrs = Vec::new();
        for node in nodes {
            addrs.push(node.stop().await);
        }
        let mut back = Vec::new();
        for (number, addr) in addrs.iter().enumerate().rev() {
            let server = PeerServer::bind(addr).await.expect("the port is free again");
            let partners = addrs.iter().filter(|other| *other != addr).cloned().collect();
            back.push(Running::start(server, &format!("node{number}"), partners, dir.path()).await);
        }
        let all: Vec<&Running> = back.iter().collect();
        for node in &back {
            node.until_member().await;
            node.until_voters(&all).await;
        }
        let groups: BTreeSet<_> = back.iter().map(|node| node.group.watch().borrow().state.group).collect();
        assert_eq!(groups.len(), 1, "{groups:?}");
        for node in back {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_that_was_replaced_while_it_was_silent_is_told() {
    let dir = TempDir::new().expect("a directory");
    let mut nodes = three(&dir).await;
    for node in &nodes {
        node.until_member().await;
    }
    let view = nodes[0].until("a leader", |view| view.raft.raft_leader.is_some()).await;
    let follows = nodes.iter().position(|node| Some(node.group.id()) != view.raft.raft_leader);
    let number = follows.expect("two of three");
    let silent = nodes.remove(number);
    let partners: Vec<String> = nodes.iter().map(Running::addr).collect();
    let name = format!("node{number}");
    silent.server.shutdown().await;
    let other_dir = TempDir::new().expect("a directory");
    let successor = Running::start(listen().await, &name, partners, other_dir.path()).await;
    successor.until_member().await;
    let all = [&nodes[0], &nodes[1], &successor];
    nodes[0].until_voters(&all).await;
    let sentence = silent.until_refused().await;
    assert!(sentence.contains(&format!("already a node named '{name}' running")), "{sentence}");
    for node in nodes.into_iter().chain([silent, successor]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_groups_of_one_scope_refuse_each_other() {
    let dir = TempDir::new().expect("a directory");
    let one = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    let other = Running::start(listen().await, "node1", Vec::new(), dir.path()).await;
    one.until_member().await;
    other.until_member().await;
    let question = CloseRequest { candidate: one.group.id(), epoch: Epoch(0), for_real: false };
    let target = crate::network::Target { addr: other.addr(), id: None };
    let node = one.group.node();
    let group = node.identity.group();
    let refused: Result<CloseVerdict, _> =
        node.peers.call(&target, group, Kind::Close, &question, LIMIT).await;
    let sentence = refused.expect_err("another group").to_string();
    assert!(sentence.contains("another group") && sentence.contains("another scope"), "{sentence}");
    let stranger = crate::network::Target { addr: other.addr(), id: Some(one.group.id()) };
    let refused: Result<CloseVerdict, _> =
        node.peers.call(&stranger, group, Kind::Close, &question, LIMIT).await;
    assert!(refused.expect_err("another member").to_string().contains("listens here, not member"));
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_database_system_is_refused_before_it_is_a_member() {
    let dir = TempDir::new().expect("a directory");
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    assert_eq!(first.group.propose(grant(&first.group, 0)).await, applied());
    let identifier = SystemIdentifier(7001);
    let named = Command::SetSystemIdentifier { epoch: Epoch(1), identifier };
    assert_eq!(first.group.propose(named).await, applied());
    let join = async |name: &str, own| {
        let partners = vec![first.addr()];
        Running::start_with(MemberKind::Data, own, listen().await, name, partners, dir.path()).await
    };
    let foreign = join("node1", Some(SystemIdentifier(666))).await;
    let sentence = foreign.until_refused().await;
    assert!(
        sentence.contains("system ID mismatch, node node1") && sentence.contains("data_dir"),
        "{sentence}"
    );
    assert_eq!(first.group.watch().borrow().state.members.len(), 1);
    foreign.stop().await;
    let own = join("node2", Some(identifier)).await;
    own.until_member().await;
    own.stop().await;
    first.stop().await;
}

/// Three data members that list a witness which lists nobody, and one that lists them without being listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_list_is_enough_for_a_witness_whenever_it_starts() {
    for (data_lists, witness_lists) in [(true, false), (false, true)] {
        for witness_starts in [0, 1, 3] {
            let dir = TempDir::new().expect("a directory");
            let mut servers = Vec::new();
            for _ in 0..4 {
                servers.push(listen().await);
            }
            let addrs: Vec<_> = servers.iter().map(|server| server.local_addr().to_string()).collect();
            let (data, witness) = addrs.split_at(3);
            let mut witness_server = servers.pop();
            // An absent witness does not listen.
            let mut running = Vec::new();
            let mut witness_node = None;
            for (number, server) in servers.into_iter().enumerate() {
                if number == witness_starts {
                    witness_node = start_witness(witness_server.take(), witness_lists, data, &dir).await;
                }
                let mut partners = data.to_vec();
                partners.extend(witness.iter().filter(|_| data_lists).cloned());
                partners.retain(|addr| *addr != addrs[number]);
                running.push(Running::start(server, &format!("node{number}"), partners, dir.path()).await);
            }
            if witness_starts == 3 {
                let absent = witness_server.take().expect("not started");
                absent.shutdown().await;
                for node in &running {
                    node.until_member().await;
                }
                let server = PeerServer::bind(&witness[0]).await.expect("the port is free again");
                witness_node = start_witness(Some(server), witness_lists, data, &dir).await;
            }
            running.extend(witness_node);
            running[0].until_voters(&running.iter().collect::<Vec<_>>()).await;
            assert_eq!(running.len(), 4, "{data_lists} {witness_starts}");
            for node in running {
                node.stop().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_which_lists_nobody_comes_back_after_its_store_was_lost() {
    for damaged in ["witness", "witness/demo/seal"] {
        let dir = TempDir::new().expect("a directory");
        let servers = [listen().await, listen().await];
        let addrs: Vec<_> = servers.iter().map(|server| server.local_addr().to_string()).collect();
        let [first, second] = servers;
        let witness = start_witness(Some(second), false, &[], &dir).await.expect("a server");
        let node = Running::start(first, "node0", vec![addrs[1].clone()], dir.path()).await;
        node.until_voters(&[&node, &witness]).await;
        let former = witness.group.id();
        // Without the witness these two are a majority, which lets it in again.
        let third = Running::start(listen().await, "node2", vec![addrs[0].clone()], dir.path()).await;
        node.until_voters(&[&node, &witness, &third]).await;
        witness.stop().await;
        let path = dir.path().join(damaged);
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        removed.expect("loses");
        let server = PeerServer::bind(&addrs[1]).await.expect("the port is free again");
        let back = start_witness(Some(server), false, &[], &dir).await.expect("a server");
        assert_ne!(back.group.id(), former);
        node.until_voters(&[&node, &back, &third]).await;
        for running in [back, third, node] {
            running.stop().await;
        }
    }
}

async fn start_witness(
    server: Option<PeerServer>,
    lists: bool,
    data: &[String],
    dir: &TempDir,
) -> Option<Running> {
    let partners = data.iter().filter(|_| lists).cloned().collect();
    let running = Running::start_as(MemberKind::Witness, server?, "witness", partners, dir.path());
    Some(running.await)
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = listen().await;
    let addr = first.local_addr().to_string();
    let error = PeerServer::bind(&addr).await.expect_err("the port is taken").to_string();
    assert!(error.contains(&addr) && error.contains("in use"), "{error}");
    first.shutdown().await;
}

/// `cp -a` of a directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes a directory");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

fn put_back(copy_of: &Path, store: &Path) {
    std::fs::remove_dir_all(store).expect("removes");
    copy(copy_of, store);
}

impl Running {
    /// Starts a stopped member again at its address.
    async fn again(addr: &str, name: &str, all: &[String], dir: &Path) -> Self {
        let server = PeerServer::bind(addr).await.expect("the port is free again");
        let partners = all.iter().filter(|other| *other != addr).cloned().collect();
        Self::start(server, name, partners, dir).await
    }

    async fn until_put_back(&self) -> String {
        let view = self.until("the old store found out", |view| matches!(view.phase, Phase::StartAgain(_)));
        let Phase::StartAgain(sentence) = view.await.phase.clone() else { panic!("no sentence") };
        sentence
    }
}

/// A member of three whose store is the copy made before its last run; it is stopped, the other two run.
struct PutBack {
    others: Vec<Running>,
    addr: String,
    all: Vec<String>,
    former: MemberId,
}

/// What the group agrees on while a member is away: a lease that is granted and given back.
async fn agree(group: &Group) {
    assert_eq!(propose_until_known(group, grant(group, 0)).await, Outcome::Applied);
    let release = Command::Release { epoch: Epoch(1), position: None };
    assert_eq!(propose_until_known(group, release).await, Outcome::Applied);
}

async fn put_back_after(dir: &TempDir, kind: MemberKind) -> PutBack {
    let first = Running::start(listen().await, "node0", Vec::new(), dir.path()).await;
    first.until_member().await;
    let second = Running::start(listen().await, "node1", vec![first.addr()], dir.path()).await;
    let third = Running::start_as(kind, listen().await, "node2", vec![first.addr()], dir.path()).await;
    first.until_voters(&[&first, &second, &third]).await;
    third.until_member().await;
    let all = vec![first.addr(), second.addr(), third.addr()];
    let former = third.group.id();
    let addr = third.stop().await;
    let (store, aside) = (dir.path().join("node2/demo"), dir.path().join("copy"));
    copy(&store, &aside);
    agree(&first.group).await;
    let server = PeerServer::bind(&addr).await.expect("the port is free again");
    let third = Running::start_as(kind, server, "node2", all[..2].to_vec(), dir.path()).await;
    assert_eq!(third.group.id(), former);
    third.until_member().await;
    third.until("the epoch", |view| view.state.lease.epoch == Epoch(1)).await;
    third.stop().await;
    put_back(&aside, &store);
    PutBack { others: vec![first, second], addr, all, former }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_put_back_as_a_whole_is_found_out_and_comes_back_under_a_new_id() {
    for kind in [MemberKind::Data, MemberKind::Witness] {
        let dir = TempDir::new().expect("a directory");
        let PutBack { others, addr, all, former } = put_back_after(&dir, kind).await;
        let server = PeerServer::bind(&addr).await.expect("the port is free again");
        let back = Running::start_as(kind, server, "node2", all[..2].to_vec(), dir.path()).await;
        assert_eq!(back.group.id(), former);
        let sentence = back.until_put_back().await;
        assert!(sentence.contains("node2/demo was put back from an older copy: node"), "{sentence}");
        back.stop().await;

        let server = PeerServer::bind(&addr).await.expect("the port is free again");
        let anew = Running::start_as(kind, server, "node2", all[..2].to_vec(), dir.path()).await;
        assert_ne!(anew.group.id(), former);
        assert!(dir.path().join("node2/demo.aside-1/seal").exists());
        anew.until_member().await;
        others[0].until_voters(&[&others[0], &others[1], &anew]).await;
        assert!(!others[0].group.watch().borrow().state.members.contains_key(&former));
        anew.stop().await;
        for node in others {
            node.stop().await;
        }
    }
}

/// Hears what a member sends, and answers nothing.
#[derive(Default)]
struct Recorder(Mutex<Vec<u32>>);

impl Handler for Recorder {
    fn handle(self: Arc<Self>, envelope: Envelope) -> BoxFuture<Answer, Status> {
        self.0.lock().expect("no panic").push(envelope.kind);
        Box::pin(async { Err(Status::unavailable("only listens")) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_was_put_back_promises_nothing_before_it_has_asked() {
    let dir = TempDir::new().expect("a directory");
    let PutBack { others, addr, all, former } = put_back_after(&dir, MemberKind::Data).await;
    let node = Arc::clone(others[0].group.node());
    let group = node.identity.group();
    for other in others {
        other.stop().await;
    }
    let back = Running::again(&addr, "node2", &all, dir.path()).await;
    let waits = |view: &GroupView| matches!(&view.phase, Phase::Joining { waiting_for } if waiting_for.contains("know this node's store: node0, node1;"));
    back.until("whom it waits for", waits).await;
    let store = &back.group.node().store;
    let (before, floor) = (store.mark(), store.floor());

    // Somebody who remembers nothing asks it for everything.
    let stranger = Peers::new(
        "demo",
        Arc::new(Marks::stranger()),
        PeerSecurity::none(),
        &tokio::runtime::Handle::current(),
    );
    let target = crate::network::Target { addr: addr.clone(), id: Some(former) };
    let kinds = [
        Kind::Append,
        Kind::Vote,
        Kind::PreVote,
        Kind::Snapshot,
        Kind::TransferLeader,
        Kind::Renew,
        Kind::Close,
        Kind::Propose,
        Kind::Read,
    ];
    for kind in kinds {
        let refused = stranger.call::<_, serde_json::Value>(&target, group, kind, &(), LIMIT).await;
        let sentence = refused.expect_err("no promise").to_string();
        assert!(sentence.contains("takes no part before"), "{kind:?}: {sentence}");
    }
    let own = CloseRequest { candidate: former, epoch: Epoch(1), for_real: true };
    assert!(matches!(back.group.ask_close(former, own).await, Err(CallError::Refused { .. })));
    assert_eq!(back.group.quiet_for(clock::now()), Duration::ZERO);
    let term = back.group.watch().borrow().raft.term;
    let hears = PeerServer::bind(&all[0]).await.expect("the port is free");
    let recorder = Arc::new(Recorder::default());
    let route = hears.shared().add("demo", Arc::clone(&recorder) as _).expect("serves");
    tokio::time::sleep(timing().election_max * 3).await;
    let heard = std::mem::take(&mut *recorder.0.lock().expect("no panic"));
    assert!(heard.contains(&Kind::Recall.number()), "{heard:?}");
    for kind in [Kind::PreVote, Kind::Vote, Kind::Append] {
        assert!(!heard.contains(&kind.number()), "{kind:?} was sent before anybody had answered");
    }
    drop(route);
    hears.shutdown().await;
    assert_eq!(
        (store.mark(), store.floor()),
        (before, floor),
        "it writes nothing, no vote of its own either"
    );
    assert_eq!(back.group.watch().borrow().raft.term, term);

    let first = Running::again(&all[0], "node0", &all, dir.path()).await;
    back.until_put_back().await;
    back.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_last_state_is_as_good_as_the_store() {
    let dir = TempDir::new().expect("a directory");
    let mut nodes = three(&dir).await;
    for node in &nodes {
        node.until_member().await;
    }
    let all: Vec<String> = nodes.iter().map(Running::addr).collect();
    let third = nodes.pop().expect("three");
    let id = third.group.id();
    let addr = third.stop().await;
    let (store, aside) = (dir.path().join("node2/demo"), dir.path().join("copy"));
    copy(&store, &aside);
    agree(&nodes[0].group).await;
    put_back(&aside, &store);
    let back = Running::again(&addr, "node2", &all, dir.path()).await;
    assert_eq!(back.group.id(), id);
    back.until_member().await;
    back.until("the epoch", |view| view.state.lease.epoch == Epoch(1)).await;
    assert!(!dir.path().join("node2/demo.aside-1").exists());
    for node in nodes.into_iter().chain([back]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_survives_a_stop_of_all_and_a_put_back_is_found_out_then() {
    let dir = TempDir::new().expect("a directory");
    let PutBack { others, addr, all, .. } = put_back_after(&dir, MemberKind::Data).await;
    for other in others {
        other.stop().await;
    }
    let back = Running::again(&addr, "node2", &all, dir.path()).await;
    let second = Running::again(&all[1], "node1", &all, dir.path()).await;
    back.until_put_back().await;
    back.stop().await;
    let first = Running::again(&all[0], "node0", &all, dir.path()).await;
    let anew = Running::again(&addr, "node2", &all, dir.path()).await;
    anew.until_member().await;
    first.until_voters(&[&first, &second, &anew]).await;
    for node in [first, second, anew] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_group_is_whole_again_in_the_time_of_an_election() {
    let dir = TempDir::new().expect("a directory");
    let nodes = three(&dir).await;
    for node in &nodes {
        node.until_member().await;
    }
    let mut all = Vec::new();
    for node in nodes {
        all.push(node.stop().await);
    }
    let began = clock::now();
    let mut back = Vec::new();
    for (number, addr) in all.iter().enumerate() {
        back.push(Running::again(addr, &format!("node{number}"), &all, dir.path()).await);
    }
    let started = clock::now().since(began);
    for node in &back {
        assert!(node.group.node().marks.is_trusted_within(LIMIT).await);
    }
    let trusted = clock::now().since(began);
    for node in &back {
        node.until_member().await;
    }
    println!("started {started:?}, trusted {trusted:?}, members {:?}", clock::now().since(began));
    for node in back {
        node.stop().await;
    }
}
