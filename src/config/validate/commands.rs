//! Commands of the operator's and options of PostgreSQL's programs.

use std::collections::BTreeMap;

use pgherd_raft::config::{Section, Shown, scalar, shown_key};
use pgherd_raft::yaml::{Node, Value};

use super::super::types::{Callbacks, ReplicaMethod, ToolOption};

/// Options of pg_basebackup which pgherd sets itself.
const BASEBACKUP_REFUSED: [&str; 14] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "write-recovery-conf",
    "gzip",
    "target",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
    "no-sync",
];

/// The options of pg_basebackup. As in Patroni, one which cannot be used is left out and does not stop the daemon: a file
/// may have one for years.
pub(super) fn basebackup_options(section: &mut Section<'_>) -> Vec<ToolOption> {
    let key = "basebackup";
    let mut options = tool_options(section, key, &[]);
    let (path, place) = (section.key(key), section.value_place(key));
    options.retain(|option| {
        let is_compressed_here =
            option.name == "compress" && !option.value.as_deref().unwrap_or_default().starts_with("server");
        if is_compressed_here || BASEBACKUP_REFUSED.contains(&option.name.as_str()) {
            let (what, cure) = match is_compressed_here {
                true => ("is left out: pgherd needs the files as they are", "write server, or server-METHOD"),
                false => ("is left out: it is set by pgherd itself", "remove it"),
            };
            section.report.warning(&path, &place, format!("{} {what}", option.name), cure);
            return false;
        }
        true
    });
    options
}

pub(super) fn callbacks(mut section: Section<'_>) -> Callbacks {
    let callbacks = Callbacks {
        on_start: section.text("on_start"),
        on_stop: section.text("on_stop"),
        on_restart: section.text("on_restart"),
        on_reload: section.text("on_reload"),
        on_role_change: section.text("on_role_change"),
    };
    section.close();
    callbacks
}

pub(super) fn replica_method_names(section: &mut Section<'_>) -> Vec<String> {
    let old = section.texts("create_replica_method");
    let names = section.texts("create_replica_methods").or(old).unwrap_or_default();
    if names.is_empty() { vec!["basebackup".to_owned()] } else { names }
}

pub(super) fn replica_methods(
    section: &mut Section<'_>,
    names: &[String],
) -> BTreeMap<String, ReplicaMethod> {
    let mut methods = BTreeMap::new();
    for name in names.iter().filter(|name| *name != "basebackup") {
        let mut method = section.section(name);
        let arguments = method.free_scalars(&["command", "keep_data", "no_params", "no_leader"]);
        let read = ReplicaMethod {
            command: method.text("command").unwrap_or_else(|| name.clone()),
            keep_data: method.boolean("keep_data").unwrap_or(false),
            no_params: method.boolean("no_params").unwrap_or(false),
            no_leader: method.boolean("no_leader").unwrap_or(false),
            arguments,
        };
        methods.insert(name.clone(), read);
    }
    methods
}

/// Long options of a program: a list of words and one-key maps, or a map.
pub(super) fn tool_options(section: &mut Section<'_>, key: &str, refused: &[&str]) -> Vec<ToolOption> {
    let path = section.key(key);
    let report = section.report;
    let Some(node) = section.get(key) else { return Vec::new() };
    let mut options = Vec::new();
    let mut add = |name: &str, value: Option<&Node>, at: &Node| {
        let name = name.trim_start_matches("--");
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !is_name {
            let what = format!("{:?} is no name of an option", shown_key(name));
            report.error(&path, &at.place, what, "write `- NAME` or `- NAME: VALUE`");
        } else if refused.contains(&name) {
            report.error(&path, &at.place, format!("{name} is set by pgherd itself"), "remove it");
        } else {
            if let Some(Node { value: Value::Bool(_), .. }) = value {
                let cure =
                    format!("write `- {name}` without a value for a flag, or put quotes around the value");
                report.error(&path, &at.place, format!("{name} has a boolean where text is needed"), cure);
                return;
            }
            let value = value.map(|value| scalar(report, &format!("{path}.{name}"), value, Shown::Yes));
            match value {
                // A flag, or a mistake which has been reported.
                None => options.push(ToolOption { name: name.to_owned(), value: None }),
                Some(None) => {}
                Some(Some(value)) => {
                    options.push(ToolOption { name: name.to_owned(), value: Some(unquoted(&value)) });
                }
            }
        }
    };
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Map(_) => std::slice::from_ref(node),
    };
    for item in items {
        match &item.value {
            Value::Text(word) => add(word, None, item),
            Value::Map(map) => {
                for entry in map.entries() {
                    let value = Some(&entry.value).filter(|value| value.value != Value::Null);
                    add(&entry.key, value, &entry.value);
                }
            }
            other @ (Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_)) => {
                let what = format!("{} stands where an option is needed", other.kind());
                report.error(&path, &item.place, what, "write `- NAME` or `- NAME: VALUE`");
            }
        }
    }
    options
}

/// Patroni takes a value in the quotes which a shell would remove.
fn unquoted(value: &str) -> String {
    for quote in ['\'', '"'] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner.to_owned();
        }
    }
    value.to_owned()
}
