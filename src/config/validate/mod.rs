//! From the tree to a [`Config`]: a function per section, none of which stops at the first mistake.

mod bootstrap;
pub(super) mod postgresql;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd_raft::address::{HostPort, ListenAddress};
use pgherd_raft::config::{Environment, Report, Section, Unit, not_a, read_boolean, read_raft, shown_key};
use pgherd_raft::model::{TagValue, Tags};
use pgherd_raft::yaml::{Node, Value};

use super::types::{
    BasicAuthentication, Config, Ctl, Fencing, Log, RestApi, TlsFiles, Watchdog, WatchdogMode,
};

/// Stores of Patroni which have no part in a cluster that brings its own.
const OTHER_STORES: [&str; 6] = ["etcd", "etcd3", "consul", "zookeeper", "exhibitor", "kubernetes"];

/// A power switch takes seconds.
const FENCING_TIMEOUT: Duration = Duration::from_secs(20);
/// The shortest and the longest `fencing.timeout`, in milliseconds.
const FENCING_TIMEOUT_MS: RangeInclusive<i64> = 1_000..=600_000;

/// Reads everything; none when something that cannot be done without is missing or wrong (then it is reported).
pub(super) fn config(root: &Node, environment: &Environment, report: &Report) -> Option<Config> {
    let mut top = Section::top(root, "", report);
    if !top.is_present() {
        if root.value == Value::Null {
            report.error(
                "",
                &root.place,
                "the configuration is empty",
                "write at least scope, name, postgresql and raft",
            );
        }
        return None;
    }
    // Every section is read before the first `?`: all mistakes are reported at once.
    let scope = top.scope("scope");
    let name = top.member_name("name");
    let namespace = top.text("namespace").unwrap_or_else(|| "service".to_owned());
    let restapi = restapi(top.section("restapi"));
    let ctl = ctl(top.section("ctl"));
    let postgresql = postgresql::postgresql(top.section("postgresql"), environment);
    let bootstrap = bootstrap::bootstrap(top.section("bootstrap"));
    let store = postgresql.as_ref().map(|postgresql| beside(&postgresql.data_dir, "-raft"));
    let raft = read_raft(top.section("raft"), store);
    let tags = tags(&mut top);
    let log = log(top.section("log"));
    let watchdog = watchdog(top.section("watchdog"));
    let fencing = fencing(top.section("fencing"));
    other_keys(&mut top);
    top.close();
    let restapi = restapi?;
    let ctl = Ctl { authentication: ctl.authentication.or_else(|| restapi.authentication.clone()), ..ctl };
    Some(Config {
        scope: scope?,
        namespace,
        name: name?,
        restapi,
        ctl,
        bootstrap: bootstrap?,
        postgresql: postgresql?,
        raft: raft?,
        tags,
        log,
        watchdog,
        fencing,
    })
}

fn restapi(mut section: Section<'_>) -> Option<RestApi> {
    let listen = match section.get("listen") {
        Some(_) => section.listen_at_one("listen"),
        None => Some(ListenAddress { hosts: vec!["127.0.0.1".to_owned()], port: 8008 }),
    };
    let connect_address = connect_address(&mut section, listen.as_ref(), None);
    let authentication = basic_authentication(section.section("authentication"));
    let tls = tls_files(&mut section, "cafile");
    section.without_effect_yet(&[
        "allowlist",
        "allowlist_include_members",
        "certfile",
        "keyfile",
        "keyfile_password",
        "cafile",
        "ciphers",
        "verify_client",
        "http_extra_headers",
        "https_extra_headers",
        "server_tokens",
    ]);
    section.meaningless(&["thread_pool_size", "request_queue_size"], "has no meaning in pgherd");
    section.close();
    Some(RestApi { listen: listen?, connect_address: connect_address?, authentication, tls })
}

