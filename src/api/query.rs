//! The query of a request: names and values, decoded.
//!
//! What is not well formed is refused, because a limit that is misread would be no limit.

use super::reply::shown;

/// As many parameters are read; a health check has three or four.
const MAX_PARAMETERS: usize = 64;

/// The parameters in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Reads `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parameters = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if parameters.len() >= MAX_PARAMETERS {
                return Err(format!("the query has more than {MAX_PARAMETERS} parameters"));
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            parameters.push((decoded(key)?, decoded(value)?));
        }
        Ok(Self { parameters })
    }

    /// The first value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// A number of bytes.
    ///
    /// # Errors
    /// It is given and is none.
    pub(super) fn size(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || {
            format!(
                "{name}={}: give a number of bytes, or one with B, kB, MB, GB or TB behind it",
                shown(text)
            )
        };
        parse_size(text).map(Some).ok_or_else(wrong)
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let wrong = |what: &str| format!("the query is malformed: {} {what}", shown(text));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let byte = tail.get(..2).and_then(hex_byte);
                bytes.push(byte.ok_or_else(|| wrong("has a % without two hexadecimal digits"))?);
                rest = tail.get(2..).unwrap_or_default();
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(wrong("has a control character"));
    }
    Ok(text)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Bytes as PostgreSQL writes sizes: `16384`, `16kB`, `64MB`, `1GB`. None when it is none.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let (whole, fraction) = number.split_once('.')?;
    let fraction = fraction.get(..fraction.len().min(9))?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(factor)? / scale;
    whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_postgresql_writes_them() {
        let cases = [
            ("16", 16),
            ("16kB", 16384),
            ("1MB", 1 << 20),
            ("0.5GB", 1 << 29),
            (" 2 B", 2),
            ("1TB", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "x", "1XB", "-1", "99999999999TB", "1.", "1.x", "1mb", "0x10"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("lag=1&&tag_a=b%20c+d&tag_a=second&%74=&flag").expect("a query");
        assert_eq!(query.get("tag_a"), Some("b c d"));
        assert_eq!((query.get("t"), query.get("flag"), query.get("none")), (Some(""), Some(""), None));
        assert_eq!(query.size("lag"), Ok(Some(1)));
        assert_eq!(query.size("size"), Ok(None));
        assert_eq!(query.iter().count(), 5);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in ["a=%zz", "a=%4", "%", "a=%ff", "a=%00", "a=%0a", "%+1=1", "a=%C3"] {
            let why = Query::parse(bad).expect_err(bad);
            assert!(why.starts_with("the query is malformed: "), "{bad}: {why}");
        }
        assert!(Query::parse(&"a&".repeat(65)).expect_err("many").contains("64"));
        let query = Query::parse("lag=ten%3Cscript%3E").expect("well formed");
        assert!(query.size("lag").expect_err("no size").starts_with("lag=ten"));
    }
}
