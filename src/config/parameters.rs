//! PostgreSQL's parameters: which ones a node runs with.
//!
//! Owns the merge: our defaults, then the cluster's, then the node's, except for those which must be equal on all
//! nodes, which come from the cluster alone. Owns also what changed its name or vanished between the majors.

use std::collections::BTreeMap;

use pgherd_raft::address::ListenAddress;
use pgherd_raft::config::{Unit, integer};
use pgherd_raft::yaml::{Node, Place, Value};

/// Parameters by name, in lower case and in order.
pub type Parameters = BTreeMap<String, String>;

/// A value which was changed or dropped on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjusted {
    /// The parameter.
    pub name: String,
    /// A sentence for the log.
    pub why: String,
}

/// Parameters which must be equal on all nodes: taken from the cluster's settings only. Sorted.
pub const SHARED_PARAMETERS: [&str; 15] = [
    "cluster_name",
    "hot_standby",
    "listen_addresses",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "port",
    "track_commit_timestamp",
    "wal_keep_segments",
    "wal_keep_size",
    "wal_level",
    "wal_log_hints",
];

/// Parameters which nobody sets: they follow from scope and addresses.
pub(super) const DERIVED: [&str; 3] = ["cluster_name", "listen_addresses", "port"];

/// What a shared parameter may hold.
enum Allowed {
    /// At least this; counted in bytes where the parameter has a unit.
    AtLeast(i64, Unit),
    Boolean,
    On,
    Words(&'static [&'static str]),
}

/// Defaults and limits; the limits are Patroni's, so that a document means the same here.
const SHARED: &[(&str, &str, Allowed)] = &[
    ("hot_standby", "on", Allowed::On),
    ("max_connections", "100", Allowed::AtLeast(25, Unit::None)),
    ("max_locks_per_transaction", "64", Allowed::AtLeast(32, Unit::None)),
    ("max_prepared_transactions", "0", Allowed::AtLeast(0, Unit::None)),
    ("max_replication_slots", "10", Allowed::AtLeast(4, Unit::None)),
    ("max_wal_senders", "10", Allowed::AtLeast(3, Unit::None)),
    ("max_worker_processes", "8", Allowed::AtLeast(2, Unit::None)),
    ("track_commit_timestamp", "off", Allowed::Boolean),
    ("wal_keep_size", "128MB", Allowed::AtLeast(16 << 20, Unit::Bytes)),
    ("wal_level", "replica", Allowed::Words(&["replica", "logical"])),
    ("wal_log_hints", "on", Allowed::Boolean),
];

/// Parameters which a major no longer has.
const REMOVED: &[(u32, &str)] = &[
    (12, "default_with_oids"),
    (14, "operator_precedence_warning"),
    (14, "vacuum_cleanup_index_scale_factor"),
    (15, "stats_temp_directory"),
    (16, "force_parallel_mode"),
    (16, "promote_trigger_file"),
    (16, "vacuum_defer_cleanup_age"),
    (17, "db_user_namespace"),
    (17, "old_snapshot_threshold"),
    (17, "trace_recovery_messages"),
];

