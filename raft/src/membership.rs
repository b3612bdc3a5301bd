//! The next single step from the Raft membership there is to the one the replicated state asks for. Pure.
//!
//! Two sets of voters exist: Raft's, who order commands, and the lease's, who count renewals. A node becomes a Raft
//! voter before, and ceases to be one after, it is a lease voter; each changes by one member at a time. The lease's
//! voters are changed by the holder with a new epoch ([`lease_voters_wanted`] says to what), and while the lease is
//! vacant by a step of [`next_step`], which the Raft leader performs.

use std::collections::BTreeSet;

use crate::model::{ClusterState, Epoch, MemberId};

/// The Raft membership as the Raft leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RaftMembershipView {
    /// The voters; of both configurations while it is joint.
    pub voters: BTreeSet<MemberId>,
    /// Nodes which receive the log and do not vote.
    pub learners: BTreeSet<MemberId>,
    /// A change of voters was begun and not finished.
    pub joint: bool,
    /// Learners whose log is as long as the leader's, or nearly.
    pub caught_up: BTreeSet<MemberId>,
    /// Members which answered within the last election timeout, the leader itself included.
    pub reachable: BTreeSet<MemberId>,
}

/// One step. The Raft leader performs it, waits for its end, and asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Finish the change of voters that was begun.
    LeaveJoint,
    /// A member becomes a learner.
    AddLearner(MemberId),
    /// A learner becomes a Raft voter.
    Promote(MemberId),
    /// A Raft voter becomes a learner.
    Demote(MemberId),
    /// A learner which is no member any more is dropped.
    RemoveNode(MemberId),
    /// Propose `Command::SetVoters`: the lease is vacant.
    SetVoters {
        /// The epoch of the vacant lease.
        epoch: Epoch,
        /// The new voters.
        voters: BTreeSet<MemberId>,
    },
}

/// The next step; none: the membership is as it should be, or has to wait.
pub fn next_step(state: &ClusterState, raft: &RaftMembershipView) -> Option<Step> {
    if raft.joint {
        return Some(Step::LeaveJoint);
    }
    remove_strangers(state, raft)
        .or_else(|| add_members(state, raft))
        .or_else(|| set_lease_voters(state, raft))
        .or_else(|| demote_leaving(state, raft))
}

/// The lease voters as they should be, one member away from the present ones; none: leave them as they are.
///
/// A member which is leaving ceases to count first, because its stop waits for that, if the rest keeps a reachable
/// majority; the holder itself goes with the lease (`Command::Transfer`). Then a Raft voter which is not leaving
/// begins to count, if it can be reached: an unreachable one would only make a majority harder to get.
pub fn lease_voters_wanted(
    state: &ClusterState,
    raft_voters: &BTreeSet<MemberId>,
    reachable: &BTreeSet<MemberId>,
) -> Option<BTreeSet<MemberId>> {
    let present = &state.lease.voters;
    let without = present
        .iter()
        .filter(|id| state.leaving.contains(id) && state.lease.holder() != Some(**id))
        .map(|id| rest(present, *id))
        .find(|rest| has_majority(rest, reachable));
    without.or_else(|| {
        let joins = |id: &&MemberId| {
            raft_voters.contains(id)
                && reachable.contains(id)
                && !present.contains(id)
                && !state.leaving.contains(id)
        };
        let id = state.members.keys().find(joins)?;
        let mut with = present.clone();
        with.insert(*id);
        Some(with)
    })
}

fn rest(of: &BTreeSet<MemberId>, without: MemberId) -> BTreeSet<MemberId> {
    of.iter().copied().filter(|id| *id != without).collect()
}

fn has_majority(voters: &BTreeSet<MemberId>, reachable: &BTreeSet<MemberId>) -> bool {
    voters.intersection(reachable).count() * 2 > voters.len()
}

/// May this Raft voter become a learner without the rest losing its majority?
fn may_demote(raft: &RaftMembershipView, id: MemberId) -> bool {
    has_majority(&rest(&raft.voters, id), &raft.reachable)
}

fn remove_strangers(state: &ClusterState, raft: &RaftMembershipView) -> Option<Step> {
    let stranger = |id: &&MemberId| !state.members.contains_key(id);
    let learner = raft.learners.iter().find(stranger).map(|id| Step::RemoveNode(*id));
    learner.or_else(|| {
        raft.voters.iter().filter(stranger).find(|id| may_demote(raft, **id)).map(|id| Step::Demote(*id))
    })
}

fn add_members(state: &ClusterState, raft: &RaftMembershipView) -> Option<Step> {
    let unknown = |id: &&MemberId| !raft.voters.contains(id) && !raft.learners.contains(id);
    let added = state.members.keys().find(unknown).map(|id| Step::AddLearner(*id));
    added.or_else(|| {
        let ready = |id: &&MemberId| {
            state.members.contains_key(id)
                && !state.leaving.contains(id)
                && raft.caught_up.contains(id)
                && raft.reachable.contains(id)
        };
        raft.learners.iter().find(ready).map(|id| Step::Promote(*id))
    })
}

fn set_lease_voters(state: &ClusterState, raft: &RaftMembershipView) -> Option<Step> {
    if state.group.is_none() || state.lease.tenure.is_some() {
        return None;
    }
    let voters = lease_voters_wanted(state, &raft.voters, &raft.reachable)?;
    Some(Step::SetVoters { epoch: state.lease.epoch, voters })
}

fn demote_leaving(state: &ClusterState, raft: &RaftMembershipView) -> Option<Step> {
    let leaves = |id: &&MemberId| {
        state.leaving.contains(id) && !state.lease.voters.contains(id) && may_demote(raft, **id)
    };
    raft.voters.iter().find(leaves).map(|id| Step::Demote(*id))
}
