//! Until when the holder may write: renewals, acknowledgements, closes. Pure; the clock is a parameter.
//!
//! The record of the lease is replicated ([`crate::model::Lease`]); *until when* it is good is volatile. The holder
//! renews with the voters, not with the Raft leader, and no renewal is written to any disk.
//!
//! - [`Holder`] numbers rounds and turns a majority of acknowledgements into a [`Licence`]: the clock when the round
//!   was SENT, plus the ttl, less the [`margin`].
//! - [`Voter`] acknowledges only what its applied record names and its durable floor allows, and closes an epoch only
//!   when it has been quiet for the record's `wait`.
//! - [`Promise`] is what a member says to a holder without a majority (failsafe): with the promises of all members to
//!   which the lease could be granted, [`Holder`] extends its licence.

mod arithmetic;
mod failsafe;
mod holder;
mod message;
mod promise;
mod voter;

#[cfg(test)]
mod testscripts;

pub use arithmetic::{BootTime, deadline, margin, patience, renewal_interval};
pub use failsafe::{FailsafeFacts, question_limit};
pub use holder::{Holder, Licence};
pub use message::{
    CloseRequest, CloseVerdict, FailsafeQuestion, FailsafeRefusal, Renewal, RenewalAnswer, RenewalVerdict,
};
pub use promise::{Promise, StandingBack};
pub use voter::{Answer, Voter};
