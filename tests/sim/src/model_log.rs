//! The replicated log as consensus promises it: one order, a majority for every entry, followers behind by a little.
//!
//! A Raft leader commits what it is asked while it reaches a majority; its answer may be lost although it committed. How
//! the order comes about is not modelled: the consensus library has its own tests.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::model::{ClusterState, Command, MemberId, Outcome, apply};

use crate::mutants::{self, Mutant};
use crate::random::Random;

/// Between the loss of a Raft leader and the next one: what heartbeats and elections take.
const ELECTION: (u64, u64) = (1_450_000, 2_000_000);

/// Who orders commands, and who only receives them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Membership {
    pub(crate) voters: BTreeSet<MemberId>,
    pub(crate) learners: BTreeSet<MemberId>,
}

pub(crate) struct Log {
    /// The state after each entry; the first is before any.
    states: Vec<Rc<ClusterState>>,
    /// The membership of Raft after each entry.
    memberships: Vec<Rc<Membership>>,
    pub(crate) leader: Option<usize>,
    pub(crate) term: u64,
    /// Since when there is no leader with a majority.
    lost_at: Option<(u64, u64)>,
}

impl Log {
    pub(crate) fn new() -> Self {
        let (states, memberships) = (vec![Rc::default()], vec![Rc::default()]);
        Self { states, memberships, leader: None, term: 0, lost_at: None }
    }

    pub(crate) fn committed(&self) -> usize {
        self.states.len() - 1
    }

    pub(crate) fn state(&self, index: usize) -> &Rc<ClusterState> {
        &self.states[index]
    }

    pub(crate) fn last(&self) -> &Rc<ClusterState> {
        self.state(self.committed())
    }

    pub(crate) fn commit(&mut self, command: &Command, mutant: Option<Mutant>) -> Outcome {
        let mut state = ClusterState::clone(self.last());
        let index = self.states.len() as u64;
        let mut outcome = apply(&mut state, index, command);
        if mutant.is_some_and(|mutant| mutants::accepts(mutant, &mut state, index, command, &outcome)) {
            outcome = Outcome::Applied;
        }
        if let (Command::Found { members, .. }, Outcome::Applied) = (command, &outcome) {
            let voters = members.iter().map(|(id, _)| *id).collect();
            self.memberships.push(Rc::new(Membership { voters, learners: BTreeSet::new() }));
        } else {
            self.memberships.push(Rc::clone(self.membership()));
        }
        self.states.push(Rc::new(state));
        outcome
    }

    pub(crate) fn membership(&self) -> &Rc<Membership> {
        self.membership_at(self.committed())
    }

    pub(crate) fn membership_at(&self, index: usize) -> &Rc<Membership> {
        &self.memberships[index]
    }

    /// An entry which changes the membership alone.
    pub(crate) fn change(&mut self, membership: Membership) {
        self.states.push(Rc::clone(self.last()));
        self.memberships.push(Rc::new(membership));
    }

    /// A Raft leader whose process ended is a follower when it comes back.
    pub(crate) fn depose(&mut self, node: usize) {
        if self.leader == Some(node) {
            self.leader = None;
        }
    }

    /// The leader hands its place to another one.
    pub(crate) fn step_down(&mut self, node: usize) {
        self.depose(node);
    }

    /// `can_lead`: the nodes which run and reach a majority.
    pub(crate) fn elect(&mut self, now: u64, can_lead: &[usize], random: &mut Random) {
        if self.leader.is_some_and(|leader| can_lead.contains(&leader)) {
            self.lost_at = None;
            return;
        }
        let (since, takes) =
            *self.lost_at.get_or_insert_with(|| (now, random.between(ELECTION.0, ELECTION.1)));
        if now >= since + takes && !can_lead.is_empty() {
            self.leader = Some(can_lead[random.index(can_lead.len())]);
            self.term += 1;
            self.lost_at = None;
        }
    }

    /// The leader that can commit now.
    pub(crate) fn working_leader(&self) -> Option<usize> {
        self.leader.filter(|_| self.lost_at.is_none())
    }
}
