//! The way back of a former primary: rewind, or a new copy beside the old data.

use pgherd::ha::{ControlState, DataDir, PgAction, SlotStep, StopMode, Upstream};
use pgherd_raft::model::{Lsn, PostgresAddr, TimelineId};

use crate::harness::{Cluster, Node, unprivileged};
use crate::replication::pair;

/// A former primary that crashed with a row of its own, and the new primary.
async fn diverged(cluster: &Cluster) -> (Node, Node) {
    let (one, two) = pair(cluster).await;
    two.perform(PgAction::Follow { upstream: None }).await;
    two.wait("no walreceiver", |facts| {
        facts.server.of_any_age().is_some_and(|server| server.receiver.is_none())
    })
    .await;
    one.sql("INSERT INTO t VALUES (-1)").await;
    one.postmaster.kill_all();
    two.perform(PgAction::Promote { timeline: TimelineId(2) }).await;
    two.sql("INSERT INTO t VALUES (2)").await;
    let control = one.observe().await.control.of_any_age().expect("control data").clone();
    assert_eq!(control.state, ControlState::InProduction);
    (one, two)
}

async fn assert_back(one: &Node, two: &Node) {
    two.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("one")] }).await;
    one.follow_and_start(two).await;
    one.wait_until_streaming().await;
    two.sql("INSERT INTO t VALUES (3)").await;
    one.wait_for_sql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t", "1,2,3").await;
    assert_eq!(one.server().await.position.timeline.0, 2);
}

/// Without the signal it could be started as a second primary on the timeline of its source.
async fn assert_comes_up_as_a_standby(node: &Node) {
    let data_dir = node.observe().await.data_dir;
    assert_eq!(data_dir, DataDir::Initialised { has_backup_label: true, has_standby_signal: true });
}

fn nowhere() -> Upstream {
    // The discard port: nobody listens there.
    Upstream { name: "nowhere".to_owned(), addr: PostgresAddr { host: "127.0.0.1".to_owned(), port: 9 } }
}

#[test]
fn a_diverged_primary_is_rewound() {
    unprivileged("returning::a_diverged_primary_is_rewound", async |cluster| {
        let (one, two) = diverged(&cluster).await;
        let error = one.try_perform(PgAction::Rewind { source: nowhere() }).await.expect_err("nobody there");
        assert!(error.to_string().contains("cannot connect"), "{error}");
        let users = [
            ("pg_hba.conf", "host all all 127.0.0.1/32 scram-sha-256 # one's\n"),
            ("pg_hba.conf.backup", "local all all trust # an earlier one\n"),
            ("postgresql.base.conf", "work_mem = '7MB' # one's\n"),
        ];
        for (name, content) in users {
            std::fs::write(one.settings.data_dir.join(name), content).expect("the user's file");
        }
        one.perform(PgAction::Rewind { source: two.upstream() }).await;
        for (name, content) in users {
            let found = std::fs::read_to_string(one.settings.data_dir.join(name)).expect("still there");
            assert_eq!(found, content, "{name} came from the source");
        }
        assert_comes_up_as_a_standby(&one).await;
        assert_back(&one, &two).await;
        let kept = cluster.path().join("one.pgherd-diverged-wal");
        let kept =
            std::fs::read_dir(&kept).expect("kept WAL").next().expect("one divergence").expect("entry");
        let files = std::fs::read_dir(kept.path()).expect("list").count();
        assert!(files > 0, "the WAL which only this node had is kept");
    });
}

#[test]
fn a_rewind_that_was_interrupted_needs_a_new_copy() {
    unprivileged("returning::a_rewind_that_was_interrupted_needs_a_new_copy", async |cluster| {
        let (one, two) = diverged(&cluster).await;
        std::fs::write(cluster.path().join("one.pgherd-state"), "rewinding\n").expect("marker");
        for action in [
            PgAction::Rewind { source: two.upstream() },
            PgAction::StartStandby { upstream: Some(two.upstream()) },
            PgAction::StartPrimary,
        ] {
            let error = one.try_perform(action).await.expect_err("refused").to_string();
            assert!(error.contains("needs a new copy"), "{error}");
        }
        one.clone_from(&two).await;
        assert_back(&one, &two).await;
    });
}

