//! Who belongs to the group: joining, leaving, a store that was lost; the steps of the Raft leader are the product's.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::membership::{RaftMembershipView, Step, next_step};
use crate::model::{Command, Member, MemberId, Outcome};
use crate::network::Message;
use crate::node::{NAMES, Node, index};
use crate::world::{World, member, note};

const JOIN_AGAIN: Duration = Duration::from_millis(400);
const LEAD_EVERY: Duration = Duration::from_millis(200);
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// A learner that lags by so many entries or less has caught up.
const CAUGHT_UP: usize = 16;

impl World {
    /// Where this id lives; none: its store was lost.
    pub(crate) fn bearer(&self, id: MemberId) -> Option<usize> {
        Some(index(id)).filter(|place| self.nodes[*place].id() == id)
    }

    /// The log goes to voters and learners.
    pub(crate) fn replicate(&mut self, leader: usize, to: usize, committed: usize) {
        let (id, membership) = (self.nodes[to].id(), self.log.membership());
        if membership.voters.contains(&id) || membership.learners.contains(&id) {
            self.send(leader, to, Message::Entries { to: committed });
        }
    }

    /// Asks to be let in, until the group says so.
    pub(crate) fn join(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let (id, entry) = (node.id(), member(node));
        let Some(daemon) = node.daemon.as_mut() else { return };
        // That it leaves may be agreed on after its return.
        let state = self.log.state(daemon.applied);
        let is_in = state.members.contains_key(&id) && !state.leaving.contains(&id);
        if daemon.is_welcome && is_in || daemon.leaves_until.is_some() || clock < daemon.next_join {
            return;
        }
        daemon.next_join = clock.after(JOIN_AGAIN);
        match self.log.working_leader() {
            Some(leader) if leader == place => {
                if self.admit(place, id, &entry)
                    && let Some(daemon) = &mut self.nodes[place].daemon
                {
                    daemon.is_welcome = true;
                }
            }
            Some(leader) => self.send(place, leader, Message::Join { id, member: Box::new(entry) }),
            None => {}
        }
    }

    /// The Raft leader's side, as the product does it.
    pub(crate) fn admit(&mut self, leader: usize, id: MemberId, entry: &Member) -> bool {
        let state = self.log.last().clone();
        if state.members.get(&id) != Some(entry) {
            let former =
                state.members.iter().find(|(other, known)| **other != id && known.name == entry.name);
            let former = former.map(|(old, _)| *old);
            if let Some(old) = former {
                if state.lease.holder() == Some(old) {
                    return false;
                }
                if state.lease.voters.contains(&old) {
                    if !state.leaving.contains(&old) {
                        self.commit_at(leader, &Command::SetLeaving { id: old, leaving: true });
                    }
                    return false;
                }
            }
            let command = Command::PutMember { id, member: entry.clone(), replaces: former };
            if self.commit_at(leader, &command) != Outcome::Applied {
                return false;
            }
        }
        if self.log.last().leaving.contains(&id) {
            self.commit_at(leader, &Command::SetLeaving { id, leaving: false });
        }
        true
    }

    /// The Raft leader brings the membership step by step to what the state asks for.
    pub(crate) fn lead(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let Some(daemon) = node.daemon.as_mut().filter(|daemon| clock >= daemon.next_lead) else { return };
        daemon.next_lead = clock.after(LEAD_EVERY);
        if self.log.working_leader() != Some(place) {
            return;
        }
        let view = self.membership_view(place);
        let Some(step) = next_step(self.log.last(), &view) else { return };
        let mut next = (**self.log.membership()).clone();
        match step {
            Step::AddLearner(id) => {
                next.learners.insert(id);
            }
            Step::Promote(id) => {
                next.learners.remove(&id);
                next.voters.insert(id);
            }
            Step::Demote(id) => {
                next.voters.remove(&id);
                next.learners.insert(id);
            }
            Step::RemoveNode(id) => {
                next.learners.remove(&id);
            }
            Step::SetVoters { epoch, voters } => {
                self.commit_at(place, &Command::SetVoters { epoch, voters });
                return;
            }
            Step::LeaveJoint => return,
        }
        // A change needs majorities of both memberships.
        if next.voters.intersection(&view.reachable).count() * 2 <= next.voters.len() {
            return;
        }
        note!(
            self,
            "{} changes Raft's membership: {:?}, {:?} learn",
            NAMES[place],
            next.voters,
            next.learners
        );
        self.memberships += 1;
        self.log.change(next);
        let committed = self.log.committed();
        self.apply(place, committed);
        for other in (0..self.nodes.len()).filter(|other| *other != place) {
            self.replicate(place, other, committed);
        }
    }

