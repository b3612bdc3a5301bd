//! The section `bootstrap`: how a new cluster begins.

use pgherd_raft::config::{Section, Shown, scalar, shown_key};
use pgherd_raft::yaml::Value;

use super::super::dynamic::{self, Dynamic};
use super::super::types::{Bootstrap, BootstrapMethod, BootstrapUser};
use super::commands::tool_options;
use super::hba::hba_lines;

/// Options of initdb which pgherd sets itself or which would make the data directory unsafe.
const INITDB_REFUSED: [&str; 5] = ["pgdata", "nosync", "pwfile", "sync-only", "version"];

/// Options of CREATE ROLE which a user may get.
const ROLE_OPTIONS: [&str; 14] = [
    "SUPERUSER",
    "NOSUPERUSER",
    "CREATEDB",
    "NOCREATEDB",
    "CREATEROLE",
    "NOCREATEROLE",
    "INHERIT",
    "NOINHERIT",
    "LOGIN",
    "NOLOGIN",
    "REPLICATION",
    "NOREPLICATION",
    "BYPASSRLS",
    "NOBYPASSRLS",
];

/// None when it cannot be read; `Some(None)` when there is no such section: this node never begins a cluster.
pub(super) fn bootstrap(mut section: Section<'_>) -> Option<Option<Bootstrap>> {
    if !section.is_present() {
        return Some(None);
    }
    let dcs = section.get("dcs");
    let settings = match dcs {
        Some(node) => dynamic::read(node, &section.key("dcs"), section.report),
        None => Dynamic::default(),
    };
    let dcs = dcs.map_or_else(|| serde_json::json!({}), pgherd_raft::yaml::Node::to_json);
    let method = method(&mut section);
    let initdb = tool_options(&mut section, "initdb", &INITDB_REFUSED);
    let pg_hba = hba_lines(&mut section, "pg_hba").unwrap_or_default();
    let users = users(section.section("users"));
    let old_name = section.text("post_init");
    let post_bootstrap = section.text("post_bootstrap").or(old_name);
    section.close();
    Some(Some(Bootstrap { dcs, settings, method: method?, initdb, pg_hba, users, post_bootstrap }))
}

/// Patroni falls back to initdb when the method's section or its command is missing; that makes an empty cluster
/// where a restored one was wanted, so it is a mistake here.
fn method(section: &mut Section<'_>) -> Option<BootstrapMethod> {
    let name = match section.get("method") {
        None => return Some(BootstrapMethod::Initdb),
        Some(_) => section.text("method")?,
    };
    if name == "initdb" {
        return Some(BootstrapMethod::Initdb);
    }
    let place = section.value_place("method");
    let mut method = section.section(&name);
    let Some(command) = method.text("command") else {
        section.report.error(
            &section.key("method"),
            &place,
            format!("there is no `command` for the method {:?}", shown_key(&name)),
            format!("add `bootstrap.{}.command`, or remove `method`", shown_key(&name)),
        );
        return None;
    };
    section.report.warning(
        &section.key("method"),
        &place,
        "has no effect yet: this node makes no new cluster",
        "remove it to let initdb make the cluster, or fill the data directory; an existing cluster is not concerned",
    );
    let arguments =
        method.free_scalars(&["command", "no_params", "keep_existing_recovery_conf", "recovery_conf"]);
    let recovery_conf = method.scalars("recovery_conf").unwrap_or_default();
    let no_params = method.boolean("no_params").unwrap_or(false);
    let keep_existing_recovery_conf = method.boolean("keep_existing_recovery_conf").unwrap_or(false);
    Some(BootstrapMethod::Custom {
        name,
        command,
        no_params,
        keep_existing_recovery_conf,
        recovery_conf,
        arguments,
    })
}

fn users(section: Section<'_>) -> Vec<BootstrapUser> {
    let mut users = Vec::new();
    for entry in section.entries() {
        let path = section.key(&shown_key(&entry.key));
        let mut user = Section::top(&entry.value, &path, section.report);
        let password = user.secret("password");
        let options = role_options(&mut user);
        user.close();
        users.push(BootstrapUser { name: entry.key.clone(), password, options });
    }
    users
}

fn role_options(user: &mut Section<'_>) -> Vec<String> {
    let path = user.key("options");
    let Some(nodes) = user.list("options") else { return Vec::new() };
    let mut options = Vec::new();
    for node in nodes {
        let Some(text) = scalar(user.report, &path, node, Shown::Yes) else { continue };
        let option = text.trim().to_uppercase();
        let is_limit = option
            .strip_prefix("CONNECTION LIMIT ")
            .is_some_and(|number| number.trim().parse::<i32>().is_ok_and(|number| number >= -1));
        if ROLE_OPTIONS.contains(&option.as_str()) || is_limit {
            options.push(option);
        } else if matches!(node.value, Value::Text(_)) {
            let what = format!("{:?} is no option of a role", shown_key(&text));
            let cure = "use createdb, createrole, superuser, login, replication, bypassrls, their NO forms, or \
                        CONNECTION LIMIT n";
            user.report.error(&path, &node.place, what, cure);
        }
    }
    options
}
