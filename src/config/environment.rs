//! Environment variables which stand in for, or overrule, keys of the file.
//!
//! Owns the list of variables. Each is called `PATRONI_...` and `PGHERD_...`; the latter wins. Promises: a value from
//! a variable is reported under the variable's name. Children must not inherit these variables: they hold passwords
//! (see [`is_configuration_variable`]).

use std::collections::BTreeMap;

use pgherd_raft::yaml::{self, Map, Node, Place, Value};

use super::problem::Report;

/// The variables of a process.
pub type Environment = BTreeMap<String, String>;

/// The process' own environment; variables which are not UTF-8 are left out.
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Is this a variable of the configuration, which children of the daemon must not see?
pub fn is_configuration_variable(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Later ones win.
const PREFIXES: [&str; 2] = ["PATRONI_", "PGHERD_"];

/// How the text of a variable is read.
#[derive(Clone, Copy)]
enum Form {
    /// As it is.
    Text,
    /// As a plain YAML scalar.
    Scalar,
    /// As a YAML list, the brackets optional.
    List,
}

/// Name behind the prefix, and the key.
const VARIABLES: &[(&str, &str, Form)] = &[
    ("NAME", "name", Form::Text),
    ("NAMESPACE", "namespace", Form::Text),
    ("SCOPE", "scope", Form::Text),
    ("LOG_LEVEL", "log.level", Form::Text),
    ("LOGLEVEL", "log.level", Form::Text),
    ("RESTAPI_LISTEN", "restapi.listen", Form::Text),
    ("RESTAPI_CONNECT_ADDRESS", "restapi.connect_address", Form::Text),
    ("RESTAPI_USERNAME", "restapi.authentication.username", Form::Text),
    ("RESTAPI_PASSWORD", "restapi.authentication.password", Form::Text),
    ("RESTAPI_CERTFILE", "restapi.certfile", Form::Text),
    ("RESTAPI_KEYFILE", "restapi.keyfile", Form::Text),
    ("RESTAPI_KEYFILE_PASSWORD", "restapi.keyfile_password", Form::Text),
    ("RESTAPI_CAFILE", "restapi.cafile", Form::Text),
    ("RESTAPI_VERIFY_CLIENT", "restapi.verify_client", Form::Text),
    ("RESTAPI_ALLOWLIST", "restapi.allowlist", Form::List),
    ("RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "restapi.allowlist_include_members", Form::Scalar),
    ("CTL_USERNAME", "ctl.authentication.username", Form::Text),
    ("CTL_PASSWORD", "ctl.authentication.password", Form::Text),
    ("CTL_INSECURE", "ctl.insecure", Form::Scalar),
    ("CTL_CACERT", "ctl.cacert", Form::Text),
    ("CTL_CERTFILE", "ctl.certfile", Form::Text),
    ("CTL_KEYFILE", "ctl.keyfile", Form::Text),
    ("CTL_KEYFILE_PASSWORD", "ctl.keyfile_password", Form::Text),
    ("POSTGRESQL_LISTEN", "postgresql.listen", Form::Text),
    ("POSTGRESQL_CONNECT_ADDRESS", "postgresql.connect_address", Form::Text),
    ("POSTGRESQL_PROXY_ADDRESS", "postgresql.proxy_address", Form::Text),
    ("POSTGRESQL_DATA_DIR", "postgresql.data_dir", Form::Text),
    ("POSTGRESQL_CONFIG_DIR", "postgresql.config_dir", Form::Text),
    ("POSTGRESQL_BIN_DIR", "postgresql.bin_dir", Form::Text),
    ("POSTGRESQL_PGPASS", "postgresql.pgpass", Form::Text),
    ("RAFT_SELF_ADDR", "raft.self_addr", Form::Text),
    ("RAFT_BIND_ADDR", "raft.bind_addr", Form::Text),
    ("RAFT_DATA_DIR", "raft.data_dir", Form::Text),
    ("RAFT_PARTNER_ADDRS", "raft.partner_addrs", Form::List),
    ("RAFT_PASSWORD", "raft.password", Form::Text),
    ("RAFT_INSECURE", "raft.insecure", Form::Scalar),
];

/// `PATRONI_SUPERUSER_PASSWORD` and the like.
const USERS: [(&str, &str); 3] =
    [("SUPERUSER", "superuser"), ("REPLICATION", "replication"), ("REWIND", "rewind")];
const USER_KEYS: [(&str, &str); 12] = [
    ("USERNAME", "username"),
    ("PASSWORD", "password"),
    ("SSLMODE", "sslmode"),
    ("SSLCERT", "sslcert"),
    ("SSLKEY", "sslkey"),
    ("SSLPASSWORD", "sslpassword"),
    ("SSLROOTCERT", "sslrootcert"),
    ("SSLCRL", "sslcrl"),
    ("SSLCRLDIR", "sslcrldir"),
    ("GSSENCMODE", "gssencmode"),
    ("CHANNEL_BINDING", "channel_binding"),
    ("SSLNEGOTIATION", "sslnegotiation"),
];

/// Puts the variables' values over the file's.
pub(super) fn overlay(root: &mut Node, environment: &Environment, report: &Report) {
    if root.value == Value::Null {
        root.value = Value::Map(Map::default());
    }
    let Value::Map(map) = &mut root.value else { return };
    let mut known: Vec<String> = Vec::new();
    for prefix in PREFIXES {
        for (suffix, path, form) in VARIABLES {
            let variable = format!("{prefix}{suffix}");
            overlay_one(map, &variable, path, *form, environment, report);
            known.push(variable);
        }
        for (user, section) in USERS {
            for (suffix, key) in USER_KEYS {
                let variable = format!("{prefix}{user}_{suffix}");
                let path = format!("postgresql.authentication.{section}.{key}");
                overlay_one(map, &variable, &path, Form::Text, environment, report);
                known.push(variable);
            }
        }
    }
    warn_of_unknown(&known, environment, report);
}

fn overlay_one(
    map: &mut Map,
    variable: &str,
    path: &str,
    form: Form,
    environment: &Environment,
    report: &Report,
) {
    // An empty variable is an unset one: that is how a unit file or a compose file takes one back.
    let Some(text) = environment.get(variable).filter(|text| !text.is_empty()) else { return };
    let place = Place::named(variable);
    let node = match form {
        Form::Text => Node::text(place.clone(), text),
        Form::Scalar => Node {
            place: place.clone(),
            value: yaml::resolve_plain(text.trim()),
            source: text.trim().to_owned(),
        },
        Form::List => match list(text, &place) {
            Some(node) => node,
            None => {
                let cure = "write it like 'host1:2222','host2:2222'";
                report.error(path, &place, "is not a list", cure);
                return;
            }
        },
    };
    set(map, path, &place, node);
}

fn set(map: &mut Map, path: &str, place: &Place, node: Node) {
    match path.split_once('.') {
        // Something else than a map stands in the section's place: its own check reports that.
        Some((section, rest)) => {
            if let Some(section) = map.section_mut(section, place) {
                set(section, rest, place, node);
            }
        }
        None => map.set(path, place.clone(), node),
    }
}

fn list(text: &str, place: &Place) -> Option<Node> {
    let text = text.trim();
    let bracketed =
        if text.starts_with('[') || text.starts_with('-') { text.to_owned() } else { format!("[{text}]") };
    let mut node = yaml::load(&bracketed).ok()?.root;
    let Value::List(items) = &mut node.value else { return None };
    for item in items {
        item.place = place.clone();
    }
    node.place = place.clone();
    Some(node)
}

/// A mistyped variable would silently do nothing. Only near misses are reported: the prefixes are not ours alone
/// (images and charts define variables of their own).
fn warn_of_unknown(known: &[String], environment: &Environment, report: &Report) {
    for name in environment.keys().filter(|name| is_configuration_variable(name)) {
        if known.contains(name) {
            continue;
        }
        if let Some(meant) = known.iter().find(|known| strsim::damerau_levenshtein(known, name) <= 2) {
            report.warning(
                "",
                &Place::named(name),
                "is not a known environment variable and has no effect",
                format!("did you mean {meant}?"),
            );
        }
    }
}
