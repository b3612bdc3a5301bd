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
    let arguments: Vec<String> = postgresql.shared.basebackup.iter().map(ToolOption::argument).collect();
    assert_eq!(arguments, ["--checkpoint=fast", "--verbose"]);
    assert_eq!(postgresql.shared.create_replica_methods, ["basebackup"]);

    let bootstrap = config.bootstrap.as_ref().expect("bootstrap");
    assert_eq!(bootstrap.settings.ttl, Duration::from_secs(30));
    assert_eq!(bootstrap.settings.postgresql.parameters["wal_log_hints"], "on");
    assert_eq!(bootstrap.settings.postgresql.parameters["checkpoint_completion_target"], "0.9");
    let (effective, _) = config.effective(&bootstrap.dcs);
    assert_eq!(effective.postgresql.pg_hba.as_ref().map(Vec::len), Some(2));
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

fn bad(text: &str, variables: &[(&str, &str)]) -> ConfigErrors {
    Config::from_text("node.yml", text, &environment(variables)).expect_err("a mistake")
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once() {
    let errors = bad(include_str!("testdata/many-mistakes.yml"), &[]);
    golden(&errors.to_string(), include_str!("testdata/many-mistakes.report"), "many-mistakes.report");
}

#[test]
fn passwords_are_never_shown() {
    let errors =
        bad(include_str!("testdata/many-mistakes.yml"), &[("PATRONI_REWIND_PASSWORD", "s3cret-env")]);
    let (config, warnings) = good(THREE_NODES, &[("PATRONI_SUPERUSER_PASSWORD", "env-secret")]);
    for text in [errors.to_string(), format!("{errors:?}"), format!("{config:?}"), format!("{warnings:?}")] {
        assert!(!text.contains("s3cret") && !text.contains("-secret"), "{text}");
        assert!(!text.contains("0123"), "{text}");
    }
    assert_eq!(format!("{} {:?}", Secret::new("x"), Secret::new("x")), "(secret) (secret)");
}

#[test]
fn yaml_mistakes_have_their_place_but_no_text() {
    for text in ["scope: a\npassword: 's3cret\n", "scope: a\n  password: s3cret: x\n", "a: [s3cret\n"] {
        let errors = bad(text, &[]);
        let shown = errors.to_string();
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.starts_with("cannot use the configuration node.yml: 1 mistake\nnode.yml:"), "{shown}");
    }
}

const LEAST: &str = "
scope: demo
name: pg-1
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /srv/pg
  authentication: {replication: {username: replicator}}
raft: {self_addr: '127.0.0.1:2222'}
";

#[test]
fn defaults_of_the_shortest_file() {
    let (config, warnings) = good(LEAST, &[("HOME", "/home/postgres")]);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.namespace, "service");
    assert_eq!(config.restapi.listen.to_string(), "127.0.0.1:8008");
    assert_eq!(config.restapi.connect_address.to_string(), "127.0.0.1:8008");
    assert_eq!(config.restapi.authentication, None);
    assert_eq!(config.bootstrap, None, "such a node never begins a cluster");
    assert_eq!(config.postgresql.connect_address.to_string(), "127.0.0.1:5432");
    assert_eq!(config.postgresql.authentication.superuser.username, "postgres");
    assert_eq!(config.postgresql.authentication.rewind, None);
    assert_eq!(config.postgresql.pgpass, Path::new("/home/postgres/pgpass"));
    assert_eq!(config.postgresql.shared.pg_hba, None);
    assert_eq!(config.raft.data_dir, Path::new("/srv/pg-raft"));
    assert_eq!(config.raft.bind_addr.map(|bind| bind.to_string()).as_deref(), Some("127.0.0.1:2222"));
    assert_eq!(config.raft.partner_addrs, []);
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.watchdog.mode, WatchdogMode::Automatic);
    let (config, _) = good(LEAST, &[]);
    assert_eq!(config.postgresql.pgpass, Path::new("/srv/pg-pgpass"));
}

#[test]
fn the_fencing_command_has_a_limit() {
    let (config, warnings) =
        good(&format!("{LEAST}\nfencing: {{command: '/usr/local/bin/off --now'}}\n"), &[]);
    assert_eq!(warnings, [""; 0]);
    let fencing = config.fencing.expect("a command");
    assert_eq!((fencing.command.as_str(), fencing.timeout.as_secs()), ("/usr/local/bin/off --now", 20));
    assert_eq!(good(LEAST, &[]).0.fencing, None);
}

