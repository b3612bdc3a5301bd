//! Quoting for the languages which PostgreSQL reads (pure).

/// A parameter's value in `postgresql.conf`.
pub(super) fn conf_value(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// The value which [`conf_value`] quoted.
pub(super) fn parse_conf_value(quoted: &str) -> Option<String> {
    let inner = quoted.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => text.push(chars.next().filter(|c| *c == '\'')?),
            '\\' => text.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                other => other,
            }),
            other => text.push(other),
        }
    }
    Some(text)
}

/// A value in a libpq connection string.
pub(super) fn conninfo_value(text: &str) -> String {
    let is_plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':'));
    if is_plain {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A libpq connection string.
pub(super) fn conninfo<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> String {
    let words: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{}={}", key.as_ref(), conninfo_value(value.as_ref())))
        .collect();
    words.join(" ")
}

/// The pairs of a libpq connection string; none when it is not well formed.
pub(super) fn parse_conninfo(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(pairs);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=') {
            key.push(c);
        }
        chars.next()?;
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        if chars.next_if_eq(&'\'').is_some() {
            loop {
                match chars.next()? {
                    '\'' => break,
                    '\\' => value.push(chars.next()?),
                    other => value.push(other),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                value.push(if c == '\\' { chars.next()? } else { c });
            }
        }
        pairs.push((key.trim().to_owned(), value));
    }
}

/// A field of a password file.
pub(super) fn pgpass_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

/// An SQL identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An SQL string; also right where `standard_conforming_strings` is off.
pub(super) fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWKWARD: [&str; 10] =
        ["", "plain", "it's", "a\\b", "\"q\"", "two words", "x=y", "\\", "'", "line\nbreak\\n"];

    #[test]
    fn values_survive_the_configuration_file() {
        for text in AWKWARD {
            assert_eq!(parse_conf_value(&conf_value(text)).as_deref(), Some(text));
            assert!(!conf_value(text).contains('\n'));
        }
        assert_eq!(parse_conf_value("'a'b'"), None);
        assert_eq!(parse_conf_value("plain"), None);
    }

    #[test]
    fn values_survive_a_connection_string() {
        let pairs: Vec<(String, String)> =
            AWKWARD.iter().enumerate().map(|(i, text)| (format!("k{i}"), (*text).to_owned())).collect();
        let text = conninfo(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        assert_eq!(parse_conninfo(&text), Some(pairs));
        assert_eq!(parse_conninfo("host='open"), None);
        assert_eq!(parse_conninfo("host"), None);
        assert_eq!(parse_conninfo(""), Some(Vec::new()));
    }

    #[test]
    fn both_quotings_together_survive() {
        for text in AWKWARD {
            let line = conf_value(&conninfo([("host", text), ("port", "1")]));
            let back = parse_conninfo(&parse_conf_value(&line).expect("conf")).expect("conninfo");
            assert_eq!(back.first().map(|pair| pair.1.as_str()), Some(text));
        }
    }

    #[test]
    fn sql_is_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(pgpass_field("::1\\"), "\\:\\:1\\\\");
    }
}
