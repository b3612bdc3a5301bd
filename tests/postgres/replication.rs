//! Copying, streaming, taking over.

use std::time::Duration;

use tokio::time::Instant;

use pgherd::ha::{ControlState, DataDir, PgAction, StopMode, streams};
use pgherd::postgres::Credentials;
use pgherd_raft::model::TimelineId;

use crate::harness::{Cluster, Node, unprivileged};

/// A primary and a standby which streams from it.
pub(crate) async fn pair(cluster: &Cluster) -> (Node, Node) {
    let (one, two) = (cluster.node("one", |_| ()), cluster.node("two", |_| ()));
    one.perform(PgAction::Bootstrap).await;
    one.perform(PgAction::EnsureSlots { names: ["two".to_owned()].into() }).await;
    one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
    two.clone_from(&one).await;
    two.follow_and_start(&one).await;
    two.wait_until_streaming().await;
    two.wait_for_sql("SELECT count(*) FROM t", "1").await;
    (one, two)
}

#[test]
fn a_switchover_there_and_back() {
    unprivileged("replication::a_switchover_there_and_back", async |cluster| {
        let (one, two) = pair(&cluster).await;
        let facts = two.observe().await;
        assert_eq!(facts.configured_upstream, Some(one.upstream()));
        assert!(!facts.has_old_data, "there was nothing to put aside");
        let sender = one.server().await.senders.pop().expect("a sender");
        assert_eq!(sender.application_name, "two");
        let slots = one.server().await.physical_slots;
        assert!(slots.iter().any(|slot| slot.name == "two" && slot.is_active), "{slots:?}");

        one.stop(StopMode::Fast).await;
        let stopped = one.observe().await;
        let control = stopped.control.of_any_age().expect("control data").clone();
        assert_eq!(control.state, ControlState::ShutDown);
        let facts = two
            .wait("the end of the stream", |facts| {
                facts.server.of_any_age().is_some_and(|server| !streams(server))
            })
            .await;
        assert!(facts.server.of_any_age().expect("server").position.lsn >= control.checkpoint);
        two.perform(PgAction::Promote { timeline: TimelineId(2) }).await;
        two.perform(PgAction::Promote { timeline: TimelineId(2) }).await;
        let server = two.server().await;
        assert!(!server.is_in_recovery);
        assert_eq!(server.position.timeline.0, 2);
        let facts = two.observe().await;
        assert_eq!(facts.configured_upstream, None);
        assert_eq!(facts.history.len(), 1, "{:?}", facts.history);
        two.sql("INSERT INTO t VALUES (2)").await;

        two.perform(PgAction::EnsureSlots { names: ["one".to_owned()].into() }).await;
        one.follow_and_start(&two).await;
        one.wait_until_streaming().await;
        one.wait_for_sql("SELECT count(*) FROM t", "2").await;
        assert_eq!(one.server().await.position.timeline.0, 2);
        assert_eq!(one.observe().await.history, two.observe().await.history);

        one.stop(StopMode::Fast).await;
        let control = one.observe().await.control.of_any_age().expect("control data").clone();
        assert_eq!(control.state, ControlState::ShutDownInRecovery);
        assert_eq!(control.timeline.0, 2);
    });
}

/// A promotion which is asked for in the few milliseconds in which the walreceiver is dying can sleep a whole
/// `wal_retrieve_retry_interval`, if it is asked for once only: seen in about a quarter of such attempts. So several
/// standbys are promoted, each a little later than the other.
#[test]
fn a_promotion_does_not_wait_for_the_retry_interval() {
    unprivileged("replication::a_promotion_does_not_wait_for_the_retry_interval", async |cluster| {
        let slow = |settings: &mut pgherd::postgres::Settings| {
            settings.parameters.insert("wal_retrieve_retry_interval".to_owned(), "150s".to_owned());
            settings.slot_name = None;
        };
        let one = cluster.node("one", slow);
        one.perform(PgAction::Bootstrap).await;
        let standbys: Vec<Node> = (0..5).map(|i| cluster.node(&format!("standby{i}"), slow)).collect();
        for standby in &standbys {
            standby.clone_from(&one).await;
            standby.follow_and_start(&one).await;
            standby.wait_until_streaming().await;
        }
        one.postmaster.send_to_all(rustix::process::Signal::KILL);
        let promotions = standbys.iter().zip(0..).map(async |(standby, delay)| {
            tokio::time::sleep(Duration::from_micros(700 * delay)).await;
            let began = Instant::now();
            standby.perform(PgAction::Promote { timeline: TimelineId(2) }).await;
            let took = began.elapsed();
            assert!(took < Duration::from_secs(50), "{}: the promotion took {took:?}", standby.name);
        });
        futures_util::future::join_all(promotions).await;
    });
}

