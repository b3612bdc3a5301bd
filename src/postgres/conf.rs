//! Renders PostgreSQL's configuration: the file, the recovery settings in it, and the arguments of the postmaster (pure).
//!
//! As Patroni does it: what `initdb` or the operator wrote is kept as `postgresql.base.conf` and included first; the
//! parameters which must be the same on all nodes are arguments, so that neither a file nor `ALTER SYSTEM` changes them.

use std::collections::BTreeMap;

use pgherd_raft::model::PostgresAddr;

use super::control_data::LeastSettings;
use super::quote::{conf_value, conninfo, parse_conf_value, parse_conninfo};
use super::settings::{Credentials, Settings};
use super::sync_names;
use crate::ha::{SyncNames, Upstream};

/// The first line of a file which pgherd wrote.
pub(super) const HEADER: &str = "# Written by pgherd: changes made here are lost.";
/// The comment that names the member behind `primary_conninfo`.
const UPSTREAM: &str = "# upstream member = ";

/// The comment before a `synchronous_standby_names` which the group agreed on.
const AGREED: &str = "# agreed on by the group";
const SYNC_NAMES: &str = "synchronous_standby_names";

/// How long a standby waits for the connection to its upstream.
const CONNECT_TIMEOUT: &str = "3";
/// With these a vanished upstream is noticed within about five seconds also by the kernel.
const KEEPALIVES: [(&str, &str); 5] = [
    ("keepalives", "1"),
    ("keepalives_idle", "2"),
    ("keepalives_interval", "1"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "5000"),
];

/// Parameters in the file unless the configuration says otherwise, and why.
const DEFAULTS: [(&str, &str); 4] = [
    // What a standby without a slot can catch up with; also for pg_rewind.
    ("wal_keep_size", "128MB"),
    // A standby notices a silent primary about as fast as the cluster does, not after a minute.
    ("wal_receiver_timeout", "5s"),
    // A fast shutdown waits this long for a standby which is gone.
    ("wal_sender_timeout", "10s"),
    // Reconnecting after a change of the primary waits this long at most.
    ("wal_retrieve_retry_interval", "1s"),
];

/// A parameter given as an argument: its name, its default, the least value where one is needed.
type Owned = (&'static str, &'static str, Option<u64>);

const OWNED: [Owned; 10] = [
    ("wal_level", "replica", None),
    ("hot_standby", "on", None),
    ("max_connections", "100", Some(25)),
    ("max_wal_senders", "10", Some(3)),
    ("max_prepared_transactions", "0", Some(0)),
    ("max_locks_per_transaction", "64", Some(32)),
    ("track_commit_timestamp", "off", None),
    ("max_replication_slots", "10", Some(4)),
    ("max_worker_processes", "8", Some(2)),
    ("wal_log_hints", "on", None),
];

/// Parameters which come from elsewhere in the configuration, or which only pgherd may set.
const TAKEN: [&str; 10] = [
    "listen_addresses",
    "port",
    "cluster_name",
    "config_file",
    "data_directory",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_target_timeline",
    "recovery_target",
];

/// What the server is to be when it runs with this configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Standby(Option<Upstream>),
}

/// May this stand in the file? Names of PostgreSQL and of its extensions, and none which pgherd owns.
pub(super) fn is_allowed(name: &str) -> bool {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.'));
    let is_owned = OWNED.iter().any(|(owned, ..)| name.eq_ignore_ascii_case(owned));
    is_name && !is_owned && !is_taken(name)
}

fn is_taken(name: &str) -> bool {
    TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken))
        || name.to_ascii_lowercase().starts_with("recovery_target")
}

