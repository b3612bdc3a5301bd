//! YAML as PyYAML's `safe_load` reads it (YAML 1.1 scalars, merge keys), with the place of every value.
//!
//! Owns the way from text to a tree of [`Node`]s. Promises: each node knows its line and column; the size of the
//! tree is bounded whatever the text holds (aliases included); a text which is no YAML gives one error with its place.
//! Must never quote values in its errors: they may be passwords.

mod load;
mod merge;
mod scalar;

use std::fmt;
use std::sync::Arc;

pub use load::{Document, Duplicate, MAX_BYTES, MAX_DEPTH, MAX_WEIGHT, YamlError, load};
pub use scalar::resolve_plain;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the text; both count from 1, the column in characters.
    Text {
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// Elsewhere: the name of an environment variable, or what else a sentence can call it.
    Named(Arc<str>),
}

impl Place {
    /// A place outside the text.
    pub fn named(name: &str) -> Self {
        Self::Named(Arc::from(name))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { line, column } => write!(f, "line {line}, column {column}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A value with its place.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// Where it begins; for what an alias stands for, where the anchor is.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// A scalar as it was written (without quotes); empty for lists and maps.
    pub source: String,
}

/// What a node holds.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `~`, `null` or nothing.
    Null,
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// A whole number which fits into 64 bits; greater ones are text.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// Anything else, timestamps included.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

impl Value {
    /// The kind of value, for a sentence.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    /// A text from elsewhere than a YAML text.
    pub fn text(place: Place, text: &str) -> Self {
        Self { place, value: Value::Text(text.to_owned()), source: text.to_owned() }
    }

    /// The scalar as text, numbers in Python's spelling and booleans as `on` and `off`; none for lists and maps.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Null => Some(String::new()),
            Value::Bool(true) => Some("on".to_owned()),
            Value::Bool(false) => Some("off".to_owned()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(format!("{number:?}")),
            Value::Text(text) => Some(text.clone()),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The tree as JSON; infinite numbers and NaN become text. Its depth is bounded by [`MAX_DEPTH`].
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => serde_json::Number::from_f64(*number)
                .map_or_else(|| self.source.clone().into(), serde_json::Value::Number),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(map) => {
                let mut object = serde_json::Map::new();
                for entry in map.entries() {
                    object.insert(entry.key.clone(), entry.value.to_json());
                }
                serde_json::Value::Object(object)
            }
        }
    }

    /// A JSON value as a tree; every node gets the same place.
    pub fn from_json(value: &serde_json::Value, place: &Place) -> Self {
        let (value, source) = match value {
            serde_json::Value::Null => (Value::Null, String::new()),
            serde_json::Value::Bool(value) => (Value::Bool(*value), value.to_string()),
            serde_json::Value::Number(number) => {
                let value = match (number.as_i64(), number.as_f64()) {
                    (Some(whole), _) => Value::Integer(whole),
                    (None, Some(float)) => Value::Float(float),
                    (None, None) => Value::Text(number.to_string()),
                };
                (value, number.to_string())
            }
            serde_json::Value::String(text) => (Value::Text(text.clone()), text.clone()),
            serde_json::Value::Array(items) => {
                (Value::List(items.iter().map(|item| Self::from_json(item, place)).collect()), String::new())
            }
            serde_json::Value::Object(object) => {
                let mut map = Map::default();
                for (key, value) in object {
                    map.entries.push(Entry {
                        key: key.clone(),
                        place: place.clone(),
                        value: Self::from_json(value, place),
                    });
                }
                (Value::Map(map), String::new())
            }
        };
        Self { place: place.clone(), value, source }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.value, self.place)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Scalars by their kind only: some are passwords.
        match self {
            Self::List(items) => f.debug_list().entries(items).finish(),
            Self::Map(map) => {
                f.debug_map().entries(map.entries().iter().map(|e| (&e.key, &e.value))).finish()
            }
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Float(_) | Self::Text(_) => {
                f.write_str(self.kind())
            }
        }
    }
}

/// A mapping: each key once, in the order of the text.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Map {
    entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as it was written (a key `on` is the text `on`).
    pub key: String,
    /// Where the key is.
    pub place: Place,
    /// Its value.
    pub value: Node,
}

impl Map {
    /// All keys in the order of the text.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key with its place and value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Sets a key: in its place when it exists, else at the end.
    pub fn set(&mut self, key: &str, place: Place, value: Node) {
        match self.entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => {
                entry.place = place;
                entry.value = value;
            }
            None => self.entries.push(Entry { key: key.to_owned(), place, value }),
        }
    }

    /// The value of a key for a change; a missing or null one becomes an empty map at `place`.
    /// None when the key holds something else than a map.
    pub fn section_mut(&mut self, key: &str, place: &Place) -> Option<&mut Self> {
        if self.get(key).is_none_or(|node| node.value == Value::Null) {
            let empty =
                Node { place: place.clone(), value: Value::Map(Self::default()), source: String::new() };
            self.set(key, place.clone(), empty);
        }
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        match &mut entry.value.value {
            Value::Map(map) => Some(map),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => None,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
