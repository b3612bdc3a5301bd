//! The state machine of one node that looks for a group.

use std::collections::BTreeMap;
use std::time::Duration;

use super::gathering::Gathering;
use super::message::{Identity, Promise, PromiseAnswer, PromiseRequest, PromiseVerdict, Status};
use crate::lease::BootTime;
use crate::model::{GroupId, Member, MemberId};

/// How often a partner is asked for its status: soon enough that a start of all nodes at once is not felt.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// A probe without any answer for so long is forgotten; the driver gives up earlier.
const PROBE_LOST: Duration = Duration::from_secs(3);
/// How often a group is asked to take this node in, and Raft is initialised again until it succeeds.
const REPEAT_EVERY: Duration = Duration::from_millis(500);
/// How long a coordinator which cancelled leaves the field to others.
const STAND_BACK: Duration = Duration::from_secs(2);

/// What the driver does, strictly in order: each is finished before the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make this the promise in the store, or remove it. It is durable before anything that follows happens; if that
    /// fails the node must stop.
    PersistPromise(Option<Promise>),
    /// Ask the node at this address for its [`Status`]; feed [`Founding::probed`] with the answer, and with
    /// [`Status::Unreachable`] when there is none within a second.
    Probe {
        /// Where.
        addr: String,
        /// Returned with the answer: late answers say nothing about the present.
        number: u64,
    },
    /// Send the request; feed [`Founding::answered`] with the answer. A lost one is asked again.
    AskPromise {
        /// Where.
        addr: String,
        /// What.
        request: PromiseRequest,
    },
    /// Initialise Raft with these voters and propose `Command::Found`: the group's id is the founding's. Repeated,
    /// also after a restart, until the driver ends this machine.
    Initialise {
        /// The group's id.
        founding: GroupId,
        /// All founders, this node included.
        founders: Vec<(MemberId, Member)>,
    },
    /// Ask the group's member at this address to be taken in. Repeated until the driver ends this machine.
    Join {
        /// Where.
        via: String,
        /// Which group: only its Raft messages are accepted from now on.
        group: GroupId,
    },
    /// Tell the witness at this address that a data node without a vote wishes a founding. Repeated until a group exists.
    Wish {
        /// Where.
        addr: String,
        /// What this node's configuration lists.
        partners: Vec<String>,
    },
    /// This node can never take part: a sentence with the cure.
    Refuse(String),
}

/// A rule which a test may break, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A node promises itself to one founding only.
    OnePromise,
    /// Every founder's list has its majority among the founders.
    Majority,
    /// Those which answer are founders.
    EverybodyWhoAnswers,
    /// Coordinators make way for each other. Not needed for safety.
    TakeTurns,
    /// Those which do not answer are waited for a little. Not needed for safety.
    Grace,
}

/// What is known of one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    /// The probe under way, and since when.
    outstanding: Option<(u64, BootTime)>,
    /// When the last probe was sent.
    sent: Option<BootTime>,
    /// The answer to the latest probe that was answered, with its number.
    pub(super) seen: Option<(u64, Status)>,
    /// When its promise was last asked for.
    pub(super) asked: Option<BootTime>,
}

impl Target {
    pub(super) fn id(&self) -> Option<MemberId> {
        match self.seen.as_ref()? {
            (_, Status::New { identity, .. }) => Some(identity.id),
            (_, Status::Member { id, .. }) => Some(*id),
            (_, Status::OtherScope | Status::Unreachable) => None,
        }
    }
}

/// One node that belongs to no group yet. The driver drops it when the store holds Raft state of a group.
#[derive(Clone, Debug)]
pub struct Founding {
    pub(super) me: Identity,
    /// What the configuration lists, without this node's own address.
    pub(super) partners: Vec<String>,
    /// As in the store.
    pub(super) promise: Option<Promise>,
    /// Every address worth a question: the partners, what other founders list, where the coordinator is.
    pub(super) targets: BTreeMap<String, Target>,
    /// The number of the next probe.
    next_probe: u64,
    /// Probes from this number on were sent after the last change of the promise.
    pub(super) fresh_from: u64,
    /// The founding which this node coordinates.
    pub(super) gathering: Option<Gathering>,
    /// A group that exists, and where. A group never ceases to exist.
    pub(super) group: Option<(GroupId, String)>,
    /// Somebody said that there is a group at this address.
    pub(super) hint: Option<String>,
    stands_back_until: BootTime,
    /// A data node without a vote wishes that this witness founds the group.
    pub(super) is_wished: bool,
    repeated: Option<BootTime>,
    pub(super) refused: Option<String>,
    #[cfg(test)]
    pub(super) broken: Vec<Rule>,
}

