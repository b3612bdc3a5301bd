//! The documents, field by field.

use pgherd_raft::RenewerFacts;
use pgherd_raft::model::{ClusterState, Lsn, MemberId, ScheduledSwitchover, TimelineEnd, TimelineId};
use serde_json::{Value, json};

use super::super::testing::{golden, licensed};
use super::super::{cluster, history, metrics, status};
use super::{NOW, Standing, changed, primary, standby, standing, synchronous};
use crate::agent::view::View;
use crate::ha::{Fact, PendingParameter, PostgresState, Process, RestartFilters, ScheduledRestart, SyncMode};

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON") + "\n"
}

fn cluster_document(standing: &Standing) -> Value {
    cluster::document(standing, &standing.view.observation.cluster)
}

#[test]
fn synchronous_standbys_are_named_in_every_document() {
    for (mode, role, flag, metric) in [
        (SyncMode::On, "sync_standby", "sync_standby", "patroni_sync_standby"),
        (SyncMode::Quorum, "quorum_standby", "quorum_standby", "patroni_quorum_standby"),
    ] {
        let of = |number| standing(changed(number, |view| synchronous(view, mode)), RenewerFacts::default());
        let document = cluster_document(&of(2));
        let roles: Vec<_> = (0..3).map(|row| document["members"][row]["role"].clone()).collect();
        assert_eq!(roles, ["leader", "replica", role]);
        assert_eq!(status::document(&of(3))[flag], true);
        assert_eq!(status::document(&of(2)).get(flag), None);
        let page = |number| metrics::page(&of(number)).body;
        assert!(page(3).contains(&format!("{metric}{{scope=\"demo\",name=\"node3\"}} 1")));
        assert!(page(2).contains(&format!("{metric}{{scope=\"demo\",name=\"node2\"}} 0")));
    }
}

#[test]
fn documents() {
    golden("patroni_primary.json", &pretty(&status::document(&primary())));
    golden("patroni_standby.json", &pretty(&status::document(&standby())));
    golden("cluster_seen_by_primary.json", &pretty(&cluster_document(&primary())));
    let mixed = changed(3, |view| {
        view.observation.peers.insert(MemberId(1), Fact::Unknown("no answer".into()));
        view.observation.cluster.leaving.insert(MemberId(2));
        view.decision.waiting_for = Some("a new primary".into());
    });
    let mixed = standing(mixed, RenewerFacts::default());
    golden("cluster_seen_by_standby_of_silent_primary.json", &pretty(&cluster_document(&mixed)));
    // As in Patroni, who holds the lease is the leader, whatever its PostgreSQL does.
    let crashed = changed(1, |view| {
        view.observation.postgres.process = Fact::fresh(Process::Stopped);
        view.observation.postgres.server = Fact::Unknown("not running".into());
        view.observation.postgres.control = Fact::fresh(crate::ha::ControlData {
            system_identifier: pgherd_raft::model::SystemIdentifier(1),
            state: crate::ha::ControlState::InProduction,
            timeline: TimelineId(1),
            checkpoint: Lsn(1),
            min_recovery_end: Lsn(0),
        });
    });
    let crashed = cluster_document(&standing(crashed, licensed(NOW)));
    let leader = &crashed["members"][0];
    assert_eq!((&leader["role"], &leader["state"]), (&json!("leader"), &json!("crashed")));
    golden("metrics_primary", &metrics::page(&primary()).body);
    golden("metrics_standby", &metrics::page(&standby()).body);
}

#[test]
fn a_paused_cluster_says_so() {
    let wanted = |view: &mut View| view.observation.policy.pause = true;
    let pinned = |view: &mut View| {
        wanted(view);
        view.observation.cluster.lease.tenure.as_mut().expect("held").pinned = true;
    };
    let says = |view: View| {
        let standing = standing(view, RenewerFacts::default());
        let metric =
            metrics::page(&standing).body.contains("patroni_is_paused{scope=\"demo\",name=\"node1\"} 1");
        let is_true = |document: Value| document.get("pause") == Some(&json!(true));
        (
            metric,
            is_true(cluster_document(&standing)),
            is_true(status::document(&standing)),
            standing.is_primary(),
        )
    };
    assert_eq!(says(changed(1, |_| {})), (false, false, false, false));
    // Only once the pin is there may the daemon be stopped, and is a licence not needed to go on.
    assert_eq!(says(changed(1, wanted)), (true, true, false, false));
    assert_eq!(says(changed(1, pinned)), (true, true, true, true));
    let armed = |view: &mut View| {
        pinned(view);
        let Fact::Known { value, .. } = &mut view.observation.guard else { panic!("a guard") };
        value.deadline = Some(NOW);
    };
    assert_eq!(says(changed(1, armed)), (true, true, false, true));
}

