//! What an operator asked for, kept in the replicated state until it is done or refused.

use serde::{Deserialize, Serialize};

use super::ids::MemberId;

/// A request of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Planned: the holder hands over to a standby.
    Switchover {
        /// The holder from which the lease is taken.
        from: MemberId,
        /// The standby which takes it; none: the best one.
        to: Option<MemberId>,
    },
    /// A named standby takes over, whether there is a primary or not.
    Failover {
        /// The standby which takes over.
        to: MemberId,
        /// The operator was told what may be lost, and accepts it: fences are not needed.
        #[serde(default)]
        accepts_loss: bool,
        /// The operator says that the holder is dead: neither closes nor fences are needed, and a pinned epoch ends.
        #[serde(default)]
        holder_is_dead: bool,
    },
}

impl Intent {
    /// The member which the operator named as the next primary.
    pub fn target(&self) -> Option<MemberId> {
        match self {
            Self::Switchover { to, .. } => *to,
            Self::Failover { to, .. } => Some(*to),
        }
    }
}

/// A pending request with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingIntent {
    /// The log index at which it was made.
    pub id: u64,
    /// What is asked.
    pub intent: Intent,
}

/// How the last request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedIntent {
    /// Its number.
    pub id: u64,
    /// How it ended.
    pub end: IntentEnd,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntentEnd {
    /// The lease went to this member.
    Done {
        /// The new holder.
        holder: MemberId,
    },
    /// It could not be done; a sentence for the operator.
    Refused(String),
    /// The operator, or the caller's patience, withdrew it.
    Withdrawn,
}
