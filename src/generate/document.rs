//! What a generated configuration holds (pure).

use serde_json::{Map, Value, json};

use crate::postgres::Inspected;

/// Stands where only the operator knows what belongs there.
const TO_FILL_IN: &str = concat!("#FIX", "ME");

/// Parameters which must be equal on all nodes and are always told, with their values where nothing else is said.
const OWNED_DEFAULTS: [(&str, &str); 11] = [
    ("hot_standby", "on"),
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("track_commit_timestamp", "off"),
    ("wal_keep_size", "128MB"),
    ("wal_level", "replica"),
    ("wal_log_hints", "on"),
];

/// The names of [`OWNED_DEFAULTS`].
pub(super) fn owned() -> [&'static str; 11] {
    OWNED_DEFAULTS.map(|(name, _)| name)
}

/// Parameters which are a node's own.
const LOCAL: [&str; 8] = [
    "archive_command",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "hba_file",
    "ident_file",
    "config_file",
];

/// Parameters which follow from elsewhere or which pgherd sets.
const LEFT_OUT: [&str; 10] = [
    "listen_addresses",
    "port",
    "cluster_name",
    "data_directory",
    "config_file",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target_timeline",
    "synchronous_standby_names",
    "external_pid_file",
];

/// A configuration and what is said about its sections.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Value,
}

impl Document {
    /// For a cluster which does not exist yet.
    pub(super) fn sample(major: u32, name: &str, address: Option<String>) -> Self {
        let address = address.unwrap_or_else(|| TO_FILL_IN.to_owned());
        let parameters = OWNED_DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), plain(value)));
        let method = if major < 14 { "md5" } else { "scram-sha-256" };
        let postgresql = json!({
            "authentication": authentication("postgres", TO_FILL_IN, true),
            "bin_dir": "",
            "connect_address": format!("{address}:5432"),
            "data_dir": TO_FILL_IN,
            "listen": format!("{address}:5432"),
            "parameters": {"password_encryption": method},
            "pg_hba": [
                format!("host all all all {method}"),
                format!("host replication replicator all {method}"),
            ],
        });
        Self::new(TO_FILL_IN, name, &address, dcs(parameters.collect(), true), postgresql)
    }

    /// For a PostgreSQL which runs.
    pub(super) fn running(found: &Inspected, name: &str, address: Option<String>) -> Self {
        let address = address.unwrap_or_else(|| TO_FILL_IN.to_owned());
        let is_left_out = |name: &str| LEFT_OUT.contains(&name) || name.starts_with("recovery_target");
        let mut shared = Map::new();
        let mut local = Map::new();
        for (name, value) in found.parameters.iter().filter(|(name, _)| !is_left_out(name)) {
            let is_default_file = (name == "hba_file" && found.pg_hba.is_some())
                || (name == "ident_file" && found.pg_ident.is_some());
            if is_default_file {
                continue;
            }
            let target = if LOCAL.contains(&name.as_str()) { &mut local } else { &mut shared };
            target.insert(name.clone(), plain(value));
        }
        let parameter = |name: &str| found.parameters.get(name).map(String::as_str).unwrap_or_default();
        let port = if parameter("port").is_empty() { "5432" } else { parameter("port") };
        let addresses: String = parameter("listen_addresses").split_whitespace().collect();
        let listen = if addresses.is_empty() { "localhost".to_owned() } else { addresses };
        let scope = if parameter("cluster_name").is_empty() { TO_FILL_IN } else { parameter("cluster_name") };
        let password = found.password.as_ref().map_or(TO_FILL_IN, |password| password.expose());
        let mut postgresql = json!({
            "authentication": authentication(&found.user, password, false),
            "connect_address": format!("{address}:{port}"),
            "data_dir": found.data_dir.display().to_string(),
            "listen": format!("{listen}:{port}"),
        });
        let mut add = |key: &str, value: Value| {
            if let Some(section) = postgresql.as_object_mut() {
                section.insert(key.to_owned(), value);
            }
        };
        if let Some(directory) = &found.bin_dir {
            add("bin_dir", directory.display().to_string().into());
        }
        if !local.is_empty() {
            add("parameters", Value::Object(local));
        }
        for (key, lines) in [("pg_hba", &found.pg_hba), ("pg_ident", &found.pg_ident)] {
            if let Some(lines) = lines.as_ref().filter(|lines| !lines.is_empty()) {
                add(key, lines.clone().into());
            }
        }
        let has_hints = parameter("wal_log_hints") == "on" || parameter("data_checksums") == "on";
        Self::new(scope, name, &address, dcs(shared, has_hints), postgresql)
    }

    fn new(scope: &str, name: &str, address: &str, dcs: Value, postgresql: Value) -> Self {
        let root = json!({
            "scope": scope,
            "name": name,
            "log": {
                "type": "plain",
                "level": "INFO",
                "traceback_level": "ERROR",
                "format": "%(asctime)s %(levelname)s: %(message)s",
                "max_queue_size": 1000,
            },
            "raft": {
                "self_addr": format!("{address}:7400"),
                "data_dir": TO_FILL_IN,
                "partner_addrs": [],
                "password": TO_FILL_IN,
            },
            "restapi": {
                "connect_address": format!("{address}:8008"),
                "listen": format!("{address}:8008"),
            },
            "bootstrap": {"dcs": dcs},
            "postgresql": postgresql,
            "tags": {
                "clonefrom": true,
                "failover_priority": 1,
                "noloadbalance": false,
                "nostream": false,
                "sync_priority": 1,
            },
        });
        Self { root }
    }

    /// What is said above a section.
    pub(super) fn comments_of(&self, section: &str) -> &'static [&'static str] {
        match section {
            "scope" => &["The cluster's name, equal on all its nodes."],
            "name" => &["This node's name, different on each node."],
            "raft" => &[
                "The group of the daemons. self_addr: where the others reach this one; partner_addrs: the others'",
                "self_addr, the witness among them; data_dir: on a disk that keeps what it is told, not in the data directory;",
                "password: the same on all members, for example from `openssl rand -hex 24`.",
            ],
            "bootstrap" => &[
                "dcs becomes the cluster's settings when the cluster is new, or has none yet. Later they are changed with",
                "pgherdctl edit-config: changes here have no effect then.",
            ],
            "tags" => &["What this node may become."],
            _ => &[],
        }
    }
}