/// The content of `postgresql.conf`.
pub(super) fn render(
    settings: &Settings,
    role: &Role,
    sync: &SyncNames,
    socket_fallback: Option<&str>,
) -> String {
    let mut parameters: BTreeMap<String, String> =
        DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if let Some(directory) = socket_fallback {
        parameters.insert("unix_socket_directories".to_owned(), directory.to_owned());
    }
    let file = |name: &str| settings.config_dir.join(name).display().to_string();
    parameters.insert("hba_file".to_owned(), file("pg_hba.conf"));
    parameters.insert("ident_file".to_owned(), file("pg_ident.conf"));
    let given = settings.parameters.iter().chain(&settings.recovery_parameters);
    parameters.extend(
        given
            .filter(|(name, _)| is_allowed(name))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone())),
    );
    // Also for a server which is run without our arguments: pg_rewind's own recovery.
    let none = LeastSettings::default();
    parameters.extend(OWNED.iter().map(|owned| (owned.0.to_owned(), owned_value(settings, owned, &none))));
    let base = match &settings.custom_conf {
        Some(custom) => custom.display().to_string(),
        None => format!("{}.base.conf", settings.config_base_name),
    };
    let mut text = format!("{HEADER}\ninclude {}\n\n", conf_value(&base));
    for (name, value) in &parameters {
        text.push_str(&format!("{name} = {}\n", conf_value(value)));
    }
    if let Some(names) = sync_names::render(sync) {
        text.push_str(&format!("\n{AGREED}\n{SYNC_NAMES} = {}\n", conf_value(&names)));
    }
    if let Role::Standby(upstream) = role {
        text.push_str(&render_recovery(settings, upstream.as_ref()));
    }
    text
}

fn render_recovery(settings: &Settings, upstream: Option<&Upstream>) -> String {
    let mut text = "\n# recovery\n".to_owned();
    if let Some(upstream) = upstream {
        text.push_str(&format!("{UPSTREAM}{}\n", conf_value(&upstream.name)));
    }
    let conninfo = upstream.map(|upstream| primary_conninfo(settings, &upstream.addr)).unwrap_or_default();
    let slot = upstream.and(settings.slot_name.as_deref()).unwrap_or_default();
    for (name, value) in [
        ("primary_conninfo", conninfo.as_str()),
        ("primary_slot_name", slot),
        ("recovery_target", ""),
        ("recovery_target_lsn", ""),
        ("recovery_target_name", ""),
        ("recovery_target_time", ""),
        ("recovery_target_timeline", "latest"),
        ("recovery_target_xid", ""),
    ] {
        text.push_str(&format!("{name} = {}\n", conf_value(value)));
    }
    text
}

/// The connection string of a standby to its upstream; the password is in the password file.
fn primary_conninfo(settings: &Settings, addr: &PostgresAddr) -> String {
    let port = addr.port.to_string();
    let passfile = settings.pgpass.display().to_string();
    let mut pairs = vec![
        ("host", addr.host.as_str()),
        ("port", port.as_str()),
        ("user", settings.replication.username.as_str()),
        ("application_name", settings.member.as_str()),
        ("connect_timeout", CONNECT_TIMEOUT),
    ];
    if settings.replication.password.is_some() {
        pairs.push(("passfile", passfile.as_str()));
    }
    pairs.extend(settings.krbsrvname.as_deref().map(|name| ("krbsrvname", name)));
    pairs.extend(KEEPALIVES);
    pairs.extend(options_of(&settings.replication));
    // Nothing but the connection string itself can hold it for a standby; its file is private.
    pairs.extend(settings.replication.sslpassword.iter().map(|word| ("sslpassword", word.expose())));
    conninfo(pairs)
}

/// Where programs find what must not be an argument: the section of the file that `PGSERVICEFILE` names.
pub(super) const TOOL_SERVICE: &str = "pgherd";

/// A connection string for one of PostgreSQL's programs.
pub(super) fn program_conninfo(
    credentials: &Credentials,
    addr: &PostgresAddr,
    database: Option<&str>,
) -> String {
    let port = addr.port.to_string();
    let mut pairs = vec![
        ("host", addr.host.as_str()),
        ("port", port.as_str()),
        ("user", credentials.username.as_str()),
        ("connect_timeout", CONNECT_TIMEOUT),
    ];
    pairs.extend(database.map(|name| ("dbname", name)));
    pairs.extend(credentials.sslpassword.as_ref().map(|_| ("service", TOOL_SERVICE)));
    pairs.extend(KEEPALIVES);
    pairs.extend(options_of(credentials));
    conninfo(pairs)
}

fn options_of(credentials: &Credentials) -> impl Iterator<Item = (&str, &str)> {
    let has_mode = credentials.options.contains_key("sslmode");
    let mode = (!has_mode).then_some(("sslmode", "prefer"));
    mode.into_iter().chain(credentials.options.iter().map(|(k, v)| (k.as_str(), v.as_str())))
}