#[test]
fn a_whole_node_can_be_configured_by_its_environment() {
    let (config, warnings) = good(
        "",
        &[
            ("PATRONI_SCOPE", "demo"),
            ("PATRONI_NAME", "pg-1"),
            ("PGHERD_NAME", "pg-2"),
            ("PATRONI_RESTAPI_LISTEN", "127.0.0.1:8009"),
            ("PATRONI_RESTAPI_USERNAME", "u"),
            ("PATRONI_RESTAPI_PASSWORD", "0123"),
            ("PATRONI_CTL_INSECURE", "on"),
            ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1:5432"),
            ("PATRONI_POSTGRESQL_DATA_DIR", "/srv/pg"),
            ("PATRONI_REPLICATION_USERNAME", "replicator"),
            ("PATRONI_REPLICATION_PASSWORD", "yes"),
            ("PATRONI_REPLICATION_SSLMODE", "require"),
            ("PATRONI_RAFT_SELF_ADDR", "127.0.0.1:2222"),
            ("PATRONI_RAFT_PARTNER_ADDRS", "'127.0.0.1:2223', \"[::1]:2224\""),
            ("PATRONI_SUPERUSER_USERNAME", ""),
            ("PATRONI_SCOPPE", "x"),
            ("PATRONI_ETCD3_HOSTS", "not ours"),
            ("PATRONI_ETCD3_PASSWORD", "nor this"),
            ("PATRONI_RAFT_MIN_TIMEOUT", "0.4"),
            ("PATRONI_TAGLINE", "somebody else's"),
        ],
    );
    assert_eq!(config.name.as_str(), "pg-2", "PGHERD_ wins");
    assert_eq!(config.restapi.authentication.map(|a| a.password), Some(Secret::new("0123")));
    assert!(config.ctl.insecure);
    let replication = config.postgresql.authentication.replication;
    assert_eq!(replication.password, Some(Secret::new("yes")), "text, whatever YAML thinks of it");
    assert_eq!(replication.options["sslmode"], "require");
    let partners: Vec<String> = config.raft.partner_addrs.iter().map(ToString::to_string).collect();
    assert_eq!(partners, ["127.0.0.1:2223", "[::1]:2224"]);
    assert_eq!(config.postgresql.authentication.superuser.username, "postgres", "an empty variable is unset");
    assert_eq!(
        warnings,
        [
            "ETCD3_... is not needed and not used (PATRONI_ETCD3_HOSTS); remove them when the cluster has moved: pgherd \
             keeps the cluster's state itself (see `raft`)",
            "raft.min_timeout: has no meaning in pgherd: these times follow from ttl (PATRONI_RAFT_MIN_TIMEOUT); remove it",
            "is not a known environment variable and has no effect (PATRONI_SCOPPE); did you mean PATRONI_SCOPE?"
        ]
    );
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let errors = bad(
        LEAST,
        &[
            ("PATRONI_RESTAPI_LISTEN", "nowhere"),
            ("PGHERD_RAFT_PARTNER_ADDRS", "'a:1"),
            ("PATRONI_RAFT_INSECURE", "perhaps"),
        ],
    );
    assert_eq!(
        errors.to_string(),
        "cannot use the configuration node.yml: 3 mistakes
PATRONI_RAFT_INSECURE: raft.insecure: \"perhaps\" is not a boolean
    write true or false
PATRONI_RESTAPI_LISTEN: restapi.listen: \"nowhere\" is no address: the port is missing
    write nowhere:PORT
PGHERD_RAFT_PARTNER_ADDRS: raft.partner_addrs: is not a list
    write it like 'host1:2222','host2:2222'"
    );
}

#[test]
fn open_networks_need_a_password_or_a_word() {
    let with = |raft: &str| LEAST.replace("{self_addr: '127.0.0.1:2222'}", raft);
    for (raft, key) in [
        ("{self_addr: '10.0.0.1:2222'}", "raft.self_addr"),
        ("{self_addr: 'pg1:2222'}", "raft.self_addr"),
        ("{self_addr: '127.0.0.1:2222', bind_addr: '*:2222'}", "raft.bind_addr"),
        ("{self_addr: '127.0.0.1:2222', bind_addr: '0.0.0.0:2222'}", "raft.bind_addr"),
        ("{self_addr: '127.0.0.1:2222', partner_addrs: ['[fd00::1]:2222']}", "raft.partner_addrs"),
    ] {
        let errors = bad(&with(raft), &[]);
        assert_eq!(errors.problems.len(), 1, "{errors}");
        assert_eq!(errors.problems[0].key, key);
        assert!(errors.problems[0].what.contains("no `raft.password`"), "{errors}");
        assert!(errors.problems[0].cure.contains("`insecure: true`"), "{errors}");
        good(&with(&raft.replace('}', ", insecure: true}")), &[]);
        good(&with(&raft.replace('}', ", password: a-long-and-random-one}")), &[]);
        let (_, warnings) = good(&with(raft), &[("PATRONI_RAFT_PASSWORD", "short-4711")]);
        assert!(
            warnings.iter().any(|warning| warning.starts_with("raft.password: is short")),
            "{warnings:?}"
        );
        assert!(!format!("{warnings:?}").contains("4711"));
    }
    good(&with("{self_addr: 'localhost:2222', partner_addrs: ['127.0.0.2:1', '[::1]:2']}"), &[]);
    assert!(bad(&with("{data_dir: /x}"), &[]).to_string().contains("no group to found or join"));
    good(&with("{partner_addrs: ['127.0.0.1:1']}"), &[]);
}

