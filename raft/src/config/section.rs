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

use crate::address::{HostPort, InvalidAddress, ListenAddress};
use crate::model::MemberName;
use crate::telemetry::LogLevel;
use crate::yaml::{Entry, Map, Node, Place, Value};

use super::problem::Report;
use super::quantity::{self, Unit};
use super::secret::Secret;

/// How alike an unknown key must be to a known one to be offered for it (0 to 1).
const ALIKE: f64 = 0.7;
/// The longest scope.
const MAX_SCOPE_LEN: usize = 128;

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
                let cure = "nothing to do: it is accepted";
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

/// May a value be quoted in a message?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Yes.
    Yes,
    /// No: it may be a password.
    No,
}

/// A scalar as text. A number which YAML reads otherwise than it was written is worth a warning: it is Patroni's
/// reading, so it counts, but hardly what its author meant.
pub fn scalar(report: &Report, path: &str, node: &Node, shown: Shown) -> Option<String> {
    let cure = "put quotes around it";
    match &node.value {
        Value::Text(text) => {
            if text.contains('\0') {
                report.error(path, &node.place, "contains a NUL character", "remove it");
                return None;
            }
            Some(text.clone())
        }
        Value::Integer(_) | Value::Float(_) => {
            let text = node.scalar_text()?;
            if text != node.source {
                let what = match shown {
                    Shown::Yes => format!("YAML reads {} as the number {text}", node.source),
                    Shown::No => "YAML reads this as a number with another spelling".to_owned(),
                };
                report.warning(path, &node.place, what, cure);
            }
            Some(text)
        }
        Value::Bool(_) => {
            let what = match shown {
                Shown::Yes => format!("YAML reads {} as a boolean where text is needed", node.source),
                Shown::No => "YAML reads this as a boolean where text is needed".to_owned(),
            };
            report.error(path, &node.place, what, cure);
            None
        }
        other @ (Value::Null | Value::List(_) | Value::Map(_)) => {
            let what = format!("{} stands where text is needed", other.kind());
            report.error(path, &node.place, what, "write one text");
            None
        }
    }
}

/// A cluster's name: it becomes a directory's name and a parameter's value.
pub fn read_scope(report: &Report, path: &str, node: &Node) -> Option<String> {
    let scope = scalar(report, path, node, Shown::Yes)?;
    let wrong = if scope.is_empty() {
        "is empty".to_owned()
    } else if scope.len() > MAX_SCOPE_LEN {
        format!("has more than {MAX_SCOPE_LEN} bytes")
    } else if scope == "." || scope == ".." || scope.contains('/') || scope.chars().any(char::is_control) {
        format!("{scope:?} cannot be the name of a directory")
    } else {
        return Some(scope);
    };
    report.error(path, &node.place, wrong, "use letters, digits, - and _");
    None
}

/// `host:port` in a node.
pub fn read_address(report: &Report, path: &str, node: &Node, default_port: Option<u16>) -> Option<HostPort> {
    let text = scalar(report, path, node, Shown::Yes)?;
    match HostPort::parse(&text, default_port) {
        Ok(address) => Some(address),
        Err(error) => {
            wrong_address(report, path, node, &text, error);
            None
        }
    }
}

fn wrong_address(report: &Report, path: &str, node: &Node, text: &str, error: InvalidAddress) {
    let cure = match error {
        InvalidAddress::Brackets => "write [IPV6]:PORT, for example [fd00::1]:5432".to_owned(),
        InvalidAddress::Wildcard => "write the address at which the other members reach this one".to_owned(),
        InvalidAddress::SeveralHosts => "write one HOST:PORT".to_owned(),
        InvalidAddress::NoPort if text.contains(':') => {
            format!("write [{}]:PORT", text.trim_matches(['[', ']']))
        }
        InvalidAddress::NoPort => format!("write {text}:PORT"),
        InvalidAddress::NoHost | InvalidAddress::Port | InvalidAddress::Host => {
            "write HOST:PORT, for example 10.0.0.1:5432".to_owned()
        }
    };
    report.error(path, &node.place, format!("{text:?} is no address: {error}"), cure);
}

/// Patroni's texts for booleans count too.
pub fn read_boolean(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Bool(value) => Some(*value),
        Value::Integer(1) => Some(true),
        Value::Integer(0) => Some(false),
        Value::Text(text) => match text.to_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Integer(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
    }
}

/// "`x` is not a number": quotes short scalars, names the kind of others.
pub fn not_a(wanted: &str, node: &Node) -> String {
    match &node.value {
        Value::Text(text) if text.chars().count() <= 40 => format!("{text:?} is not {wanted}"),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => format!("{} is not {wanted}", node.source),
        other @ (Value::Null | Value::Text(_) | Value::List(_) | Value::Map(_)) => {
            format!("{} is not {wanted}", other.kind())
        }
    }
}

/// A key for a message: cut where it stops looking like a name, since `password:secret` without a blank is a key.
pub fn shown_key(key: &str) -> String {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '/');
    let name: String = key.chars().take_while(|c| is_name(*c)).take(64).collect();
    if name.len() == key.len() { name } else { format!("{name}...") }
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
