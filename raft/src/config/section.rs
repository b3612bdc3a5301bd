//! Typed access to the tree of a file: a [`Section`] hands out values, notes which keys it was asked for, and reports
//! every mistake with its key, place and cure.
//!
//! Promises: asking never fails; a wrong value is reported once and counts as missing. Must never quote a value
//! which may be a password: values of a wrong kind are not quoted at all, secrets never.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::scalar::{Shown, not_a, read_address, read_boolean, read_scope, scalar, shown_key, wrong_address};
use crate::address::{HostPort, ListenAddress};
use crate::model::MemberName;
use crate::telemetry::LogLevel;
use crate::yaml::{Entry, Map, Node, Place, Value};

use super::problem::Report;
use super::quantity::{self, Unit};
use super::secret::Secret;

/// How alike an unknown key must be to a known one to be offered for it (0 to 1).
const ALIKE: f64 = 0.7;

/// A map of the configuration, present or not.
pub struct Section<'a> {
    /// Where mistakes go.
    pub report: &'a Report,
    /// `postgresql.authentication`; empty for the top.
    pub path: String,
    /// Where it is, or where it would have to be.
    pub place: Place,
    map: Option<&'a Map>,
    asked: Vec<String>,
}

impl fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not its values: some are passwords.
        f.debug_struct("Section")
            .field("path", &self.path)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl<'a> Section<'a> {
    /// The top of a tree; null is an empty one.
    pub fn top(node: &'a Node, path: &str, report: &'a Report) -> Self {
        let mut section =
            Self { report, path: path.to_owned(), place: node.place.clone(), map: None, asked: Vec::new() };
        section.map = section.expect_map(path, node);
        section
    }

    /// The path of one of this section's keys.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Was anything written for this section?
    pub fn is_present(&self) -> bool {
        self.map.is_some()
    }

    /// The entries, for maps whose keys are free; all count as asked for.
    pub fn entries(&self) -> &'a [Entry] {
        self.map.map_or(&[], |map| map.entries())
    }

    /// The value of a key; null counts as missing.
    pub fn get(&mut self, key: &str) -> Option<&'a Node> {
        self.asked.push(key.to_owned());
        self.map?.get(key).filter(|node| node.value != Value::Null)
    }

    /// Where a key is; where the section is when the key is missing.
    pub fn key_place(&self, key: &str) -> Place {
        self.map.and_then(|map| map.entry(key)).map_or(&self.place, |entry| &entry.place).clone()
    }

    /// Where a key's value is; where the section is when the key is missing.
    pub fn value_place(&self, key: &str) -> Place {
        self.map.and_then(|map| map.get(key)).map_or(&self.place, |node| &node.place).clone()
    }

    /// A section below this one; a missing one is empty.
    pub fn section(&mut self, key: &str) -> Self {
        let path = self.key(key);
        match self.get(key) {
            // What is missing in a section is reported where the section begins: at its key.
            Some(node) => Self { place: self.key_place(key), ..Self::top(node, &path, self.report) },
            None => {
                Self { report: self.report, path, place: self.place.clone(), map: None, asked: Vec::new() }
            }
        }
    }

    fn expect_map(&self, path: &str, node: &'a Node) -> Option<&'a Map> {
        match &node.value {
            Value::Map(map) => Some(map),
            Value::Null => None,
            other @ (Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)) => {
                self.report.error(
                    path,
                    &node.place,
                    format!("{} stands where a map is needed", other.kind()),
                    "write `key: value` lines, indented below it",
                );
                None
            }
        }
    }

    /// Reports that a key which is needed is missing.
    pub fn missing(&self, key: &str, cure: &str) {
        self.report.error(&self.key(key), &self.place, "is missing", cure);
    }

    fn wrong(&self, key: &str, node: &Node, what: impl Into<String>, cure: impl Into<String>) {
        self.report.error(&self.key(key), &node.place, what, cure);
    }

    /// A level of the log.
    pub fn log_level(&mut self, key: &str) -> Option<LogLevel> {
        let node = self.get(key)?;
        let level = node.scalar_text().and_then(|text| LogLevel::parse(&text));
        if level.is_none() {
            let cure = "write DEBUG, INFO, WARNING, ERROR or CRITICAL";
            self.wrong(key, node, not_a("a log level", node), cure);
        }
        level
    }

    /// The cluster's name. Missing: reported.
    pub fn scope(&mut self, key: &str) -> Option<String> {
        if self.get(key).is_none() {
            self.missing(key, "add `scope: NAME`: the cluster's name, equal on all its nodes");
            return None;
        }
        let node = self.get(key)?;
        read_scope(self.report, &self.key(key), node)
    }

    /// A member's name. Missing: reported.
    pub fn member_name(&mut self, key: &str) -> Option<MemberName> {
        if self.get(key).is_none() {
            self.missing(key, "add `name: NAME`: this node's name, different on each node of the cluster");
            return None;
        }
        let node = self.get(key)?;
        let text = self.text(key)?;
        match text.parse::<MemberName>() {
            Ok(name) => Some(name),
            Err(error) => {
                self.wrong(key, node, error.to_string(), "use letters, digits, - and _");
                None
            }
        }
    }

    /// A scalar as text.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        scalar(self.report, &self.key(key), node, Shown::Yes)
    }

    /// A password.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let node = self.get(key)?;
        scalar(self.report, &self.key(key), node, Shown::No).map(Secret::new)
    }

    /// A boolean, also as the texts which Patroni takes for one.
    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        let value = read_boolean(node);
        if value.is_none() {
            self.wrong(key, node, not_a("a boolean", node), "write true or false");
        }
        value
    }

    /// A whole number within limits; units as PostgreSQL writes them are counted in `unit`.
    /// A number beyond the limits is reported and moved to the nearest allowed one.
    pub fn integer(&mut self, key: &str, unit: Unit, limits: RangeInclusive<i64>) -> Option<i64> {
        let node = self.get(key)?;
        let Some(number) = quantity::integer(node, unit) else {
            self.wrong(key, node, not_a("a number", node), format!("write a whole number{}", unit.hint()));
            return None;
        };
        if !limits.contains(&number) {
            self.wrong(key, node, format!("{number} is out of range"), within(&limits, unit));
        }
        Some(number.clamp(*limits.start(), *limits.end()))
    }

    /// Whole seconds, or a text with a unit; limits in milliseconds.
    pub fn duration(&mut self, key: &str, limits_ms: RangeInclusive<i64>) -> Option<Duration> {
        let node = self.get(key)?;
        let Some(milliseconds) = quantity::milliseconds(node) else {
            self.wrong(
                key,
                node,
                not_a("a duration", node),
                "write a number of seconds, or a text with a unit like 30s or 5min",
            );
            return None;
        };
        let nearest = milliseconds.clamp(*limits_ms.start(), *limits_ms.end());
        if nearest != milliseconds {
            let (least, most) = (seconds(*limits_ms.start()), seconds(*limits_ms.end()));
            let what = format!("{} s is out of range", seconds(milliseconds));
            self.wrong(key, node, what, format!("write {least} to {most} seconds"));
        }
        u64::try_from(nearest).ok().map(Duration::from_millis)
    }

    /// A path, made absolute against the working directory.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        if text.is_empty() {
            return None;
        }
        match std::path::absolute(&text) {
            Ok(path) => Some(path),
            Err(error) => {
                let what = format!("{text:?} is no usable path: {error}");
                self.report.error(&self.key(key), &self.value_place(key), what, "write an absolute path");
                None
            }
        }
    }

    /// `host:port` of something to connect to.
    pub fn address(&mut self, key: &str, default_port: Option<u16>) -> Option<HostPort> {
        let node = self.get(key)?;
        read_address(self.report, &self.key(key), node, default_port)
    }

    /// `host[,host...]:port` to listen on.
    pub fn listen(&mut self, key: &str, default_port: Option<u16>) -> Option<ListenAddress> {
        let node = self.get(key)?;
        let text = scalar(self.report, &self.key(key), node, Shown::Yes)?;
        match ListenAddress::parse(&text, default_port) {
            Ok(address) => Some(address),
            Err(error) => {
                wrong_address(self.report, &self.key(key), node, &text, error);
                None
            }
        }
    }

    /// `host:port` to listen on, where there is one listener only.
    pub fn listen_at_one(&mut self, key: &str) -> Option<ListenAddress> {
        let address = self.listen(key, None)?;
        if address.hosts.len() > 1 {
            let (path, place) = (self.key(key), self.value_place(key));
            let what = format!("names {} hosts, but only one is possible here", address.hosts.len());
            self.report.error(&path, &place, what, format!("name one, or write '*:{}'", address.port));
        }
        Some(address)
    }

    /// A list of texts; one text alone is a list of one.
    pub fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let nodes = self.list(key)?;
        let path = self.key(key);
        Some(nodes.iter().filter_map(|node| scalar(self.report, &path, node, Shown::Yes)).collect())
    }

    /// The items of a list; one scalar alone is a list of one.
    pub fn list(&mut self, key: &str) -> Option<&'a [Node]> {
        let node = self.get(key)?;
        match &node.value {
            Value::List(items) => Some(items),
            Value::Map(_) => {
                self.wrong(key, node, "a map stands where a list is needed", "write each item as `- item`");
                None
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
                Some(std::slice::from_ref(node))
            }
        }
    }

    /// A map of scalars; null values are left out. Booleans become `on` and `off`.
    pub fn scalars(&mut self, key: &str) -> Option<BTreeMap<String, String>> {
        let section = self.section(key);
        if !section.is_present() {
            return None;
        }
        Some(section.free_scalars(&[]).into_iter().collect())
    }

    /// The scalars of this section, except the named keys, in the order of the text.
    pub fn free_scalars(&self, except: &[&str]) -> Vec<(String, String)> {
        let wanted = |key: &str| !except.contains(&key);
        self.entries()
            .iter()
            .filter(|entry| wanted(&entry.key) && entry.value.value != Value::Null)
            .filter_map(|entry| {
                let path = self.key(&shown_key(&entry.key));
                match entry.value.scalar_text() {
                    Some(text) => Some((entry.key.clone(), text)),
                    None => {
                        self.report.error(
                            &path,
                            &entry.value.place,
                            format!("{} stands where one value is needed", entry.value.value.kind()),
                            "write one text or number",
                        );
                        None
                    }
                }
            })
            .collect()
    }

    /// Keys of Patroni which are understood but change nothing yet.
    pub fn without_effect_yet(&mut self, keys: &[&str]) {
        for key in keys {
            if self.get(key).is_some() {
                let cure = "it is accepted, but do not rely on it";
                self.report.warning(&self.key(key), &self.key_place(key), "has no effect yet", cure);
            }
        }
    }

    /// Keys of Patroni which will never mean anything here.
    pub fn meaningless(&mut self, keys: &[&str], why: &str) {
        for key in keys {
            if self.get(key).is_some() {
                self.report.warning(&self.key(key), &self.key_place(key), why, "remove it");
            }
        }
    }

    /// Reports the keys which nobody asked for.
    pub fn close(self) {
        for entry in self.entries() {
            // `x-...` is where files keep the maps which they merge elsewhere.
            let is_own = self.path.is_empty() && entry.key.starts_with("x-");
            if is_own || self.asked.contains(&entry.key) {
                continue;
            }
            let cure = match nearest(&entry.key, &self.asked) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "remove it, or correct its name or indentation".to_owned(),
            };
            let key = self.key(&shown_key(&entry.key));
            self.report.warning(&key, &entry.place, "is not a known key and has no effect", cure);
        }
    }
}

fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(&key.to_lowercase(), known), known))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.as_str())
}

fn within(limits: &RangeInclusive<i64>, unit: Unit) -> String {
    let (least, most) = limits.clone().into_inner();
    let unit = unit.name();
    if most == i64::MAX {
        format!("write {least}{unit} or more")
    } else {
        format!("write {least} to {most}{unit}")
    }
}

fn seconds(milliseconds: i64) -> String {
    if milliseconds % 1000 == 0 {
        (milliseconds / 1000).to_string()
    } else {
        format!("{}.{:03}", milliseconds / 1000, (milliseconds % 1000).abs())
    }
}
