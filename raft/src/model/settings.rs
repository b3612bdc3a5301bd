//! The cluster-wide configuration and its last revisions.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::command::Rejection;
use super::ids::Revision;
use super::state::ClusterState;

/// The longest settings document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// As many revisions are kept, the one in force among them.
pub const MAX_SETTINGS_HISTORY: usize = 20;
/// The documents of the kept revisions have at most so many bytes together: they are part of every snapshot.
pub const MAX_SETTINGS_HISTORY_BYTES: usize = 512 * 1024;
/// The longest name of who changed the settings, in bytes.
pub const MAX_SETTINGS_BY_BYTES: usize = 256;

/// The cluster-wide configuration with its revision.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Zero: never set.
    pub revision: Revision,
    /// A JSON object as text; checked by the daemon before it is proposed.
    pub document: String,
}

/// A revision of the settings, for people: who made it, when, and what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// Its number.
    pub revision: Revision,
    /// When, in milliseconds since 1970 by the wall clock of whoever proposed it; zero: not known.
    pub at_ms: u64,
    /// Who made it; empty: not known.
    pub by: String,
    /// The whole document.
    pub document: String,
}

impl Settings {
    /// Is the cluster paused? What cannot be read for sure counts as paused: the only use of the answer is to permit
    /// something that pause forbids.
    pub fn may_be_paused(&self) -> bool {
        if self.document.is_empty() {
            return false;
        }
        let document: Result<serde_json::Map<String, serde_json::Value>, _> =
            serde_json::from_str(&self.document);
        document.map_or(true, |settings| {
            !matches!(
                settings.get("pause"),
                None | Some(serde_json::Value::Null | serde_json::Value::Bool(false))
            )
        })
    }
}

/// Replaces the settings and remembers who did it.
pub(super) fn set(
    state: &mut ClusterState,
    expected: Revision,
    document: &str,
    by: &str,
    at_ms: u64,
) -> Result<(), Rejection> {
    if state.settings.revision != expected {
        return Err(Rejection::Revision { current: state.settings.revision });
    }
    if document.len() > MAX_DOCUMENT_BYTES {
        return Err(Rejection::Limit {
            what: format!("settings must not exceed {MAX_DOCUMENT_BYTES} bytes"),
        });
    }
    if by.len() > MAX_SETTINGS_BY_BYTES {
        return Err(Rejection::Limit {
            what: format!("who changes the settings is named in at most {MAX_SETTINGS_BY_BYTES} bytes"),
        });
    }
    let history = &mut state.settings_history;
    if history.is_empty() && expected > Revision(0) {
        // A state of before there was a history: what was in force can be rolled back to all the same.
        let Settings { revision, document } = state.settings.clone();
        history.push_back(SettingsRecord { revision, at_ms: 0, by: String::new(), document });
    }
    let revision = Revision(expected.0.saturating_add(1));
    let document = document.to_owned();
    history.push_back(SettingsRecord { revision, at_ms, by: by.to_owned(), document: document.clone() });
    forget_old(history);
    state.settings = Settings { revision, document };
    Ok(())
}

/// The oldest go first; the revision in force stays whatever its size.
fn forget_old(history: &mut VecDeque<SettingsRecord>) {
    let bytes = |history: &VecDeque<SettingsRecord>| -> usize {
        history.iter().map(|record| record.document.len()).sum()
    };
    while history.len() > MAX_SETTINGS_HISTORY
        || history.len() > 1 && bytes(history) > MAX_SETTINGS_HISTORY_BYTES
    {
        history.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(state: &mut ClusterState, document: &str) {
        let expected = state.settings.revision;
        set(state, expected, document, "somebody", 7).expect("applied");
    }

    fn kept(state: &ClusterState) -> Vec<u64> {
        state.settings_history.iter().map(|record| record.revision.0).collect()
    }

    #[test]
    fn twenty_revisions_are_kept_and_fewer_of_great_ones() {
        let mut state = ClusterState::default();
        for number in 1..=25 {
            change(&mut state, &format!("{{\"n\":{number}}}"));
        }
        assert_eq!(kept(&state), (6..=25).collect::<Vec<_>>());
        let last = state.settings_history.back().expect("the one in force");
        assert_eq!((last.document.as_str(), last.by.as_str(), last.at_ms), ("{\"n\":25}", "somebody", 7));
        for _ in 0..3 {
            change(&mut state, &"x".repeat(MAX_DOCUMENT_BYTES));
        }
        assert_eq!(kept(&state), [27, 28]);
        assert_eq!(state.settings.revision, Revision(28));
    }

    #[test]
    fn a_state_of_before_the_history_is_read_and_remembered() {
        let mut state = ClusterState::default();
        change(&mut state, "{}");
        let mut value = serde_json::to_value(&state).expect("json");
        assert!(value.as_object_mut().expect("an object").remove("settings_history").is_some());
        let mut state: ClusterState = serde_json::from_value(value).expect("read");
        change(&mut state, "{\"ttl\":5}");
        assert_eq!(kept(&state), [1, 2]);
    }

    #[test]
    fn what_is_not_known_to_be_off_may_be_a_pause() {
        let paused = |document: &str| {
            Settings { document: document.to_owned(), ..Settings::default() }.may_be_paused()
        };
        for document in ["", "{}", r#"{"pause":null}"#, r#"{"pause":false,"ttl":5}"#] {
            assert!(!paused(document), "{document}");
        }
        for document in [r#"{"pause":true}"#, r#"{"pause":"off"}"#, r#"{"pause":0}"#, "[]", "{"] {
            assert!(paused(document), "{document}");
        }
    }

    #[test]
    fn a_long_name_changes_nothing() {
        let mut state = ClusterState::default();
        let long = "x".repeat(MAX_SETTINGS_BY_BYTES + 1);
        assert!(matches!(set(&mut state, Revision(0), "{}", &long, 0), Err(Rejection::Limit { .. })));
        assert_eq!(state, ClusterState::default());
    }
}
