//! What holder, voters and candidates say to each other. None of it goes through the log.

use serde::{Deserialize, Serialize};

use crate::model::{Epoch, GroupId, Incarnation, MemberId, Session};

/// "Do you still acknowledge me?" The holder asks every voter, each round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Who asks.
    pub holder: MemberId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// The life of its guard.
    pub session: Session,
    /// The life of its daemon; answers to an earlier one are not counted.
    pub incarnation: Incarnation,
    /// The number of the round in this life.
    pub round: u64,
}

/// A voter's answer to a [`Renewal`], naming what it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalAnswer {
    /// The epoch of the question.
    pub epoch: Epoch,
    /// The incarnation of the question.
    pub incarnation: Incarnation,
    /// The round of the question.
    pub round: u64,
    /// The answer.
    pub verdict: RenewalVerdict,
}

/// Does the voter acknowledge?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenewalVerdict {
    /// Yes: it has not closed this epoch, and its floor says so durably.
    Acknowledged,
    /// It has closed this epoch: the holder repairs by taking a new one.
    Closed,
    /// Its applied record names another holder, session or a later epoch.
    Superseded {
        /// The epoch of its record.
        epoch: Epoch,
    },
    /// Its applied record is older than the epoch of the question; ask again.
    Behind,
    /// It is no voter: its store was lost or torn and it must not promise anything.
    NotAVoter,
}

/// A candidate's request to close an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseRequest {
    /// Who asks.
    pub candidate: MemberId,
    /// Which epoch.
    pub epoch: Epoch,
    /// False: only a question, nothing changes.
    pub for_real: bool,
}

/// A voter's answer to a [`CloseRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseVerdict {
    /// Closed, durably, now or earlier.
    Closed,
    /// It would close if asked for real.
    Would,
    /// It heard from the holder, started, or learned of the epoch too recently.
    NotYet {
        /// How much longer it must be quiet, in milliseconds.
        remaining_ms: u64,
        /// For how long it has been quiet, in milliseconds.
        quiet_ms: u64,
    },
    /// Its applied record names another epoch, a vacant lease, or a pinned one.
    Mismatch {
        /// The epoch of its record.
        epoch: Epoch,
    },
    /// It is no voter.
    NotAVoter,
}

/// "Will you stand back for me?" The holder asks every other member of the failsafe list when no majority of the voters
/// answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailsafeQuestion {
    /// The holder's group.
    pub group: GroupId,
    /// Who is asked: another one that listens at its address promises nothing.
    pub member: MemberId,
    /// Who asks.
    pub holder: MemberId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// The life of its guard.
    pub session: Session,
    /// The life of its daemon; answers to an earlier one are not counted.
    pub incarnation: Incarnation,
    /// The number of the question in this life.
    pub round: u64,
}

/// Why a member does not stand back. All but [`FailsafeRefusal::Unready`] hold until a record changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailsafeRefusal {
    /// The holder belongs to another group.
    #[error("this member belongs to another group ({own})")]
    OtherGroup {
        /// The group of this member.
        own: GroupId,
    },
    /// Another member listens here.
    #[error("member {me} listens here, not member {asked}")]
    OtherMember {
        /// Who listens.
        me: MemberId,
        /// Who was asked.
        asked: MemberId,
    },
    /// There is no failsafe list.
    #[error("failsafe mode is off")]
    Off,
    /// It is not in the list.
    #[error("this member is not in the failsafe list")]
    NotListed,
    /// It knows of, or has acted under, another epoch: a refusal.
    #[error(
        "this member knows of epoch {known}, in which the asking life of the holder does not hold the lease"
    )]
    Superseded {
        /// The epoch that it knows.
        known: Epoch,
    },
    /// Its applied record is older than the epoch of the question.
    #[error("this member knows of epoch {known} only, and has not applied the epoch of the question yet")]
    Behind {
        /// The epoch that it knows.
        known: Epoch,
    },
    /// The epoch is pinned: there is no deadline.
    #[error("the epoch is pinned: nothing needs to be promised")]
    Pinned,
    /// It has not seen yet whether its own guard was armed.
    #[error("this member has not looked at its own guard yet")]
    Unready,
}
