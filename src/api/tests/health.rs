//! Which path is 200 when.

use std::time::Duration;

use pgherd_raft::RenewerFacts;
use pgherd_raft::lease::{BootTime, Licence};
use pgherd_raft::model::{Epoch, MemberId, TagValue};

use super::super::health;
use super::super::standing::Standing;
use super::super::testing::{EPOCH, golden, licensed, server, view};
use super::{NOW, changed, primary, query, standby, standing, synchronous};
use crate::agent::view::View;
use crate::ha::{Fact, Job, JobKind, Process, State, SyncMode};

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
        ("holder, PostgreSQL ended since the view", primary().with_ended_server()),
        ("holder being promoted", standing(promoting, licensed(NOW))),
        ("streaming standby", standby()),
        ("standby, receiver waiting", standing(stream("waiting"), none())),
        ("standby without an answer by SQL", standing(without_sql(3), none())),
        ("standby, old answer by SQL", standing(stale_sql, none())),
        ("standby with noloadbalance", standing(noloadbalance, none())),
        ("standby being cloned", standing(cloning, none())),
        ("standby, stopped", standing(with_process(3, Process::Stopped), none())),
        ("standby, PostgreSQL ended since the view", standby().with_ended_server()),
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
                "/readiness" => health::is_ready(&standing, &query("")).expect("no parameters"),
                _ => health::is_well(&standing, path, &query("")).expect("no parameters"),
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
    let well = |path: &str, text: &str| health::is_well(&standby, path, &query(text)).expect(text);
    let ready = |text: &str| health::is_ready(&standby, &query(text)).expect(text);
    // It lies 0x38 bytes behind.
    assert!(well("/replica", "lag=56"));
    assert!(!well("/replica", "lag=55"));
    assert!(well("/replica", "lag=1kB&tag_clonefrom=true&tag_rack=b"));
    assert!(!well("/replica", "tag_rack=a"));
    assert!(!well("/replica", "tag_missing=1"));
    assert!(!well("/read-only", "tag_rack=a"));
    assert!(!well("/health", "tag_clonefrom=True"));
    assert!(ready("lag=56"));
    assert!(!ready("lag=55"));
    assert!(ready("lag=0&mode=write"));
    assert!(!ready("lag=0&mode=apply"));
    assert!(well("/replica", "replication_state=streaming"));
    assert!(!well("/replica", "replication_state=in%20archive%20recovery"));
    // Of a primary nothing of this is asked.
    assert_eq!(health::is_well(&primary(), "/primary", &query("lag=0&tag_x=y")), Ok(true));
    assert_eq!(health::is_well(&primary(), "/read-only", &query("tag_x=y")), Ok(false));
    assert_eq!(health::is_ready(&primary(), &query("lag=x")), Ok(true));
}

#[test]
fn a_limit_that_cannot_be_read_is_no_limit_and_is_refused() {
    let standby = standby();
    for (path, text) in [
        ("/replica", "lag=ten"),
        ("/replica", "lag="),
        ("/async", "lag=-1"),
        ("/read-only", "lag=1mb"),
        ("/health", "lag=x"),
    ] {
        let why = health::is_well(&standby, path, &query(text)).expect_err(text);
        assert!(why.starts_with("lag="), "{why}");
    }
    assert!(health::is_ready(&standby, &query("mode=both")).is_err());
    assert!(health::is_ready(&standby, &query("lag=x")).is_err());
}

#[test]
fn who_is_synchronous_is_known_for_a_ttl_after_the_last_contact() {
    let cut_off = |seen: Option<Duration>| {
        let view = changed(3, |view| {
            synchronous(view, SyncMode::On);
            view.observation.consensus.raft_leader = None;
            view.consensus_seen = seen.map(|ago| pgherd_raft::clock::wall() - ago);
        });
        let standing = standing(view, RenewerFacts::default());
        let well = |path: &str| health::is_well(&standing, path, &query("")).expect(path);
        (well("/sync"), well("/async"), well("/replica"))
    };
    assert_eq!(cut_off(Some(Duration::from_secs(3))), (true, false, true));
    assert_eq!(cut_off(Some(Duration::from_secs(6))), (false, false, true));
    assert_eq!(cut_off(None), (false, false, true));
}