/// What the others are told; the listen address when nothing else is said and it is one that can be told.
fn connect_address(
    section: &mut Section<'_>,
    listen: Option<&ListenAddress>,
    default_port: Option<u16>,
) -> Option<HostPort> {
    if section.get("connect_address").is_some() {
        return section.address("connect_address", default_port);
    }
    let listen = listen?;
    match listen.hosts.first() {
        Some(host) if !listen.is_wildcard() => Some(HostPort { host: host.clone(), port: listen.port }),
        Some(_) | None => {
            let cure = format!(
                "add `connect_address: HOST:{}`: `listen` is a wildcard, and others need an address to reach",
                listen.port
            );
            section.missing("connect_address", &cure);
            None
        }
    }
}

fn basic_authentication(mut section: Section<'_>) -> Option<BasicAuthentication> {
    let username = section.text("username");
    let password = section.secret("password");
    let authentication = match (username, password) {
        (Some(username), Some(password)) => Some(BasicAuthentication { username, password }),
        (None, None) => None,
        (Some(_), None) => {
            section.missing("password", "add it: both are needed, or the API would be open to everybody");
            None
        }
        (None, Some(_)) => {
            section.missing("username", "add it: both are needed, or the API would be open to everybody");
            None
        }
    };
    section.close();
    authentication
}

fn tls_files(section: &mut Section<'_>, ca_key: &str) -> TlsFiles {
    TlsFiles {
        certfile: section.path("certfile"),
        keyfile: section.path("keyfile"),
        keyfile_password: section.secret("keyfile_password"),
        cafile: section.path(ca_key),
        verify_client: section.text("verify_client"),
    }
}

fn ctl(mut section: Section<'_>) -> Ctl {
    let authentication = basic_authentication(section.section("authentication"));
    let insecure = section.boolean("insecure").unwrap_or(false);
    let tls = tls_files(&mut section, "cacert");
    // The operator's tool reads this one.
    section.texts("restapi_addrs");
    // The operator's tool reads this one itself.
    section.get("restapi_addrs");
    section.without_effect_yet(&["cacert", "certfile", "keyfile", "keyfile_password"]);
    section.close();
    Ctl { authentication, insecure, tls }
}

fn tags(top: &mut Section<'_>) -> Tags {
    let section = top.section("tags");
    let mut tags = Vec::new();
    for entry in section.entries() {
        let value = match &entry.value.value {
            Value::Null => continue,
            Value::Bool(value) => TagValue::Bool(*value),
            Value::Integer(number) => TagValue::Integer(*number),
            Value::Float(number) if number.is_finite() => TagValue::Float(*number),
            Value::Float(_) => TagValue::Text(entry.value.source.clone()),
            Value::Text(text) => TagValue::Text(text.clone()),
            other @ (Value::List(_) | Value::Map(_)) => {
                let key = section.key(&shown_key(&entry.key));
                let what = format!("{} stands where one value is needed", other.kind());
                section.report.error(&key, &entry.value.place, what, "write a boolean, a number or a text");
                continue;
            }
        };
        tags.push((entry.key.clone(), value));
    }
    let tags = Tags(tags);
    conflicting(&section, &tags, "nofailover", "failover_priority");
    conflicting(&section, &tags, "nosync", "sync_priority");
    tags
}

/// A boolean tag and its numeric twin which say the opposite: the boolean one wins. The sentence is Patroni's.
fn conflicting(section: &Section<'_>, tags: &Tags, flag: &str, priority: &str) {
    let (Some(value), Some(number)) = (tags.get(flag), tags.number(priority)) else { return };
    let refuses = tags.flag(flag);
    if refuses != (number > 0) {
        return;
    }
    let value = match value {
        TagValue::Bool(_) => if refuses { "True" } else { "False" }.to_owned(),
        TagValue::Integer(number) => number.to_string(),
        TagValue::Float(number) => format!("{number:?}"),
        TagValue::Text(text) => text.clone(),
    };
    section.report.warning(
        "tags",
        &section.place,
        format!(
            "Conflicting configuration between {flag}: {value} and {priority}: {number}. Defaulting to {flag}: {value}"
        ),
        "keep one of the two",
    );
}