#[test]
fn old_data_is_kept_until_the_new_copy_streams() {
    unprivileged("returning::old_data_is_kept_until_the_new_copy_streams", async |cluster| {
        let (one, two) = diverged(&cluster).await;
        let aside = cluster.path().join("one.pgherd-before-clone.1");
        one.try_perform(PgAction::Clone { source: nowhere() }).await.expect_err("nobody there");
        assert!(aside.join("PG_VERSION").is_file());
        assert_eq!(one.observe().await.data_dir, DataDir::Incomplete);
        // A copy which never streamed is not worth keeping, the first data is.
        one.clone_from(&two).await;
        one.clone_from(&two).await;
        assert_comes_up_as_a_standby(&one).await;
        assert!(!cluster.path().join("one.pgherd-before-clone.2").exists());
        assert!(aside.join("PG_VERSION").is_file());
        assert!(one.observe().await.has_old_data);
        assert_back(&one, &two).await;
        one.perform(PgAction::DiscardOldData).await;
        let facts = one
            .wait("the old data to be gone", |_| {
                !std::fs::read_dir(cluster.path()).expect("list").any(|entry| {
                    let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
                    name.contains("before-clone") || name.contains("discarded")
                })
            })
            .await;
        assert!(!facts.has_old_data);
        // From here on this copy is data of its own.
        one.stop(StopMode::Fast).await;
        one.clone_from(&two).await;
        assert!(aside.join("PG_VERSION").is_file());
    });
}

#[test]
fn tablespaces_are_copied_again() {
    unprivileged("returning::tablespaces_are_copied_again", async |cluster| {
        let place = cluster.path().join("space");
        let other = cluster.path().join("space-of-two");
        std::fs::create_dir(&place).expect("directory");
        let one = cluster.node("one", |_| ());
        let two = cluster.node("two", |settings| {
            let mapping = format!("{}={}", place.display(), other.display());
            settings.basebackup = vec![("tablespace-mapping".to_owned(), Some(mapping))];
        });
        one.perform(PgAction::Bootstrap).await;
        one.sql(&format!("CREATE TABLESPACE s LOCATION '{}'", place.display())).await;
        one.sql("CREATE TABLE t TABLESPACE s AS SELECT 7 AS i").await;
        for _ in 0..2 {
            two.clone_from(&one).await;
            one.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("two")] }).await;
            two.follow_and_start(&one).await;
            two.wait_until_streaming().await;
            two.wait_for_sql("SELECT i FROM t", "7").await;
            two.stop(StopMode::Fast).await;
        }
        let aside = cluster.path().join("space-of-two.pgherd-before-clone.1");
        assert!(aside.is_dir() && other.is_dir());
    });
}

/// A standby that received WAL which the new primary never had, and did not replay it; with the new primary.
async fn ahead_without_replay(cluster: &Cluster, write: &str) -> (Node, Node) {
    let (one, two) = pair(cluster).await;
    let three = cluster.node("three", |_| ());
    one.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("two"), SlotStep::physical("three")] })
        .await;
    three.clone_from(&one).await;
    three.follow_and_start(&one).await;
    three.wait_until_streaming().await;
    three.perform(PgAction::Follow { upstream: None }).await;
    three
        .wait("no walreceiver", |facts| {
            facts.server.of_any_age().is_some_and(|server| server.receiver.is_none())
        })
        .await;
    two.sql("SELECT pg_wal_replay_pause()").await;
    two.wait_for_sql("SELECT pg_get_wal_replay_pause_state()", "paused").await;
    let before = two.server().await.position.lsn;
    one.sql(write).await;
    two.wait("WAL that is not replayed", |facts| {
        facts.server.of_any_age().is_some_and(|server| server.position.lsn > before)
    })
    .await;
    one.postmaster.kill_all();
    three.perform(PgAction::Promote { timeline: TimelineId(2) }).await;
    three.perform(PgAction::KeepSlots { steps: vec![SlotStep::physical("two")] }).await;
    (two, three)
}

