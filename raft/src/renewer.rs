//! Lease renewal: its own thread, its own runtime, its own connections, so that nothing else can delay it.

use std::collections::BTreeSet;

use crate::group::Group;
use crate::lease::{BootTime, Holder, Licence};
use crate::model::{Epoch, MemberId};

/// Who is told about licences: the owner of the guard's deadline.
pub trait LicenceSink: Send {
    /// Asked before each round: is the guard alive, may PostgreSQL go on?
    fn may_renew(&mut self, now: BootTime) -> bool;
    /// A majority acknowledged: called at once, on the renewer's thread.
    fn licensed(&mut self, licence: Licence);
}

/// What the renewer knows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RenewerFacts {
    /// The last licence won by this process, whether or not its deadline has passed.
    pub licence: Option<Licence>,
    /// The epoch which some voter has closed.
    pub disputed: Option<Epoch>,
    /// Nothing is sent or counted up to this epoch.
    pub given_up: Epoch,
    /// The voters which acknowledged one of the last rounds ([`Holder::answering`]).
    pub answering: BTreeSet<MemberId>,
}

/// The thread that renews.
#[derive(Debug)]
pub struct Renewer {}

impl Renewer {
    /// Starts the thread. It idles while the replicated state names somebody else.
    pub fn start(_group: &Group, _holder: Holder, _sink: Box<dyn LicenceSink>) -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// What is known now.
    pub fn facts(&self) -> RenewerFacts {
        RenewerFacts::default()
    }

    /// From the return of this call on, no round of this epoch or an earlier one is sent or counted, and
    /// [`LicenceSink::licensed`] is not called for one. Durability is [`Group::record_given_up`]'s.
    pub fn give_up(&self, _epoch: Epoch) {}

    /// Ends the thread and waits for it.
    pub fn shutdown(self) {}
}
