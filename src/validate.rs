//! `pgherd --validate-config`: what can be told of a configuration beyond the text of it.
//!
//! Promises: nothing is changed, and all findings are told at once on standard error; silence is a good configuration.

use std::path::Path;

use anyhow::bail;
use pgherd_raft::address::{ListenAddress, is_loopback};
use pgherd_raft::listener;
use serde_json::Value;

use crate::config::{Config, Source, in_present_words, to_yaml};
use crate::postgres::{installed_major, refused_parameters};

/// Reads, checks, and prints when asked to.
///
/// # Errors
/// What is wrong, all of it.
pub async fn run(source: &Source, binds: bool, prints: bool) -> anyhow::Result<()> {
    let (config, warnings) = source.read()?;
    let mut found = Vec::new();
    for pair in [("nofailover", "failover_priority"), ("nosync", "sync_priority")] {
        if config.tags.get(pair.0).is_some() && config.tags.get(pair.1).is_some() {
            found.push(format!("tags  Multiple of ('{}', '{}') provided", pair.0, pair.1));
        }
    }
    if binds {
        ports(&config, &mut found);
    }
    addresses(&config, &mut found);
    let shared = &config.postgresql.shared;
    match installed_major(shared.bin_dir.as_deref(), &shared.bin_names).await {
        Ok(major) => data_dir(&config.postgresql.data_dir, major, &mut found),
        Err(error) => found.push(format!("postgresql.bin_dir: {error}")),
    }
    parameters(&config, &mut found).await;
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    if prints {
        print(&to_yaml(&without_secrets(source.tree()?.to_json())))?;
    }
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    Ok(())
}

fn say(line: &str) {
    use std::io::Write as _;
    // Nobody may be listening.
    writeln!(std::io::stderr(), "{line}").ok();
}

fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    std::io::stdout().write_all(text.as_bytes())
}

fn ports(config: &Config, found: &mut Vec<String>) {
    let mut try_bind = |key: &str, listen: &ListenAddress| {
        for socket in listen.sockets() {
            if let Err(error) = listener::listen(&socket) {
                found.push(format!("{key} {socket} didn't pass validation: {error}"));
            }
        }
    };
    try_bind("restapi.listen", &config.restapi.listen);
    try_bind("postgresql.listen", &config.postgresql.listen);
    if let Some(bind) = &config.raft.bind_addr {
        try_bind("raft.self_addr", bind);
    }
}

/// A cluster of several machines needs addresses which other machines can reach.
fn addresses(config: &Config, found: &mut Vec<String>) {
    let raft = config.raft.self_addr.iter().chain(&config.raft.partner_addrs);
    if raft.into_iter().all(|address| is_loopback(&address.host)) {
        return;
    }
    for (key, address) in [
        ("restapi.connect_address", &config.restapi.connect_address),
        ("postgresql.connect_address", &config.postgresql.connect_address),
    ] {
        if is_loopback(&address.host) {
            found.push(format!(
                "{key} {address} didn't pass validation: must not be an address of this machine alone, as others \
                 connect to it"
            ));
        }
    }
}

/// PostgreSQL itself says whether it would start with the parameters.
async fn parameters(config: &Config, found: &mut Vec<String>) {
    let own = &config.postgresql;
    let shared = config.bootstrap.as_ref().map(|bootstrap| &bootstrap.settings.postgresql.parameters);
    for (path, parameters) in
        [("postgresql.parameters", Some(&own.parameters)), ("bootstrap.dcs.postgresql.parameters", shared)]
    {
        let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) else { continue };
        // Where it cannot be asked, the missing programs have been told already.
        let asked = in_present_words(parameters);
        let refused = refused_parameters(own.shared.bin_dir.as_deref(), &own.shared.bin_names, &asked).await;
        let refused = refused.unwrap_or_default();
        for refusal in refused {
            let value = parameters.get(&refusal.name).map(String::as_str).unwrap_or_default();
            if refusal.is_unknown {
                say(&format!("warning: {path}.{}: {}", refusal.name, refusal.reason));
            } else {
                found.push(format!(
                    "{path}.{} {value} didn't pass validation: {}",
                    refusal.name, refusal.reason
                ));
            }
        }
    }
}

