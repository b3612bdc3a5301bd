//! The settings which the whole cluster shares: `bootstrap.dcs` of the file, then a document in the replicated state.
//!
//! Owns defaults and limits, one set for both. Promises: reading always gives a usable [`Dynamic`] (a wrong value is
//! reported and the nearest allowed or the default one stands in), so a document which got into the log can never
//! stop a node.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use pgherd_raft::config::{Problem, Report, Section, Unit, not_a, read_boolean};
use pgherd_raft::model::TTL_LIMITS_MS;
use pgherd_raft::yaml::{Node, Place, Value};

use super::parameters::unusable;
use super::slots::{self, IgnoredSlots, PermanentSlot};
use super::validate::postgresql::{parameters, shared_with_cluster};
use super::validate::without_effect_when_on;

/// The cluster's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Dynamic {
    /// The length of the primary's lease. Default 5 s, 2 s to 1 h.
    pub ttl: Duration,
    /// The longest time between two observations. Default 10 s, 1 s to 1 h.
    pub loop_wait: Duration,
    /// The budget of retries. Default 10 s, 3 s to 1 h.
    pub retry_timeout: Duration,
    /// A standby further behind than this many bytes is no candidate. Default 1 MiB.
    pub maximum_lag_on_failover: u64,
    /// A synchronous standby further behind than this many bytes is replaced; none: never.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// Entries of the history to keep; none: all.
    pub max_timelines_history: Option<u64>,
    /// How long a primary may take to start after a crash. Default 300 s; zero: fail over at once if possible.
    pub primary_start_timeout: Duration,
    /// How long a primary may accept no connection, write no WAL, or have an unusable data disk before another member
    /// takes over. Default 10 s, at least 2 s; zero: for ever.
    pub primary_health_timeout: Duration,
    /// How long a primary may take to stop before it is killed, in synchronous mode; none: as long as it takes.
    pub primary_stop_timeout: Option<Duration>,
    /// Default off.
    pub synchronous_mode: SynchronousMode,
    /// Rather no writes than unreplicated ones.
    pub synchronous_mode_strict: bool,
    /// The wanted number of synchronous standbys. Default 1.
    pub synchronous_node_count: u64,
    /// In synchronous modes: take over once the synchronous standbys are fenced (`sync_fenced`, the default), instead of
    /// waiting for the lease to expire (`off`).
    pub fast_failover: bool,
    /// Keep the primary while all members agree, though the group has no majority.
    pub failsafe_mode: bool,
    /// Standbys on an older timeline are no candidates.
    pub check_timeline: bool,
    /// How long slots of vanished members are kept. Default 30 min.
    pub member_slots_ttl: Duration,
    /// How long standbys hold back while the old primary's WAL still comes. Default zero.
    pub primary_race_backoff: Duration,
    /// Automation is off.
    pub pause: bool,
    /// Permanent slots by name.
    pub slots: BTreeMap<String, PermanentSlot>,
    /// Slots to leave alone.
    pub ignore_slots: Vec<IgnoredSlots>,
    /// The remote primary of a standby cluster as it was written: a JSON object; none: this is a cluster of its own.
    pub standby_cluster: Option<serde_json::Value>,
    /// The section `postgresql`.
    pub postgresql: DynamicPostgresql,
}

/// What all nodes' PostgreSQL share and no node's file can change. The rest of the section is laid under the node's own:
/// see [`super::Config::effective`].
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicPostgresql {
    /// Parameters for every node.
    pub parameters: BTreeMap<String, String>,
    /// A physical slot for each member. Default true.
    pub use_slots: bool,
}

/// How commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynchronousMode {
    /// They do not.
    Off,
    /// For the named ones.
    On,
    /// For any of the named ones.
    Quorum,
}

/// Reads a document of the replicated state.
///
/// The problems hold errors (refuse a change which has one) and warnings.
pub fn parse(document: &serde_json::Value) -> (Dynamic, Vec<Problem>) {
    let report = Report::default();
    let node = Node::from_json(document, &Place::named("the cluster's settings"));
    let dynamic = read(&node, "", &report);
    (dynamic, report.into_problems())
}

impl Default for Dynamic {
    fn default() -> Self {
        parse(&serde_json::Value::Null).0
    }
}

const HOUR_MS: i64 = 3_600_000;
/// A year: nothing waits longer.
const LONGEST_MS: i64 = 365 * 24 * HOUR_MS;

fn ttl_limits() -> RangeInclusive<i64> {
    let limit = |ms| i64::try_from(ms).unwrap_or(HOUR_MS);
    limit(TTL_LIMITS_MS.0)..=limit(TTL_LIMITS_MS.1)
}

