//! What a node runs with: its own file over the cluster's settings, key by key of the section `postgresql`.
//!
//! Promises: a key of the node's file stands in for the cluster's as a whole. What only the file may say (addresses,
//! directories, passwords) is never taken from the cluster.

use pgherd_raft::config::{Problem, Report, Section};
use pgherd_raft::yaml::{Map, Node, Place, Value};

use super::dynamic::{self, Dynamic};
use super::types::{Config, SharedPostgresql};
use super::validate::postgresql::shared_with_cluster;

/// The cluster's settings and what they make of this node's.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The cluster's settings.
    pub dynamic: Dynamic,
    /// The section `postgresql` without what is the node's own.
    pub postgresql: SharedPostgresql,
}

/// The section `postgresql` of a node's file as it was written. Equal are those which mean the same, wherever they were
/// written.
#[derive(Clone, Debug)]
pub(super) struct OwnSection(Node);

impl PartialEq for OwnSection {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_json() == other.0.to_json()
    }
}

impl OwnSection {
    pub(super) fn new(node: Option<&Node>) -> Self {
        let empty = || Node { place: Place::named("none"), value: Value::Null, source: String::new() };
        Self(node.cloned().unwrap_or_else(empty))
    }
}

impl Config {
    /// What this node runs with under these settings of the cluster, and what is wrong with the settings.
    pub fn effective(&self, document: &serde_json::Value) -> (Effective, Vec<Problem>) {
        let (dynamic, problems) = dynamic::parse(document);
        let mut merged = match &self.own.0.value {
            Value::Map(map) => map.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => Map::default(),
        };
        let place = Place::named("the cluster's settings");
        let shared = document.get("postgresql").and_then(serde_json::Value::as_object);
        for (key, value) in shared.into_iter().flatten() {
            if merged.get(key).is_none_or(|own| own.value == Value::Null) {
                merged.set(key, place.clone(), Node::from_json(value, &place));
            }
        }
        let merged = Node { place, value: Value::Map(merged), source: String::new() };
        // Both were checked where they were read: each mistake is told once.
        let report = Report::default();
        let postgresql = shared_with_cluster(&mut Section::top(&merged, "postgresql", &report));
        (Effective { dynamic, postgresql }, problems)
    }
}
