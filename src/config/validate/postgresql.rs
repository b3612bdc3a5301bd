//! The section `postgresql`, and what it shares with the cluster's settings of the same name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgherd_raft::config::{Section, shown_key};
use pgherd_raft::yaml::Value;

use super::super::parameters::{DERIVED, Parameters, is_shared};
use super::super::types::{Postgresql, SharedPostgresql};
use super::commands::{basebackup_options, callbacks, replica_method_names, replica_methods};
use super::hba::hba_lines;
use super::roles::authentication;
use super::{beside, connect_address};

/// A day: nobody waits longer for a start.
const LONGEST_START_MS: i64 = 86_400_000;

/// The programs which may have other names.
const PROGRAMS: [&str; 7] =
    ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];

pub(super) fn postgresql(mut section: Section<'_>, home: Option<&str>) -> Option<Postgresql> {
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
    let pgpass = s.path("pgpass");
    let authentication = authentication(s);
    let parameters = own_parameters(s.section("parameters"));
    let shared = shared_with_cluster(s);
    other_keys(s);
    section.close();
    let data_dir = data_dir?;
    Some(Postgresql {
        listen: listen?,
        connect_address: connect_address?,
        proxy_address,
        config_dir: config_dir.unwrap_or_else(|| data_dir.clone()),
        pgpass: pgpass.unwrap_or_else(|| default_pgpass(&data_dir, home)),
        data_dir,
        authentication: authentication?,
        parameters,
        shared,
    })
}

/// The keys which the cluster's settings may hold as well as a node's own file.
pub(in super::super) fn shared_with_cluster(s: &mut Section<'_>) -> SharedPostgresql {
    let create_replica_methods = replica_method_names(s);
    for key in ["remove_data_directory_on_rewind_failure", "remove_data_directory_on_diverged_timelines"] {
        let why = "has no effect: what cannot be rewound is copied anew, and the old data are kept until the copy streams";
        warn_when(s, key, false, why);
    }
    let why = "has no effect: pgherd makes no replication connection to its own node's PostgreSQL";
    warn_when(s, "use_unix_socket_repl", true, why);
    // Read for its mistakes.
    s.duration("pg_ctl_timeout", 0..=LONGEST_START_MS);
    s.meaningless(
        &["pg_ctl_timeout"],
        "has no meaning in pgherd: a standby's start may take as long as it needs, a primary's `primary_start_timeout`",
    );
    s.without_effect_yet(&[
        "parameters_primary",
        "parameters_replica",
        "parameters_standby_leader",
        "pg_hba_primary",
        "pg_hba_replica",
        "pg_hba_standby_leader",
        "pg_ident_primary",
        "pg_ident_replica",
        "pg_ident_standby_leader",
        "rewind",
    ]);
    SharedPostgresql {
        bin_dir: s.path("bin_dir"),
        bin_names: bin_names(s.section("bin_name")),
        database: s.text("database").unwrap_or_else(|| "postgres".to_owned()),
        config_base_name: config_base_name(s),
        custom_conf: s.path("custom_conf"),
        krbsrvname: s.text("krbsrvname"),
        pg_hba: hba_lines(s, "pg_hba"),
        pg_ident: s.texts("pg_ident"),
        use_unix_socket: s.boolean("use_unix_socket").unwrap_or(false),
        callbacks: callbacks(s.section("callbacks")),
        replica_methods: replica_methods(s, &create_replica_methods),
        create_replica_methods,
        basebackup: basebackup_options(s),
        use_pg_rewind: s.boolean("use_pg_rewind").unwrap_or(true),
        recovery_conf: s.scalars("recovery_conf").unwrap_or_default(),
        pre_promote: s.text("pre_promote"),
        before_stop: s.text("before_stop"),
    }
}

/// Other names of PostgreSQL's programs.
fn bin_names(mut section: Section<'_>) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for program in PROGRAMS {
        let Some(name) = section.text(program) else { continue };
        if name.is_empty() || name.contains('/') {
            let (key, place) = (section.key(program), section.value_place(program));
            let cure = "write a name without a directory; the directory is `bin_dir`";
            section.report.error(&key, &place, "is no name of a program", cure);
            continue;
        }
        names.insert(program.to_owned(), name);
    }
    section.close();
    names
}

fn config_base_name(section: &mut Section<'_>) -> String {
    let default = "postgresql".to_owned();
    let Some(name) = section.text("config_base_name") else { return default };
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if is_name && !name.starts_with('.') {
        return name;
    }
    let (key, place) = (section.key("config_base_name"), section.value_place("config_base_name"));
    section.report.error(&key, &place, "is no name of a file", "use letters, digits, - and _");
    default
}

fn default_pgpass(data_dir: &Path, home: Option<&str>) -> PathBuf {
    match home.filter(|home| home.starts_with('/')) {
        Some(home) => PathBuf::from(home).join("pgpass"),
        None => beside(data_dir, "-pgpass"),
    }
}

fn other_keys(section: &mut Section<'_>) {
    // The top of the file looks for it.
    section.get("name");
    if let Some(node) = section.get("use_slots") {
        section.report.warning(
            &section.key("use_slots"),
            &node.place,
            "has no effect here: it is a setting of the whole cluster",
            "move it to `bootstrap.dcs.postgresql.use_slots`",
        );
    }
}

/// A boolean which only one of its values is true of, whatever is written.
fn warn_when(section: &mut Section<'_>, key: &str, wrong: bool, why: &str) {
    if section.boolean(key) == Some(wrong) {
        section.report.warning(&section.key(key), &section.key_place(key), why, "remove it");
    }
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