    fn membership_view(&self, leader: usize) -> RaftMembershipView {
        let (now, committed) = (self.now, self.log.committed());
        let reached = self.nodes.iter().filter(|node| {
            node.daemon_runs(now) && now >= node.log_stalled_until && self.connected(leader, node.place)
        });
        let reachable: BTreeSet<MemberId> = reached.clone().map(|node| node.id()).collect();
        let caught_up = reached.filter(|node| {
            node.daemon.as_ref().is_some_and(|daemon| daemon.applied + CAUGHT_UP >= committed)
        });
        let membership = self.log.membership();
        RaftMembershipView {
            voters: membership.voters.clone(),
            learners: membership.learners.clone(),
            joint: false,
            caught_up: caught_up.map(|node| node.id()).collect(),
            reachable,
        }
    }

    /// A daemon that ends gives its vote back first, if the rest can do without.
    pub(crate) fn leave(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let (id, clock) = (node.id(), node.clock(self.now));
        let daemon = node.daemon.as_mut().expect("it runs");
        let state = self.log.state(daemon.applied);
        let raft = &self.log.membership_at(daemon.applied).voters;
        let is_last = raft.len() <= 1 && raft.contains(&id);
        let held = state.lease.tenure.as_ref().filter(|tenure| tenure.holder == id);
        // The holder of a pinned epoch keeps its vote, and tells of the end of its daemon.
        let is_pinned = held.is_some_and(|tenure| tenure.pinned);
        if is_pinned {
            node.stopped_in_pause = state.lease.epoch;
        }
        let is_over = match daemon.leaves_until {
            None => is_last || held.is_some() && !is_pinned || !state.members.contains_key(&id),
            Some(_) if is_pinned && state.leaving.contains(&id) => true,
            Some(until) => clock >= until || !state.lease.voters.contains(&id) && !raft.contains(&id),
        };
        if is_over {
            self.end_daemon(place);
            return;
        }
        if daemon.leaves_until.is_none() {
            daemon.leaves_until = Some(clock.after(LEAVE_PATIENCE));
            daemon.proposal = None;
            self.propose(place, &Command::SetLeaving { id, leaving: true });
            self.log.step_down(place);
        }
    }

    /// The consensus store of this node is lost while everybody else is there: it comes back under another id.
    pub(crate) fn lose_store(&mut self, place: usize) -> bool {
        let (state, raft) = (self.log.last(), &self.log.membership().voters);
        let counts = |id: &MemberId| raft.contains(id) && state.lease.voters.contains(id);
        // Whoever held the lease last needs no fence of its own, which nobody could make up for.
        let is_last_holder = state.synchrony.needs_standbys()
            && state.lease.last_holder.is_none_or(|last| index(last) == place);
        // Nobody but the holder ends a pause, if no operator says that it is dead.
        let is_pinned =
            state.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned && index(tenure.holder) == place);
        // A former primary takes no lease by itself: without a standby an operator has to name somebody.
        let holds = state.lease.holder().is_none_or(|holder| index(holder) == place);
        let follows = |node: &Node| {
            let upstream = node.server.as_ref().and_then(|server| server.connection);
            upstream.is_some_and(|(from, _)| from == place) && node.streams(self.now)
        };
        let is_alone = holds && !self.nodes.iter().any(follows);
        // One loss at a time: of two voters that remain while others leave, neither can be spared.
        let leaves = |node: &Node| node.daemon.as_ref().is_none_or(|daemon| daemon.shutting_down);
        let is_one_off = !state.leaving.is_empty()
            || self.nodes.iter().any(|node| node.off_for.is_some() || leaves(node) && node.place != place);
        if is_pinned
            || is_alone
            || is_one_off
            || !self.nodes.iter().all(|node| counts(&node.id()))
            || is_last_holder
        {
            return false;
        }
        let starts_at = self.now + self.random.between(100_000, 5_000_000);
        self.log.depose(place);
        let node = &mut self.nodes[place];
        node.daemon = None;
        node.daemon_starts_at = Some(starts_at);
        node.store += 1;
        (node.floor, node.given_up, node.stored) = Default::default();
        true
    }
}