impl Founding {
    /// A node at the start of its process. `partners` is what the configuration lists, `promise` what the store says.
    pub fn new(me: Identity, partners: &[String], promise: Option<Promise>, now: BootTime) -> Self {
        // A witness that coordinates by wish keeps to the list which it was told.
        let told = promise.as_ref().filter(|promise| promise.coordinator == me.id && !me.coordinates());
        let is_wished = told.is_some();
        let mut others: Vec<String> = Vec::new();
        for addr in partners.iter().chain(told.iter().flat_map(|promise| &promise.listed)) {
            if addr != me.addr() && !others.contains(addr) {
                others.push(addr.clone());
            }
        }
        let mut founding = Self {
            me,
            partners: others,
            promise,
            targets: BTreeMap::new(),
            next_probe: 0,
            fresh_from: 0,
            gathering: None,
            group: None,
            hint: None,
            stands_back_until: now,
            is_wished,
            repeated: None,
            refused: None,
            #[cfg(test)]
            broken: Vec::new(),
        };
        if founding.coordinates() {
            founding.gathering = Some(Gathering::new(now));
        }
        founding.choose_targets();
        founding
    }

    /// What this node answers to a probe.
    pub fn status(&self) -> Status {
        let promise = self.promise.clone().map(|promise| Promise { sealed: None, ..promise });
        Status::New { identity: self.me.clone(), promise }
    }

    /// The group whose Raft messages this node accepts: the promised one, or the one it asked to join.
    pub fn accepts(&self) -> Option<GroupId> {
        let promised = self.promise.as_ref().map(|promise| promise.founding);
        promised.or_else(|| self.group.as_ref().map(|(group, _)| *group))
    }

    /// Does a group exist that this node waits to be let into? The promised one also when it was founded without this
    /// node, whose promise did not arrive.
    pub fn is_joining(&self) -> bool {
        let known = self.group.as_ref().map(|(group, _)| *group);
        let promised = self.promise.as_ref().map(|promise| promise.founding);
        known.is_some() && (promised.is_none() || promised == known)
    }

    /// A member of a group which lists this node says that the group exists.
    pub fn invited(&mut self, group: GroupId, via: &str, now: BootTime) -> Vec<Action> {
        let mut actions = self.met_group(group, via);
        actions.append(&mut self.go_on(now));
        actions
    }

    /// Time has passed: call it at the start, and every 50 ms. `fresh` is a random number, used if a founding begins.
    pub fn tick(&mut self, now: BootTime, fresh: GroupId) -> Vec<Action> {
        if self.refused.is_some() {
            return Vec::new();
        }
        if let Some(initialise) = self.initialise(now) {
            return initialise;
        }
        let mut actions = self.go_on(now);
        if let Some(mut begun) = self.begin(now, fresh) {
            actions.append(&mut begun);
            actions.append(&mut self.go_on(now));
        }
        actions
    }

    /// The outcome of a probe.
    pub fn probed(&mut self, addr: &str, number: u64, status: Status, now: BootTime) -> Vec<Action> {
        let Some(target) = self.targets.get_mut(addr) else { return Vec::new() };
        if target.outstanding.is_some_and(|(sent, _)| sent == number) {
            target.outstanding = None;
        }
        if target.seen.as_ref().is_some_and(|(seen, _)| *seen >= number) || self.refused.is_some() {
            return Vec::new();
        }
        target.seen = Some((number, status.clone()));
        let mut actions = match &status {
            Status::Member { id, .. } if *id == self.me.id => Vec::new(),
            Status::Member { id, group, raft_leader_addr } => {
                let via = raft_leader_addr.as_deref().unwrap_or(addr);
                let mut actions = self.met_group(*group, via);
                let promise = self.promise.as_ref().filter(|promise| promise.coordinator == *id);
                if promise.is_some_and(|promise| promise.founding != *group) {
                    actions.append(&mut self.set_promise(None));
                }
                actions
            }
            Status::New { identity, promise } if identity.id != self.me.id => {
                if self.hint.as_deref() == Some(addr) {
                    self.hint = None;
                }
                match self.clash(identity) {
                    Some(refuse) => refuse,
                    None => self.release(addr, number, identity, promise.as_ref()),
                }
            }
            Status::New { .. } | Status::OtherScope | Status::Unreachable => Vec::new(),
        };
        actions.append(&mut self.go_on(now));
        actions
    }

