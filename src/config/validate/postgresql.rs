//! The section `postgresql`, and what it shares with the cluster's settings of the same name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd_raft::config::{Environment, Section, Shown, scalar, shown_key};
use pgherd_raft::yaml::{Node, Value};

use super::super::parameters::{DERIVED, Parameters, is_shared};
use super::super::types::{Authentication, Callbacks, Credentials, Postgresql, ReplicaMethod, ToolOption};
use super::{beside, connect_address, without_effect_when_on};

/// What libpq takes beside the name and the password.
const CONNECTION_OPTIONS: [&str; 9] = [
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

/// Options of pg_basebackup which pgherd sets itself.
const BASEBACKUP_REFUSED: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];

/// How a line of pg_hba.conf can begin.
const HBA_WORDS: [&str; 9] = [
    "local",
    "host",
    "hostssl",
    "hostnossl",
    "hostgssenc",
    "hostnogssenc",
    "include",
    "include_if_exists",
    "include_dir",
];

pub(super) fn postgresql(mut section: Section<'_>, environment: &Environment) -> Option<Postgresql> {
    let s = &mut section;
    if s.get("listen").is_none() {
        s.missing("listen", "add `listen: HOST:PORT`, for example 127.0.0.1:5432");
    }
    let listen = s.listen("listen", Some(5432));
    let connect_address = connect_address(s, listen.as_ref(), Some(5432));
    let proxy_address = s.address("proxy_address", Some(5432));
    if s.get("data_dir").is_none() {
        s.missing("data_dir", "add `data_dir: PATH`: where this node's data directory is, or is to be made");
    }
    let data_dir = s.path("data_dir");
    let config_dir = s.path("config_dir");
    let bin_dir = s.path("bin_dir");
    let pgpass = s.path("pgpass");
    let authentication = authentication(s.section("authentication"));
    let database = s.text("database").unwrap_or_else(|| "postgres".to_owned());
    let parameters = own_parameters(s.section("parameters"));
    let (pg_hba, pg_ident) = (hba_lines(s, "pg_hba"), s.texts("pg_ident"));
    let use_unix_socket = s.boolean("use_unix_socket").unwrap_or(false);
    let use_unix_socket_repl = s.boolean("use_unix_socket_repl").unwrap_or(false);
    let callbacks = callbacks(s.section("callbacks"));
    let create_replica_methods = replica_method_names(s);
    let replica_methods = replica_methods(s, &create_replica_methods);
    let basebackup = tool_options(s, "basebackup", &BASEBACKUP_REFUSED);
    let use_pg_rewind = s.boolean("use_pg_rewind");
    let on_failure = s.boolean("remove_data_directory_on_rewind_failure").unwrap_or(false);
    let on_divergence = s.boolean("remove_data_directory_on_diverged_timelines").unwrap_or(false);
    let recovery_conf = s.scalars("recovery_conf").unwrap_or_default();
    let pg_ctl_timeout = s.duration("pg_ctl_timeout", 0..=86_400_000).unwrap_or(Duration::from_secs(60));
    other_keys(s);
    section.close();
    let data_dir = data_dir?;
    Some(Postgresql {
        listen: listen?,
        connect_address: connect_address?,
        proxy_address,
        config_dir: config_dir.unwrap_or_else(|| data_dir.clone()),
        pgpass: pgpass.unwrap_or_else(|| default_pgpass(&data_dir, environment)),
        data_dir,
        bin_dir,
        authentication: authentication?,
        database,
        parameters,
        pg_hba,
        pg_ident,
        use_unix_socket,
        use_unix_socket_repl,
        callbacks,
        create_replica_methods,
        replica_methods,
        basebackup,
        use_pg_rewind,
        remove_data_directory_on_rewind_failure: on_failure,
        remove_data_directory_on_diverged_timelines: on_divergence,
        recovery_conf,
        pg_ctl_timeout,
    })
}

fn default_pgpass(data_dir: &Path, environment: &Environment) -> PathBuf {
    match environment.get("HOME").filter(|home| home.starts_with('/')) {
        Some(home) => PathBuf::from(home).join("pgpass"),
        None => beside(data_dir, "-pgpass"),
    }
}

fn other_keys(section: &mut Section<'_>) {
    for (key, now) in
        [("superuser", "superuser"), ("replication", "replication"), ("pg_rewind", "rewind"), ("name", "")]
    {
        if let Some(node) = section.get(key) {
            let cure = match now {
                "" => "move it to the top of the file".to_owned(),
                now => format!("move it to `postgresql.authentication.{now}`"),
            };
            let what = "is an old place for this key and has no effect";
            section.report.warning(&section.key(key), &node.place, what, cure);
        }
    }
    if let Some(node) = section.get("use_slots") {
        section.report.warning(
            &section.key("use_slots"),
            &node.place,
            "has no effect here: it is a setting of the whole cluster",
            "move it to `bootstrap.dcs.postgresql.use_slots`",
        );
    }
    without_effect_when_on(
        section,
        &["remove_data_directory_on_rewind_failure", "remove_data_directory_on_diverged_timelines"],
    );
    section.without_effect_yet(&[
        "proxy_address",
        "use_unix_socket_repl",
        "pg_ctl_timeout",
        "bin_name",
        "config_base_name",
        "custom_conf",
        "krbsrvname",
        "parameters_primary",
        "parameters_replica",
        "parameters_standby_leader",
        "pg_hba_primary",
        "pg_hba_replica",
        "pg_hba_standby_leader",
        "pg_ident_primary",
        "pg_ident_replica",
        "pg_ident_standby_leader",
        "pre_promote",
        "before_stop",
        "rewind",
    ]);
}