/// Whom a rendered `postgresql.conf` follows.
pub(super) fn parse_upstream(conf: &str) -> Option<Upstream> {
    let value = |prefix: &str| conf.lines().rev().find_map(|line| line.strip_prefix(prefix));
    let pairs = parse_conninfo(&parse_conf_value(value("primary_conninfo = ")?)?)?;
    let get = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let addr = PostgresAddr { host: get("host")?, port: get("port")?.parse().ok()? };
    let name = value(UPSTREAM).and_then(parse_conf_value).unwrap_or_else(|| addr.to_string());
    Some(Upstream { name, addr })
}

/// Which synchronous standbys a rendered `postgresql.conf` names.
pub(super) fn parse_sync(conf: &str) -> SyncNames {
    let mut lines = conf.lines().skip_while(|line| *line != AGREED).skip(1);
    let value = lines.next().and_then(|line| line.strip_prefix(SYNC_NAMES)?.strip_prefix(" = "));
    value.and_then(parse_conf_value).and_then(|value| sync_names::parse(&value)).unwrap_or(SyncNames::Own)
}

/// The `primary_conninfo` in a rendered `postgresql.conf`.
pub(super) fn parse_primary_conninfo(conf: &str) -> Option<String> {
    conf.lines().rev().find_map(|line| line.strip_prefix("primary_conninfo = ")).and_then(parse_conf_value)
}

/// `postgresql.auto.conf` without what would win over the file which pgherd writes: the recovery parameters, and the
/// synchronous standbys once they are agreed on.
pub(super) fn without_owned_parameters(auto_conf: &str, sync: &SyncNames) -> String {
    let is_recovery = |line: &&str| {
        let name = line.split(['=', ' ']).next().unwrap_or_default().trim();
        let is_own = ["primary_conninfo", "primary_slot_name", "promote_trigger_file"];
        let is_agreed = *sync != SyncNames::Own && name.eq_ignore_ascii_case(SYNC_NAMES);
        is_agreed
            || is_own.iter().any(|own| name.eq_ignore_ascii_case(own))
            || name.to_ascii_lowercase().starts_with("recovery_target")
    };
    auto_conf.lines().filter(|line| !is_recovery(line)).fold(String::new(), |text, line| text + line + "\n")
}