    /// Another node asks for this one's promise. The actions come before the answer leaves.
    pub fn asked(&mut self, request: &PromiseRequest, now: BootTime) -> (Vec<Action>, PromiseAnswer) {
        let mut actions = Vec::new();
        let verdict = self.verdict(request).unwrap_or_else(|| {
            if self.coordinates() {
                self.stands_back_until = now.after(STAND_BACK);
            }
            let promise = Promise {
                founding: request.founding,
                coordinator: request.coordinator.id,
                coordinator_addr: request.coordinator.addr().to_owned(),
                listed: request.listed.clone(),
                sealed: None,
            };
            actions = self.set_promise(Some(promise));
            PromiseVerdict::Promised { identity: self.me.clone(), partners: self.partners.clone() }
        });
        (actions, PromiseAnswer { founding: request.founding, from: self.me.id, verdict })
    }

    /// Why this node does not promise itself, or that it has already; none: it does so now.
    fn verdict(&self, request: &PromiseRequest) -> Option<PromiseVerdict> {
        let promised =
            || PromiseVerdict::Promised { identity: self.me.clone(), partners: self.partners.clone() };
        if let Some((_, via)) = self.group.as_ref().filter(|(group, _)| *group != request.founding) {
            return Some(PromiseVerdict::GroupExists { via: via.clone() });
        }
        if let Some(promise) = self.promise.as_ref().filter(|_| self.keeps(Rule::OnePromise)) {
            if promise.founding == request.founding {
                return Some(promised());
            }
            let may_cancel = self.coordinates() && promise.sealed.is_none();
            let yields = may_cancel && request.coordinator.addr() < self.me.addr();
            if !yields {
                return Some(PromiseVerdict::Elsewhere {
                    coordinator_addr: promise.coordinator_addr.clone(),
                });
            }
        }
        if self.refused.is_some() || !self.me.votes() || !request.coordinator.votes() {
            return Some(PromiseVerdict::NotYet);
        }
        None
    }

    /// A rule holds, except where a test breaks it.
    pub(super) fn keeps(&self, _rule: Rule) -> bool {
        #[cfg(test)]
        if self.broken.contains(&_rule) {
            return false;
        }
        true
    }

    /// This node coordinates the founding to which it is promised.
    pub(super) fn coordinates(&self) -> bool {
        self.promise.as_ref().is_some_and(|promise| promise.coordinator == self.me.id)
    }

    pub(super) fn has_seen_partners_from(&self, number: u64) -> bool {
        self.partners.iter().all(|addr| {
            let seen = self.targets.get(addr).and_then(|target| target.seen.as_ref());
            seen.is_some_and(|(seen, _)| *seen >= number)
        })
    }

    /// The promises which partners show.
    pub(super) fn promises_seen(&self) -> impl Iterator<Item = &Promise> {
        self.partners.iter().filter_map(|addr| match &self.targets.get(addr)?.seen.as_ref()?.1 {
            Status::New { promise, .. } => promise.as_ref(),
            Status::Member { .. } | Status::OtherScope | Status::Unreachable => None,
        })
    }

    pub(super) fn set_promise(&mut self, promise: Option<Promise>) -> Vec<Action> {
        self.promise = promise;
        self.gathering = None;
        self.fresh_from = self.next_probe;
        self.choose_targets();
        vec![Action::PersistPromise(self.promise.clone())]
    }

    /// Cancels the founding which this node coordinates: from now on nobody can complete it.
    pub(super) fn cancel(&mut self, now: BootTime) -> Vec<Action> {
        let sealed = self.promise.as_ref().is_some_and(|promise| promise.sealed.is_some());
        if !self.coordinates() || sealed {
            return Vec::new();
        }
        self.stands_back_until = now.after(STAND_BACK);
        self.set_promise(None)
    }

    pub(super) fn may_begin(&self, now: BootTime) -> bool {
        let free = self.promise.is_none() && self.group.is_none() && self.hint.is_none();
        let turn = now >= self.stands_back_until || !self.keeps(Rule::TakeTurns);
        free && self.refused.is_none() && turn && self.may_coordinate()
    }

    /// Keeps what is known of the addresses that are still of interest, and asks all of them soon.
    pub(super) fn choose_targets(&mut self) {
        let mut wanted = self.partners.clone();
        if let Some(promise) = self.promise.as_ref().filter(|promise| promise.coordinator != self.me.id) {
            wanted.push(promise.coordinator_addr.clone());
            wanted.extend(promise.listed.iter().cloned());
        }
        wanted.extend(self.gathering.iter().flat_map(|gathering| gathering.listed().cloned()));
        wanted.extend(self.hint.clone());
        wanted.extend(self.group.iter().map(|(_, via)| via.clone()));
        wanted.retain(|addr| addr != self.me.addr());
        self.targets.retain(|addr, _| wanted.contains(addr));
        for addr in wanted {
            self.targets.entry(addr).or_default().sent = None;
        }
    }

