//! Environment variables which stand in for, or overrule, keys of the file.
//!
//! Owns the list of variables. Each is called `PATRONI_...` and `PGHERD_...`; the latter wins. Promises: a value from
//! a variable is reported under the variable's name. Children must not inherit these variables: they hold passwords
//! (see [`is_configuration_variable`]).

use std::collections::BTreeMap;

use crate::yaml::{self, Map, Node, Place, Value};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Text,
    /// As a plain YAML scalar.
    Scalar,
    /// As a YAML list, the brackets optional.
    List,
    /// As a YAML map, the braces optional.
    Map,
    /// As a list in its brackets, otherwise as it is.
    Yaml,
}

/// A variable and the key which it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The name behind the prefix.
    pub name: String,
    /// The path of the key.
    pub key: String,
    /// How its text is read.
    pub form: Form,
}

impl Variable {
    /// A variable for a key.
    pub fn new(name: &str, key: &str, form: Form) -> Self {
        Self { name: name.to_owned(), key: key.to_owned(), form }
    }
}

/// The variables which data nodes and witnesses share.
pub fn common_variables() -> Vec<Variable> {
    let of = |(name, key, form): &(&str, &str, Form)| Variable::new(name, key, *form);
    COMMON.iter().map(of).collect()
}

const COMMON: &[(&str, &str, Form)] = &[
    ("NAME", "name", Form::Text),
    ("SCOPE", "scope", Form::Text),
    // Old names, which the present ones overrule.
    ("LOGLEVEL", "log.level", Form::Text),
    ("LOGFORMAT", "log.format", Form::Text),
    ("LOG_DATEFMT", "log.dateformat", Form::Text),
    ("LOG_TYPE", "log.type", Form::Text),
    ("LOG_LEVEL", "log.level", Form::Text),
    ("LOG_TRACEBACK_LEVEL", "log.traceback_level", Form::Text),
    ("LOG_FORMAT", "log.format", Form::Yaml),
    ("LOG_DATEFORMAT", "log.dateformat", Form::Text),
    ("LOG_STATIC_FIELDS", "log.static_fields", Form::Map),
    ("LOG_MAX_QUEUE_SIZE", "log.max_queue_size", Form::Scalar),
    ("LOG_DIR", "log.dir", Form::Text),
    ("LOG_MODE", "log.mode", Form::Scalar),
    ("LOG_FILE_NUM", "log.file_num", Form::Scalar),
    ("LOG_FILE_SIZE", "log.file_size", Form::Scalar),
    ("LOG_LOGGERS", "log.loggers", Form::Map),
    ("LOG_DEDUPLICATE_HEARTBEAT_LOGS", "log.deduplicate_heartbeat_logs", Form::Scalar),
    ("RAFT_SELF_ADDR", "raft.self_addr", Form::Text),
    ("RAFT_BIND_ADDR", "raft.bind_addr", Form::Text),
    ("RAFT_DATA_DIR", "raft.data_dir", Form::Text),
    ("RAFT_PARTNER_ADDRS", "raft.partner_addrs", Form::List),
    ("RAFT_PASSWORD", "raft.password", Form::Text),
    ("RAFT_INSECURE", "raft.insecure", Form::Scalar),
    ("RAFT_MIN_TIMEOUT", "raft.min_timeout", Form::Scalar),
    ("RAFT_MAX_TIMEOUT", "raft.max_timeout", Form::Scalar),
    ("RAFT_CONNECTION_TIMEOUT", "raft.connection_timeout", Form::Scalar),
    ("RAFT_APPEND_ENTRIES_PERIOD", "raft.append_entries_period", Form::Scalar),
    ("RAFT_CONNECTION_RETRY_TIME", "raft.connection_retry_time", Form::Scalar),
    ("RAFT_LEADER_FALLBACK_TIMEOUT", "raft.leader_fallback_timeout", Form::Scalar),
];

/// What the variables of Patroni's stores begin with.
const OTHER_STORES: [&str; 6] = ["ETCD_", "ETCD3_", "CONSUL_", "ZOOKEEPER_", "EXHIBITOR_", "KUBERNETES_"];

/// Puts the variables' values over the file's.
pub(super) fn overlay(root: &mut Node, environment: &Environment, variables: &[Variable], report: &Report) {
    if root.value == Value::Null {
        root.value = Value::Map(Map::default());
    }
    let Value::Map(map) = &mut root.value else { return };
    let mut known: Vec<String> = Vec::new();
    for prefix in PREFIXES {
        for variable in variables {
            let name = format!("{prefix}{}", variable.name);
            overlay_one(map, &name, variable, environment, report);
            known.push(name);
        }
    }
    warn_of_unknown(&known, environment, report);
}

fn overlay_one(map: &mut Map, name: &str, variable: &Variable, environment: &Environment, report: &Report) {
    // An empty variable is an unset one: that is how a unit file or a compose file takes one back.
    let Some(text) = environment.get(name).filter(|text| !text.is_empty()) else { return };
    let place = Place::named(name);
    let node = match variable.form {
        Form::Text => Node::text(place.clone(), text),
        Form::Scalar => Node {
            place: place.clone(),
            value: yaml::resolve_plain(text.trim()),
            source: text.trim().to_owned(),
        },
        Form::List => {
            match flow(text, &place, ["[", "]"]).filter(|node| matches!(node.value, Value::List(_))) {
                Some(node) => node,
                None => {
                    let cure = "write it like 'host1:2222','host2:2222'";
                    report.error(&variable.key, &place, "is not a list", cure);
                    return;
                }
            }
        }
        Form::Yaml => {
            match flow(text, &place, ["[", "]"]).filter(|_| text.trim_start().starts_with(['[', '-'])) {
                Some(node) => node,
                None => Node::text(place.clone(), text),
            }
        }
        Form::Map => {
            match flow(text, &place, ["{", "}"]).filter(|node| matches!(node.value, Value::Map(_))) {
                Some(node) => node,
                None => {
                    report.error(
                        &variable.key,
                        &place,
                        "is not a map",
                        "write it like key: value, other: value",
                    );
                    return;
                }
            }
        }
    };
    set(map, &variable.key, &place, node);
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

/// A list or a map in one line, with or without its brackets; every part of it gets the variable as its place.
fn flow(text: &str, place: &Place, [open, close]: [&str; 2]) -> Option<Node> {
    let text = text.trim();
    let is_whole = text.starts_with(open) || open == "[" && text.starts_with('-');
    let bracketed = if is_whole { text.to_owned() } else { format!("{open}{text}{close}") };
    let mut node = yaml::load(&bracketed).ok()?.root;
    node.name_all(place);
    Some(node)
}

/// A mistyped variable would silently do nothing. Only near misses are reported: the prefixes are not ours alone
/// (images and charts define variables of their own).
fn warn_of_unknown(known: &[String], environment: &Environment, report: &Report) {
    let mut stores = Vec::new();
    for name in environment.keys().filter(|name| is_configuration_variable(name)) {
        if known.contains(name) {
            continue;
        }
        let behind = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        if let Some(store) = OTHER_STORES.iter().find(|store| behind.starts_with(**store)) {
            if !stores.contains(store) {
                stores.push(store);
                let what = format!("{store}... is not needed and not used");
                let cure = "remove them when the cluster has moved: pgherd keeps the cluster's state itself (see `raft`)";
                report.warning("", &Place::named(name), what, cure);
            }
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
