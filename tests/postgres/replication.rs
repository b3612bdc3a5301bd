//! Copying, streaming, taking over.

use std::time::Duration;

use tokio::time::Instant;

use pgherd::ha::{ControlState, DataDir, DropReason, PgAction, SlotKind, SlotStep, StopMode, streams};
use pgherd::postgres::Credentials;
use pgherd_raft::model::{Lsn, TimelineId};

use crate::harness::{Cluster, Node, unprivileged};

/// A primary and a standby which streams from it.
pub(crate) async fn pair(cluster: &Cluster) -> (Node, Node) {
    let (one, two) = (cluster.node("one", |_| ()), cluster.node("two", |_| ()));
    one.perform(PgAction::Bootstrap).await;
    one.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("two")] }).await;
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
        let slots = one.server().await.slots;
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

        two.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("one")] }).await;
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
fn slots_are_made_moved_and_dropped() {
    unprivileged("replication::slots_are_made_moved_and_dropped", async |cluster| {
        let one = cluster.node("one", |settings| {
            settings.parameters.insert("wal_level".to_owned(), "logical".to_owned());
        });
        one.perform(PgAction::Bootstrap).await;
        one.sql("CREATE DATABASE \"other's\"").await;
        let logical = |database: &str| SlotKind::Logical {
            database: database.to_owned(),
            plugin: "test_decoding".to_owned(),
        };
        let create = |name: &str, kind| SlotStep::Create { name: name.to_owned(), kind };
        let steps = vec![
            SlotStep::physical("two"),
            SlotStep::physical("three"),
            create("decodes", logical("other's")),
            create("nowhere", logical("no such database")),
        ];
        let outcome = one.postgres.keep_slots(&steps).await;
        let failed: Vec<&str> =
            outcome.iter().filter(|(_, done)| done.is_err()).map(|(name, _)| name.as_str()).collect();
        assert_eq!(failed, ["nowhere"], "{outcome:?}");
        assert!(one.postgres.keep_slots(&steps[..3]).await.iter().all(|(_, done)| done.is_ok()), "again");
        let server = one.server().await;
        assert!(server.is_logical);
        assert!(
            server.slots.iter().all(|slot| slot.restart.is_some()),
            "WAL is kept from the beginning: {server:?}"
        );
        one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
        let to = one.server().await.position.lsn;
        let advance = |name: &str, database: Option<&str>| SlotStep::Advance {
            name: name.to_owned(),
            database: database.map(str::to_owned),
            to,
        };
        let drop = SlotStep::Drop { name: "three".to_owned(), why: DropReason::Unknown };
        let steps = vec![advance("two", None), advance("decodes", Some("other's")), drop];
        one.perform(PgAction::KeepSlots { steps: steps.clone() }).await;
        one.perform(PgAction::KeepSlots { steps }).await;
        let mut slots = one.server().await.slots;
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<(&str, Option<Lsn>)> =
            slots.iter().map(|slot| (slot.name.as_str(), slot.position())).collect();
        assert_eq!(found, [("decodes", Some(to)), ("two", Some(to))]);
    });
}

#[test]
fn a_logical_slot_is_copied_to_a_standby() {
    unprivileged("replication::a_logical_slot_is_copied_to_a_standby", async |cluster| {
        let node = |name| {
            cluster.node(name, |settings| {
                settings.parameters.insert("wal_level".to_owned(), "logical".to_owned());
                settings.parameters.insert("hot_standby_feedback".to_owned(), "on".to_owned());
            })
        };
        let (one, two) = (node("one"), node("two"));
        one.perform(PgAction::Bootstrap).await;
        let kind = |database: &str| SlotKind::Logical {
            database: database.to_owned(),
            plugin: "test_decoding".to_owned(),
        };
        let early = SlotStep::Create { name: "early".to_owned(), kind: kind("postgres") };
        one.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("two"), early] }).await;
        one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
        one.sql("SELECT pg_switch_wal()").await;
        one.sql("INSERT INTO t VALUES (2)").await;
        two.clone_from(&one).await;
        two.follow_and_start(&one).await;
        let late = SlotStep::Create { name: "late".to_owned(), kind: kind("postgres") };
        one.perform(PgAction::KeepSlots { steps: vec![late] }).await;
        let copy = |name: &str, database: &str| PgAction::CopySlots {
            source: one.upstream(),
            slots: [(name.to_owned(), kind(database))].into(),
        };
        let started = two.server().await.started_at;
        let error = two.try_perform(copy("early", "postgres")).await.expect_err("its WAL is not here");
        assert!(error.to_string().contains("needs WAL that this standby does not have"), "{error}");
        let error = two.try_perform(copy("late", "other")).await.expect_err("another database");
        assert!(error.to_string().contains("no logical slot of that name"), "{error}");
        assert_eq!(two.server().await.started_at, started, "it was left alone");
        two.perform(copy("late", "postgres")).await;
        two.wait_until_streaming().await;
        one.sql("INSERT INTO t VALUES (3)").await;
        let to = one.server().await.position.lsn;
        two.wait("the WAL", |facts| {
            facts.server.of_any_age().is_some_and(|server| server.replayed >= Some(to))
        })
        .await;
        let database = Some("postgres".to_owned());
        let advance = SlotStep::Advance { name: "late".to_owned(), database, to };
        two.perform(PgAction::KeepSlots { steps: vec![advance] }).await;
        let slots = two.server().await.slots;
        assert_eq!(slots.first().and_then(|slot| slot.confirmed), Some(to), "{slots:?}");
        one.sql("INSERT INTO t VALUES (4)").await;
        two.wait_for_sql("SELECT count(*) FROM t", "4").await;
        one.stop(StopMode::Fast).await;
        two.perform(PgAction::Promote { timeline: TimelineId(2) }).await;
        let changes =
            "SELECT count(*) FROM pg_logical_slot_get_changes('late', NULL, NULL) WHERE data LIKE 'table%'";
        assert_eq!(
            two.sql(changes).await.as_deref(),
            Some("1"),
            "what was consumed before does not come again"
        );
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
        one.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("two")] }).await;
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
        one.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("two")] }).await;
        two.follow_and_start(&one).await;
        two.wait_until_streaming().await;
        assert_eq!(two.sql("SHOW max_connections").await.as_deref(), Some("150"));
    });
}