/// A restart is pending and another one is scheduled, on this node and on the one it hears of.
#[test]
fn what_is_pending_and_scheduled_is_shown() {
    let pending = || {
        let values = PendingParameter { old_value: "100".to_owned(), new_value: "101".to_owned() };
        std::iter::once(("max_connections".to_owned(), values)).collect()
    };
    let schedule = || ScheduledRestart {
        at_ms: 32_472_144_000_123,
        filters: RestartFilters {
            role: Some("replica".to_owned()),
            postgres_version: Some(150_009),
            restart_pending: true,
        },
        timeout_ms: Some(90_000),
    };
    let view = changed(3, |view| {
        let observation = &mut view.observation;
        observation.postgres.pending_restart = pending();
        observation.scheduled_restart = Some(schedule());
        let Some(Fact::Known { value: report, .. }) = observation.peers.get_mut(&MemberId(2)) else {
            panic!("a report")
        };
        report.pending_restart = pending();
        report.scheduled_restart = Some(schedule());
        let (from, to) = (Some(MemberId(1)), Some(MemberId(3)));
        observation.cluster.scheduled_switchover =
            Some(ScheduledSwitchover { at_ms: 32_472_144_000_000, from, to });
    });
    let standing = standing(view, RenewerFacts::default());
    golden("patroni_pending.json", &pretty(&status::document(&standing)));
    golden("cluster_pending.json", &pretty(&cluster_document(&standing)));
    let metric = "patroni_pending_restart{scope=\"demo\",name=\"node3\"} 1";
    assert!(metrics::page(&standing).body.contains(metric));
    // What is not pending is not mentioned at all.
    assert!(!status::document(&standby()).to_string().contains("pending_restart"));
}

#[test]
fn a_standby_that_lives_on_an_archive_says_so() {
    let view = changed(3, |view| {
        let Fact::Known { value: server, .. } = &mut view.observation.postgres.server else { panic!("SQL") };
        server.receiver = None;
        server.has_archive = true;
        let Some(Fact::Known { value: report, .. }) = view.observation.peers.get_mut(&MemberId(2)) else {
            panic!("a report")
        };
        (report.is_streaming, report.in_archive_recovery) = (false, true);
    });
    let standing = standing(view, RenewerFacts::default());
    assert_eq!(status::document(&standing)["replication_state"], "in archive recovery");
    let document = cluster_document(&standing);
    let states: Vec<_> = (0..3).map(|row| document["members"][row]["state"].clone()).collect();
    assert_eq!(states, ["running", "in archive recovery", "in archive recovery"]);
    let metric = "patroni_postgres_in_archive_recovery{scope=\"demo\",name=\"node3\"} 1";
    assert!(metrics::page(&standing).body.contains(metric));
}

#[test]
fn a_member_s_state_is_the_one_that_it_reports() {
    let shown = |state| {
        let view = changed(3, |view| {
            let Some(Fact::Known { value: report, .. }) = view.observation.peers.get_mut(&MemberId(2)) else {
                panic!("a report")
            };
            (report.postgres, report.is_running) = (state, false);
        });
        cluster_document(&standing(view, RenewerFacts::default()))["members"][1]["state"].clone()
    };
    assert_eq!(shown(PostgresState::CreatingReplica), "creating replica");
    assert_eq!(shown(PostgresState::Stopped), "stopped");
    assert_eq!(shown(PostgresState::Running), "streaming");
}

#[test]
fn the_history_is_a_list_of_lists() {
    let end = |timeline, at_ms, leader: Option<&str>| TimelineEnd {
        timeline: TimelineId(timeline),
        lsn: Lsn(0x0300_0000),
        reason: "no recovery target specified".to_owned(),
        at_ms,
        leader: leader.map(|name| name.parse().expect("a name")),
    };
    let history = vec![end(1, None, None), end(2, Some(1_790_000_000_500), Some("node2"))];
    let told = history::list(&ClusterState { history, ..ClusterState::default() }).body;
    assert_eq!(
        told,
        "[[1,50331648,\"no recovery target specified\"],\
         [2,50331648,\"no recovery target specified\",\"2026-09-21T14:13:20.500000+00:00\",\"node2\"]]"
    );
    assert_eq!(history::list(&ClusterState::default()).body, "[]");
}

/// Names and types as Patroni has them, and nothing that a strict parser of the text format refuses.
#[test]
fn the_metrics_are_patronis() {
    let page = metrics::page(&primary()).body;
    let expected = include_str!("../testdata/patroni_metrics");
    let of_patroni = page.lines().filter(|line| line.starts_with("# TYPE patroni_"));
    let found: Vec<&str> = of_patroni.map(|line| line.trim_start_matches("# TYPE ")).collect();
    assert_eq!(found, expected.lines().collect::<Vec<_>>());
    assert!(page.ends_with('\n'));
    let mut names = std::collections::BTreeSet::new();
    let mut lines = page.lines().filter(|line| !line.starts_with("# Values:"));
    while let (Some(help), Some(kind), Some(sample)) = (lines.next(), lines.next(), lines.next()) {
        let name = help.strip_prefix("# HELP ").and_then(|help| help.split(' ').next()).expect(help);
        assert!(names.insert(name.to_owned()), "{name} twice");
        assert!(kind.starts_with(&format!("# TYPE {name} ")), "{kind}");
        let value = sample.strip_prefix(&format!("{name}{{scope=\"demo\",name=\"node1\"")).expect(sample);
        let value = value.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{sample}");
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn old_figures_are_left_out() {
    let old = changed(3, |view| {
        let Fact::Known { age, .. } = &mut view.observation.postgres.server else { panic!("SQL") };
        *age = std::time::Duration::from_secs(4);
    });
    let document = status::document(&standing(old, RenewerFacts::default()));
    assert_eq!(document["state"], "running");
    assert_eq!(document["role"], "replica");
    for key in ["xlog", "timeline", "replication_state", "postmaster_start_time", "server_version"] {
        assert_eq!(document.get(key), None, "{key}");
    }
}
