//! Who belongs to the group, as far as this node knows: its number and its members' addresses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::model::{GroupId, MemberId};
use crate::state_machine::Applied;

/// The group's identity and address book. The applied state is the authority; before it names the group, the one
/// that this node founds or was let into counts.
#[derive(Debug, Default)]
pub(crate) struct GroupIdentity {
    /// Zero: none.
    expected: AtomicU64,
    applied: OnceLock<watch::Receiver<Arc<Applied>>>,
}

impl GroupIdentity {
    /// From now on the applied state is the authority.
    pub(crate) fn follow(&self, applied: watch::Receiver<Arc<Applied>>) {
        self.applied.get_or_init(|| applied);
    }

    /// Before the state names the group: the one whose messages this node accepts.
    pub(crate) fn expect(&self, group: Option<GroupId>) {
        self.expected.store(group.map_or(0, |group| group.0), Ordering::Relaxed);
    }

    /// The group, if this node belongs to one.
    pub(crate) fn group(&self) -> Option<GroupId> {
        let applied = self.applied.get().and_then(|applied| applied.borrow().state.group);
        let expected = || Some(GroupId(self.expected.load(Ordering::Relaxed)));
        applied.or_else(expected).filter(|group| group.0 != 0)
    }

    /// Where the state says that a member listens.
    pub(crate) fn addr_of(&self, id: MemberId) -> Option<String> {
        let applied = self.applied.get()?.borrow();
        applied.state.members.get(&id).map(|member| member.raft_addr.clone())
    }
}