/// Parameters which began with a major. Only those which an operator is likely to share among clusters of several
/// majors; PostgreSQL refuses to start with a name it does not know.
const INTRODUCED: &[(u32, &str)] = &[
    (14, "client_connection_check_interval"),
    (14, "compute_query_id"),
    (14, "default_toast_compression"),
    (14, "enable_async_append"),
    (14, "enable_memoize"),
    (14, "huge_page_size"),
    (14, "idle_session_timeout"),
    (14, "log_recovery_conflict_waits"),
    (14, "min_dynamic_shared_memory"),
    (14, "recovery_init_sync_method"),
    (14, "remove_temp_files_after_crash"),
    (14, "ssl_crl_dir"),
    (14, "track_wal_io_timing"),
    (14, "vacuum_failsafe_age"),
    (14, "vacuum_multixact_failsafe_age"),
    (15, "allow_in_place_tablespaces"),
    (15, "archive_library"),
    (15, "log_startup_progress_interval"),
    (15, "recovery_prefetch"),
    (15, "stats_fetch_consistency"),
    (15, "wal_decode_buffer_size"),
    (16, "createrole_self_grant"),
    (16, "enable_presorted_aggregate"),
    (16, "gss_accept_delegation"),
    (16, "icu_validation_level"),
    (16, "max_parallel_apply_workers_per_subscription"),
    (16, "reserved_connections"),
    (16, "scram_iterations"),
    (16, "vacuum_buffer_usage_limit"),
    (17, "allow_alter_system"),
    (17, "commit_timestamp_buffers"),
    (17, "enable_group_by_reordering"),
    (17, "event_triggers"),
    (17, "io_combine_limit"),
    (17, "max_notify_queue_pages"),
    (17, "multixact_member_buffers"),
    (17, "multixact_offset_buffers"),
    (17, "notify_buffers"),
    (17, "serializable_buffers"),
    (17, "subtransaction_buffers"),
    (17, "summarize_wal"),
    (17, "sync_replication_slots"),
    (17, "synchronized_standby_slots"),
    (17, "transaction_buffers"),
    (17, "transaction_timeout"),
    (17, "wal_summary_keep_time"),
    (18, "autovacuum_vacuum_max_threshold"),
    (18, "autovacuum_worker_slots"),
    (18, "enable_distinct_reordering"),
    (18, "enable_self_join_elimination"),
    (18, "extension_control_path"),
    (18, "file_copy_method"),
    (18, "idle_replication_slot_timeout"),
    (18, "io_max_combine_limit"),
    (18, "io_max_concurrency"),
    (18, "io_method"),
    (18, "io_workers"),
    (18, "log_lock_failures"),
    (18, "max_active_replication_origins"),
    (18, "md5_password_warnings"),
    (18, "oauth_validator_libraries"),
    (18, "ssl_groups"),
    (18, "ssl_tls13_ciphers"),
    (18, "track_cost_delay_timing"),
    (18, "vacuum_max_eager_freeze_failure_rate"),
    (18, "vacuum_truncate"),
];

/// The megabytes of a WAL segment, in which `wal_keep_segments` counted.
const SEGMENT_MB: i64 = 16;

/// The parameters a node of this PostgreSQL major runs with, and what was changed on the way.
pub fn effective_parameters(
    major: u32,
    scope: &str,
    listen: &ListenAddress,
    cluster: &Parameters,
    node: &Parameters,
) -> (Parameters, Vec<Adjusted>) {
    let mut adjusted = Vec::new();
    let mut effective = shared(cluster, &mut adjusted);
    let of_cluster = cluster.iter().filter(|(name, _)| !is_shared(name));
    let of_node = node.iter().filter(|(name, _)| !is_shared(name));
    effective.extend(of_cluster.chain(of_node).map(|(name, value)| (name.clone(), value.clone())));
    effective.retain(|name, _| match not_in(major, name) {
        Some(why) => {
            adjusted.push(Adjusted { name: name.clone(), why });
            false
        }
        None => true,
    });
    let hosts: Vec<&str> = listen.hosts.iter().map(String::as_str).collect();
    effective.insert("cluster_name".to_owned(), scope.to_owned());
    effective.insert("listen_addresses".to_owned(), hosts.join(","));
    effective.insert("port".to_owned(), listen.port.to_string());
    (effective, adjusted)
}

/// The parameters as they are asked about: with present names for what had another one once.
pub fn in_present_words(parameters: &Parameters) -> Parameters {
    let mut present = parameters.clone();
    if present.get("wal_level").is_some_and(|level| level == "hot_standby") {
        present.insert("wal_level".to_owned(), "replica".to_owned());
    }
    if let Some(size) = old_name("wal_keep_size", parameters) {
        present.remove("wal_keep_segments");
        present.entry("wal_keep_size".to_owned()).or_insert(size);
    }
    present
}