fn authentication(mut section: Section<'_>) -> Option<Authentication> {
    let superuser = credentials(section.section("superuser"), Some("postgres"));
    let replication = credentials(section.section("replication"), None);
    let rewind_section = section.section("rewind");
    let rewind = rewind_section.is_present().then(|| credentials(rewind_section, None));
    section.close();
    Some(Authentication {
        superuser: superuser?,
        replication: replication?,
        rewind: match rewind {
            Some(rewind) => Some(rewind?),
            None => None,
        },
    })
}

fn credentials(mut section: Section<'_>, default: Option<&str>) -> Option<Credentials> {
    let written = section.get("username").is_some();
    let username = section.text("username").or_else(|| default.map(str::to_owned));
    if !written && username.is_none() {
        section.missing("username", "add it: the role which pgherd creates and uses");
    }
    if username.as_deref() == Some("") {
        let place = section.value_place("username");
        section.report.error(&section.key("username"), &place, "is empty", "write the role's name");
    }
    let password = section.secret("password");
    let sslpassword = section.secret("sslpassword");
    let options =
        CONNECTION_OPTIONS.iter().filter_map(|key| Some(((*key).to_owned(), section.text(key)?))).collect();
    section.without_effect_yet(&["sslpassword"]);
    section.close();
    Some(Credentials { username: username?, password, options, sslpassword })
}

/// A node's own parameters: those which must be equal everywhere are dropped with a warning.
fn own_parameters(section: Section<'_>) -> Parameters {
    let report = section.report;
    let places: BTreeMap<String, (String, pgherd_raft::yaml::Place)> = section
        .entries()
        .iter()
        .map(|entry| (entry.key.to_lowercase(), (section.key(&shown_key(&entry.key)), entry.place.clone())))
        .collect();
    let mut parameters = parameters(section);
    parameters.retain(|name, _| {
        // `parameters` has reported the derived ones.
        if is_shared(name) && !DERIVED.contains(&name.as_str()) {
            if let Some((key, place)) = places.get(name) {
                report.warning(
                    key,
                    place,
                    "has no effect here: it must be equal on all nodes",
                    format!("move it to `bootstrap.dcs.postgresql.parameters.{name}`"),
                );
            }
            return false;
        }
        true
    });
    parameters
}

/// PostgreSQL's parameters as text, names in lower case.
pub(in super::super) fn parameters(section: Section<'_>) -> Parameters {
    let mut found = Parameters::new();
    for entry in section.entries() {
        let name = entry.key.to_lowercase();
        let key = section.key(&shown_key(&entry.key));
        let error = |what: &str, cure: &str| section.report.error(&key, &entry.value.place, what, cure);
        if !is_parameter_name(&name) {
            error("is no name of a parameter", "use letters, digits, underscores and one dot");
            continue;
        }
        if DERIVED.contains(&name.as_str()) {
            let cure = match name.as_str() {
                "cluster_name" => "remove it: it is the scope",
                _ => "remove it: it follows from `postgresql.listen`",
            };
            section.report.warning(&key, &entry.value.place, "has no effect", cure);
            continue;
        }
        if entry.value.value == Value::Null {
            continue;
        }
        // A block (`|`) of one line ends with a line break which nobody means.
        match entry.value.scalar_text().map(|text| text.trim_end_matches('\n').to_owned()) {
            Some(text) if text.contains(['\n', '\r', '\0']) => {
                error("has a line break, which postgresql.conf cannot hold", "write it in one line");
            }
            Some(text) => {
                found.insert(name, text);
            }
            None => {
                let what = format!("{} stands where one value is needed", entry.value.value.kind());
                error(&what, "write one text or number; several go into one text with commas");
            }
        }
    }
    found
}

fn is_parameter_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
    };
    name.len() <= 128 && name.split('.').count() <= 2 && name.split('.').all(is_part)
}

/// Lines of pg_hba.conf. A line which PostgreSQL cannot read keeps it from starting: found here, it is a message
/// with a place.
pub(in super::super) fn hba_lines(section: &mut Section<'_>, key: &str) -> Option<Vec<String>> {
    let nodes = section.list(key)?;
    let path = section.key(key);
    let mut lines = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(line) = scalar(section.report, &path, node, Shown::Yes) else { continue };
        for line in line.lines() {
            let word = line.split_whitespace().next().unwrap_or("#");
            let word = word.split('"').collect::<String>();
            if !word.starts_with('#') && !HBA_WORDS.contains(&word.to_lowercase().as_str()) {
                let what = format!("{:?} cannot begin a line of pg_hba.conf", shown_key(&word));
                let cure = "begin it with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc";
                section.report.error(&path, &node.place, what, cure);
            }
            lines.push(line.to_owned());
        }
    }
    Some(lines)
}

fn callbacks(mut section: Section<'_>) -> Callbacks {
    let callbacks = Callbacks {
        on_start: section.text("on_start"),
        on_stop: section.text("on_stop"),
        on_restart: section.text("on_restart"),
        on_reload: section.text("on_reload"),
        on_role_change: section.text("on_role_change"),
    };
    section.without_effect_yet(&["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"]);
    section.close();
    callbacks
}

fn replica_method_names(section: &mut Section<'_>) -> Vec<String> {
    let old = section.texts("create_replica_method");
    let names = section.texts("create_replica_methods").or(old).unwrap_or_default();
    if names.is_empty() { vec!["basebackup".to_owned()] } else { names }
}

fn replica_methods(section: &mut Section<'_>, names: &[String]) -> BTreeMap<String, ReplicaMethod> {
    let mut methods = BTreeMap::new();
    for name in names.iter().filter(|name| *name != "basebackup") {
        let mut method = section.section(name);
        section.report.warning(
            &method.path,
            &method.place,
            "has no effect yet: replicas are made by pg_basebackup",
            "nothing to do: it is accepted",
        );
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
