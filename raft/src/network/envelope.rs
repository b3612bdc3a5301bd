//! The one message of the peers' port: who asks whom, in which cluster, and a payload of a known kind.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use crate::mark::{Mark, Seen};

/// The version of everything which the payloads mean. Raised when an old node could misunderstand a new one.
pub(crate) const PROTO: u32 = 2;

/// The path of the one method.
pub(crate) const CALL_PATH: &str = "/pgherd.Peers/Call";

/// The largest message, in bytes: the largest batch of log entries, each with the largest settings document, or a
/// whole snapshot, both twice as long when they are quoted.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A question.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Envelope {
    /// [`PROTO`] of the sender.
    #[prost(uint32, tag = "1")]
    pub(crate) proto: u32,
    /// The cluster's name.
    #[prost(string, tag = "2")]
    pub(crate) scope: String,
    /// The group's identity as the sender knows it; zero: not known yet.
    #[prost(fixed64, tag = "3")]
    pub(crate) group: u64,
    /// The sender's member id.
    #[prost(fixed64, tag = "4")]
    pub(crate) from: u64,
    /// The member id for which it is meant; zero: whoever listens there.
    #[prost(fixed64, tag = "5")]
    pub(crate) to: u64,
    /// A [`Kind`].
    #[prost(uint32, tag = "6")]
    pub(crate) kind: u32,
    /// JSON of the kind's type.
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) payload: bytes::Bytes,
    /// How far the sender's store has come; none: the sender is no member.
    #[prost(message, optional, tag = "8")]
    pub(crate) mark: Option<Mark>,
    /// What the sender remembers of the one for whom it is meant.
    #[prost(message, optional, tag = "9")]
    pub(crate) remembered: Option<Seen>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Answer {
    /// JSON of the kind's type.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) payload: bytes::Bytes,
    /// The answering member's id.
    #[prost(fixed64, tag = "2")]
    pub(crate) from: u64,
    /// How far its store has come.
    #[prost(message, optional, tag = "3")]
    pub(crate) mark: Option<Mark>,
    /// What it remembers of the asker.
    #[prost(message, optional, tag = "4")]
    pub(crate) remembered: Option<Seen>,
    /// Why the question was not carried out; empty: it was.
    #[prost(string, tag = "5")]
    pub(crate) refused: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a message is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            pub(crate) fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            pub(crate) fn parse(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Raft: append entries, or a heartbeat.
    Append = 1,
    /// Raft: a vote.
    Vote = 2,
    /// Raft: would you vote?
    PreVote = 3,
    /// Raft: a whole snapshot.
    Snapshot = 4,
    /// Raft: take the leadership.
    TransferLeader = 5,
    /// Lease: a renewal.
    Renew = 10,
    /// Lease: a close, or the question.
    Close = 11,
    /// Lease: for how many milliseconds have you heard no holder?
    Quiet = 12,
    /// To the Raft leader: a proposal.
    Propose = 20,
    /// To the Raft leader: a linearizable read.
    Read = 21,
    /// Data members: my report for yours.
    Report = 22,
    /// Founding: how far are you?
    Probe = 30,
    /// Founding: promise yourself.
    Promise = 31,
    /// To the Raft leader: let me in, or take note of my new addresses and tags.
    Join = 32,
    /// To any member, from anybody: who belongs to the cluster?
    Members = 33,
    /// To a partner that is in no group: there is one, ask to be let in.
    Invite = 34,
    /// To a witness that is in no group: a data node without a vote wishes a founding.
    Wish = 35,
    /// To any member, from anybody: the replicated state, not older than the question.
    State = 36,
    /// What do you remember of me?
    Recall = 40,
}

/// A payload.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<bytes::Bytes, Status> {
    serde_json::to_vec(value)
        .map(bytes::Bytes::from)
        .map_err(|error| Status::internal(format!("cannot encode a message: {error}")))
}

/// A payload's value.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(payload).map_err(|error| {
        Status::invalid_argument(format!(
            "cannot read a message: {error}; run the same version of pgherd on all members"
        ))
    })
}
