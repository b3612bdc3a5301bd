//! The fuzz targets of what PostgreSQL writes, and of what is written for it.

use pgherd_raft::model::TimelineId;

use super::settings::{Credentials, Settings};
use super::{control_data as control, hba, history as timeline_history, quote};

/// What `pg_controldata` prints is understood or refused.
pub(crate) fn control_data(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(read) = control::parse(&text) {
        assert_eq!(control::parse(&text).ok(), Some(read));
    }
    let least = control::parse_least_settings(&text);
    assert!(least.0.len() <= 5);
}

/// A history written anew is the same history.
pub(crate) fn history(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let switches = timeline_history::parse(&text);
    let line = |switch: &crate::ha::TimelineSwitch| {
        format!("{}\t{}\t{}\n", switch.timeline, switch.lsn, switch.reason)
    };
    let written: String = switches.iter().map(line).collect();
    assert_eq!(timeline_history::parse(&written), switches, "{written:?}");
    let number = u32::from_le_bytes(data.first_chunk().copied().unwrap_or_default());
    assert_eq!(timeline_history::file_name(TimelineId(number)).len(), 16);
}

/// A connection string reads as what it was made of, also from within `postgresql.conf`.
pub(crate) fn conninfo(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(pairs) = quote::parse_conninfo(&text) {
        // Keys are pgherd's own: letters.
        let pairs: Vec<(String, String)> = pairs
            .into_iter()
            .filter(|(key, _)| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        assert_eq!(quote::parse_conninfo(&quote::conninfo(pairs.clone())), Some(pairs));
    }
    let pairs: Vec<(String, String)> =
        text.split('\n').enumerate().map(|(i, value)| (format!("k{i}"), value.to_owned())).collect();
    let written = quote::conninfo(pairs.clone());
    let line = quote::conf_value(&written);
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    let back = quote::parse_conf_value(&line).and_then(|text| quote::parse_conninfo(&text));
    assert_eq!(back, Some(pairs), "{written:?}");
}

/// A value of `postgresql.conf` reads as what it was, in one line.
pub(crate) fn conf_value(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let line = quote::conf_value(&text);
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    assert_eq!(quote::parse_conf_value(&line).as_deref(), Some(&*text));
    // Whatever else stands there is a value or none.
    quote::parse_conf_value(&text);
}

/// Names cannot break out of their field of `pg_hba.conf`: the first line of the input is the superuser's name, the
/// second the replication role's, and each generated line has as many fields as it should, with exactly these names.
pub(crate) fn pg_hba(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut names = text.splitn(2, '\0');
    let mut settings = Settings::new("s", "m", std::path::Path::new("/d"), 1);
    settings.superuser = Credentials::new(names.next().unwrap_or_default(), Some("x"));
    settings.replication = Credentials::new(names.next().unwrap_or_default(), Some("x"));
    for with_password in [true, false] {
        if !with_password {
            settings.superuser.password = None;
        }
        for written in [hba::render(&settings), hba::render_for_bootstrap(&settings)] {
            for line in written.lines().filter(|line| !line.starts_with('#')) {
                let fields = fields(line).unwrap_or_else(|| panic!("an open quotation mark in {line:?}"));
                let expected = if line.starts_with("local") { 4 } else { 5 };
                assert_eq!(fields.len(), expected, "{line:?}");
                let name = fields.get(2).expect("a role");
                let plain = |name: &str| name.chars().filter(|c| !c.is_control()).collect::<String>();
                let known = [&settings.superuser.username, &settings.replication.username];
                assert!(
                    name == "all" || known.iter().any(|known| *name == plain(known)),
                    "{line:?} is about {name:?}"
                );
            }
        }
    }
}

/// The fields of a line as PostgreSQL reads them: two quotation marks within quotation marks are one.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(fields);
        }
        let (mut field, mut is_quoted) = (String::new(), false);
        while let Some(c) = chars.next_if(|c| is_quoted || !c.is_whitespace()) {
            match c {
                '"' if is_quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
                '"' => is_quoted = !is_quoted,
                other => field.push(other),
            }
        }
        if is_quoted {
            return None;
        }
        fields.push(field);
    }
}
