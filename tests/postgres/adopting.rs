//! A data directory that somebody else configured.

use std::path::Path;

use pgherd::ha::{PgAction, StopMode};

use crate::harness::{Node, unprivileged};

const USERS_HBA: &str = "# ours, do not touch\nhost all all 127.0.0.1/32 trust\n";
const USERS_IDENT: &str = "staff alice postgres\n";

/// Does the server let in who has no password? Only the user's file says so.
async fn trusts(node: &Node) -> bool {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(node.settings.port).user("postgres").dbname("postgres");
    config.connect(tokio_postgres::NoTls).await.is_ok()
}

fn write(directory: &Path, name: &str, content: &str) {
    std::fs::write(directory.join(name), content).expect("written");
}

fn read(directory: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(directory.join(name)).ok()
}

#[test]
fn the_users_authentication_files_stay_in_force_or_are_kept() {
    unprivileged("adopting::the_users_authentication_files_stay_in_force_or_are_kept", async |cluster| {
        let one = cluster.node("one", |_| ());
        one.perform(PgAction::Bootstrap).await;
        one.stop(StopMode::Fast).await;
        let data = &one.settings.data_dir;
        assert_eq!(read(data, "pg_hba.conf.backup"), None, "what initdb wrote is nobody's work");
        write(data, "pg_hba.conf", USERS_HBA);
        write(data, "pg_ident.conf", USERS_IDENT);

        one.perform(PgAction::StartPrimary).await;
        assert_eq!(read(data, "pg_hba.conf").as_deref(), Some(USERS_HBA));
        assert_eq!(read(data, "pg_hba.conf.backup"), None, "nothing was replaced");
        assert!(trusts(&one).await, "the user's file is not in force");

        let mut settings = one.settings.clone();
        settings.pg_hba = vec!["host all all 127.0.0.1/32 scram-sha-256".to_owned()];
        settings.pg_ident = vec!["staff bob postgres".to_owned()];
        one.postgres.reconfigure(settings).await.expect("reconfigured");
        one.wait_for_sql("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'", "0").await;
        assert!(!trusts(&one).await, "the configuration's lines are not in force");
        assert_eq!(read(data, "pg_hba.conf.backup").as_deref(), Some(USERS_HBA));
        assert_eq!(read(data, "pg_ident.conf.backup").as_deref(), Some(USERS_IDENT));

        one.postgres.reconfigure(one.settings.clone()).await.expect("reconfigured");
        one.wait("the reload", |_| read(data, "pg_hba.conf").is_some_and(|text| text.contains("replicator")))
            .await;
        assert_eq!(read(data, "pg_hba.conf.backup").as_deref(), Some(USERS_HBA));
        assert_eq!(read(data, "pg_hba.conf.backup.2"), None, "pgherd's own file was kept");
    });
}
