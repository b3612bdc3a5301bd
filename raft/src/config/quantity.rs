//! Numbers with PostgreSQL's units: `16MB`, `30s`, `5min`.

use crate::yaml::{Node, Value};

/// What a number without a unit counts, and so which units may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Plain numbers only.
    None,
    /// Bytes: B, kB, MB, GB, TB.
    Bytes,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Bytes => " bytes",
        }
    }

    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Bytes => " of bytes, or a text with a unit like 16MB",
        }
    }
}

/// A whole number: YAML's own, or text with a unit.
pub fn integer(node: &Node, unit: Unit) -> Option<i64> {
    match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Text(text) => {
            let (number, suffix) = split_unit(text)?;
            let factor = match (unit, suffix) {
                (_, "") => 1,
                (Unit::Bytes, "B") => 1,
                (Unit::Bytes, "kB") => 1 << 10,
                (Unit::Bytes, "MB") => 1 << 20,
                (Unit::Bytes, "GB") => 1 << 30,
                (Unit::Bytes, "TB") => 1_i64 << 40,
                (Unit::None | Unit::Bytes, _) => return None,
            };
            number.parse::<i64>().ok()?.checked_mul(factor)
        }
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
    }
}

/// A duration in milliseconds; a number without a unit counts seconds and may have a fraction.
pub fn milliseconds(node: &Node) -> Option<i64> {
    match &node.value {
        Value::Integer(number) => number.checked_mul(1000),
        Value::Float(number) => thousandths(&format!("{number:.3}")),
        Value::Text(text) => {
            let (number, suffix) = split_unit(text)?;
            let factor = match suffix {
                "ms" => 1,
                "" | "s" => 1000,
                "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            thousandths(number)?.checked_mul(factor).map(|number| number / 1000)
        }
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    }
}

/// `-1.5` is -1500; digits beyond the third are dropped. None for anything but a decimal number.
fn thousandths(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
    let number = whole.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(padded.parse().ok()?)?;
    Some(if negative { -number } else { number })
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(at)?;
    let number = number.trim();
    (!number.is_empty()).then_some((number, unit))
}

#[cfg(test)]
mod tests {
    use crate::yaml::{Node, Place, resolve_plain};

    use super::*;

    fn node(text: &str) -> Node {
        Node { place: Place::named("test"), value: resolve_plain(text), source: text.to_owned() }
    }

    #[test]
    fn durations_are_seconds_unless_a_unit_says_otherwise() {
        for (text, expected) in [
            ("30", Some(30_000)),
            ("2.5", Some(2_500)),
            ("30s", Some(30_000)),
            ("1500ms", Some(1_500)),
            ("5min", Some(300_000)),
            ("5 min", Some(300_000)),
            ("1d", Some(86_400_000)),
            ("-1", Some(-1_000)),
            ("5 minutes", None),
            ("s", None),
            ("true", None),
            ("9223372036854775807", None),
            (".inf", None),
        ] {
            assert_eq!(milliseconds(&node(text)), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_unless_a_unit_says_otherwise() {
        assert_eq!(integer(&node("1048576"), Unit::Bytes), Some(1 << 20));
        assert_eq!(integer(&node("16MB"), Unit::Bytes), Some(16 << 20));
        assert_eq!(integer(&node("16MB"), Unit::None), None);
        assert_eq!(integer(&node("99999999TB"), Unit::Bytes), None);
        assert_eq!(integer(&node("'7'"), Unit::None), None);
    }
}