/// The parameters which are arguments, as the configuration wants them.
pub(super) fn wanted_arguments(settings: &Settings) -> BTreeMap<String, String> {
    let none = LeastSettings::default();
    let owned = OWNED.iter().map(|owned| (owned.0.to_owned(), owned_value(settings, owned, &none)));
    let addresses = [
        ("listen_addresses", settings.listen.join(",")),
        ("port", settings.port.to_string()),
        ("cluster_name", settings.scope.clone()),
    ];
    owned.chain(addresses.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// The arguments of the postmaster. A standby must not have less than the primary, so `least` raises some.
pub(super) fn arguments(settings: &Settings, least: &LeastSettings) -> Vec<String> {
    let mut args = vec![
        "-D".to_owned(),
        settings.data_dir.display().to_string(),
        format!(
            "--config-file={}",
            settings.config_dir.join(format!("{}.conf", settings.config_base_name)).display()
        ),
        format!("--listen_addresses={}", settings.listen.join(",")),
        format!("--port={}", settings.port),
        format!("--cluster_name={}", settings.scope),
    ];
    args.extend(OWNED.iter().map(|owned| format!("--{}={}", owned.0, owned_value(settings, owned, least))));
    args
}

fn owned_value(settings: &Settings, owned: &Owned, least: &LeastSettings) -> String {
    let (name, default, minimum) = *owned;
    let given = settings.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    let value = given.map_or(default, |(_, value)| value.as_str());
    let Some(minimum) = minimum else {
        let is_fixed =
            name == "hot_standby" || (name == "wal_level" && value.eq_ignore_ascii_case("minimal"));
        return if is_fixed { default.to_owned() } else { value.to_owned() };
    };
    let wanted = value.trim().parse::<u64>().ok().filter(|number| *number >= minimum);
    let number = wanted.or_else(|| default.parse().ok()).unwrap_or(minimum);
    number.max(least.0.get(name).copied().unwrap_or(0)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings::new("demo", "node1", std::path::Path::new("/srv/pg data"), 5433);
        settings.slot_name = Some("node1".to_owned());
        settings.replication = Credentials::new("replicator", Some("it's \\secret"));
        settings.listen = vec!["127.0.0.1".to_owned(), "::1".to_owned()];
        settings.parameters = [
            ("work_mem", "8MB"),
            ("max_connections", "3"),
            ("port", "1"),
            ("shared_preload_libraries", "pg_stat_statements, auto_explain"),
            ("log_line_prefix", "it's \\ %m"),
            ("primary_conninfo", "host=evil"),
            ("bad name", "x"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        settings
    }

    fn upstream() -> Upstream {
        Upstream { name: "it's node2".to_owned(), addr: PostgresAddr { host: "::1".to_owned(), port: 5434 } }
    }

    #[test]
    fn a_standby_s_file_is_rendered() {
        let text = render(&settings(), &Role::Standby(Some(upstream())), &SyncNames::Own, Some("/tmp"));
        assert_eq!(text, include_str!("testdata/standby.conf"));
        assert!(!text.contains("secret"));
    }

    #[test]
    fn a_primary_s_file_is_rendered() {
        let text = render(&settings(), &Role::Primary, &SyncNames::Own, None);
        assert_eq!(text, include_str!("testdata/primary.conf"));
    }

    #[test]
    fn the_upstream_is_read_back() {
        let text = render(&settings(), &Role::Standby(Some(upstream())), &SyncNames::Own, None);
        assert_eq!(parse_upstream(&text), Some(upstream()));
        let nobody = render(&settings(), &Role::Standby(None), &SyncNames::Own, None);
        assert_eq!(parse_upstream(&nobody), None);
        assert_eq!(parse_primary_conninfo(&nobody).as_deref(), Some(""));
        assert_eq!(parse_upstream(&render(&settings(), &Role::Primary, &SyncNames::Own, None)), None);
    }

    #[test]
    fn arguments_keep_to_the_least_values() {
        let mut least = LeastSettings::default();
        let args = arguments(&settings(), &least);
        assert!(args.contains(&"--max_connections=100".to_owned()), "{args:?}");
        assert!(args.contains(&"--listen_addresses=127.0.0.1,::1".to_owned()), "{args:?}");
        least.0.insert("max_connections", 250);
        assert!(arguments(&settings(), &least).contains(&"--max_connections=250".to_owned()));
        assert!(args.contains(&"--port=5433".to_owned()));
    }

    #[test]
    fn alter_system_cannot_redirect_a_standby() {
        let auto = "# comment\nwork_mem = '1MB'\nprimary_conninfo = 'host=x'\nRecovery_Target_time='y'\n";
        assert_eq!(without_owned_parameters(auto, &SyncNames::Own), "# comment\nwork_mem = '1MB'\n");
        let agreed = SyncNames::Agreed { set: pgherd_raft::model::SyncSet::default(), any: false };
        let auto = "synchronous_standby_names = '*'\nwork_mem = '1MB'\n";
        assert_eq!(without_owned_parameters(auto, &SyncNames::Own), auto);
        assert_eq!(without_owned_parameters(auto, &agreed), "work_mem = '1MB'\n");
    }

    #[test]
    fn agreed_synchronous_standbys_win_over_the_operator_s() {
        let mut settings = settings();
        settings.parameters.insert(SYNC_NAMES.to_owned(), "*".to_owned());
        let own = render(&settings, &Role::Primary, &SyncNames::Own, None);
        assert!(own.contains("synchronous_standby_names = '*'"));
        assert_eq!(parse_sync(&own), SyncNames::Own);
        let names = ["n-1".parse().expect("valid")].into();
        let agreed = SyncNames::Agreed { set: pgherd_raft::model::SyncSet { names, needed: 1 }, any: true };
        let text = render(&settings, &Role::Standby(None), &agreed, None);
        assert_eq!(parse_sync(&text), agreed);
        assert!(text.rfind("ANY 1").expect("agreed") > text.find("'*'").expect("own"));
    }
}
