//! A new database system, and what keeps it from being made.

use std::time::Duration;

use pgherd::ha::{DataDir, Fact, PgAction, Process, StopMode};
use pgherd::postgres::{BootstrapUser, Credentials, Secret};

use crate::harness::{Node, unprivileged};

#[test]
fn roles_and_options_are_as_configured() {
    unprivileged("bootstrap::roles_and_options_are_as_configured", async |cluster| {
        let seen = cluster.path().join("seen");
        let one = cluster.node("one", |settings| {
            settings.superuser = Credentials::new("the boss", Some("it's a \\ super:secret"));
            settings.initdb =
                vec![("data-checksums".to_owned(), None), ("encoding".to_owned(), Some("UTF8".to_owned()))];
            settings.users = vec![BootstrapUser {
                name: "app".to_owned(),
                password: Some(Secret::new("app-secret")),
                options: vec!["createdb".to_owned()],
            }];
            let script = format!("echo \"$1\" > {0}; ls -l \"$PGPASSFILE\" >> {0}", seen.display());
            settings.post_bootstrap = Some(format!("/bin/sh -c '{script}' sh"));
        });
        one.perform(PgAction::Bootstrap).await;
        let role = |what: &str, name: &str| format!("SELECT {what} FROM pg_roles WHERE rolname = '{name}'");
        let sql = async |sql: String| one.sql(&sql).await.unwrap_or_default();
        assert_eq!(sql(role("rolcreatedb AND rolcanlogin AND NOT rolsuper", "app")).await, "t");
        assert_eq!(sql(role("rolreplication AND rolcanlogin", "replicator")).await, "t");
        assert_eq!(sql(role("rolsuper OR rolreplication", "rewinder")).await, "f");
        assert_eq!(sql("SHOW data_checksums".to_owned()).await, "on");
        assert_eq!(sql("SHOW cluster_name".to_owned()).await, "test");
        let granted = "SELECT has_function_privilege('rewinder', 'pg_read_binary_file(text)', 'EXECUTE')";
        assert_eq!(sql(granted.to_owned()).await, "t");
        let said = std::fs::read_to_string(&seen).expect("post_bootstrap ran");
        assert!(said.contains("user='the boss'") && said.contains("dbname=postgres"), "{said}");
        assert!(said.contains("-rw------- ") && !said.contains("secret"), "{said}");
        for secret in ["super:secret", "repl:", "rewind-secret", "app-secret"] {
            assert!(!one.log().contains(secret), "{secret} stands in the log");
        }
        let left: Vec<String> = std::fs::read_dir(cluster.path())
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains("tool-pgpass") || name.contains("pgherd-state"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

async fn assert_incomplete(node: &Node) {
    let facts = node.observe().await;
    assert_eq!(facts.data_dir, DataDir::Incomplete);
}

#[test]
fn one_that_fails_or_is_interrupted_is_begun_anew() {
    unprivileged("bootstrap::one_that_fails_or_is_interrupted_is_begun_anew", async |cluster| {
        let one = cluster.node("one", |settings| {
            settings.post_bootstrap = Some("/bin/sh -c 'echo the reason >&2; exit 7'".to_owned());
        });
        let error = one.try_perform(PgAction::Bootstrap).await.expect_err("fails").to_string();
        assert!(error.contains("the reason") && error.contains("7"), "{error}");
        assert_incomplete(&one).await;
        assert_eq!(one.observe().await.process, Fact::fresh(Process::Stopped));
        let start = one.try_perform(PgAction::StartPrimary).await.expect_err("is not complete");
        assert!(start.to_string().contains("not complete"), "{start}");

        let mut settings = one.settings.clone();
        settings.post_bootstrap = Some("/bin/sleep 600".to_owned());
        one.postgres.reconfigure(settings.clone()).await.expect("reconfigured");
        let bootstrap = PgAction::Bootstrap;
        tokio::select! {
            ended = one.postgres.perform(&bootstrap) => panic!("{ended:?}"),
            () = async {
                one.wait("post_bootstrap", |facts| facts.server.of_any_age().is_some()).await;
            } => {}
        }
        assert_incomplete(&one).await;
        assert!(matches!(one.observe().await.process.of_any_age(), Some(Process::Running { .. })));

        settings.post_bootstrap = None;
        one.postgres.reconfigure(settings).await.expect("reconfigured");
        one.perform(PgAction::Bootstrap).await;
        assert!(matches!(one.observe().await.data_dir, DataDir::Initialised { .. }));
        assert!(!one.server().await.is_in_recovery);
        let again = one.try_perform(PgAction::Bootstrap).await.expect_err("has data").to_string();
        assert!(again.contains("no new one is made") || again.contains("running"), "{again}");
    });
}

#[test]
fn what_belongs_to_somebody_else_is_left_alone() {
    unprivileged("bootstrap::what_belongs_to_somebody_else_is_left_alone", async |cluster| {
        let one = cluster.node("one", |_| ());
        std::fs::create_dir(&one.settings.data_dir).expect("directory");
        let letter = one.settings.data_dir.join("letter.txt");
        std::fs::write(&letter, "dear").expect("file");
        for action in [
            PgAction::Bootstrap,
            PgAction::Clone { source: one.upstream() },
            PgAction::DiscardIncomplete,
            PgAction::DiscardOldData,
        ] {
            let is_harmless = action == PgAction::DiscardOldData;
            let ended = one.try_perform(action.clone()).await;
            assert_eq!(ended.is_ok(), is_harmless, "{action:?}: {ended:?}");
        }
        assert_eq!(std::fs::read_to_string(&letter).expect("still there"), "dear");
        let DataDir::Foreign(why) = one.observe().await.data_dir else { panic!("foreign") };
        assert!(why.contains("letter.txt"), "{why}");
    });
}

#[test]
fn what_initdb_says_of_a_failed_password_is_kept_back() {
    unprivileged("bootstrap::what_initdb_says_of_a_failed_password_is_kept_back", async |cluster| {
        let one = cluster.node("one", |settings| {
            // initdb cannot quote such a name, and shows the whole statement.
            settings.superuser = Credentials::new("the \"boss\"", Some("very-secret"));
        });
        let error = one.try_perform(PgAction::Bootstrap).await.expect_err("fails").to_string();
        assert!(error.contains("WITH PASSWORD ...") && !error.contains("very-secret"), "{error}");
    });
}

#[test]
fn mistakes_are_told_with_their_cure() {
    unprivileged("bootstrap::mistakes_are_told_with_their_cure", async |cluster| {
        let one = cluster.node("one", |settings| {
            settings.initdb = vec![("encoding".to_owned(), Some("KLINGON".to_owned()))];
        });
        let error = one.try_perform(PgAction::Bootstrap).await.expect_err("fails").to_string();
        assert!(error.contains("initdb failed") && error.contains("KLINGON"), "{error}");

        let mut settings = one.settings.clone();
        settings.initdb.clear();
        // An address of nobody's (RFC 5737).
        let listen = std::mem::replace(&mut settings.listen, vec!["192.0.2.1".to_owned()]);
        one.postgres.reconfigure(settings.clone()).await.expect("reconfigured");
        let error = one.try_perform(PgAction::Bootstrap).await.expect_err("fails").to_string();
        assert!(error.contains("ended while starting") && error.contains("TCP/IP sockets"), "{error}");

        settings.listen = listen;
        // What PostgreSQL would not start with is left out.
        settings.parameters.insert("shared_buffers".to_owned(), "many".to_owned());
        one.postgres.reconfigure(settings.clone()).await.expect("reconfigured");
        one.perform(PgAction::Bootstrap).await;
        one.stop(StopMode::Fast).await;

        settings.superuser = Credentials::new("postgres", Some("wrong"));
        one.postgres.reconfigure(settings.clone()).await.expect("reconfigured");
        let error = one.try_perform(PgAction::StartPrimary).await.expect_err("fails").to_string();
        assert!(error.contains("password authentication failed"), "{error}");
        assert!(error.contains("postgresql.authentication") && !error.contains("wrong"), "{error}");
        let facts = one.observe().await;
        assert!(matches!(facts.process.of_any_age(), Some(Process::Running { .. })));
        assert!(matches!(facts.server, Fact::Unknown(_)));
        one.stop(StopMode::Immediate).await;

        settings.bin_dir = Some(cluster.path().join("nowhere"));
        one.postgres.reconfigure(settings).await.expect("reconfigured");
        let error = one.postgres.check().await.expect_err("fails").to_string();
        assert!(error.contains("nowhere") && error.contains("postgresql.bin_dir"), "{error}");
    });
}

#[test]
fn an_interrupted_program_does_not_go_on() {
    unprivileged("bootstrap::an_interrupted_program_does_not_go_on", async |cluster| {
        let one = cluster.node("one", |_| ());
        let bootstrap = PgAction::Bootstrap;
        let interrupted =
            tokio::time::timeout(Duration::from_millis(300), one.postgres.perform(&bootstrap)).await;
        assert!(interrupted.is_err(), "initdb takes longer: {interrupted:?}");
        assert_incomplete(&one).await;
        one.perform(PgAction::DiscardIncomplete).await;
        assert_eq!(one.observe().await.data_dir, DataDir::Empty);
        one.perform(PgAction::DiscardIncomplete).await;
        one.perform(PgAction::Bootstrap).await;
    });
}
