//! Settings as YAML for people: block style, two blanks a level, the given order, quotes only where they are needed.
//!
//! Promises: what is written means the same when [`pgherd_raft::yaml`] or PyYAML reads it back, whatever the texts hold.

use pgherd_raft::yaml::{self, resolve_plain};
use serde_json::Value;

/// The value as a YAML text which ends with a line break.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0, false),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
    out
}

/// `continues`: the first entry stands behind the dash of a list.
fn write_map(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize, continues: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || !continues {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(&text(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                write_map(out, inner, indent.saturating_add(2), false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                write_list(out, items, indent, false);
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                out.push(' ');
                out.push_str(&scalar(value));
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, items: &[Value], indent: usize, continues: bool) {
    let below = indent.saturating_add(2);
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !continues {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => write_map(out, inner, below, true),
            Value::Array(inner) if !inner.is_empty() => write_list(out, inner, below, true),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                out.push_str(&scalar(item));
                out.push('\n');
            }
        }
    }
}

/// A value of one line; of lists and maps the empty ones.
fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => self::number(number),
        Value::String(string) => text(string),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

/// YAML 1.1 wants a point and a signed exponent, or it reads text.
fn number(number: &serde_json::Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return text };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

fn text(text: &str) -> String {
    if text.chars().any(needs_escape) {
        return escaped(text);
    }
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn escaped(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if needs_escape(c) => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Does this stand for itself without quotes?
fn is_plain(text: &str) -> bool {
    let is_text = matches!(resolve_plain(text), yaml::Value::Text(_)) && !looks_like_another_type(text);
    let begins_well = !text
        .starts_with(['#', ',', '[', ']', '{', '}', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' '])
        && !text.starts_with("---")
        && !text.starts_with("...");
    // These are indicators only before a blank or at the end.
    let is_indicator = ["-", "?", ":"]
        .iter()
        .any(|sign| text.strip_prefix(sign).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')));
    let goes_on_well =
        !text.contains(": ") && !text.contains(" #") && !text.ends_with(':') && !text.ends_with(' ');
    is_text && begins_well && !is_indicator && goes_on_well
}

/// What this crate's reader takes for text and other readers do not: dates, numbers beyond 64 bits, `<<` and `=`.
fn looks_like_another_type(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '_');
    let year: String = text.chars().take_while(char::is_ascii_digit).collect();
    let is_date = year.len() == 4 && text.get(4..).is_some_and(|rest| rest.starts_with('-'));
    is_number || is_date || matches!(text, "<<" | "=")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_look_as_patronis_users_know_them() {
        let settings = json!({
            "ttl": 30, "loop_wait": 10, "pause": null, "synchronous_mode": true, "slots": {}, "ignore_slots": [],
            "postgresql": {
                "parameters": {"archive_command": "cp %p /wal/%f", "work_mem": "8MB", "search_path": "\"$user\", public",
                    "hot_standby": "on", "random_page_cost": 1.1, "port": "5432", "log_line_prefix": "%m [%p] "},
                "pg_hba": ["local all all trust", "# a comment", "host all all 0.0.0.0/0 md5"],
                "create_replica_methods": [["a", "b"], {"name": "x", "keys": {"k": 1}}]
            }
        });
        let expected = "\
ttl: 30
loop_wait: 10
pause: null
synchronous_mode: true
slots: {}
ignore_slots: []
postgresql:
  parameters:
    archive_command: cp %p /wal/%f
    work_mem: 8MB
    search_path: '\"$user\", public'
    hot_standby: 'on'
    random_page_cost: 1.1
    port: '5432'
    log_line_prefix: '%m [%p] '
  pg_hba:
  - local all all trust
  - '# a comment'
  - host all all 0.0.0.0/0 md5
  create_replica_methods:
  - - a
    - b
  - name: x
    keys:
      k: 1
";
        assert_eq!(to_yaml(&settings), expected);
        assert_eq!(to_yaml(&json!({})), "{}\n");
        assert_eq!(to_yaml(&json!("a")), "a\n");
    }

    #[test]
    fn whatever_a_text_holds_it_is_read_back() {
        let texts = [
            "",
            " ",
            "a ",
            " a",
            "a: b",
            "a:",
            ":",
            "-",
            "- a",
            "-a",
            "?",
            "? a",
            "#",
            "a #b",
            "a#b",
            "'",
            "''",
            "\"",
            "it's",
            "yes",
            "No",
            "null",
            "~",
            "1",
            "-1.5",
            "1e3",
            "0x1F",
            "1_000",
            "12:30",
            "2026-01-01",
            "=",
            "<<",
            "99999999999999999999",
            "[a]",
            "{a: b}",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "a\nb",
            "a\tb\r",
            "\u{85}",
            "\u{2028}",
            "\u{feff}x",
            "\u{1}\\\"",
            "---",
            "...",
            "--- a",
            "é ü",
            "a, b",
            ".inf",
            ".nan",
        ];
        for text in texts {
            for value in [json!(text), json!({text: text}), json!([text, [text]]), json!({"k": {"l": text}})]
            {
                let written = to_yaml(&value);
                let read = yaml::load(&written).unwrap_or_else(|e| panic!("{written:?}: {e:?}")).root;
                assert_eq!(read.to_json(), value, "{written:?}");
            }
        }
    }

    #[test]
    fn numbers_stay_numbers() {
        for value in [json!(1e300), json!(1.5e-7), json!(-0.5), json!(i64::MIN), json!(100.0)] {
            let read = yaml::load(&to_yaml(&value)).expect("yaml").root.to_json();
            assert_eq!(read.as_f64(), value.as_f64(), "{}", to_yaml(&value));
        }
    }
}