fn log(mut section: Section<'_>) -> Log {
    let level = section.log_level("level").unwrap_or_default();
    section.without_effect_yet(&[
        "type",
        "format",
        "dateformat",
        "dir",
        "mode",
        "file_num",
        "file_size",
        "loggers",
        "static_fields",
        "deduplicate_heartbeat_logs",
    ]);
    section.meaningless(&["traceback_level", "max_queue_size"], "has no meaning in pgherd");
    section.close();
    Log { level }
}

fn watchdog(mut section: Section<'_>) -> Watchdog {
    let mut mode = WatchdogMode::Automatic;
    if let Some(node) = section.get("mode") {
        let text = node.scalar_text().unwrap_or_default().to_lowercase();
        match text.as_str() {
            // YAML reads a bare `off` as a boolean, whose text is "off" again.
            "off" | "disable" | "disabled" | "false" => mode = WatchdogMode::Off,
            "automatic" | "auto" => mode = WatchdogMode::Automatic,
            "required" | "require" => mode = WatchdogMode::Required,
            _ => {
                let cure = "write off, automatic or required";
                section.report.error(&section.key("mode"), &node.place, not_a("a mode", node), cure);
            }
        }
    }
    let device = section.path("device").unwrap_or_else(|| PathBuf::from("/dev/watchdog"));
    let safety_margin_seconds = section.integer("safety_margin", Unit::None, -1..=3600).unwrap_or(5);
    let is_testing = match section.text("driver").as_deref() {
        Some("testing") => true,
        None | Some("default") => false,
        Some(other) => {
            let (key, place) = (section.key("driver"), section.value_place("driver"));
            section.report.error(&key, &place, format!("{other:?} is no driver"), "write default or testing");
            false
        }
    };
    section.close();
    Watchdog { mode, device, is_testing, safety_margin_seconds }
}

fn fencing(mut section: Section<'_>) -> Option<Fencing> {
    let command = section.text("command");
    let timeout = section.duration("timeout", FENCING_TIMEOUT_MS).unwrap_or(FENCING_TIMEOUT);
    if section.is_present() && command.as_ref().is_none_or(|command| command.trim().is_empty()) {
        section.missing(
            "command",
            "add it, or remove `fencing`: a program which cuts a silent primary off and returns 0",
        );
        section.close();
        return None;
    }
    section.close();
    Some(Fencing { command: command?, timeout })
}

fn other_keys(top: &mut Section<'_>) {
    for store in OTHER_STORES {
        if top.get(store).is_some() {
            let cure =
                "remove it when the cluster has moved: pgherd keeps the cluster's state itself (see `raft`)";
            top.report.warning(store, &top.key_place(store), "is not needed and not used", cure);
        }
    }
    let shared = "has no effect here: it is a setting of the whole cluster";
    for key in [
        "ttl",
        "loop_wait",
        "retry_timeout",
        "maximum_lag_on_failover",
        "standby_cluster",
        "synchronous_mode",
    ] {
        if top.get(key).is_some() {
            top.report.warning(key, &top.key_place(key), shared, format!("move it to `bootstrap.dcs.{key}`"));
        }
    }
    top.without_effect_yet(&["citus"]);
    top.meaningless(&["thread_pool_size", "thread_stack_size"], "has no meaning in pgherd");
}

/// Keys which change nothing yet and are not worth a word while they are off.
pub(super) fn without_effect_when_on(section: &mut Section<'_>, keys: &[&str]) {
    for key in keys {
        if section.get(key).is_some_and(|node| read_boolean(node) != Some(false)) {
            section.without_effect_yet(&[key]);
        }
    }
}

/// `<path>-<suffix>`: a neighbour of a directory.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
