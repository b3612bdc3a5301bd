//! Identities and counters as types of their own, so that none can be taken for another.
//!
//! Four counters exist and are never mixed: the Raft term (inside the consensus library), the lease [`Epoch`],
//! PostgreSQL's [`TimelineId`] and the settings' [`Revision`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number that names one life of a node's store: random, made with the store, never used again after it is lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u64);

/// A number that names one Raft group: random, made when the group is founded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u64);

/// A number that names one life of a guard process. A lease is granted to a session, so that a restarted node whose
/// guard is gone cannot go on under the lease of its earlier life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub u64);

/// A number that names one life of a daemon process; answers to an earlier life are not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

macro_rules! hexadecimal {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:x})", stringify!($name), self.0)
            }
        }
    )*};
}
hexadecimal!(MemberId GroupId Session Incarnation);

/// The fencing token of the lease: each grant raises it by one. Zero means that no grant was ever made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// PostgreSQL's database system identifier, as `pg_controldata` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemIdentifier(pub u64);

/// PostgreSQL's timeline ID; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

/// The number of changes of the cluster's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

macro_rules! decimal {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
decimal!(Epoch SystemIdentifier TimelineId Revision);

/// The name of a member: unique in its cluster, 1 to [`MemberName::MAX_LEN`] bytes, no control characters and no `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberName(String);

impl MemberName {
    /// The most bytes a name may have: what fits into PostgreSQL's `application_name` (NAMEDATALEN - 1).
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of this member's physical replication slot: lower case, everything but letters, digits and `_`
    /// replaced as Patroni does it (`-` by `_`, others by `uXXXX`), cut to 63 bytes.
    pub fn slot_name(&self) -> String {
        let mut slot = String::new();
        for c in self.0.to_lowercase().chars() {
            match c {
                'a'..='z' | '0'..='9' | '_' => slot.push(c),
                '-' | '.' => slot.push('_'),
                other => slot.push_str(&format!("u{:04x}", u32::from(other))),
            }
        }
        slot.truncate(63);
        slot
    }
}

/// Why a text is no member name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMemberName(&'static str);

impl fmt::Display for InvalidMemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidMemberName {}

impl FromStr for MemberName {
    type Err = InvalidMemberName;

    fn from_str(text: &str) -> Result<Self, InvalidMemberName> {
        if text.is_empty() {
            return Err(InvalidMemberName("a member's name must not be empty"));
        }
        if text.len() > Self::MAX_LEN {
            return Err(InvalidMemberName("a member's name must not be longer than 63 bytes"));
        }
        if text.chars().any(|c| c.is_control() || c == '/' || c == '"' || c == '\'' || c == '\\') {
            return Err(InvalidMemberName(
                "a member's name must not contain control characters, quotes, '/' or '\\'",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for MemberName {
    type Error = InvalidMemberName;

    fn try_from(text: String) -> Result<Self, InvalidMemberName> {
        text.parse()
    }
}

impl From<MemberName> for String {
    fn from(name: MemberName) -> Self {
        name.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_enter() {
        assert!("node-1".parse::<MemberName>().is_ok());
        for bad in ["", "a/b", "a\nb", "a\"b", "x".repeat(64).as_str()] {
            assert!(bad.parse::<MemberName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn slot_names_use_only_what_postgresql_allows() {
        let slot = |name: &str| name.parse::<MemberName>().expect("valid").slot_name();
        assert_eq!(slot("postgres-0"), "postgres_0");
        assert_eq!(slot("Node A.b"), "nodeu0020a_b");
    }
}
