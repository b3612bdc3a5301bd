//! Every metric's name, type and help, in one place, and the text format of Prometheus.
//!
//! The names that begin with `patroni_` are Patroni's, with its labels and meaning; the others begin with `pgherd_`.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only rises.
    Counter,
}

/// A metric without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// One line for humans.
    pub help: &'static str,
    /// A comment line after the help, for example the meaning of numbers.
    pub note: Option<&'static str>,
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help, note: None }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help, note: None }
}

/// The version of Patroni whose API this is: 040105 is 4.1.5.
pub const VERSION: Metric =
    gauge("patroni_version", "Version of Patroni whose API this is, two digits for each part.");
/// PostgreSQL runs.
pub const POSTGRES_RUNNING: Metric = gauge("patroni_postgres_running", "1 if PostgreSQL runs, 0 otherwise.");
/// Start of the postmaster.
pub const POSTMASTER_START_TIME: Metric = gauge(
    "patroni_postmaster_start_time",
    "Seconds since the epoch at which the postmaster started, 0 if not known.",
);
/// PostgreSQL is a primary.
pub const PRIMARY: Metric = gauge("patroni_primary", "1 if PostgreSQL is a primary, 0 otherwise.");
/// A primary's position.
pub const XLOG_LOCATION: Metric =
    counter("patroni_xlog_location", "Write position of a primary in bytes, 0 on a standby.");
/// Leader of a standby cluster.
pub const STANDBY_LEADER: Metric =
    gauge("patroni_standby_leader", "1 if this node leads a standby cluster, 0 otherwise.");
/// PostgreSQL is a standby.
pub const REPLICA: Metric = gauge("patroni_replica", "1 if PostgreSQL is a standby, 0 otherwise.");
/// Synchronous standby.
pub const SYNC_STANDBY: Metric =
    gauge("patroni_sync_standby", "1 if this node is a synchronous standby, 0 otherwise.");
/// Quorum standby.
pub const QUORUM_STANDBY: Metric =
    gauge("patroni_quorum_standby", "1 if this node is a quorum standby, 0 otherwise.");
/// A standby's received position.
pub const XLOG_RECEIVED_LOCATION: Metric =
    counter("patroni_xlog_received_location", "Received position of a standby in bytes, 0 on a primary.");
/// A standby's replayed position.
pub const XLOG_REPLAYED_LOCATION: Metric =
    counter("patroni_xlog_replayed_location", "Replayed position of a standby in bytes, 0 on a primary.");
/// Commit time of the last replayed transaction.
pub const XLOG_REPLAYED_TIMESTAMP: Metric = gauge(
    "patroni_xlog_replayed_timestamp",
    "Seconds since the epoch of the last replayed transaction's commit, 0 if not known.",
);
/// Replay is paused.
pub const XLOG_PAUSED: Metric =
    gauge("patroni_xlog_paused", "1 if the replay of WAL is paused, 0 otherwise.");
/// The walreceiver streams.
pub const STREAMING: Metric =
    gauge("patroni_postgres_streaming", "1 if PostgreSQL streams from its upstream, 0 otherwise.");
/// Replays from the archive.
pub const IN_ARCHIVE_RECOVERY: Metric =
    gauge("patroni_postgres_in_archive_recovery", "1 if PostgreSQL replays without streaming, 0 otherwise.");
/// `server_version_num`.
pub const SERVER_VERSION: Metric =
    gauge("patroni_postgres_server_version", "Version of PostgreSQL as a number, 0 if not known.");
/// Nobody holds the lease.
pub const CLUSTER_UNLOCKED: Metric =
    gauge("patroni_cluster_unlocked", "1 if no member holds the lease, 0 otherwise.");
/// Failsafe mode is active.
pub const FAILSAFE: Metric =
    gauge("patroni_failsafe_mode_is_active", "1 if the failsafe mode is active, 0 otherwise.");
/// Failsafe mode is on.
pub const FAILSAFE_ENABLED: Metric =
    gauge("patroni_failsafe_mode_enabled", "1 if failsafe_mode is set, 0 otherwise.");
/// This node is on the failsafe list.
pub const FAILSAFE_MEMBER: Metric =
    gauge("patroni_failsafe_member", "1 if this node may hold the lease while failsafe is on, 0 otherwise.");
/// Its place among candidates.
pub const FAILOVER_PRIORITY: Metric = gauge(
    "patroni_failover_priority",
    "The tag failover_priority of this node, 0 if it may not be the primary.",
);
/// The timeline.
pub const TIMELINE: Metric = gauge("patroni_postgres_timeline", "Timeline of PostgreSQL, 0 if not known.");
/// Last contact with the cluster.
pub const DCS_LAST_SEEN: Metric = gauge(
    "patroni_dcs_last_seen",
    "Seconds since the epoch at which this node last knew a leader of the consensus, 0 if never.",
);
/// A restart is pending.
pub const PENDING_RESTART: Metric =
    gauge("patroni_pending_restart", "1 if PostgreSQL needs a restart, 0 otherwise.");
