//! A server that lets in only who comes over TLS with a certificate.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd::ha::{PgAction, StopMode};
use pgherd::postgres::{Credentials, Login, Secret, Settings, run_sql};

use crate::harness::{Cluster, Node, unprivileged};

fn write(place: &Path, name: &str, text: &str) -> PathBuf {
    let path = place.join(name);
    std::fs::write(&path, text).expect("writable");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
    path
}

/// A certificate for 127.0.0.1 that is server's, client's and CA's at once, as `openssl req -x509` makes it.
fn certificate(place: &Path, name: &str) -> (PathBuf, PathBuf) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.subject_alt_names.push(rcgen::SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    (
        write(place, &format!("{name}.crt"), &certificate.pem()),
        write(place, &format!("{name}.key"), &key.serialize_pem()),
    )
}

fn with(credentials: &mut Credentials, options: &[(&str, &str)]) {
    credentials.options =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Everybody shows the certificate of all but the standbys, whose key is locked.
fn node(cluster: &Cluster, name: &str) -> Node {
    let (all, key) = (cluster.path().join("all.crt"), cluster.path().join("all.key"));
    let (locked, locked_key) = (cluster.path().join("locked.crt"), cluster.path().join("locked.key"));
    let cas = cluster.path().join("cas.crt");
    cluster.node(name, |settings: &mut Settings| {
        for (name, value) in [
            ("ssl", "on"),
            ("ssl_ca_file", text(&cas)),
            ("ssl_cert_file", text(&all)),
            ("ssl_key_file", text(&key)),
        ] {
            settings.parameters.insert(name.to_owned(), value.to_owned());
        }
        settings.slot_name = None;
        settings.pg_hba = vec![
            "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca".to_owned(),
            "hostssl replication all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca".to_owned(),
        ];
        let own = [("sslrootcert", text(&all)), ("sslcert", text(&all)), ("sslkey", text(&key))];
        let mode = [("sslmode", "verify-full"), ("channel_binding", "require")];
        with(&mut settings.superuser, &[&own[..], &mode[..]].concat());
        if let Some(rewind) = &mut settings.rewind {
            with(rewind, &[&own[..], &[("sslmode", "verify-ca")]].concat());
        }
        let own = [("sslrootcert", text(&all)), ("sslcert", text(&locked)), ("sslkey", text(&locked_key))];
        with(&mut settings.replication, &[&own[..], &[("sslmode", "verify-ca")]].concat());
        settings.replication.sslpassword = Some(Secret::new("secret"));
    })
}

async fn ask(node: &Node, options: &[(&str, &str)], sql: &str) -> Result<String, String> {
    let mut credentials = node.settings.superuser.clone();
    for (name, value) in options {
        credentials.options.insert((*name).to_owned(), (*value).to_owned());
    }
    let login = Login {
        host: "127.0.0.1".to_owned(),
        port: node.settings.port,
        database: "postgres".to_owned(),
        credentials,
        application_name: "test".to_owned(),
        patience: Duration::from_secs(20),
    };
    let rows = run_sql(&login, sql).await.map_err(|error| error.to_string())?.expect("rows");
    Ok(rows.rows.concat().into_iter().flatten().collect::<Vec<_>>().join(" "))
}

#[test]
fn a_server_may_let_in_only_who_shows_a_certificate() {
    unprivileged("secured::a_server_may_let_in_only_who_shows_a_certificate", async |cluster| {
        let place = cluster.path();
        let (all, _) = certificate(place, "all");
        let (other, other_key) = certificate(place, "other");
        let locked = include_str!("../../src/tls/testdata/locked.crt");
        write(place, "locked.crt", locked);
        write(place, "locked.key", include_str!("../../src/tls/testdata/locked.key"));
        write(place, "cas.crt", &(std::fs::read_to_string(&all).expect("readable") + locked));
        let one = node(&cluster, "one");
        one.perform(PgAction::Bootstrap).await;
        one.server().await;
        let standby = node(&cluster, "two");
        standby.clone_from(&one).await;
        standby.follow_and_start(&one).await;
        standby.wait_until_streaming().await;

        let seen = "SELECT ssl, client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                    WHERE usename = 'replicator'";
        assert_eq!(ask(&one, &[], seen).await, Ok("t /CN=locked".to_owned()));
        let own = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(ask(&one, &[], own).await, Ok("t TLSv1.3".to_owned()));
        assert_eq!(ask(&one, &[("sslmode", "allow")], own).await, Ok("t TLSv1.3".to_owned()));
        for (options, words) in [
            (&[("sslmode", "disable"), ("channel_binding", "disable")][..], "no pg_hba.conf entry"),
            (&[("sslrootcert", text(&other))], "not among the configured ones"),
            (&[("sslcert", text(&other)), ("sslkey", text(&other_key))], ""),
            (&[("sslcert", "/missing"), ("sslkey", "/missing")], "certificate"),
        ] {
            let refused = ask(&one, options, own).await.expect_err("refused");
            assert!(refused.contains(words), "{options:?}: {refused}");
        }
        assert!(!one.log().contains("secret'"), "a password stands in the log");
        standby.stop(StopMode::Fast).await;
        one.stop(StopMode::Fast).await;
    });
}