/// Its control data says that it could follow: only after it has replayed what it received does it show what it has, to
/// this node and to `pg_rewind`. So it is started once more, and rewound the second time.
#[test]
fn a_standby_which_received_more_than_it_replayed_is_rewound_the_second_time() {
    let name = "returning::a_standby_which_received_more_than_it_replayed_is_rewound_the_second_time";
    unprivileged(name, async |cluster| {
        // A record which changes no page.
        let (two, three) = ahead_without_replay(&cluster, "SELECT pg_create_restore_point('x')").await;
        let fork = three.observe().await.history.pop().expect("a switch").lsn;
        assert!(two.server().await.position.lsn > fork, "received past the fork");
        let replayed = async || {
            two.stop(StopMode::Fast).await;
            let control = two.observe().await.control.of_any_age().expect("control data").clone();
            assert_eq!(control.state, ControlState::ShutDownInRecovery);
            control.checkpoint.max(control.min_recovery_end)
        };
        assert!(replayed().await <= fork);
        two.follow_and_start(&three).await;
        two.wait("replay past the fork", |facts| {
            facts.server.of_any_age().is_some_and(|server| server.replayed > Some(fork))
        })
        .await;
        assert!(replayed().await > fork, "after the second stop the control data shows it");
        two.perform(PgAction::Rewind { source: three.upstream() }).await;
        assert_comes_up_as_a_standby(&two).await;
        two.follow_and_start(&three).await;
        two.wait_until_streaming().await;
        assert_eq!(two.server().await.position.timeline.0, 2);
    });
}

/// The WAL after its backup is missing here.
#[test]
fn a_standby_that_cannot_become_consistent_is_known_as_such() {
    unprivileged("returning::a_standby_that_cannot_become_consistent_is_known_as_such", async |cluster| {
        let (one, two) = pair(&cluster).await;
        assert!(!two.observe().await.never_ready);
        two.stop(StopMode::Fast).await;
        two.clone_from(&one).await;
        // The checkpoint from which it starts is there, and nothing of what comes after it.
        let label = std::fs::read_to_string(two.settings.data_dir.join("backup_label")).expect("a label");
        let after = |mark: &str| label.split(mark).nth(1).expect("a label of PostgreSQL").to_owned();
        let location: Lsn =
            after("CHECKPOINT LOCATION: ").lines().next().expect("a line").parse().expect("lsn");
        let file = after("(file ").get(..24).expect("a name").to_owned();
        let path = two.settings.data_dir.join("pg_wal").join(file);
        let mut wal = std::fs::read(&path).expect("WAL");
        let end = usize::try_from(location.0 % 0x100_0000).expect("small") + 0x78;
        wal.get_mut(end..).expect("inside").fill(0);
        std::fs::write(&path, wal).expect("written");
        two.perform(PgAction::StartStandby { upstream: None }).await;
        let facts = two.wait("no consistent state", |facts| facts.never_ready).await;
        assert!(facts.server.of_any_age().is_none());
        // What is needed comes from whom it is pointed at, without an answer by SQL.
        two.perform(PgAction::Follow { upstream: Some(one.upstream()) }).await;
        two.wait_until_streaming().await;
        assert!(!two.observe().await.never_ready);
    });
}

fn histories(node: &Node, cluster: &Cluster) -> Vec<String> {
    let wal = cluster.path().join(&node.name).join("pg_wal");
    let entries = std::fs::read_dir(wal).expect("pg_wal").map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.contains(".history"));
    names.sort();
    names
}

