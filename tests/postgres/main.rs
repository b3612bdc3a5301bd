//! The local PostgreSQL on real servers: bootstrap, copy, stream, promote, rewind, and what goes wrong on the way.

mod harness;

use pgherd::ha::{ControlState, DataDir, PgAction, Process, StopMode};

use crate::harness::unprivileged;

#[test]
fn a_cluster_is_made_copied_and_taken_over() {
    unprivileged("a_cluster_is_made_copied_and_taken_over", async |cluster| {
        let (one, two) = (cluster.node("one", |_| ()), cluster.node("two", |_| ()));
        assert!(one.postgres.check().await.expect("programs") >= 13);
        assert_eq!(one.observe().await.data_dir, DataDir::Empty);
        one.perform(PgAction::Bootstrap).await;
        let facts = one.observe().await;
        let plain = DataDir::Initialised { has_backup_label: false, has_standby_signal: false };
        assert_eq!(facts.data_dir, plain);
        assert!(matches!(facts.process.of_any_age(), Some(Process::Running { .. })));
        assert!(!one.server().await.is_in_recovery);
        let log = one.log();
        for secret in ["super:secret", "repl:", "rewind-secret"] {
            assert!(!log.contains(secret), "{secret} stands in the log");
        }

        one.perform(PgAction::EnsureSlots { names: ["two".to_owned()].into() }).await;
        one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
        two.clone_from(&one).await;
        two.follow_and_start(&one).await;
        two.wait_until_streaming().await;
        two.wait_for_sql("SELECT count(*) FROM t", "1").await;
        let facts = two.observe().await;
        assert_eq!(facts.configured_upstream, Some(one.upstream()));
        assert!(!facts.has_old_data, "there was nothing to put aside");
        let sender = one.server().await.senders.pop().expect("a sender");
        assert_eq!(sender.application_name, "two");
        let slots = one.server().await.physical_slots;
        assert!(slots.iter().any(|slot| slot.name == "two" && slot.is_active), "{slots:?}");

        one.stop(StopMode::Fast).await;
        let stopped = one.observe().await;
        let control = stopped.control.of_any_age().expect("control data");
        assert_eq!(control.state, ControlState::ShutDown);
        let facts = two.wait("the end of the stream", |facts| {
            facts.server.of_any_age().is_some_and(|server| {
                server.receiver.as_ref().is_none_or(|receiver| receiver.status != "streaming")
            })
        });
        assert!(facts.await.server.of_any_age().expect("server").position.lsn >= control.checkpoint);
        two.perform(PgAction::Promote).await;
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
    });
}
