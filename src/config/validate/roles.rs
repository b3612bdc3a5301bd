//! The section `postgresql.authentication`.

use std::collections::BTreeMap;

use pgherd_raft::config::{Section, shown_key};

use super::super::types::{Authentication, Credentials};

/// What libpq takes beside the name and the password.
const CONNECTION_OPTIONS: [&str; 9] = [
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

/// From `authentication`, or from where Patroni had it once: beside it.
pub(super) fn authentication(postgresql: &mut Section<'_>) -> Option<Authentication> {
    let mut section = postgresql.section("authentication");
    let mut role = |name: &str, old: &str| {
        let present = section.section(name);
        if present.is_present() || postgresql.get(old).is_none() {
            return present;
        }
        let cure = format!("move it to `postgresql.authentication.{name}`");
        postgresql.report.warning(
            &postgresql.key(old),
            &postgresql.key_place(old),
            "stands where it once was",
            cure,
        );
        postgresql.section(old)
    };
    let superuser = credentials(role("superuser", "superuser"), Some("postgres"));
    let replication = credentials(role("replication", "replication"), None);
    let rewind_section = role("rewind", "pg_rewind");
    let rewind = rewind_section.is_present().then(|| credentials(rewind_section, None));
    section.close();
    Some(Authentication {
        superuser: superuser?,
        replication: replication?,
        rewind: match rewind {
            Some(rewind) => Some(rewind?),
            None => None,
        },
    })
}

/// What libpq takes of some of them; with another word no connection would ever be made.
const WORDS: [(&str, &[&str]); 4] = [
    ("sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ("gssencmode", &["disable", "prefer", "require"]),
    ("channel_binding", &["disable", "prefer", "require"]),
    ("sslnegotiation", &["postgres", "direct"]),
];

fn known_words(section: &Section<'_>, options: &BTreeMap<String, String>) {
    for (key, words) in WORDS {
        let Some(word) = options.get(key).filter(|word| !words.contains(&word.as_str())) else { continue };
        let (path, place, list) = (section.key(key), section.value_place(key), words.join(", "));
        let what = format!("{:?} is not one of {list}", shown_key(word));
        section.report.error(&path, &place, what, format!("write one of {list}"));
    }
}

fn credentials(mut section: Section<'_>, default: Option<&str>) -> Option<Credentials> {
    let written = section.get("username").is_some();
    let username = section.text("username").or_else(|| default.map(str::to_owned));
    if !written && username.is_none() {
        section.missing("username", "add it: the role which pgherd creates and uses");
    }
    if username.as_deref() == Some("") {
        let place = section.value_place("username");
        section.report.error(&section.key("username"), &place, "is empty", "write the role's name");
    }
    let password = section.secret("password");
    let sslpassword = section.secret("sslpassword");
    let options =
        CONNECTION_OPTIONS.iter().filter_map(|key| Some(((*key).to_owned(), section.text(key)?))).collect();
    known_words(&section, &options);
    section.close();
    Some(Credentials { username: username?, password, options, sslpassword })
}
