//! Single values of a tree: reading one, and saying what is wrong with it without quoting a password.

use super::problem::Report;
use crate::address::{HostPort, InvalidAddress};
use crate::yaml::{Node, Value};

/// The longest scope.
const MAX_SCOPE_LEN: usize = 128;

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

pub(super) fn wrong_address(report: &Report, path: &str, node: &Node, text: &str, error: InvalidAddress) {
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
