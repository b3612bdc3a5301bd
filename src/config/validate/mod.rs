//! From the tree to a [`Config`]: a function per section, none of which stops at the first mistake.

mod bootstrap;
mod commands;
mod hba;
pub(super) mod postgresql;
mod restapi;
mod roles;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd_raft::config::{
    Environment, Report, Section, Unit, not_a, read_boolean, read_log, read_raft, shown_key,
};
use pgherd_raft::model::{MemberName, TagValue, Tags};
use pgherd_raft::yaml::{Node, Value};

use restapi::{connect_address, ctl, restapi};

use super::effective::OwnSection;
use super::types::{Config, Ctl, Fencing, Watchdog, WatchdogMode};
use crate::ha::NOBODY;

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
    let name = name(&mut top);
    let namespace = top.text("namespace").unwrap_or_else(|| "service".to_owned());
    let restapi = restapi(top.section("restapi"));
    let ctl = ctl(top.section("ctl"));
    let home = environment.get("HOME").map(String::as_str);
    let own = OwnSection::new(top.get("postgresql"));
    let postgresql = postgresql::postgresql(top.section("postgresql"), home);
    let bootstrap = bootstrap::bootstrap(top.section("bootstrap"));
    let store = postgresql.as_ref().map(|postgresql| beside(&postgresql.data_dir, "-raft"));
    let raft = read_raft(top.section("raft"), store);
    let tags = tags(&mut top);
    let log = read_log(top.section("log"));
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
        own,
        raft: raft?,
        tags,
        log,
        watchdog,
        fencing,
    })
}

/// The member's name; once it stood below `postgresql`.
fn name(top: &mut Section<'_>) -> Option<MemberName> {
    let mut old = top.section("postgresql");
    if top.get("name").is_none() && old.get("name").is_some() {
        let cure = "move it to the top of the file";
        top.report.warning("postgresql.name", &old.key_place("name"), "stands where it once was", cure);
        return old.member_name("name");
    }
    let name = top.member_name("name")?;
    if name.as_str() == NOBODY {
        let (key, place) = (top.key("name"), top.value_place("name"));
        top.report.error(
            &key,
            &place,
            "stands for nobody in synchronous_standby_names",
            "choose another name",
        );
    }
    Some(name)
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
    without_effect_yet(&section, &tags);
    conflicting(&section, &tags, "nofailover", "failover_priority");
    conflicting(&section, &tags, "nosync", "sync_priority");
    tags
}

/// Tags of Patroni's which say where a standby gets its data and WAL from.
fn without_effect_yet(section: &Section<'_>, tags: &Tags) {
    let says = |name: &str| match name {
        "replicatefrom" => tags.text(name).is_some_and(|from| !from.is_empty()),
        _ => tags.flag(name),
    };
    for name in ["clonefrom", "replicatefrom", "nostream"] {
        if says(name) {
            let cure = "it is shown to everybody, but every standby is copied from and follows the primary";
            section.report.warning(&section.key(name), &section.key_place(name), "has no effect yet", cure);
        }
    }
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

/// Settings of the whole cluster, as they are mistaken for a node's.
const SHARED_SETTINGS: [&str; 25] = [
    "ttl",
    "loop_wait",
    "retry_timeout",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "max_timelines_history",
    "primary_start_timeout",
    "master_start_timeout",
    "primary_stop_timeout",
    "master_stop_timeout",
    "primary_health_timeout",
    "primary_race_backoff",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "fast_failover",
    "failsafe_mode",
    "check_timeline",
    "member_slots_ttl",
    "slots",
    "permanent_slots",
    "permanent_replication_slots",
    "ignore_slots",
    "pause",
    "standby_cluster",
];

fn other_keys(top: &mut Section<'_>) {
    for store in OTHER_STORES {
        if top.get(store).is_some() {
            let cure =
                "remove it when the cluster has moved: pgherd keeps the cluster's state itself (see `raft`)";
            top.report.warning(store, &top.key_place(store), "is not needed and not used", cure);
        }
    }
    let shared = "has no effect here: it is a setting of the whole cluster";
    for key in SHARED_SETTINGS {
        if top.get(key).is_some() {
            top.report.warning(key, &top.key_place(key), shared, format!("move it to `bootstrap.dcs.{key}`"));
        }
    }
    top.meaningless(&["thread_pool_size", "thread_stack_size", "citus"], "has no meaning in pgherd");
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
