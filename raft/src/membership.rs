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
/// A member which is leaving, or never votes, ceases to count first, because its stop waits for that, if the rest keeps a reachable
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
        .filter(|id| gives_back(state, **id) && state.lease.holder() != Some(**id))
        .map(|id| rest(present, *id))
        .find(|rest| has_majority(rest, reachable));
    without.or_else(|| {
        let joins = |id: &&MemberId| {
            raft_voters.contains(id)
                && reachable.contains(id)
                && !present.contains(id)
                && !gives_back(state, **id)
        };
        let id = state.members.keys().find(joins)?;
        let mut with = present.clone();
        with.insert(*id);
        Some(with)
    })
}

/// Has this member no vote, or gives it back?
fn gives_back(state: &ClusterState, id: MemberId) -> bool {
    state.leaving.contains(&id) || state.is_listener(id)
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
                && !gives_back(state, **id)
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
        gives_back(state, **id) && !state.lease.voters.contains(id) && may_demote(raft, **id)
    };
    raft.voters.iter().find(leaves).map(|id| Step::Demote(*id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GroupId, Lease, Member, MemberKind, Session, Tags, Tenure};

    fn ids(letters: &str) -> BTreeSet<MemberId> {
        letters.bytes().map(|letter| MemberId(u64::from(letter - b'a') + 1)).collect()
    }

    fn id(letter: &str) -> MemberId {
        *ids(letter).first().expect("one letter")
    }

    /// A cluster of these members, whose lease is counted by those and held by that one, if anybody.
    fn cluster(members: &str, lease_voters: &str, holder: &str, leaving: &str) -> ClusterState {
        let member = |id: MemberId| Member {
            name: format!("n{}", id.0).parse().expect("valid"),
            kind: MemberKind::Data,
            raft_addr: format!("n{}:1", id.0),
            votes: true,
            api_url: None,
            postgres: None,
            tags: Tags::default(),
        };
        let tenure = ids(holder).first().map(|holder| Tenure {
            holder: *holder,
            session: Session(1),
            ttl_ms: 5000,
            wait_ms: 5000,
            pinned: false,
        });
        ClusterState {
            group: Some(GroupId(1)),
            members: ids(members).into_iter().map(|id| (id, member(id))).collect(),
            leaving: ids(leaving),
            lease: Lease { epoch: Epoch(1), voters: ids(lease_voters), tenure, ..Lease::default() },
            ..ClusterState::default()
        }
    }

    /// Everybody is reachable and every learner has caught up.
    fn raft(voters: &str, learners: &str) -> RaftMembershipView {
        let (voters, learners) = (ids(voters), ids(learners));
        let reachable = voters.union(&learners).copied().collect();
        RaftMembershipView { caught_up: learners.clone(), voters, learners, joint: false, reachable }
    }

    #[test]
    fn a_settled_membership_has_no_next_step() {
        assert_eq!(next_step(&cluster("abc", "abc", "a", ""), &raft("abc", "")), None);
    }

    #[test]
    fn a_newcomer_learns_then_votes_then_counts_the_lease() {
        let state = cluster("abc", "ab", "", "");
        assert_eq!(next_step(&state, &raft("ab", "")), Some(Step::AddLearner(id("c"))));
        let mut learning = raft("ab", "c");
        assert_eq!(next_step(&state, &learning), Some(Step::Promote(id("c"))));
        let set = Some(Step::SetVoters { epoch: Epoch(1), voters: ids("abc") });
        assert_eq!(next_step(&state, &raft("abc", "")), set);
        // It has not caught up, or is not there.
        learning.caught_up.clear();
        assert_eq!(next_step(&state, &learning), None);
        let gone = RaftMembershipView { reachable: ids("ab"), ..raft("ab", "c") };
        assert_eq!(next_step(&state, &gone), None);
        // While the lease is held the holder changes its voters.
        assert_eq!(next_step(&cluster("abc", "ab", "a", ""), &raft("abc", "")), None);
    }

    #[test]
    fn one_that_leaves_ceases_to_count_the_lease_then_to_vote() {
        let set = Some(Step::SetVoters { epoch: Epoch(1), voters: ids("ac") });
        assert_eq!(next_step(&cluster("abc", "abc", "", "b"), &raft("abc", "")), set);
        assert_eq!(next_step(&cluster("abc", "abc", "a", "b"), &raft("abc", "")), None);
        assert_eq!(next_step(&cluster("abc", "ac", "a", "b"), &raft("abc", "")), Some(Step::Demote(id("b"))));
        // It stays a learner, and is a voter again when it returns.
        assert_eq!(next_step(&cluster("abc", "ac", "a", "b"), &raft("ac", "b")), None);
        assert_eq!(next_step(&cluster("abc", "ac", "a", ""), &raft("ac", "b")), Some(Step::Promote(id("b"))));
    }

    #[test]
    fn one_without_a_vote_learns_and_stays_a_learner() {
        let without_vote = |members: &str, lease: &str, holder: &str, listener: &str| {
            let mut state = cluster(members, lease, holder, "");
            state.members.get_mut(&id(listener)).expect("a member").votes = false;
            state
        };
        let state = without_vote("ab", "a", "", "b");
        assert_eq!(next_step(&state, &raft("a", "")), Some(Step::AddLearner(id("b"))));
        assert_eq!(next_step(&state, &raft("a", "b")), None);
        // It holds the lease all the same.
        assert_eq!(next_step(&without_vote("ab", "a", "b", "b"), &raft("a", "b")), None);
        // One that had a vote under an earlier configuration loses it.
        let state = without_vote("abc", "abc", "a", "b");
        assert_eq!(lease_voters_wanted(&state, &ids("abc"), &ids("abc")), Some(ids("ac")));
        let state = without_vote("abc", "ac", "a", "b");
        assert_eq!(next_step(&state, &raft("abc", "")), Some(Step::Demote(id("b"))));
    }

    #[test]
    fn nobody_leaves_whose_vote_the_rest_needs() {
        // c has crashed: without b, a would wait for c for ever.
        let lonely = RaftMembershipView { reachable: ids("ab"), ..raft("abc", "") };
        assert_eq!(next_step(&cluster("abc", "abc", "", "b"), &lonely), None);
        assert_eq!(next_step(&cluster("abc", "ac", "", "b"), &lonely), None);
        // Of two, one can stop as planned; the last one cannot.
        assert_eq!(next_step(&cluster("ab", "a", "a", "b"), &raft("ab", "")), Some(Step::Demote(id("b"))));
        assert_eq!(next_step(&cluster("a", "a", "", "a"), &raft("a", "")), None);
    }

    #[test]
    fn what_is_no_member_any_more_is_dropped() {
        let state = cluster("ab", "ab", "a", "");
        assert_eq!(next_step(&state, &raft("ab", "c")), Some(Step::RemoveNode(id("c"))));
        assert_eq!(next_step(&state, &raft("abc", "")), Some(Step::Demote(id("c"))));
        let lonely = RaftMembershipView { reachable: ids("a"), ..raft("abc", "") };
        assert_eq!(next_step(&state, &lonely), None);
    }

    #[test]
    fn a_change_that_was_begun_is_finished_first() {
        let joint = RaftMembershipView { joint: true, ..raft("ab", "c") };
        assert_eq!(next_step(&cluster("ab", "ab", "a", ""), &joint), Some(Step::LeaveJoint));
    }

    #[test]
    fn lease_voters_change_by_one_and_the_holder_stays() {
        let wanted = |state: &ClusterState, voters: &str, reachable: &str| {
            lease_voters_wanted(state, &ids(voters), &ids(reachable))
        };
        assert_eq!(wanted(&cluster("abcd", "a", "a", ""), "abcd", "abcd"), Some(ids("ab")));
        assert_eq!(wanted(&cluster("abcd", "abc", "a", "bc"), "abcd", "abcd"), Some(ids("ac")));
        assert_eq!(wanted(&cluster("abc", "abc", "a", "a"), "abc", "abc"), None);
        assert_eq!(wanted(&cluster("abc", "abc", "", "a"), "abc", "abc"), Some(ids("bc")));
        assert_eq!(wanted(&cluster("abc", "ab", "a", ""), "abc", "ab"), None);
        assert_eq!(wanted(&cluster("abc", "ab", "a", ""), "ab", "abc"), None);
    }

    /// From any state with everybody reachable the steps come to an end, and both sets of voters are then the
    /// members which stay; on the way a lease voter is always a Raft voter, and no change is larger than one member.
    #[test]
    fn all_small_cases_come_to_rest() {
        let subsets = ["", "a", "b", "c", "ab", "ac", "bc", "abc"];
        let mut cases = 0;
        for (leaving, raft_voters) in subsets.iter().flat_map(|l| subsets.iter().map(move |r| (*l, *r))) {
            for lease in subsets.iter().filter(|lease| !lease.is_empty()) {
                if leaving == "abc" || !ids(lease).is_subset(&ids(raft_voters)) {
                    continue;
                }
                let mut state = cluster("abc", lease, "", leaving);
                let learners = ids("abc").difference(&ids(raft_voters)).copied().collect();
                let mut view = RaftMembershipView {
                    caught_up: ids("abc"),
                    reachable: ids("abc"),
                    ..RaftMembershipView { voters: ids(raft_voters), learners, ..Default::default() }
                };
                let mut steps = 0;
                while let Some(step) = next_step(&state, &view) {
                    perform(&mut state, &mut view, &step);
                    assert!(state.lease.voters.is_subset(&view.voters), "{step:?}");
                    steps += 1;
                    assert!(steps < 20, "does not end: {step:?}");
                }
                let stay: BTreeSet<_> = ids("abc").difference(&ids(leaving)).copied().collect();
                assert_eq!(
                    (&state.lease.voters, &view.voters),
                    (&stay, &stay),
                    "{leaving} {raft_voters} {lease}"
                );
                cases += 1;
            }
        }
        assert!(cases > 100);
    }

    fn perform(state: &mut ClusterState, view: &mut RaftMembershipView, step: &Step) {
        match step {
            Step::Promote(id) => {
                view.learners.remove(id);
                view.voters.insert(*id);
            }
            Step::Demote(id) => {
                view.voters.remove(id);
                view.learners.insert(*id);
            }
            Step::SetVoters { voters, .. } => {
                assert_eq!(state.lease.voters.symmetric_difference(voters).count(), 1);
                state.lease.voters.clone_from(voters);
            }
            Step::LeaveJoint | Step::AddLearner(_) | Step::RemoveNode(_) => panic!("not here: {step:?}"),
        }
    }
}