fn data_dir(path: &Path, major: u32, found: &mut Vec<String>) {
    let mut wrong = |reason: String| {
        found.push(format!("postgresql.data_dir {} didn't pass validation: {reason}", path.display()));
    };
    if !path.join("global/pg_control").exists() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        if names.into_iter().any(|name| !name.starts_with('.') && name != "lost+found") {
            wrong("it is not empty and holds no database system".to_owned());
        }
        return;
    }
    let version = std::fs::read_to_string(path.join("PG_VERSION")).unwrap_or_default();
    if version.trim().is_empty() {
        wrong("it has no PG_VERSION".to_owned());
    } else if version.trim() != major.to_string() {
        wrong(format!(
            "it was made by PostgreSQL {}, but the programs are of PostgreSQL {major}",
            version.trim()
        ));
    }
    if !path.join("pg_wal").is_dir() {
        wrong("it has no pg_wal".to_owned());
    }
}

/// Whatever holds a password is not shown.
fn without_secrets(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let shown = |(key, value): (String, Value)| {
                let is_secret = key.contains("password") || key == "auth" || key.contains("passwd");
                let value =
                    if is_secret && !value.is_null() { "(secret)".into() } else { without_secrets(value) };
                (key, value)
            };
            Value::Object(map.into_iter().map(shown).collect())
        }
        Value::Array(items) => items.into_iter().map(without_secrets).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use pgherd_raft::config::Environment;

    use super::*;

    fn config(raft: &str, more: &str) -> Config {
        let text = format!(
            "scope: demo\nname: pg-1\nraft: {raft}\npostgresql:\n  listen: 127.0.0.1:5432\n  data_dir: /srv/pg\n  \
             authentication: {{replication: {{username: replicator}}}}\n{more}"
        );
        Config::from_text("node.yml", &text, &Environment::new()).expect("good").0
    }

    #[test]
    fn addresses_must_be_reachable_when_there_are_other_machines() {
        let found = |raft: &str| {
            let mut found = Vec::new();
            addresses(&config(raft, ""), &mut found);
            found.len()
        };
        assert_eq!(found("{self_addr: '127.0.0.1:1', partner_addrs: ['127.0.0.1:2']}"), 0);
        assert_eq!(found("{self_addr: '10.0.0.1:1', insecure: true}"), 2);
    }

    #[test]
    fn a_data_directory_must_be_empty_or_of_the_programs_version() {
        let root = tempfile::tempdir().expect("directory");
        let found = || {
            let mut found = Vec::new();
            data_dir(root.path(), 15, &mut found);
            found
        };
        assert_eq!(found(), [""; 0]);
        std::fs::write(root.path().join("letter"), "").expect("file");
        assert!(found()[0].contains("is not empty"), "{:?}", found());
        std::fs::create_dir(root.path().join("global")).expect("directory");
        std::fs::write(root.path().join("global/pg_control"), "").expect("file");
        std::fs::write(root.path().join("PG_VERSION"), "14\n").expect("file");
        assert_eq!(found().len(), 2, "{:?}", found());
        std::fs::write(root.path().join("PG_VERSION"), "15\n").expect("file");
        std::fs::create_dir(root.path().join("pg_wal")).expect("directory");
        assert_eq!(found(), [""; 0]);
    }

    #[test]
    fn passwords_are_not_printed() {
        let value =
            serde_json::json!({"a": {"password": "x", "b": 1}, "keyfile_password": "y", "auth": "u:p"});
        let shown = without_secrets(value).to_string();
        assert_eq!(
            shown,
            r#"{"a":{"password":"(secret)","b":1},"keyfile_password":"(secret)","auth":"(secret)"}"#
        );
    }
}
