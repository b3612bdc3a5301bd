//! Lines of pg_hba.conf: a line which PostgreSQL cannot read keeps it from starting. Found here, it is a message with a
//! place.

use std::net::IpAddr;

use pgherd_raft::config::{Section, Shown, scalar, shown_key};

/// How a line can begin.
const KINDS: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
/// Lines which name another file.
const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];
/// PostgreSQL's methods, from 13 to 18.
const METHODS: [&str; 14] = [
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "ldap",
    "radius",
    "cert",
    "pam",
    "bsd",
];

/// The lines of a list; what is wrong with one is reported.
pub(in super::super) fn hba_lines(section: &mut Section<'_>, key: &str) -> Option<Vec<String>> {
    let nodes = section.list(key)?;
    let path = section.key(key);
    let mut lines = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(text) = scalar(section.report, &path, node, Shown::Yes) else { continue };
        // A line break after a backslash goes on with the same line.
        for line in text.replace("\\\n", " ").lines() {
            if let Some((what, cure)) = mistake(line) {
                section.report.error(&path, &node.place, what, cure);
            }
            lines.push(line.to_owned());
        }
    }
    Some(lines)
}

/// What PostgreSQL would not understand, and what to do.
fn mistake(line: &str) -> Option<(String, &'static str)> {
    let Some(fields) = fields(line) else {
        return Some(("has a quote which is not closed".to_owned(), "close it"));
    };
    let kind = fields.first()?.to_lowercase();
    if INCLUDES.contains(&kind.as_str()) {
        return None;
    }
    if !KINDS.contains(&kind.as_str()) {
        let what = format!("{:?} cannot begin a line of pg_hba.conf", shown_key(&kind));
        let cure = "begin it with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc";
        return Some((what, cure));
    }
    let shape = "write TYPE DATABASE USER ADDRESS METHOD; `local` has no ADDRESS";
    let field = |index: usize| fields.get(index).map(String::as_str);
    let method_at = if kind == "local" {
        3
    } else {
        let Some(address) = field(3) else { return Some(("is not complete".to_owned(), shape)) };
        match addressed(address) {
            Addressed::Wrong => {
                let what = format!("{:?} is no address", shown_key(address));
                return Some((what, "write ADDRESS/BITS, a host name, all, samehost or samenet"));
            }
            Addressed::Whole => 4,
            // The mask is a field of its own.
            Addressed::WithoutMask => {
                if field(4).is_none_or(|mask| mask.parse::<IpAddr>().is_err()) {
                    let what = format!("{:?} has no mask", shown_key(address));
                    return Some((what, "write ADDRESS/BITS, or the mask behind it"));
                }
                5
            }
        }
    };
    let Some(method) = field(method_at) else { return Some(("is not complete".to_owned(), shape)) };
    let is_method = METHODS.contains(&method) || method == "oauth";
    (!is_method).then(|| {
        let what = format!("{:?} is no method of authentication", shown_key(method));
        (what, "write scram-sha-256, md5, cert, peer, trust, reject or another one of PostgreSQL's")
    })
}

enum Addressed {
    /// A network, or a word.
    Whole,
    /// An address which the next field completes.
    WithoutMask,
    Wrong,
}

fn addressed(text: &str) -> Addressed {
    if let Some((address, bits)) = text.split_once('/') {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return Addressed::Wrong,
        };
        return match bits.parse::<u8>() {
            Ok(bits) if bits <= most => Addressed::Whole,
            Ok(_) | Err(_) => Addressed::Wrong,
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Addressed::WithoutMask;
    }
    // Four numbers are no host's name.
    let is_numeric = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if is_numeric { Addressed::Wrong } else { Addressed::Whole }
}

/// The fields up to a comment; none: a quote is not closed. Commas join what belongs together.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field: Option<String> = None;
    let mut in_quotes = false;
    let mut goes_on = false;
    for c in line.chars() {
        match c {
            '"' => {
                in_quotes = !in_quotes;
                field.get_or_insert_default();
                goes_on = false;
            }
            '#' if !in_quotes => break,
            c if c.is_whitespace() && !in_quotes => {
                if !goes_on {
                    fields.extend(field.take());
                }
            }
            c => {
                field.get_or_insert_default().push(c);
                goes_on = c == ',' && !in_quotes;
            }
        }
    }
    fields.extend(field);
    (!in_quotes).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_lines_are_taken() {
        for line in [
            "",
            "  # a comment",
            "local all all trust",
            "LOCAL \"all\" all peer map=admins",
            "host all all 0.0.0.0/0 md5",
            "hostssl all +app,postgres ::/0 cert clientcert=verify-full # why",
            "host replication replicator 10.0.0.1 255.255.255.255 scram-sha-256",
            "host a, b all all reject",
            "host all all .example.com gss include_realm=0",
            "host all \"a b\" samenet ldap ldapserver=x ldapprefix=\"cn=\"",
            "host \"a#b\" all localhost scram-sha-256",
            "hostnossl all all all reject",
            "include_if_exists other.conf",
            "host all /^x samehost oauth issuer=x",
        ] {
            assert_eq!(mistake(line), None, "{line}");
        }
    }

    #[test]
    fn what_postgresql_would_not_read_is_told() {
        for (line, words) in [
            ("hots all all all md5", "cannot begin"),
            ("host all all", "is not complete"),
            ("host all all 10.0.0.300/24 md5", "is no address"),
            ("host all all 10.0.0.0/33 md5", "is no address"),
            ("host all all 10.0.0 md5", "is no address"),
            ("host all all 10.0.0.1 md5", "has no mask"),
            ("host all all 10.0.0.0/24", "is not complete"),
            ("local all all md6", "is no method"),
            ("local all \"all md5", "not closed"),
            ("local all all 127.0.0.1/32 trust", "is no method"),
        ] {
            let found = mistake(line).map(|(what, _)| what).unwrap_or_default();
            assert!(found.contains(words), "{line}: {found}");
        }
    }
}
