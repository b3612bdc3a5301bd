//! The members of a cluster as the replicated state knows them.

use serde::{Deserialize, Serialize};

use super::ids::{MemberName, SystemIdentifier};

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// Runs PostgreSQL.
    Data,
    /// Votes only.
    Witness,
}

/// A member's identity and addresses. What changes each second (positions, lags, health) is not here: it travels
/// between the daemons directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Unique in the cluster.
    pub name: MemberName,
    /// With or without PostgreSQL.
    pub kind: MemberKind,
    /// `host:port` of the peers' port.
    pub raft_addr: String,
    /// `http://host:port` or `https://host:port` of the REST API; none for a witness.
    pub api_url: Option<String>,
    /// Where other members and clients reach this member's PostgreSQL; none for a witness.
    pub postgres: Option<PostgresAddr>,
    /// The operator's tags in the order of the configuration file.
    pub tags: Tags,
    /// False: it never becomes a voter, neither Raft's nor the lease's. It has the log, may hold the lease, and is heard
    /// in nothing that a majority decides.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub votes: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references over")]
fn is_true(value: &bool) -> bool {
    *value
}

/// Host and port of a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PostgresAddr {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

impl std::fmt::Display for PostgresAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A tag's value with the type which it has in the configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TagValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Anything else.
    Text(String),
}

impl Eq for TagValue {}

/// A member's tags: any name with any value; some names have a meaning for the succession and the REST API.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(pub Vec<(String, TagValue)>);

impl Tags {
    /// The value of a tag.
    pub fn get(&self, name: &str) -> Option<&TagValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The tags that a member shows of those which it was configured with: a flag that is off is none, unless it decides
    /// against a priority beside it.
    #[must_use]
    pub fn published(&self) -> Self {
        let is_off = |value: &TagValue| match value {
            TagValue::Bool(value) => !value,
            TagValue::Integer(value) => *value == 0,
            TagValue::Float(_) | TagValue::Text(_) => false,
        };
        let is_shown = |name: &str, value: &TagValue| match name {
            "clonefrom" | "noloadbalance" | "nostream" => !is_off(value),
            "nofailover" => !is_off(value) || self.get("failover_priority").is_some(),
            "nosync" => !is_off(value) || self.get("sync_priority").is_some(),
            _ => true,
        };
        Self(self.0.iter().filter(|(name, value)| is_shown(name, value)).cloned().collect())
    }

    /// A boolean tag as Patroni reads it: a missing or unreadable one is false.
    pub fn flag(&self, name: &str) -> bool {
        match self.get(name) {
            Some(TagValue::Bool(value)) => *value,
            Some(TagValue::Integer(value)) => *value != 0,
            Some(TagValue::Text(text)) => {
                matches!(text.to_lowercase().as_str(), "true" | "on" | "yes" | "1")
            }
            Some(TagValue::Float(_)) | None => false,
        }
    }

    /// A numeric tag.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            TagValue::Integer(value) => Some(*value),
            TagValue::Text(text) => text.trim().parse().ok(),
            TagValue::Bool(_) | TagValue::Float(_) => None,
        }
    }

    /// A tag as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            TagValue::Text(text) => Some(text),
            TagValue::Bool(_) | TagValue::Integer(_) | TagValue::Float(_) => None,
        }
    }

    /// The rank among equal synchronous standbys: higher is preferred, zero or less means never. `nosync` wins over
    /// `sync_priority` when both are given.
    pub fn sync_priority(&self) -> i64 {
        match (self.get("nosync"), self.number("sync_priority")) {
            (Some(_), _) if self.flag("nosync") => 0,
            (Some(_), _) | (None, None) => 1,
            (None, Some(priority)) => priority,
        }
    }

    /// The rank among equal candidates for promotion: higher is preferred, zero or less means never.
    /// `nofailover` wins over `failover_priority` when both are given.
    pub fn failover_priority(&self) -> i64 {
        match (self.get("nofailover"), self.number("failover_priority")) {
            (Some(_), _) if self.flag("nofailover") => 0,
            (Some(_), _) | (None, None) => 1,
            (None, Some(priority)) => priority,
        }
    }

    /// May this member be promoted at all?
    pub fn may_be_promoted(&self) -> bool {
        self.failover_priority() > 0
    }
}

/// Why a node whose data directory is another database system's cannot take part, with the cure.
pub fn other_system(
    name: &impl std::fmt::Display,
    cluster: SystemIdentifier,
    own: SystemIdentifier,
) -> String {
    format!(
        "system ID mismatch, node {name} belongs to a different cluster: {cluster} != {own}; nothing was changed: name \
         an empty postgresql.data_dir, or the scope to which this data directory belongs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, TagValue)]) -> Tags {
        Tags(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
    }

    #[test]
    fn flags_that_are_off_are_not_shown_unless_they_decide_something() {
        let off = || TagValue::Bool(false);
        let given = tags(&[
            ("clonefrom", off()),
            ("failover_priority", TagValue::Text("0".into())),
            ("mine", off()),
            ("nofailover", off()),
            ("nosync", off()),
            ("nostream", TagValue::Bool(true)),
        ]);
        let names: Vec<String> = given.published().0.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["failover_priority", "mine", "nofailover", "nostream"]);
    }

    #[test]
    fn nofailover_wins_over_priority() {
        assert_eq!(tags(&[]).failover_priority(), 1);
        assert_eq!(tags(&[("failover_priority", TagValue::Integer(5))]).failover_priority(), 5);
        assert_eq!(tags(&[("failover_priority", TagValue::Text("0".into()))]).failover_priority(), 0);
        let both = tags(&[
            ("nofailover", TagValue::Text("true".into())),
            ("failover_priority", TagValue::Integer(5)),
        ]);
        assert!(!both.may_be_promoted());
        let neither =
            tags(&[("nofailover", TagValue::Bool(false)), ("failover_priority", TagValue::Integer(0))]);
        assert!(neither.may_be_promoted());
    }
}