    pub(super) fn go_on(&mut self, now: BootTime) -> Vec<Action> {
        let mut actions = self.gather(now);
        actions.append(&mut self.probe(now));
        actions.append(&mut self.join(now));
        actions.append(&mut self.wish(now));
        actions
    }

    fn probe(&mut self, now: BootTime) -> Vec<Action> {
        let mut actions = Vec::new();
        let fresh_from = self.fresh_from;
        for (addr, target) in &mut self.targets {
            let waits = target
                .outstanding
                .is_some_and(|(number, sent)| number >= fresh_from && now.since(sent) < PROBE_LOST);
            let due = target.sent.is_none_or(|sent| now.since(sent) >= PROBE_EVERY);
            if due && !waits {
                let number = self.next_probe;
                self.next_probe += 1;
                target.outstanding = Some((number, now));
                target.sent = Some(now);
                actions.push(Action::Probe { addr: addr.clone(), number });
            }
        }
        actions
    }

    pub(super) fn is_due(&mut self, now: BootTime) -> bool {
        let due = self.repeated.is_none_or(|last| now.since(last) >= REPEAT_EVERY);
        if due {
            self.repeated = Some(now);
        }
        due
    }

    /// A sealed founding goes to its end, whatever else is seen.
    fn initialise(&mut self, now: BootTime) -> Option<Vec<Action>> {
        let promise = self.promise.as_ref()?;
        let founders = promise.sealed.clone()?;
        let founding = promise.founding;
        let initialise = Action::Initialise { founding, founders };
        Some(if self.is_due(now) { vec![initialise] } else { Vec::new() })
    }

    fn join(&mut self, now: BootTime) -> Vec<Action> {
        if !self.is_joining() || self.refused.is_some() {
            return Vec::new();
        }
        let Some((group, via)) = self.group.clone() else { return Vec::new() };
        if self.is_due(now) { vec![Action::Join { via, group }] } else { Vec::new() }
    }

    /// There is a group. Its address is kept up to date; another group than the first is not looked at, since two are
    /// for an operator to sort out.
    fn met_group(&mut self, group: GroupId, via: &str) -> Vec<Action> {
        if self.group.as_ref().is_some_and(|(known, _)| *known != group) {
            return Vec::new();
        }
        self.group = Some((group, via.to_owned()));
        self.hint = None;
        let stands_back_until = self.stands_back_until;
        let actions = self.cancel(stands_back_until);
        self.choose_group_target(via);
        actions
    }

    fn choose_group_target(&mut self, via: &str) {
        if via != self.me.addr() {
            self.targets.entry(via.to_owned()).or_default();
        }
    }

    /// Two nodes of one name or one address: the one with the larger address, then the larger id, has to go.
    fn clash(&mut self, other: &Identity) -> Option<Vec<Action>> {
        let yields = (other.addr(), other.id) < (self.me.addr(), self.me.id);
        let name = &self.me.member.name;
        let sentence = if other.member.name == *name {
            format!(
                "there is already a node named '{name}' running at {}: give this node another name",
                other.addr()
            )
        } else if other.addr() == self.me.addr() {
            format!(
                "the peer address {} is used by {}: give this node its own raft.self_addr",
                other.addr(),
                other.member.name
            )
        } else {
            return None;
        };
        yields.then(|| {
            self.refused = Some(sentence.clone());
            vec![Action::Refuse(sentence)]
        })
    }

    /// Is this the coordinator's word that the founding to which this node is promised is no more?
    fn release(
        &mut self,
        addr: &str,
        number: u64,
        identity: &Identity,
        shown: Option<&Promise>,
    ) -> Vec<Action> {
        let fresh = number >= self.fresh_from;
        let Some(promise) = self.promise.as_ref().filter(|_| fresh && !self.coordinates()) else {
            return Vec::new();
        };
        let cancelled = identity.id == promise.coordinator
            && shown.is_none_or(|shown| shown.founding != promise.founding);
        if cancelled || self.coordinator_is_no_more(addr, identity, promise) {
            return self.set_promise(None);
        }
        Vec::new()
    }

    /// The coordinator's address is another node's, which happens when its store was lost. It may have initialised
    /// before, so everybody else who was listed must be there and new.
    fn coordinator_is_no_more(&self, addr: &str, identity: &Identity, promise: &Promise) -> bool {
        let replaced = addr == promise.coordinator_addr && identity.id != promise.coordinator;
        replaced
            && self.targets.values().all(|target| {
                matches!(&target.seen, Some((number, Status::New { .. })) if *number >= self.fresh_from)
            })
    }
}
