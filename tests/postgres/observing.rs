//! What is seen of a server which is busy, full or stuck.

use std::time::Duration;

use tokio::time::Instant;

use pgherd::ha::{Fact, PgAction, Process};

use crate::harness::{Node, unprivileged};

#[test]
fn a_server_that_does_not_answer_is_unknown_and_not_stopped() {
    unprivileged("observing::a_server_that_does_not_answer_is_unknown_and_not_stopped", async |cluster| {
        let one = cluster.node("one", |_| ());
        one.perform(PgAction::Bootstrap).await;
        one.server().await;
        one.postmaster.send_to_all(rustix::process::Signal::STOP);
        for _ in 0..4 {
            let began = Instant::now();
            let facts = one.observe().await;
            assert!(began.elapsed() < Duration::from_secs(4), "an observation took {:?}", began.elapsed());
            assert!(matches!(facts.server, Fact::Unknown(_)), "{:?}", facts.server);
            assert!(matches!(facts.process.of_any_age(), Some(Process::Running { .. })));
        }
        let began = Instant::now();
        assert!(matches!(one.postgres.report_position().await, Fact::Unknown(_)));
        assert!(began.elapsed() < Duration::from_secs(1), "the short answer took {:?}", began.elapsed());
        one.postmaster.send_to_all(rustix::process::Signal::CONT);
        one.wait("an answer again", |facts| facts.server.of_any_age().is_some()).await;
    });
}

async fn fill_the_connection_table(node: &Node) -> tokio::task::JoinSet<()> {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(node.settings.port).user("postgres").dbname("postgres");
        config.password(node.settings.superuser.password.as_ref().expect("password").expose());
        match config.connect(tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                connections.spawn(async move {
                    let _client = client;
                    connection.await.ok();
                });
            }
            Err(_) => return connections,
        }
        assert!(connections.len() < 200, "the table is never full");
    }
}

#[test]
fn a_full_connection_table_does_not_blind() {
    unprivileged("observing::a_full_connection_table_does_not_blind", async |cluster| {
        let one = cluster.node("one", |settings| {
            settings.parameters.insert("max_connections".to_owned(), "25".to_owned());
        });
        one.perform(PgAction::Bootstrap).await;
        let full = fill_the_connection_table(&one).await;
        assert!(one.try_sql("SELECT 1").await.is_err(), "the table is full");
        for _ in 0..3 {
            let server = one.observe().await.server;
            assert!(matches!(server, Fact::Known { .. }), "{server:?}");
        }
        drop(full);
        one.wait_for_sql("SELECT 1", "1").await;
    });
}

#[test]
fn a_changed_configuration_reaches_the_server() {
    unprivileged("observing::a_changed_configuration_reaches_the_server", async |cluster| {
        let one = cluster.node("one", |_| ());
        one.perform(PgAction::Bootstrap).await;
        let awkward = "it's \\ \"%m\" ";
        let mut settings = one.settings.clone();
        settings.parameters.insert("log_line_prefix".to_owned(), awkward.to_owned());
        settings.pg_hba = vec![
            "host all \"postgres\" 127.0.0.1/32 scram-sha-256".to_owned(),
            "local all all reject".to_owned(),
        ];
        one.postgres.reconfigure(settings).await.expect("reconfigured");
        one.wait_for_sql("SHOW log_line_prefix", awkward).await;
        one.wait_for_sql("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'reject'", "1").await;
        one.sql("ALTER SYSTEM SET primary_conninfo = 'host=evil'").await;
        one.stop(pgherd::ha::StopMode::Fast).await;
        one.perform(PgAction::StartPrimary).await;
        assert_eq!(one.sql("SHOW primary_conninfo").await.as_deref(), Some(""));
    });
}