/// The shared parameters whose value counts as missing, a sentence each.
pub(super) fn unusable(cluster: &Parameters) -> Vec<Adjusted> {
    let mut adjusted = Vec::new();
    shared(cluster, &mut adjusted);
    adjusted
}

/// Must this parameter be equal on all nodes?
pub(super) fn is_shared(name: &str) -> bool {
    SHARED_PARAMETERS.binary_search(&name).is_ok()
}

fn shared(cluster: &Parameters, adjusted: &mut Vec<Adjusted>) -> Parameters {
    let mut effective = Parameters::new();
    for (name, default, allowed) in SHARED {
        let value = cluster.get(*name).cloned().or_else(|| old_name(name, cluster));
        let value = match value {
            Some(value) if allowed.admits(&value) => value,
            Some(value) => {
                let why =
                    format!("postgresql parameter {name}={value} failed validation, defaulting to {default}");
                adjusted.push(Adjusted { name: (*name).to_owned(), why });
                (*default).to_owned()
            }
            None => (*default).to_owned(),
        };
        effective.insert((*name).to_owned(), value);
    }
    // Before 9.6 `replica` had two names; Patroni's documents still use one of them.
    if cluster.get("wal_level").is_some_and(|level| level == "hot_standby") {
        effective.insert("wal_level".to_owned(), "replica".to_owned());
        adjusted.retain(|adjusted| adjusted.name != "wal_level");
    }
    effective
}

/// `wal_keep_segments` (until 12) counts segments.
fn old_name(name: &str, cluster: &Parameters) -> Option<String> {
    if name != "wal_keep_size" {
        return None;
    }
    let segments = cluster.get("wal_keep_segments")?.trim().parse::<i64>().ok()?;
    Some(format!("{}MB", segments.checked_mul(SEGMENT_MB)?))
}

/// Why this major cannot be started with this parameter. Zero: it is not known yet, and nothing is left out.
fn not_in(major: u32, name: &str) -> Option<String> {
    if major == 0 {
        return None;
    }
    let removed = REMOVED.iter().find(|(from, removed)| *removed == name && major >= *from);
    if let Some((from, _)) = removed {
        return Some(format!("{name} is left out: PostgreSQL has no such parameter since {from}"));
    }
    let introduced = INTRODUCED.iter().find(|(from, introduced)| *introduced == name && major < *from);
    introduced.map(|(from, _)| format!("{name} is left out: PostgreSQL has it only since {from}"))
}

impl Allowed {
    fn admits(&self, value: &str) -> bool {
        match self {
            Self::AtLeast(least, unit) => {
                let node = Node {
                    place: Place::named("parameter"),
                    value: Value::Text(value.to_owned()),
                    source: value.to_owned(),
                };
                // A size without a unit counts megabytes (wal_keep_size).
                let bare = value.trim().chars().all(|c| c.is_ascii_digit());
                let factor = if bare && *unit == Unit::Bytes { 1 << 20 } else { 1 };
                integer(&node, *unit)
                    .and_then(|number| number.checked_mul(factor))
                    .is_some_and(|number| number >= *least)
            }
            Self::Boolean => boolean(value).is_some(),
            Self::On => boolean(value) == Some(true),
            Self::Words(words) => words.contains(&value) || value == "hot_standby",
        }
    }
}

