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

/// A whole number: YAML's own, or text with a unit. As PostgreSQL reads it: hexadecimal, octal, and with a fraction or
/// an exponent, which is rounded.
pub fn integer(node: &Node, unit: Unit) -> Option<i64> {
    match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Float(number) => rounded(*number),
        Value::Text(text) => {
            let (number, suffix) = split_unit(text)?;
            let factor: i64 = match (unit, suffix) {
                (_, "") => 1,
                (Unit::Bytes, "B") => 1,
                (Unit::Bytes, "kB") => 1 << 10,
                (Unit::Bytes, "MB") => 1 << 20,
                (Unit::Bytes, "GB") => 1 << 30,
                (Unit::Bytes, "TB") => 1_i64 << 40,
                (Unit::None | Unit::Bytes, _) => return None,
            };
            match whole(number) {
                Some(number) => number.checked_mul(factor),
                None => rounded(number.parse::<f64>().ok()? * f64_of(factor)?),
            }
        }
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
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
                "us" => return whole(number)?.checked_div(1000),
                "ms" => 1,
                "" | "s" => 1000,
                "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            let thousandths = match whole(number) {
                Some(number) => number.checked_mul(1000)?,
                None => thousandths(&format!("{:.3}", number.parse::<f64>().ok()?))?,
            };
            thousandths.checked_mul(factor).map(|number| number / 1000)
        }
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    }
}

/// To the nearest whole number; none when it is none, or beyond what a float counts exactly.
fn rounded(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.abs() <= EXACT).then(|| format!("{number:.0}").parse().ok()).flatten()
}

fn f64_of(number: i64) -> Option<f64> {
    number.to_string().parse().ok()
}

/// C's notation: `0x` begins a hexadecimal number, `0` an octal one.
fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hexadecimal), _) => (16, hexadecimal),
        (None, Some(octal)) if !octal.is_empty() && octal.bytes().all(|b| (b'0'..b'8').contains(&b)) => {
            (8, octal)
        }
        (None, _) => (10, digits),
    };
    // A second sign is none.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
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

/// The number and what follows it.
fn split_unit(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let run = |from: usize, is: fn(&u8) -> bool| {
        bytes.iter().skip(from).take_while(|byte| is(byte)).count().saturating_add(from)
    };
    let start = usize::from(text.starts_with(['+', '-']));
    let is_hexadecimal = text.get(start..).is_some_and(|rest| rest.starts_with("0x"));
    let mut end = if is_hexadecimal {
        run(start.saturating_add(2), u8::is_ascii_hexdigit)
    } else {
        run(start, |byte| byte.is_ascii_digit() || *byte == b'.')
    };
    // An exponent, unless the letter begins a unit.
    if !is_hexadecimal && end > start && matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(bytes.get(end.saturating_add(1)), Some(b'+' | b'-')));
        let digits = end.saturating_add(1).saturating_add(signed);
        if digit(digits) {
            end = run(digits, u8::is_ascii_digit);
        }
    }
    let (number, unit) = text.split_at_checked(end)?;
    (end > start).then_some((number, unit.trim()))
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
            ("2500us", Some(2)),
            ("1.5h", Some(5_400_000)),
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
        for (text, expected) in [
            ("0x10", Some(16)),
            ("1e3", Some(1000)),
            ("1.5kB", Some(1536)),
            ("0x1MB", Some(1 << 20)),
            ("2.5", Some(2)),
            ("2.51", Some(3)),
            ("1e99", None),
            (".nan", None),
            ("1 MB", Some(1 << 20)),
            ("1eMB", None),
            ("--1", None),
            ("0x", None),
            ("MB", None),
        ] {
            assert_eq!(integer(&node(text), Unit::Bytes), expected, "{text}");
        }
    }
}