/// Two standbys are promoted at the same position, neither knows of the other: the reserved numbers keep them apart.
#[test]
fn two_promotions_make_two_timelines_and_everybody_follows_across_the_gap() {
    const NAME: &str = "returning::two_promotions_make_two_timelines_and_everybody_follows_across_the_gap";
    unprivileged(NAME, async |cluster| {
        let (one, two) = pair(&cluster).await;
        let three = cluster.node("three", |settings| settings.slot_name = None);
        three.clone_from(&one).await;
        three.follow_and_start(&one).await;
        three.wait_until_streaming().await;
        one.stop(StopMode::Fast).await;

        two.perform(PgAction::Promote { timeline: TimelineId(2) }).await;
        two.sql("INSERT INTO t VALUES (-1)").await;
        two.postmaster.kill_all();
        three.perform(PgAction::Promote { timeline: TimelineId(5) }).await;
        three.sql("INSERT INTO t VALUES (2)").await;
        let facts = three.observe().await;
        assert_eq!(three.server().await.position.timeline, TimelineId(5));
        assert_eq!(facts.history.iter().map(|switch| switch.timeline.0).collect::<Vec<_>>(), [1]);
        assert_eq!(facts.newest_history, TimelineId(5));
        assert!(three.log().contains("selected new timeline ID: 5"), "PostgreSQL says so itself");
        let status = cluster.path().join("three/pg_wal/archive_status");
        let ready = std::fs::read_dir(status).expect("list").filter_map(Result::ok);
        let ready: Vec<_> = ready.filter(|e| e.file_name().to_string_lossy().contains("history")).collect();
        assert!(ready.iter().all(|e| e.file_name().to_string_lossy().starts_with("00000005")), "{ready:?}");

        // The former primary ended before the fork: it comes along timeline 1 and asks for the histories 2 to 5.
        three
            .perform(PgAction::KeepSlots {
                steps: vec![SlotStep::physical("one"), SlotStep::physical("two")],
            })
            .await;
        one.follow_and_start(&three).await;
        one.wait_until_streaming().await;
        one.wait_for_sql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t", "1,2").await;
        assert_eq!(histories(&one, &cluster), histories(&three, &cluster));
        // And once more from its own files, with a start that counts up from timeline 1 or later.
        one.stop(StopMode::Immediate).await;
        std::fs::remove_file(cluster.path().join("one/pg_wal/00000003.history")).expect("a placeholder");
        one.follow_and_start(&three).await;
        one.wait_until_streaming().await;
        assert_eq!(one.server().await.position.timeline, TimelineId(5));

        two.perform(PgAction::Rewind { source: three.upstream() }).await;
        two.follow_and_start(&three).await;
        two.wait_until_streaming().await;
        three.sql("INSERT INTO t VALUES (3)").await;
        two.wait_for_sql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t", "1,2,3").await;
        assert_eq!(two.server().await.position.timeline, TimelineId(5));
    });
}

/// What is left of a promotion that came to nothing does not mislead the next start.
#[test]
fn placeholders_without_a_timeline_do_not_survive_a_start() {
    unprivileged("returning::placeholders_without_a_timeline_do_not_survive_a_start", async |cluster| {
        let (one, two) = pair(&cluster).await;
        two.stop(StopMode::Immediate).await;
        for number in [2, 3] {
            let path = cluster.path().join(format!("two/pg_wal/{number:08X}.history"));
            std::fs::write(path, "# pgherd placeholder: a test\n").expect("placeholder");
        }
        two.follow_and_start(&one).await;
        two.wait_until_streaming().await;
        assert_eq!(histories(&two, &cluster), Vec::<String>::new());
        std::fs::write(cluster.path().join("two/pg_wal/00000002.history"), "1\t0/1\tof another server\n")
            .expect("history");
        one.postmaster.kill_all();
        let action = PgAction::Promote { timeline: TimelineId(2) };
        let error = two.try_perform(action).await.expect_err("taken").to_string();
        assert!(error.contains("there is a history of timeline 2"), "{error}");
    });
}
