//! From parser events to the tree: anchors, aliases, merge keys, explicit tags, limits.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::scalar::{float, integer, resolve_plain};
use super::{Entry, Map, Node, Place, Value};

/// The most bytes of a text: far above any configuration, far below what could hurt.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The deepest nesting: recursion over the tree stays within a thread's stack.
pub const MAX_DEPTH: usize = 64;
/// The most nodes after aliases are expanded, each [`BYTES_PER_WEIGHT`] bytes of text counting as one more:
/// a few lines of nested aliases could otherwise ask for all memory.
pub const MAX_WEIGHT: usize = 200_000;
/// See [`MAX_WEIGHT`].
const BYTES_PER_WEIGHT: usize = 64;

/// A text as a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The top of the tree; null for an empty text.
    pub root: Node,
    /// Keys which were given more than once in one map; the last one counts, as in PyYAML.
    pub duplicates: Vec<Duplicate>,
}

/// A key which one map has twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The key.
    pub key: String,
    /// Where it was first.
    pub first: Place,
    /// Where it was again.
    pub again: Place,
}

/// Why a text is no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {cure}")]
pub struct YamlError {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

fn error(place: Place, what: impl Into<String>, cure: impl Into<String>) -> YamlError {
    YamlError { place, what: what.into(), cure: cure.into() }
}

/// Reads one document.
///
/// # Errors
/// The text is no YAML, has several documents, a tag which a configuration cannot have, or breaks a limit.
pub fn load(text: &str) -> Result<Document, YamlError> {
    let start = Place::Text { line: 1, column: 1 };
    if text.len() > MAX_BYTES {
        let what = format!("the text has {} bytes, more than the limit of {MAX_BYTES}", text.len());
        return Err(error(start, what, "is this the right file?"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_control_characters(text)?;
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|scan| {
            let place = Place::Text { line: scan.marker().line(), column: scan.marker().col() + 1 };
            error(
                place,
                format!("this is not valid YAML: {}", scan.info()),
                "check the indentation, quotes and colons of this line and the one above",
            )
        })?;
        builder.event(event, span)?;
    }
    let root = builder.root.unwrap_or(Node { place: start, value: Value::Null, source: String::new() });
    Ok(Document { root, duplicates: builder.duplicates })
}

/// PyYAML refuses them too; the parser would take NUL for the end of the text and drop the rest silently.
fn refuse_control_characters(text: &str) -> Result<(), YamlError> {
    let (mut line, mut column) = (1, 0);
    for c in text.chars() {
        column += 1;
        if c == '\n' {
            line += 1;
            column = 0;
        }
        let allowed = matches!(c, '\t' | '\n' | '\r' | '\u{85}') || !c.is_control();
        if !allowed {
            return Err(error(
                Place::Text { line, column },
                format!("the control character U+{:04X} is not allowed in YAML", u32::from(c)),
                "remove it, or write it as an escape in double quotes",
            ));
        }
    }
    Ok(())
}

/// A list or map which is not closed yet.
struct Open {
    place: Place,
    anchor: usize,
    weight: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, merges: Vec<Node>, key: Option<Key> },
}

enum Key {
    Name(String, Place),
    Merge,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    weight: usize,
    root: Option<Node>,
    duplicates: Vec<Duplicate>,
}

/// What the parser says about one node.
struct Scalar<'input> {
    text: Cow<'input, str>,
    style: ScalarStyle,
    tag: Option<Cow<'input, Tag>>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let place = Place::Text { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => Err(error(
                place,
                "a second document begins here",
                "keep one document in the file: remove the `---`",
            )),
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(id) => self.alias(id, place),
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(Scalar { text, style, tag }, anchor, place)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", &place)?;
                self.begin(place, anchor, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", &place)?;
                let kind = OpenKind::Map { entries: Vec::new(), merges: Vec::new(), key: None };
                self.begin(place, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, kind: OpenKind) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            let what = format!("the nesting is deeper than {MAX_DEPTH} levels");
            return Err(error(place, what, "a configuration needs about six; is this the right file?"));
        }
        if let Some(Open { kind: OpenKind::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(error(
                place,
                "a list or a map cannot be a key",
                "put quotes around the key if it is meant to be text",
            ));
        }
        self.add_weight(1, &place)?;
        self.open.push(Open { place, anchor, weight: 1, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(Open { place, anchor, weight, kind }) = self.open.pop() else { return Ok(()) };
        let value = match kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { entries, merges, .. } => Value::Map(self.close_map(entries, merges)?),
        };
        self.place_node(Node { place, value, source: String::new() }, anchor, weight)
    }

    fn scalar(&mut self, scalar: Scalar<'_>, anchor: usize, place: Place) -> Result<(), YamlError> {
        let weight = 1 + scalar.text.len() / BYTES_PER_WEIGHT;
        self.add_weight(weight, &place)?;
        if let Some(Open { kind: OpenKind::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            let merges = scalar.text == "<<" && scalar.style == ScalarStyle::Plain && scalar.tag.is_none();
            let name = scalar.text.into_owned();
            if anchor != 0 {
                self.anchors.insert(anchor, (Node::text(place.clone(), &name), weight));
            }
            *key = Some(if merges { Key::Merge } else { Key::Name(name, place) });
            return Ok(());
        }
        let value = value_of(&scalar, &place)?;
        self.place_node(Node { place, value, source: scalar.text.into_owned() }, anchor, weight)
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<(), YamlError> {
        let Some((node, weight)) = self.anchors.get(&id).cloned() else {
            return Err(error(
                place,
                "this alias stands for a value which contains the alias itself",
                "write the value out",
            ));
        };
        self.add_weight(weight, &place)?;
        if self.open.len() + depth(&node) > MAX_DEPTH {
            let what = format!("with this alias the nesting is deeper than {MAX_DEPTH} levels");
            return Err(error(place, what, "write the value out"));
        }
        if let Some(Open { kind: OpenKind::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            let Some(name) = node.scalar_text() else {
                return Err(error(place, "a list or a map cannot be a key", "write the key out"));
            };
            *key = Some(Key::Name(name, place));
            return Ok(());
        }
        self.place_node(node, 0, weight)
    }

    fn add_weight(&mut self, weight: usize, place: &Place) -> Result<(), YamlError> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > MAX_WEIGHT {
            let what = format!("with its aliases expanded the text has more than {MAX_WEIGHT} values");
            return Err(error(place.clone(), what, "is this the right file? use fewer aliases"));
        }
        Ok(())
    }

    /// Puts a finished node into the list or map it belongs to.
    fn place_node(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight += weight;
        match &mut parent.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { entries, merges, key } => match key.take() {
                Some(Key::Name(name, place)) => entries.push(Entry { key: name, place, value: node }),
                Some(Key::Merge) => merges.push(node),
                None => {
                    return Err(error(
                        node.place,
                        "a list or a map cannot be a key",
                        "put quotes around the key if it is meant to be text",
                    ));
                }
            },
        }
        Ok(())
    }

    /// Own keys win over merged ones; of several merged maps in one list the first wins; the last of a key given
    /// twice wins.
    fn close_map(&mut self, own: Vec<Entry>, merges: Vec<Node>) -> Result<Map, YamlError> {
        let mut merged = Vec::new();
        for node in merges {
            merged.extend(merged_entries(node)?);
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(merged.len() + own.len());
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut put = |entry: Entry| match index.get(&entry.key).and_then(|at| entries.get_mut(*at)) {
            Some(slot) => Some(std::mem::replace(slot, entry)),
            None => {
                index.insert(entry.key.clone(), entries.len());
                entries.push(entry);
                None
            }
        };
        for entry in merged {
            put(entry);
        }
        let mut seen: BTreeMap<String, Place> = BTreeMap::new();
        for entry in own {
            if let Some(first) = seen.insert(entry.key.clone(), entry.place.clone()) {
                self.duplicates.push(Duplicate { key: entry.key.clone(), first, again: entry.place.clone() });
            }
            put(entry);
        }
        Ok(Map { entries })
    }
}

fn merged_entries(node: Node) -> Result<Vec<Entry>, YamlError> {
    let wrong = |place: Place| {
        error(
            place,
            "a merge key `<<` takes a map or a list of maps",
            "write `<<: *NAME`, where `&NAME` marks a map",
        )
    };
    let mut entries = Vec::new();
    match node.value {
        Value::Map(map) => entries = map.entries,
        Value::List(items) => {
            // The first of the list wins: it has to come last.
            for item in items.into_iter().rev() {
                let Value::Map(map) = item.value else { return Err(wrong(item.place)) };
                entries.extend(map.entries);
            }
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
            return Err(wrong(node.place));
        }
    }
    Ok(entries)
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(map) => 1 + map.entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}

fn value_of(scalar: &Scalar<'_>, place: &Place) -> Result<Value, YamlError> {
    let text = scalar.text.as_ref();
    // A lone `!` says nothing to PyYAML.
    let says_nothing = |tag: &&Tag| {
        (tag.handle == "!" && tag.suffix.is_empty()) || (tag.handle.is_empty() && tag.suffix == "!")
    };
    let Some(tag) = scalar.tag.as_deref().filter(|tag| !says_nothing(tag)) else {
        return Ok(match scalar.style {
            ScalarStyle::Plain => resolve_plain(text),
            ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => Value::Text(text.to_owned()),
        });
    };
    let value = match core_suffix(tag) {
        Some("str") | Some("timestamp") => Some(Value::Text(text.to_owned())),
        Some("null") => Some(Value::Null),
        Some("bool") => match resolve_plain(&text.to_lowercase()) {
            value @ Value::Bool(_) => Some(value),
            Value::Null
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => None,
        },
        Some("int") => integer(text).map(Value::Integer),
        Some("float") => float(text).or_else(|| text.replace('_', "").parse().ok()).map(Value::Float),
        _ => return Err(unknown_tag(place)),
    };
    value.ok_or_else(|| {
        error(
            place.clone(),
            "the value does not have the type which its tag names",
            "remove the tag, or correct the value",
        )
    })
}

fn core_suffix(tag: &Tag) -> Option<&str> {
    if tag.is_yaml_core_schema() {
        return Some(&tag.suffix);
    }
    (tag.handle.is_empty()).then(|| tag.suffix.strip_prefix("tag:yaml.org,2002:")).flatten()
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, place: &Place) -> Result<(), YamlError> {
    match tag {
        Some(tag) if core_suffix(tag) != Some(allowed) => Err(unknown_tag(place)),
        Some(_) | None => Ok(()),
    }
}

fn unknown_tag(place: &Place) -> YamlError {
    error(
        place.clone(),
        "this tag has no meaning in a configuration",
        "remove the tag (put quotes around the value if it begins with `!`)",
    )
}