#[test]
fn following_nobody_ends_the_stream_and_keeps_the_position() {
    unprivileged("replication::following_nobody_ends_the_stream_and_keeps_the_position", async |cluster| {
        let (one, two) = pair(&cluster).await;
        two.perform(PgAction::Follow { upstream: None }).await;
        let facts = two
            .wait("no walreceiver", |facts| {
                facts.server.of_any_age().is_some_and(|server| server.receiver.is_none())
            })
            .await;
        assert_eq!(facts.configured_upstream, None);
        let position = facts.server.of_any_age().expect("server").position;
        one.sql("INSERT INTO t SELECT generate_series(1, 1000)").await;
        let report = two.postgres.report_position().await;
        assert_eq!(report.of_any_age().expect("answers").position, position);
        // Also a restarted standby follows nobody, and still knows what it received.
        two.stop(StopMode::Immediate).await;
        two.perform(PgAction::StartStandby { upstream: None }).await;
        assert_eq!(two.server().await.receiver, None);
        assert_eq!(two.server().await.position.timeline, position.timeline);
        two.perform(PgAction::Follow { upstream: Some(one.upstream()) }).await;
        two.wait_until_streaming().await;
        two.wait_for_sql("SELECT count(*) FROM t", "1001").await;
        assert_eq!(two.observe().await.configured_upstream, Some(one.upstream()));
    });
}

#[test]
fn only_our_own_stale_slots_are_dropped() {
    unprivileged("replication::only_our_own_stale_slots_are_dropped", async |cluster| {
        let one = cluster.node("one", |_| ());
        one.perform(PgAction::Bootstrap).await;
        one.sql("SELECT pg_create_physical_replication_slot('backup')").await;
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        one.perform(PgAction::EnsureSlots { names: names(&["two", "three"]) }).await;
        one.perform(PgAction::EnsureSlots { names: names(&["three", "four"]) }).await;
        let mut slots = one.server().await.physical_slots;
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(found, ["backup", "four", "three"]);
        let kept = slots.iter().filter(|slot| slot.restart.is_some()).count();
        assert_eq!(kept, 2, "members' slots keep WAL from the beginning: {slots:?}");
    });
}

#[test]
fn a_copy_that_fails_is_begun_anew() {
    unprivileged("replication::a_copy_that_fails_is_begun_anew", async |cluster| {
        let (one, two) = (cluster.node("one", |_| ()), cluster.node("two", |_| ()));
        one.perform(PgAction::Bootstrap).await;
        let mut settings = two.settings.clone();
        settings.replication = Credentials::new("replicator", Some("wrong-secret"));
        two.postgres.reconfigure(settings).await.expect("reconfigured");
        let clone = PgAction::Clone { source: one.upstream() };
        let error = two.try_perform(clone.clone()).await.expect_err("fails").to_string();
        assert!(error.contains("pg_basebackup failed") && error.contains("authentication"), "{error}");
        assert!(!error.contains("wrong-secret"), "{error}");
        assert_eq!(two.observe().await.data_dir, DataDir::Incomplete);
        two.postgres.reconfigure(two.settings.clone()).await.expect("reconfigured");
        tokio::select! {
            ended = two.postgres.perform(&clone) => panic!("a copy takes longer: {ended:?}"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        assert_eq!(two.observe().await.data_dir, DataDir::Incomplete);
        two.perform(clone).await;
        one.perform(PgAction::EnsureSlots { names: ["two".to_owned()].into() }).await;
        two.follow_and_start(&one).await;
        two.wait_until_streaming().await;
    });
}

#[test]
fn a_standby_has_no_less_than_its_primary() {
    unprivileged("replication::a_standby_has_no_less_than_its_primary", async |cluster| {
        let more = |settings: &mut pgherd::postgres::Settings| {
            settings.parameters.insert("max_connections".to_owned(), "150".to_owned());
        };
        let (one, two) = (cluster.node("one", more), cluster.node("two", |_| ()));
        one.perform(PgAction::Bootstrap).await;
        two.clone_from(&one).await;
        one.perform(PgAction::EnsureSlots { names: ["two".to_owned()].into() }).await;
        two.follow_and_start(&one).await;
        two.wait_until_streaming().await;
        assert_eq!(two.sql("SHOW max_connections").await.as_deref(), Some("150"));
    });
}
