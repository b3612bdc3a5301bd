//! The record of the lease: who may run a writable PostgreSQL, under which fencing token, counted by whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ids::{Epoch, MemberId, Session};
use super::lsn::WalPosition;

/// The replicated record. Until when a held lease is good is not here: that is volatile, see `crate::lease`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lease {
    /// The epoch of the last grant; zero before the first.
    pub epoch: Epoch,
    /// The members under which renewals and closes of this epoch are counted, and no others.
    pub voters: BTreeSet<MemberId>,
    /// Who holds it, if anybody.
    pub tenure: Option<Tenure>,
    /// While it is vacant: where the WAL of the last holder ended, if it said so.
    #[serde(default)]
    pub left_at: Option<WalPosition>,
    /// Who held it last, or holds it: everything that was acknowledged under the last epoch is there.
    #[serde(default)]
    pub last_holder: Option<MemberId>,
}

/// A held lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The only member licensed to run a writable PostgreSQL.
    pub holder: MemberId,
    /// The life of the holder's guard to which the lease was granted.
    pub session: Session,
    /// How long one renewal is good, in milliseconds.
    pub ttl_ms: u64,
    /// How long a voter must have been quiet before it closes this epoch, in milliseconds: the larger of this
    /// epoch's ttl and the one before.
    pub wait_ms: u64,
    /// Pause: the epoch cannot be closed.
    pub pinned: bool,
}

impl Lease {
    /// The holder, if the lease is held.
    pub fn holder(&self) -> Option<MemberId> {
        self.tenure.as_ref().map(|tenure| tenure.holder)
    }

    /// Is this set a majority of the voters of this epoch? Members which are no voters do not count.
    pub fn is_majority(&self, of: &BTreeSet<MemberId>) -> bool {
        self.voters.intersection(of).count() * 2 > self.voters.len()
    }
}
