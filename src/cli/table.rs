//! Tables: the same rows as a drawing, as tab-separated values, as JSON and as YAML.

use std::borrow::Cow;
use std::io::{self, Write};

use pgherd_raft::yaml;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value};

use super::arguments::Format;
use crate::config::to_yaml;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name in tsv, JSON and YAML.
    pub(super) key: Cow<'static, str>,
    /// Its title in a drawing; none: it is not drawn.
    pub(super) title: Option<Cow<'static, str>>,
    /// Numbers stand on the right.
    pub(super) is_right: bool,
}

impl Column {
    /// With a title of its own in a drawing.
    pub(super) fn titled(key: &'static str, title: &'static str, is_right: bool) -> Self {
        Self { key: key.into(), title: Some(title.into()), is_right }
    }
}

/// Rows of values, one for each column; null is an empty cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    /// Written into the first line of the drawing.
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
    /// JSON and YAML have the empty cells as well.
    pub(super) keeps_empty: bool,
}

impl Table {
    /// In one of the formats.
    pub(super) fn in_format(&self, format: Format) -> String {
        match format {
            Format::Pretty => self.pretty(),
            Format::Tsv => self.tsv("\t"),
            Format::Json => self.json(),
            Format::Yaml => self.yaml(),
        }
    }

    /// A drawing as patronictl makes it, without a newline at the end.
    pub(super) fn pretty(&self) -> String {
        let drawn: Vec<(usize, &Column, &str)> = self
            .columns
            .iter()
            .enumerate()
            .filter_map(|(index, column)| Some((index, column, column.title.as_deref()?)))
            .collect();
        let rows: Vec<Vec<Vec<String>>> = self
            .rows
            .iter()
            .map(|row| drawn.iter().map(|(index, _, _)| lines(row.get(*index))).collect())
            .collect();
        let widths: Vec<usize> = drawn
            .iter()
            .enumerate()
            .map(|(place, (_, _, title))| {
                let cells = rows.iter().filter_map(|row| row.get(place)).flatten();
                cells.map(|line| width(line)).chain([width(title)]).max().unwrap_or(0)
            })
            .collect();
        let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
        let rule = rule + "+";
        let mut out = vec![self.headline(&rule)];
        let titles: Vec<Vec<String>> = drawn.iter().map(|(_, _, title)| vec![(*title).to_owned()]).collect();
        let is_right: Vec<bool> = drawn.iter().map(|(_, column, _)| column.is_right).collect();
        out.extend(draw(&titles, &widths, &is_right));
        out.push(rule.clone());
        // Rows of several lines would run into each other.
        let has_rules = rows.iter().flatten().any(|cell| cell.len() > 1);
        for (number, row) in rows.iter().enumerate() {
            if has_rules && number > 0 {
                out.push(rule.clone());
            }
            out.extend(draw(row, &widths, &is_right));
        }
        if !rows.is_empty() {
            out.push(rule);
        }
        out.join("\n")
    }

    fn headline(&self, rule: &str) -> String {
        let room = rule.chars().count().saturating_sub(2);
        let title: String = self.title.chars().take(room).collect();
        let rest: String = rule.chars().skip(1 + title.chars().count()).collect();
        format!("+{title}{rest}")
    }

    /// The names of the columns, then the rows, with this between the columns.
    pub(super) fn tsv(&self, delimiter: &str) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.key.as_ref()).collect();
        let mut out = vec![names.join(delimiter)];
        for row in &self.rows {
            // A row is a line, whatever its cells hold.
            let cells: Vec<String> = row.iter().map(|cell| flow(cell).replace('\n', " ")).collect();
            out.push(cells.join(delimiter));
        }
        out.join("\n")
    }

    /// An array of objects; empty cells are left out.
    pub(super) fn json(&self) -> String {
        spaced(&Value::Array(self.objects()))
    }

    /// A list of maps with sorted keys; empty cells are left out.
    pub(super) fn yaml(&self) -> String {
        yaml_list(&self.objects())
    }

    fn objects(&self) -> Vec<Value> {
        let object = |row: &Vec<Value>| {
            let pairs =
                self.columns.iter().zip(row).filter(|(_, value)| self.keeps_empty || !is_empty(value));
            Value::Object(
                pairs.map(|(column, value)| (column.key.clone().into_owned(), value.clone())).collect(),
            )
        };
        self.rows.iter().map(object).collect()
    }
}

/// JSON in one line with blanks behind commas and colons, as scripts around patronictl look for it.
fn spaced(value: &Value) -> String {
    struct Spaced;
    impl Formatter for Spaced {
        fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut text = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut text, Spaced));
    let text = written.ok().and_then(|()| String::from_utf8(text).ok());
    text.unwrap_or_else(|| value.to_string())
}

/// A list of objects as YAML with sorted keys.
pub(super) fn yaml_list(objects: &[Value]) -> String {
    to_yaml(&objects.iter().map(in_order).collect())
}

/// An object as YAML with sorted keys.
pub(super) fn yaml_object(object: &Value) -> String {
    to_yaml(&in_order(object))
}