/// Reads the settings of a node of a tree; `path` names the node in messages.
pub(super) fn read(node: &Node, path: &str, report: &Report) -> Dynamic {
    let mut section = Section::top(node, path, report);
    let s = &mut section;
    let ttl = s.duration("ttl", ttl_limits()).unwrap_or(Duration::from_secs(5));
    let loop_wait = s.duration("loop_wait", 1000..=HOUR_MS).unwrap_or(Duration::from_secs(10));
    let retry_timeout = s.duration("retry_timeout", 3000..=HOUR_MS).unwrap_or(Duration::from_secs(10));
    let start_timeout = renamed(s, "primary_start_timeout", "master_start_timeout");
    let health_timeout = s.duration("primary_health_timeout", 0..=HOUR_MS);
    let stop_timeout = renamed(s, "primary_stop_timeout", "master_stop_timeout");
    let lag_on_failover = bytes(s, "maximum_lag_on_failover", 0);
    let lag_on_syncnode = bytes(s, "maximum_lag_on_syncnode", -1);
    let dynamic = Dynamic {
        ttl,
        loop_wait,
        retry_timeout,
        maximum_lag_on_failover: lag_on_failover.unwrap_or(1 << 20),
        maximum_lag_on_syncnode: lag_on_syncnode.filter(|bytes| *bytes > 0),
        max_timelines_history: count(s, "max_timelines_history", 0).filter(|count| *count > 0),
        primary_start_timeout: start_timeout.unwrap_or(Duration::from_secs(300)),
        primary_health_timeout: health_timeout.map_or(DEFAULT_HEALTH_TIMEOUT, at_least_two_seconds),
        primary_stop_timeout: stop_timeout.filter(|timeout| !timeout.is_zero()),
        synchronous_mode: synchronous_mode(s),
        synchronous_mode_strict: s.boolean("synchronous_mode_strict").unwrap_or(false),
        synchronous_node_count: count(s, "synchronous_node_count", 1).unwrap_or(1),
        fast_failover: fast_failover(s),
        failsafe_mode: s.boolean("failsafe_mode").unwrap_or(false),
        check_timeline: s.boolean("check_timeline").unwrap_or(false),
        member_slots_ttl: s.duration("member_slots_ttl", 0..=LONGEST_MS).unwrap_or(Duration::from_secs(1800)),
        primary_race_backoff: s.duration("primary_race_backoff", 0..=HOUR_MS).unwrap_or(Duration::ZERO),
        pause: s.boolean("pause").unwrap_or(false),
        slots: slots::permanent(s),
        ignore_slots: slots::ignored(s),
        standby_cluster: standby_cluster(s),
        postgresql: postgresql(s.section("postgresql")),
    };
    // Whoever asks for these relies on them: silence would be a promise.
    without_effect_when_on(&mut section, &LATER);
    section.close();
    dynamic
}

const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// Less would take a slow moment of a disk for a sickness.
fn at_least_two_seconds(timeout: Duration) -> Duration {
    if timeout.is_zero() { timeout } else { timeout.max(Duration::from_secs(2)) }
}

/// Settings which are kept and change nothing yet.
const LATER: [&str; 1] = ["standby_cluster"];

/// A duration whose key had another name before Patroni 4; the present name wins.
fn renamed(section: &mut Section<'_>, name: &str, old: &str) -> Option<Duration> {
    let before = section.duration(old, 0..=LONGEST_MS);
    section.duration(name, 0..=LONGEST_MS).or(before)
}

fn bytes(section: &mut Section<'_>, key: &str, least: i64) -> Option<u64> {
    let number = section.integer(key, Unit::Bytes, least..=i64::MAX)?;
    Some(u64::try_from(number).unwrap_or(0))
}

fn count(section: &mut Section<'_>, key: &str, least: i64) -> Option<u64> {
    let number = section.integer(key, Unit::None, least..=i64::MAX)?;
    u64::try_from(number).ok()
}

fn synchronous_mode(section: &mut Section<'_>) -> SynchronousMode {
    let Some(node) = section.get("synchronous_mode") else { return SynchronousMode::Off };
    let is_quorum = matches!(&node.value, Value::Text(text) if text.eq_ignore_ascii_case("quorum"));
    match (is_quorum, read_boolean(node)) {
        (true, _) => SynchronousMode::Quorum,
        (false, Some(true)) => SynchronousMode::On,
        (false, Some(false)) => SynchronousMode::Off,
        (false, None) => {
            let key = section.key("synchronous_mode");
            let what = not_a("off, on or quorum", node);
            section.report.error(&key, &node.place, what, "write off, on or quorum");
            SynchronousMode::Off
        }
    }
}

fn fast_failover(section: &mut Section<'_>) -> bool {
    let Some(node) = section.get("fast_failover") else { return true };
    let is_named = matches!(&node.value, Value::Text(text) if text.eq_ignore_ascii_case("sync_fenced"));
    match (is_named, read_boolean(node)) {
        (true, _) => true,
        (false, Some(false)) => false,
        (false, Some(true) | None) => {
            let key = section.key("fast_failover");
            let what = not_a("sync_fenced or off", node);
            section.report.error(&key, &node.place, what, "write sync_fenced or off");
            true
        }
    }
}

/// Patroni counts the section only when it says where the WAL comes from.
fn standby_cluster(section: &mut Section<'_>) -> Option<serde_json::Value> {
    let node = section.get("standby_cluster")?;
    let mut inner = section.section("standby_cluster");
    let says_where = ["host", "port", "restore_command"].map(|key| inner.get(key).is_some()).contains(&true);
    (inner.is_present() && says_where).then(|| node.to_json())
}

fn postgresql(mut section: Section<'_>) -> DynamicPostgresql {
    let of_parameters = section.section("parameters");
    let (path, place) = (of_parameters.path.clone(), of_parameters.place.clone());
    let parameters = parameters(of_parameters);
    for unusable in unusable(&parameters) {
        let cure = "the default is used; write another value";
        section.report.warning(&format!("{path}.{}", unusable.name), &place, unusable.why, cure);
    }
    let dynamic = DynamicPostgresql { parameters, use_slots: section.boolean("use_slots").unwrap_or(true) };
    // Read here for its mistakes, and again where it is laid under the node's own section.
    shared_with_cluster(&mut section);
    section.meaningless(
        &[
            "listen",
            "connect_address",
            "proxy_address",
            "data_dir",
            "config_dir",
            "pgpass",
            "authentication",
            "name",
            "superuser",
            "replication",
            "pg_rewind",
        ],
        "is each node's own and has no effect here",
    );
    section.close();
    dynamic
}

#[cfg(test)]
#[path = "dynamic_tests.rs"]
mod tests;
