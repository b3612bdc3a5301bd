//! `synchronous_standby_names`: writing and reading it (pure).
//!
//! The text is the one that Patroni writes, for the sake of those who compare: names in double quotes, sorted, a comma
//! without a blank; one name alone; a placeholder where strict mode has no standby.

use std::collections::BTreeSet;

use pgherd_raft::model::{MemberName, SyncSet};

use crate::ha::{NOBODY, SyncNames};

/// The parameter's value; none: the operator's own holds.
pub(super) fn render(names: &SyncNames) -> Option<String> {
    let SyncNames::Agreed { set, any } = names else { return None };
    if set.is_asynchronous() {
        return Some(String::new());
    }
    let mut list: Vec<String> = set.names.iter().map(|name| format!("\"{name}\"")).collect();
    if list.is_empty() {
        list.push(NOBODY.to_owned());
    }
    let needed = set.needed;
    Some(match (any, list.as_slice()) {
        (true, _) => format!("ANY {needed} ({})", list.join(",")),
        (false, [one]) if needed == 1 => one.clone(),
        (false, _) => format!("{needed} ({})", list.join(",")),
    })
}

/// Reads what [`render`] wrote; none: somebody else wrote it.
pub(super) fn parse(value: &str) -> Option<SyncNames> {
    let value = value.trim();
    if value.is_empty() {
        return Some(SyncNames::Agreed { set: SyncSet::default(), any: false });
    }
    let (rest, any) = value.strip_prefix("ANY ").map_or((value, false), |rest| (rest, true));
    let (needed, list) = match rest.split_once(" (") {
        Some((needed, list)) => (needed.parse().ok()?, list.strip_suffix(')')?),
        None => (1, rest),
    };
    let names: Option<BTreeSet<MemberName>> = match list {
        NOBODY => Some(BTreeSet::new()),
        _ => list.split(',').map(|name| name.strip_prefix('"')?.strip_suffix('"')?.parse().ok()).collect(),
    };
    Some(SyncNames::Agreed { set: SyncSet { names: names?, needed }, any })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(names: &[&str], needed: usize, any: bool) -> SyncNames {
        let names = names.iter().map(|name| name.parse().expect("valid")).collect();
        SyncNames::Agreed { set: SyncSet { names, needed }, any }
    }

    #[test]
    fn the_text_is_patroni_s_and_is_read_back() {
        for (names, text) in [
            (agreed(&[], 0, false), ""),
            (agreed(&["postgres-1"], 1, false), "\"postgres-1\""),
            (agreed(&["b", "a"], 2, false), "2 (\"a\",\"b\")"),
            (agreed(&["postgres-0", "postgres-2"], 1, true), "ANY 1 (\"postgres-0\",\"postgres-2\")"),
            (agreed(&["a"], 1, true), "ANY 1 (\"a\")"),
            (agreed(&[], 1, false), NOBODY),
            (agreed(&[], 1, true), "ANY 1 (__patroni_strict_sync_replica_placeholder__)"),
        ] {
            assert_eq!(render(&names).as_deref(), Some(text));
            assert_eq!(parse(text), Some(names), "{text}");
        }
        assert_eq!(render(&SyncNames::Own), None);
    }

    #[test]
    fn what_others_wrote_is_not_taken_for_an_agreement() {
        for text in ["*", "a, b", "FIRST 1 (a, b)", "ANY 1 (a", "\"a\"b"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