/// PostgreSQL's booleans in full.
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Parameters {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn effective(major: u32, cluster: &[(&str, &str)], node: &[(&str, &str)]) -> (Parameters, Vec<String>) {
        let listen = ListenAddress::parse("127.0.0.1,[::1]:6000", None).expect("valid");
        let (parameters, adjusted) = effective_parameters(major, "demo", &listen, &of(cluster), &of(node));
        (parameters, adjusted.into_iter().map(|adjusted| adjusted.why).collect())
    }

    #[test]
    fn the_list_is_sorted_and_complete() {
        assert!(SHARED_PARAMETERS.is_sorted());
        for (name, default, allowed) in SHARED {
            assert!(is_shared(name), "{name}");
            assert!(allowed.admits(default), "{name}");
        }
        for name in DERIVED {
            assert!(is_shared(name));
        }
    }

    #[test]
    fn defaults_of_a_cluster_which_says_nothing() {
        let (parameters, notes) = effective(15, &[], &[]);
        let expected = of(&[
            ("cluster_name", "demo"),
            ("hot_standby", "on"),
            ("listen_addresses", "127.0.0.1,::1"),
            ("max_connections", "100"),
            ("max_locks_per_transaction", "64"),
            ("max_prepared_transactions", "0"),
            ("max_replication_slots", "10"),
            ("max_wal_senders", "10"),
            ("max_worker_processes", "8"),
            ("port", "6000"),
            ("track_commit_timestamp", "off"),
            ("wal_keep_size", "128MB"),
            ("wal_level", "replica"),
            ("wal_log_hints", "on"),
        ]);
        assert_eq!(parameters, expected);
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn shared_parameters_come_from_the_cluster_others_from_the_node() {
        let (parameters, _) = effective(
            15,
            &[("max_connections", "200"), ("work_mem", "4MB"), ("shared_buffers", "1GB")],
            &[("max_connections", "7"), ("work_mem", "8MB"), ("port", "1"), ("cluster_name", "x")],
        );
        assert_eq!(parameters["max_connections"], "200");
        assert_eq!(parameters["work_mem"], "8MB");
        assert_eq!(parameters["shared_buffers"], "1GB");
        assert_eq!(parameters["port"], "6000");
        assert_eq!(parameters["cluster_name"], "demo");
    }

    #[test]
    fn wrong_shared_values_fall_back() {
        let (parameters, notes) = effective(
            15,
            &[
                ("max_connections", "5"),
                ("wal_level", "minimal"),
                ("hot_standby", "off"),
                ("wal_keep_size", "1MB"),
            ],
            &[],
        );
        assert_eq!(parameters["max_connections"], "100");
        assert_eq!(parameters["wal_level"], "replica");
        assert_eq!(parameters["hot_standby"], "on");
        assert_eq!(parameters["wal_keep_size"], "128MB");
        assert_eq!(notes[1], "postgresql parameter max_connections=5 failed validation, defaulting to 100");
        assert_eq!(notes.len(), 4);
    }

    #[test]
    fn old_names_are_translated() {
        let (parameters, notes) =
            effective(13, &[("wal_keep_segments", "100"), ("wal_level", "hot_standby")], &[]);
        assert_eq!(parameters["wal_keep_size"], "1600MB");
        assert!(!parameters.contains_key("wal_keep_segments"));
        assert_eq!(parameters["wal_level"], "replica");
        assert_eq!(notes, [""; 0]);
        let asked = in_present_words(&of(&[("wal_keep_segments", "2"), ("wal_level", "hot_standby")]));
        assert_eq!(asked, of(&[("wal_keep_size", "32MB"), ("wal_level", "replica")]));
    }

    #[test]
    fn what_the_major_does_not_know_is_left_out() {
        let cluster = [("old_snapshot_threshold", "1h"), ("summarize_wal", "on"), ("ext.setting", "1")];
        let (old, notes) = effective(16, &cluster, &[]);
        assert!(old.contains_key("old_snapshot_threshold") && !old.contains_key("summarize_wal"));
        assert_eq!(notes, ["summarize_wal is left out: PostgreSQL has it only since 17"]);
        let (new, notes) = effective(17, &cluster, &[]);
        assert!(!new.contains_key("old_snapshot_threshold") && new.contains_key("summarize_wal"));
        assert!(new.contains_key("ext.setting"));
        assert_eq!(effective(0, &cluster, &[]).1, [""; 0], "no major is known yet");
        assert_eq!(notes, ["old_snapshot_threshold is left out: PostgreSQL has no such parameter since 17"]);
    }
}