#[test]
fn wildcards_need_an_address_to_tell_the_others() {
    let errors = bad(&LEAST.replace("listen: 127.0.0.1:5432", "listen: '*:5433'"), &[]);
    assert!(errors.to_string().contains("postgresql.connect_address: is missing"), "{errors}");
    assert!(errors.to_string().contains("add `connect_address: HOST:5433`"), "{errors}");
}

#[test]
fn only_postgresql_listens_on_several_hosts() {
    good(&LEAST.replace("listen: 127.0.0.1:5432", "listen: '127.0.0.1,127.0.0.2:5432'"), &[]);
    let several = "{self_addr: '127.0.0.1:2222', bind_addr: '127.0.0.1,127.0.0.2:2222'}";
    let errors = bad(&LEAST.replace("{self_addr: '127.0.0.1:2222'}", several), &[]);
    assert!(errors.to_string().contains("raft.bind_addr: names 2 hosts"), "{errors}");
    let errors = bad(LEAST, &[("PATRONI_RESTAPI_LISTEN", "127.0.0.1,127.0.0.2:8008")]);
    assert!(errors.to_string().contains("write '*:8008'"), "{errors}");
}

#[test]
fn the_name_of_nobody_is_nobody_s() {
    let errors = bad(&LEAST.replace("pg-1", "__patroni_strict_sync_replica_placeholder__"), &[]);
    assert!(errors.to_string().contains("name: stands for nobody"), "{errors}");
}

#[test]
fn options_of_pg_basebackup_which_cannot_be_used_are_left_out() {
    let options =
        "  basebackup: [{format: tar}, no-sync, {compress: 9}, {compress: server-lz4}, {max-rate: 1M}]";
    let (config, warnings) =
        good(&LEAST.replacen("postgresql:\n", &format!("postgresql:\n{options}\n"), 1), &[]);
    let arguments = config.postgresql.shared.basebackup.iter().map(ToolOption::argument);
    assert_eq!(arguments.collect::<Vec<_>>(), ["--compress=server-lz4", "--max-rate=1M"]);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[test]
fn custom_methods_keep_their_arguments() {
    let text = format!(
        "{LEAST}
bootstrap:
  method: pitr
  pitr:
    command: restore.sh --now
    keep_existing_recovery_conf: true
    target: '2026-01-01'
    retries: 3
    recovery_conf: {{recovery_target_action: promote, recovery_target_timeline: latest}}
"
    );
    let (config, warnings) = good(&text, &[]);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("bootstrap.method: has no effect yet"), "{warnings:?}");
    let BootstrapMethod::Custom { name, command, arguments, recovery_conf, no_params, .. } =
        config.bootstrap.expect("bootstrap").method
    else {
        panic!("a custom method");
    };
    assert_eq!((name.as_str(), command.as_str(), no_params), ("pitr", "restore.sh --now", false));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(arguments, [pair("target", "2026-01-01"), pair("retries", "3")]);
    assert_eq!(recovery_conf["recovery_target_action"], "promote");
}

#[test]
fn files_which_cannot_be_read_say_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = Config::load(&directory.path().join("none.yml"), &Environment::new()).expect_err("missing");
    assert!(missing.to_string().contains("cannot read the file: No such file"), "{missing}");
    let path = directory.path().join("latin.yml");
    std::fs::write(&path, b"scope: caf\xe9\n").expect("write");
    let latin = Config::load(&path, &Environment::new()).expect_err("not UTF-8");
    assert!(latin.to_string().contains("save it as UTF-8"), "{latin}");
    assert!(Config::load(directory.path(), &Environment::new()).is_err());
}

#[test]
fn no_file_whatever_makes_it_panic() {
    // Prefixes and single lost characters of a real file are read to the end, as a config or as mistakes.
    let characters: Vec<char> = THREE_NODES.chars().collect();
    for at in (0..characters.len()).step_by(5) {
        let cut: String = characters[..at].iter().collect();
        let lost: String = characters[..at].iter().chain(&characters[at + 1..]).collect();
        for text in [cut, lost] {
            if let Err(errors) = Config::from_text("node.yml", &text, &Environment::new()) {
                assert!(errors.error_count() > 0, "refused without a reason:\n{text}");
            }
        }
    }
}