fn authentication(user: &str, password: &str, with_rewind: bool) -> Value {
    let mut roles = json!({
        "replication": {"username": "replicator", "password": TO_FILL_IN},
        "superuser": {"username": user, "password": password},
    });
    if let (true, Some(roles)) = (with_rewind, roles.as_object_mut()) {
        roles.insert("rewind".to_owned(), json!({"username": "rewind_user", "password": TO_FILL_IN}));
    }
    roles
}

fn dcs(parameters: Map<String, Value>, use_pg_rewind: bool) -> Value {
    json!({
        "loop_wait": 10,
        "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"parameters": parameters, "use_pg_rewind": use_pg_rewind, "use_slots": true},
        "retry_timeout": 10,
        "ttl": 30,
    })
}

/// A number stays one.
fn plain(value: &str) -> Value {
    value.parse::<i64>().map_or_else(|_| value.into(), Value::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use pgherd_raft::config::Environment;

    use super::*;
    use crate::config::Config;
    use crate::postgres::Secret;

    /// What an operator has to fill in.
    fn filled(document: &Document) -> (Config, Vec<String>) {
        let text = super::super::finished(document, &Environment::new()).expect("written");
        let open = format!("'{TO_FILL_IN}'");
        let text = text.replace(&format!("data_dir: {open}"), "data_dir: /srv/x").replace(&open, "filled");
        let (config, warnings) = Config::from_text("made.yml", &text, &Environment::new()).expect(&text);
        (config, warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_sample_can_be_read_once_it_is_filled_in() {
        let (config, warnings) = filled(&Document::sample(15, "pg-1", Some("10.0.0.1".to_owned())));
        let without_effect: Vec<&String> = warnings.iter().filter(|text| !text.starts_with("log.")).collect();
        assert!(
            without_effect.iter().all(|text| {
                text.starts_with("raft.password: is short")
                    || text.starts_with("tags.clonefrom: has no effect yet")
            }),
            "{without_effect:?}"
        );
        assert_eq!(config.postgresql.connect_address.to_string(), "10.0.0.1:5432");
        let bootstrap = config.bootstrap.expect("bootstrap");
        assert_eq!(bootstrap.settings.postgresql.parameters["wal_keep_size"], "128MB");
        let sample = super::super::finished(
            &Document::sample(15, "pg-1", None),
            &[("PATRONI_SCOPE".to_owned(), "demo".to_owned())].into(),
        );
        let sample = sample.expect("written");
        assert!(sample.contains("\nscope: demo\n"), "{sample}");
        let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generate/testdata/sample.yml");
        if std::env::var_os("UPDATE_TESTFILES").is_some() {
            std::fs::write(&place, &sample).expect("write the golden file");
        }
        assert_eq!(sample, std::fs::read_to_string(place).expect("the golden file"));
    }

    #[test]
    fn a_running_server_s_parameters_go_where_they_belong() {
        let parameters: BTreeMap<String, String> = [
            ("listen_addresses", "127.0.0.1, ::1"),
            ("port", "5433"),
            ("cluster_name", "main"),
            ("max_connections", "50"),
            ("archive_command", "cp %p /wal/%f"),
            ("hba_file", "/srv/data/pg_hba.conf"),
            ("work_mem", "8MB"),
            ("data_directory", "/srv/data"),
            ("wal_log_hints", "off"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let found = Inspected {
            major: 15,
            parameters,
            data_dir: PathBuf::from("/srv/data"),
            bin_dir: Some(PathBuf::from("/usr/lib/postgresql/15/bin")),
            user: "admin".to_owned(),
            password: Some(Secret::new("it's")),
            pg_hba: Some(vec!["local all all peer".to_owned()]),
            pg_ident: Some(Vec::new()),
        };
        let (config, _) = filled(&Document::running(&found, "pg-1", Some("10.0.0.1".to_owned())));
        assert_eq!(config.scope, "main");
        assert_eq!(config.postgresql.listen.hosts, ["127.0.0.1", "::1"]);
        assert_eq!(config.postgresql.connect_address.to_string(), "10.0.0.1:5433");
        assert_eq!(config.postgresql.parameters.keys().collect::<Vec<_>>(), ["archive_command"]);
        assert_eq!(config.postgresql.authentication.superuser.username, "admin");
        let dcs = config.bootstrap.expect("bootstrap").dcs;
        let expected = json!({"max_connections": 50, "wal_log_hints": "off", "work_mem": "8MB"});
        assert_eq!(dcs["postgresql"]["parameters"], expected);
        assert_eq!(dcs["postgresql"]["use_pg_rewind"], false);
    }
}
