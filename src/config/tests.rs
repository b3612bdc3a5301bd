use std::path::Path;
use std::time::Duration;

use pgherd_raft::model::TagValue;
use pgherd_raft::telemetry::LogLevel;

use super::*;

const THREE_NODES: &str = include_str!("testdata/three-nodes.yml");

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn good(text: &str, variables: &[(&str, &str)]) -> (Config, Vec<String>) {
    match Config::from_text("node.yml", text, &environment(variables)) {
        Ok((config, warnings)) => (config, warnings.iter().map(ToString::to_string).collect()),
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn a_file_of_a_three_node_cluster() {
    let (config, warnings) = good(THREE_NODES, &[]);
    assert_eq!(config.scope, "demo");
    assert_eq!(config.name.as_str(), "pg-1");
    assert_eq!(config.log.level, LogLevel::Debug);
    assert!(config.restapi.listen.is_wildcard());
    assert_eq!(config.restapi.connect_address.to_string(), "10.0.0.1:8008");
    assert_eq!(config.ctl.authentication, config.restapi.authentication);

    let postgresql = &config.postgresql;
    assert_eq!(postgresql.listen.hosts, ["127.0.0.1", "10.0.0.1"]);
    assert_eq!(postgresql.listen.local().to_string(), "127.0.0.1:5432");
    assert_eq!(postgresql.data_dir, Path::new("/var/lib/postgresql/demo"));
    assert_eq!(postgresql.config_dir, postgresql.data_dir);
    assert_eq!(postgresql.authentication.superuser.options["sslmode"], "prefer");
    let password = |credentials: &Credentials| credentials.password.clone().map(|p| p.expose().to_owned());
    assert_eq!(password(&postgresql.authentication.superuser).as_deref(), Some("super-secret"));
    assert_eq!(password(&postgresql.authentication.replication).as_deref(), Some("83"), "as PyYAML reads it");
    assert_eq!(postgresql.authentication.rewind.as_ref().map(|r| r.username.as_str()), Some("rewinder"));
    assert_eq!(postgresql.parameters.keys().collect::<Vec<_>>(), ["unix_socket_directories", "work_mem"]);
    let arguments: Vec<String> = postgresql.basebackup.iter().map(ToolOption::argument).collect();
    assert_eq!(arguments, ["--checkpoint=fast", "--verbose"]);
    assert_eq!(postgresql.create_replica_methods, ["basebackup"]);

    let bootstrap = config.bootstrap.as_ref().expect("bootstrap");
    assert_eq!(bootstrap.settings.ttl, Duration::from_secs(30));
    assert_eq!(bootstrap.settings.postgresql.parameters["wal_log_hints"], "on");
    assert_eq!(bootstrap.settings.postgresql.parameters["checkpoint_completion_target"], "0.9");
    assert_eq!(bootstrap.settings.postgresql.pg_hba.as_ref().map(Vec::len), Some(2));
    assert_eq!(bootstrap.dcs["postgresql"]["parameters"]["max_connections"], 200);
    let initdb: Vec<String> = bootstrap.initdb.iter().map(ToolOption::argument).collect();
    assert_eq!(initdb, ["--encoding=UTF8", "--data-checksums", "--locale=C.UTF-8"]);
    assert_eq!(bootstrap.users[0].name, "app");
    assert_eq!(bootstrap.users[0].options, ["CREATEDB", "CREATEROLE"]);
    assert_eq!(bootstrap.post_bootstrap.as_deref(), Some("/etc/pgherd/after.sh"));
    assert_eq!(bootstrap.method, BootstrapMethod::Initdb);

    assert_eq!(config.raft.self_addr.as_ref().map(ToString::to_string).as_deref(), Some("10.0.0.1:2222"));
    assert_eq!(config.raft.bind_addr.as_ref().map(ToString::to_string).as_deref(), Some("10.0.0.1:2222"));
    assert_eq!(config.raft.data_dir, Path::new("/var/lib/postgresql/demo-raft"));
    assert_eq!(config.raft.partner_addrs.len(), 2);
    assert!(config.raft.insecure);

    let tags: Vec<&str> = config.tags.0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        tags,
        ["zone", "nofailover", "clonefrom", "failover_priority", "weight"],
        "in the file's order"
    );
    assert_eq!(config.tags.get("clonefrom"), Some(&TagValue::Bool(true)));
    assert_eq!(config.tags.get("weight"), Some(&TagValue::Float(1.5)));
    golden(&warnings.join("\n"), include_str!("testdata/three-nodes.warnings"), "three-nodes.warnings");
}

/// Compares with a golden file; UPDATE_TESTFILES=1 writes it.
fn golden(actual: &str, expected: &str, file: &str) {
    let actual = format!("{}\n", actual.trim_end());
    if std::env::var_os("UPDATE_TESTFILES").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata").join(file);
        std::fs::write(path, &actual).expect("write the golden file");
        return;
    }
    assert!(actual == expected, "{file} differs (UPDATE_TESTFILES=1 writes it):\n{actual}");
}