/// Automation is off.
pub const IS_PAUSED: Metric = gauge("patroni_is_paused", "1 if automation is off (pause), 0 otherwise.");
/// The state as a number.
pub const POSTGRES_STATE: Metric = Metric {
    name: "patroni_postgres_state",
    kind: Kind::Gauge,
    help: "State of PostgreSQL as a number.",
    note: Some(
        "Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, 4=creating_replica, \
         5=running, 6=starting, 7=bootstrap_starting, 8=start_failed, 9=restarting, 10=restart_failed, 11=stopping, \
         12=stopped, 13=stop_failed, 14=crashed",
    ),
};
/// Version of the daemon as digits: 000100 is 0.1.0.
pub const OWN_VERSION: Metric = gauge("pgherd_version", "Version of the daemon, two digits for each part.");
/// This node leads the Raft group.
pub const RAFT_IS_LEADER: Metric =
    gauge("pgherd_raft_is_leader", "1 if this node is the Raft leader, 0 otherwise.");
/// This node knows a Raft leader.
pub const RAFT_HAS_LEADER: Metric =
    gauge("pgherd_raft_has_leader", "1 if this node knows a Raft leader, 0 otherwise.");
/// The Raft term.
pub const RAFT_TERM: Metric = counter("pgherd_raft_term", "Raft term as this node knows it.");
/// Raft voters.
pub const RAFT_VOTERS: Metric = gauge("pgherd_raft_voters", "Number of Raft voters.");
/// The lease's epoch.
pub const LEASE_EPOCH: Metric =
    counter("pgherd_lease_epoch", "Epoch of the lease as this node has applied it.");
/// This node is named by the record of the lease.
pub const LEASE_IS_HOLDER: Metric =
    gauge("pgherd_lease_is_holder", "1 if the record of the lease names this node, 0 otherwise.");
/// How long this node may still write.
pub const LEASE_REMAINING: Metric = gauge(
    "pgherd_lease_remaining_seconds",
    "Seconds for which this node's licence to write is still good, 0 without one.",
);
/// Voters which acknowledged the last rounds.
pub const LEASE_ANSWERING: Metric = gauge(
    "pgherd_lease_voters_answering",
    "Number of voters which acknowledged one of this holder's last renewals.",
);
/// The settings' revision.
pub const SETTINGS_REVISION: Metric =
    counter("pgherd_settings_revision", "Revision of the cluster-wide configuration.");
/// How old the last observation is.
pub const VIEW_AGE: Metric =
    gauge("pgherd_view_age_seconds", "Age of the observation from which this page was answered, in seconds.");
/// What the node does.
pub const STATE: Metric =
    gauge("pgherd_state", "1 for the state in which this node is; the state is the label `state`.");

/// A page in Prometheus' text format.
#[derive(Debug)]
pub struct Page {
    labels: String,
    text: String,
}

impl Page {
    /// An empty page; every sample gets these two labels.
    pub fn new(scope: &str, name: &str) -> Self {
        let labels = format!("scope=\"{}\",name=\"{}\"", escaped(scope), escaped(name));
        Self { labels, text: String::with_capacity(8192) }
    }

    /// Adds a sample; `value` is the number as text.
    pub fn sample(&mut self, metric: Metric, value: impl std::fmt::Display) {
        self.head(metric);
        self.line(&format!("{}{{{}}} {value}", metric.name, self.labels));
    }

    /// Adds a sample that is 1 or 0.
    pub fn flag(&mut self, metric: Metric, value: bool) {
        self.sample(metric, u8::from(value));
    }

    /// Adds a sample with one label more.
    pub fn labelled(&mut self, metric: Metric, label: &str, word: &str, value: u8) {
        self.head(metric);
        self.line(&format!("{}{{{},{label}=\"{}\"}} {value}", metric.name, self.labels, escaped(word)));
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, metric: Metric) {
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        self.line(&format!("# HELP {} {}", metric.name, metric.help));
        if let Some(note) = metric.note {
            self.line(&format!("# {note}"));
        }
        self.line(&format!("# TYPE {} {kind}", metric.name));
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// A label's value may hold anything: backslash, quote and newline are escaped (Prometheus, exposition formats).
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_help_type_and_labels() {
        let mut page = Page::new("de\"mo", "node1");
        page.flag(PRIMARY, true);
        page.sample(LEASE_REMAINING, 1.5);
        assert_eq!(
            page.into_text(),
            "# HELP patroni_primary 1 if PostgreSQL is a primary, 0 otherwise.\n\
             # TYPE patroni_primary gauge\n\
             patroni_primary{scope=\"de\\\"mo\",name=\"node1\"} 1\n\
             # HELP pgherd_lease_remaining_seconds Seconds for which this node's licence to write is still good, 0 without one.\n\
             # TYPE pgherd_lease_remaining_seconds gauge\n\
             pgherd_lease_remaining_seconds{scope=\"de\\\"mo\",name=\"node1\"} 1.5\n"
        );
    }
}
