//! The named rules.

use serde::{Deserialize, Serialize};

/// The rule which decided; every one is fired by a golden script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// The group is not founded or not joined yet.
    NoGroup,
}
