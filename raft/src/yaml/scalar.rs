//! What a plain (unquoted) scalar means: the implicit types of YAML 1.1 in PyYAML's reading, which is not the letter
//! of YAML 1.1 (`y` and `n` are text, `1e3` is text because PyYAML wants a point and a signed exponent).
//!
//! Timestamps are kept as text: nothing in a configuration is a date.

use super::Value;

/// The value of a plain scalar.
pub fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Text(text.to_owned());
    }
    if let Some(number) = float(text) {
        return Value::Float(number);
    }
    integer(text).map_or_else(|| Value::Text(text.to_owned()), Value::Integer)
}

/// The number of a text which an explicit tag or PyYAML's pattern calls a float.
pub(super) fn float(text: &str) -> Option<f64> {
    let (sign, digits) = split_sign(text);
    match digits {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if text.starts_with('.') => return Some(f64::NAN),
        _ => {}
    }
    if digits.contains(':') {
        return sexagesimal_float(digits).map(|number| sign * number);
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    // Without digits before the point PyYAML allows no sign and wants a digit after it.
    let shaped = if whole.is_empty() {
        text.starts_with('.') && fraction.starts_with(|c: char| c.is_ascii_digit())
    } else {
        whole.starts_with(|c: char| c.is_ascii_digit())
    };
    let exponent_is_signed = exponent.is_none_or(|exponent| {
        exponent
            .strip_prefix(['+', '-'])
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()))
    });
    if !shaped
        || !exponent_is_signed
        || !only(whole, char::is_ascii_digit)
        || !only(fraction, char::is_ascii_digit)
    {
        return None;
    }
    digits.replace('_', "").parse::<f64>().ok().map(|number| sign * number)
}

/// The number of a text which PyYAML's pattern calls an int; none also for what does not fit into 64 bits.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (_, digits) = split_sign(text);
    let negative = text.starts_with('-');
    let signed = |digits: &str, radix| {
        let bare = digits.replace('_', "");
        let text = if negative { format!("-{bare}") } else { bare };
        i64::from_str_radix(&text, radix).ok()
    };
    if let Some(binary) = digits.strip_prefix("0b") {
        return only(binary, |c| matches!(c, '0' | '1')).then(|| signed(binary, 2)).flatten();
    }
    if let Some(hexadecimal) = digits.strip_prefix("0x") {
        return only(hexadecimal, char::is_ascii_hexdigit).then(|| signed(hexadecimal, 16)).flatten();
    }
    if digits == "0" {
        return Some(0);
    }
    if let Some(octal) = digits.strip_prefix('0') {
        return only(octal, |c| ('0'..='7').contains(c)).then(|| signed(digits, 8)).flatten();
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if digits.contains(':') {
        return sexagesimal_integer(digits, negative);
    }
    only(digits, char::is_ascii_digit).then(|| signed(digits, 10)).flatten()
}

fn split_sign(text: &str) -> (f64, &str) {
    match (text.strip_prefix('-'), text.strip_prefix('+')) {
        (Some(rest), _) => (-1.0, rest),
        (None, Some(rest)) => (1.0, rest),
        (None, None) => (1.0, text),
    }
}

/// Only such characters and underscores.
fn only(text: &str, allowed: impl Fn(&char) -> bool) -> bool {
    text.chars().all(|c| c == '_' || allowed(&c))
}

/// One or two digits from 0 to 59.
fn is_sixtieth(part: &str) -> bool {
    (1..=2).contains(&part.len())
        && part.chars().all(|c| c.is_ascii_digit())
        && part.parse::<u8>().is_ok_and(|number| number < 60)
}

fn sexagesimal_integer(digits: &str, negative: bool) -> Option<i64> {
    let (first, rest) = digits.split_once(':')?;
    if !only(first, char::is_ascii_digit) || !rest.split(':').all(is_sixtieth) {
        return None;
    }
    let mut number = first.replace('_', "").parse::<i64>().ok()?;
    for part in rest.split(':') {
        number = number.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    Some(if negative { -number } else { number })
}

fn sexagesimal_float(digits: &str) -> Option<f64> {
    let (sixties, fraction) = digits.split_once('.')?;
    let (first, rest) = sixties.split_once(':')?;
    let shaped = first.starts_with(|c: char| c.is_ascii_digit())
        && only(first, char::is_ascii_digit)
        && rest.split(':').all(is_sixtieth)
        && only(fraction, char::is_ascii_digit);
    if !shaped {
        return None;
    }
    let mut number = first.replace('_', "").parse::<f64>().ok()?;
    let mut parts = rest.split(':').peekable();
    while let Some(part) = parts.next() {
        let part = match parts.peek() {
            Some(_) => part.to_owned(),
            None => format!("{part}.{}", fraction.replace('_', "")),
        };
        number = number * 60.0 + part.parse::<f64>().ok()?;
    }
    Some(number)
}