/// With the keys of every map sorted.
fn in_order(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let pairs = sorted(map).into_iter();
            Value::Object(pairs.map(|(key, value)| (key.clone(), in_order(value))).collect())
        }
        Value::Array(items) => items.iter().map(in_order).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn width(line: &str) -> usize {
    line.chars().count()
}

/// The lines of text which a row of cells makes.
fn draw(row: &[Vec<String>], widths: &[usize], is_right: &[bool]) -> Vec<String> {
    let height = row.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let line = |number: usize| {
        let mut out = String::from("|");
        for ((cell, wide), is_right) in row.iter().zip(widths).zip(is_right) {
            let text = cell.get(number).map_or("", String::as_str);
            let padding = " ".repeat(wide.saturating_sub(width(text)));
            if *is_right {
                out.push_str(&format!(" {padding}{text} |"));
            } else {
                out.push_str(&format!(" {text}{padding} |"));
            }
        }
        out
    };
    (0..height).map(line).collect()
}

/// A cell of a drawing: maps are written as YAML, a line a key.
fn lines(value: Option<&Value>) -> Vec<String> {
    let text = match value {
        None => String::new(),
        Some(object @ Value::Object(map)) if !map.is_empty() => yaml_object(object),
        Some(other) => flow(other),
    };
    text.lines().map(str::to_owned).collect()
}

/// A value on one line.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Object(map) => {
            let pairs: Vec<String> = sorted(map)
                .iter()
                .map(|(key, value)| format!("{}: {}", scalar(key), flow_item(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow_item).collect::<Vec<_>>().join(", ")),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn flow_item(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => scalar(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => flow(value),
    }
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| *key);
    pairs
}

/// A text as a YAML scalar: quoted when it would be read as something else.
fn scalar(text: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || "_-./:+() ".contains(c);
    let is_plain = text.starts_with(char::is_alphanumeric)
        && !text.ends_with([' ', ':'])
        && text.chars().all(is_word)
        && !text.contains(": ")
        && matches!(yaml::resolve_plain(text), yaml::Value::Text(_));
    if is_plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    if text.chars().any(char::is_control) {
        return Value::from(text).to_string();
    }
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        let column = |key: &'static str, title: Option<&'static str>, is_right| Column {
            key: key.into(),
            title: title.map(Cow::from),
            is_right,
        };
        Table {
            title: " Cluster: demo (1) ".to_owned(),
            columns: vec![
                column("Cluster", None, false),
                column("Member", Some("Member"), false),
                column("TL", Some("TL"), true),
                column("Tags", Some("Tags"), false),
            ],
            rows: vec![
                vec![json!("demo"), json!("a"), json!(12), json!({"b": true, "a": "true"})],
                vec![json!("demo"), json!("long-name"), Value::Null, json!({})],
            ],
            keeps_empty: false,
        }
    }

    #[test]
    fn drawn() {
        assert_eq!(
            table().pretty(),
            "+ Cluster: demo (1) -----------+\n\
             | Member    | TL | Tags      |\n\
             +-----------+----+-----------+\n\
             | a         | 12 | a: 'true' |\n\
             |           |    | b: true   |\n\
             +-----------+----+-----------+\n\
             | long-name |    |           |\n\
             +-----------+----+-----------+"
                .replacen("-----------+\n", "---------+\n", 1)
        );
    }

    #[test]
    fn rows_of_one_line_have_no_rules_between_them() {
        let mut table = table();
        table.rows.iter_mut().for_each(|row| drop(row.pop()));
        table.columns.pop();
        assert_eq!(table.pretty().lines().filter(|line| line.starts_with("+-")).count(), 2);
    }

    #[test]
    fn empty_cells_are_kept_where_they_are_data() {
        let mut table = table();
        table.keeps_empty = true;
        assert!(
            table.json().ends_with(r#"{"Cluster": "demo", "Member": "long-name", "TL": null, "Tags": {}}]"#)
        );
        assert!(table.yaml().ends_with("- Cluster: demo\n  Member: long-name\n  TL: null\n  Tags: {}\n"));
    }

    #[test]
    fn as_data() {
        assert_eq!(
            table().tsv("\t"),
            "Cluster\tMember\tTL\tTags\ndemo\ta\t12\t{a: 'true', b: true}\ndemo\tlong-name\t\t"
        );
        assert_eq!(
            table().json(),
            "[{\"Cluster\": \"demo\", \"Member\": \"a\", \"TL\": 12, \"Tags\": {\"b\": true, \"a\": \"true\"}}, \
             {\"Cluster\": \"demo\", \"Member\": \"long-name\"}]"
        );
        assert_eq!(
            table().yaml(),
            "- Cluster: demo\n  Member: a\n  TL: 12\n  Tags:\n    a: 'true'\n    b: true\n\
             - Cluster: demo\n  Member: long-name\n"
        );
    }

    #[test]
    fn scalars_are_quoted_when_they_would_be_read_as_something_else() {
        for text in ["on", "1", "null", "", "a: b", "- x", "#x", "0/5000060", "12:30:45"] {
            assert_eq!(scalar(text) == text, text == "0/5000060", "{text}");
        }
        assert_eq!(scalar("it's"), "'it''s'");
        assert_eq!(scalar("a\nb"), "\"a\\nb\"");
    }
}
