//! What is asked of this node alone.

use pgherd_raft::clock;

use super::super::serve;
use super::super::testing::{FakeActions, FakeGroup, Fate, state, view};
use super::{exchange, post};
use crate::agent::operations::Refused;
use crate::agent::view::View;
use crate::ha::RestartFilters;

fn served(view: View) -> (super::ApiServer, std::sync::Arc<FakeActions>) {
    let actions = std::sync::Arc::new(FakeActions::default());
    let mut api = state(view, FakeGroup::new(Fate::Done));
    api.actions = std::sync::Arc::clone(&actions) as _;
    (serve("127.0.0.1:0", api).expect("listens"), actions)
}

#[test]
fn a_restart_is_asked_for_with_its_filters() {
    let (server, actions) = served(view(3, clock::now()));
    let addr = server.local_addr();
    // Neither a body nor its length is needed.
    let answer = exchange(addr, "POST /restart HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("restarted successfully"), "{answer}");
    assert_eq!(post(addr, "/restart", ""), (200, "restarted successfully".to_owned()));
    assert_eq!(post(addr, "/restart", "{}").0, 200);
    let body = r#"{"role":"replica","postgres_version":"15.9","timeout":30,"restart_pending":"True"}"#;
    assert_eq!(post(addr, "/restart", body).0, 200);
    let asked = actions.restarts().pop().expect("a restart");
    let filters = RestartFilters {
        role: Some("replica".to_owned()),
        postgres_version: Some(150_009),
        restart_pending: true,
    };
    assert_eq!((asked.filters, asked.timeout.map(|timeout| timeout.as_secs())), (filters, Some(30)));
    assert_eq!(post(addr, "/restart", "[]").0, 400);
    assert_eq!(post(addr, "/restart", "{").0, 400);
    assert_eq!(actions.restarts().len(), 4, "what is refused is not asked for");
}

#[test]
fn refusals_have_patronis_words() {
    let (server, actions) = served(view(3, clock::now()));
    let cases = [
        (Refused::ConditionsNotMet("role".to_owned()), 503, "restart conditions are not satisfied"),
        (Refused::InProgress("reinitialize".to_owned()), 503, "reinitialize already in progress"),
        (Refused::StillStarting, 503, "postgres is still starting"),
        (Refused::Failed("pg_ctl".to_owned()), 503, "restart failed"),
        (Refused::AlreadyScheduled, 409, "Another restart is already scheduled"),
        (Refused::Paused, 500, "Can't schedule restart in the paused state"),
        (Refused::NotPossible("no".to_owned()), 503, "no"),
    ];
    for (refused, code, text) in cases {
        actions.refuse(refused);
        assert_eq!(post(server.local_addr(), "/restart", ""), (code, text.to_owned()));
    }
}

#[test]
fn a_restart_is_scheduled_once_and_deleted() {
    let (server, _) = served(view(3, clock::now()));
    let addr = server.local_addr();
    let body = r#"{"schedule":"2999-01-01T00:00:00Z"}"#;
    assert_eq!(post(addr, "/restart", body), (202, "Restart scheduled".to_owned()));
    assert_eq!(post(addr, "/restart", body), (409, "Another restart is already scheduled".to_owned()));
    let delete = || exchange(addr, "DELETE /restart HTTP/1.0\r\n\r\n");
    assert!(delete().ends_with("scheduled restart deleted"));
    let answer = delete();
    assert!(answer.starts_with("HTTP/1.0 404 ") && answer.ends_with("no restarts are scheduled"), "{answer}");
    let mut paused = view(3, clock::now());
    paused.observation.policy.pause = true;
    let (server, _) = served(paused);
    let refused = (500, "Can't schedule restart in the paused state".to_owned());
    assert_eq!(post(server.local_addr(), "/restart", r#"{"schedule":"soon"}"#), refused);
    assert_eq!(post(server.local_addr(), "/restart", "").0, 200, "an immediate one is possible");
}

#[test]
fn a_node_is_copied_anew_unless_it_leads_or_nobody_does() {
    let (server, actions) = served(view(3, clock::now()));
    let addr = server.local_addr();
    assert_eq!(post(addr, "/reinitialize", ""), (200, "reinitialize started".to_owned()));
    assert_eq!(post(addr, "/reinitialize", r#"{"force":true,"from-leader":true}"#).0, 200);
    assert_eq!(actions.copies(), [(false, false), (true, true)]);
    assert_eq!(post(addr, "/reinitialize", r#"{"force":"perhaps"}"#).0, 400);
    actions.refuse(Refused::InProgress("restart".to_owned()));
    assert_eq!(post(addr, "/reinitialize", ""), (503, "restart already in progress".to_owned()));
    let (leader, _) = served(view(1, clock::now()));
    let refused = (503, "I am the leader, can not reinitialize".to_owned());
    assert_eq!(post(leader.local_addr(), "/reinitialize", r#"{"force":true}"#), refused);
    let mut vacant = view(3, clock::now());
    vacant.observation.cluster.lease.tenure = None;
    let (server, _) = served(vacant);
    let refused = (503, "Cluster has no leader, can not reinitialize".to_owned());
    assert_eq!(post(server.local_addr(), "/reinitialize", ""), refused);
}

#[test]
fn the_configuration_is_read_again() {
    let (server, actions) = served(view(3, clock::now()));
    let addr = server.local_addr();
    let answer = exchange(addr, "POST /reload HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 202 ") && answer.ends_with("reload scheduled"), "{answer}");
    actions.break_configuration();
    assert_eq!(post(addr, "/reload", ""), (500, "ttl: is no number".to_owned()));
}
