//! The coordinator's part: who has promised, who is missing, and when that is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::machine::{Action, Founding, Rule, Target};
use super::message::{Identity, Promise, PromiseAnswer, PromiseRequest, PromiseVerdict, Status};
use crate::lease::BootTime;
use crate::model::{GroupId, MemberId};

/// How long listed nodes which do not answer are waited for: all nodes started together become founders.
const GRACE: Duration = Duration::from_secs(3);
/// How often a missing promise is asked for.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A coordinator whose founders are promised elsewhere gives way after this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// The promises of a founding; volatile: after a restart everybody is asked again.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    since: BootTime,
    founders: BTreeMap<MemberId, Founder>,
    /// The coordinator of another founding to which somebody who is needed is promised.
    conflict: Option<String>,
}

#[derive(Clone, Debug)]
struct Founder {
    identity: Identity,
    partners: Vec<String>,
    /// Where it was asked.
    addr: String,
}

impl Gathering {
    pub(super) fn new(now: BootTime) -> Self {
        Self { since: now, founders: BTreeMap::new(), conflict: None }
    }

    /// What the other founders list.
    pub(super) fn listed(&self) -> impl Iterator<Item = &String> {
        self.founders.values().flat_map(|founder| &founder.partners)
    }
}

/// What stands between a coordinator and its group.
enum Missing {
    /// Nothing.
    Nothing,
    /// These addresses were not heard of since the founding began, or have not promised yet.
    Promises(Vec<String>),
    /// These do not answer; they are waited for a little.
    Grace(Vec<String>),
    /// This founder's list has no majority among the founders, for want of these.
    Majority { of: String, absent: Vec<String> },
    /// Two founders have this name or address.
    Clash(String),
}

impl Founding {
    /// The answer to a request for a promise, from the node at this address.
    pub fn answered(&mut self, addr: &str, answer: &PromiseAnswer, now: BootTime) -> Vec<Action> {
        let current = self.promise.as_ref().is_some_and(|promise| promise.founding == answer.founding);
        let own_addr = self.me.addr().to_owned();
        let Some(gathering) = self.gathering.as_mut().filter(|_| current) else { return Vec::new() };
        match &answer.verdict {
            PromiseVerdict::Promised { identity, partners } => {
                let partners = partners.iter().filter(|partner| **partner != identity.addr()).cloned();
                let founder = Founder {
                    identity: identity.clone(),
                    partners: partners.collect(),
                    addr: addr.to_owned(),
                };
                gathering.conflict = None;
                let known = gathering.founders.insert(identity.id, founder).is_some();
                if !known {
                    for listed in gathering.listed().filter(|listed| **listed != own_addr) {
                        self.targets.entry(listed.clone()).or_default();
                    }
                }
                self.gather(now)
            }
            PromiseVerdict::NotYet => Vec::new(),
            PromiseVerdict::Elsewhere { coordinator_addr } => {
                gathering.conflict = Some(coordinator_addr.clone());
                if *coordinator_addr < own_addr { self.cancel(now) } else { Vec::new() }
            }
            PromiseVerdict::GroupExists { via } => {
                let actions = self.cancel(now);
                if !actions.is_empty() && *via != own_addr {
                    self.hint = Some(via.clone());
                    self.choose_targets();
                }
                actions
            }
        }
    }

    /// Begins a founding if it is this node's turn.
    pub(super) fn begin(&mut self, now: BootTime, fresh: GroupId) -> Option<Vec<Action>> {
        let turn = self.has_seen_partners_from(self.fresh_from)
            && self.promises_seen().next().is_none()
            && self.smaller_data_node().is_none()
            && self.is_reachable_majority();
        if !self.may_begin(now) || (!turn && self.keeps(Rule::TakeTurns)) {
            return None;
        }
        let actions = self.set_promise(Some(Promise {
            founding: fresh,
            coordinator: self.me.id,
            coordinator_addr: self.me.addr().to_owned(),
            listed: self.partners.clone(),
            sealed: None,
        }));
        self.gathering = Some(Gathering::new(now));
        Some(actions)
    }

    /// The coordinator's next step: ask for promises, seal, or give way.
    pub(super) fn gather(&mut self, now: BootTime) -> Vec<Action> {
        let Some(gathering) = &self.gathering else { return Vec::new() };
        let waited = now.since(gathering.since);
        if gathering.conflict.is_some() && waited >= PATIENCE {
            return self.cancel(now);
        }
        match self.missing(waited) {
            Missing::Nothing => self.seal(),
            Missing::Promises(_) | Missing::Grace(_) | Missing::Majority { .. } | Missing::Clash(_) => {
                self.ask(now)
            }
        }
    }

    fn seal(&mut self) -> Vec<Action> {
        let (Some(gathering), Some(promise)) = (&self.gathering, &self.promise) else { return Vec::new() };
        let others = gathering.founders.values().map(|founder| &founder.identity);
        let founders: BTreeMap<_, _> = others
            .chain(std::iter::once(&self.me))
            .map(|identity| (identity.id, identity.member.clone()))
            .collect();
        let founders: Vec<_> = founders.into_iter().collect();
        let founding = promise.founding;
        let sealed = Promise { sealed: Some(founders.clone()), ..promise.clone() };
        let mut actions = self.set_promise(Some(sealed));
        actions.push(Action::Initialise { founding, founders });
        actions
    }

    fn ask(&mut self, now: BootTime) -> Vec<Action> {
        let (Some(gathering), Some(promise)) = (&self.gathering, &self.promise) else { return Vec::new() };
        let request = PromiseRequest {
            founding: promise.founding,
            coordinator: self.me.clone(),
            listed: self.targets.keys().cloned().collect(),
        };
        let mut actions = Vec::new();
        for (addr, target) in &mut self.targets {
            let new = matches!(&target.seen, Some((_, Status::New { identity, .. })) if identity.votes());
            let missing =
                target.id().is_some_and(|id| id != self.me.id && !gathering.founders.contains_key(&id));
            let due = target.asked.is_none_or(|asked| now.since(asked) >= ASK_EVERY);
            if new && missing && due {
                target.asked = Some(now);
                actions.push(Action::AskPromise { addr: addr.clone(), request: request.clone() });
            }
        }
        actions
    }

    fn missing(&self, waited: Duration) -> Missing {
        let Some(gathering) = &self.gathering else { return Missing::Promises(Vec::new()) };
        let (mut promises, mut absent) = (Vec::new(), Vec::new());
        for (addr, target) in &self.targets {
            if gathering.founders.values().any(|founder| founder.addr == *addr) {
                continue;
            }
            match &target.seen {
                Some((number, status)) if *number >= self.fresh_from => match status {
                    Status::New { identity, .. } => {
                        let counts = identity.id == self.me.id
                            || gathering.founders.contains_key(&identity.id)
                            || !identity.votes();
                        if !counts && self.keeps(Rule::EverybodyWhoAnswers) {
                            promises.push(addr.clone());
                        }
                    }
                    Status::Member { .. } => promises.push(addr.clone()),
                    Status::OtherScope | Status::Unreachable => absent.push(addr.clone()),
                },
                Some(_) | None => promises.push(addr.clone()),
            }
        }
        if !promises.is_empty() {
            return Missing::Promises(promises);
        }
        if let Some(clash) = self.founders_clash(gathering) {
            return Missing::Clash(clash);
        }
        if let Some(of) = self.founder_without_majority(gathering) {
            return Missing::Majority { of, absent };
        }
        if !absent.is_empty() && waited < GRACE && self.keeps(Rule::Grace) {
            return Missing::Grace(absent);
        }
        Missing::Nothing
    }

    fn founders_clash(&self, gathering: &Gathering) -> Option<String> {
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        let others = gathering.founders.values().map(|founder| &founder.identity);
        for identity in others.chain(std::iter::once(&self.me)) {
            if !names.insert(&identity.member.name) {
                return Some(identity.member.name.to_string());
            }
            if !addresses.insert(identity.addr()) {
                return Some(identity.addr().to_owned());
            }
        }
        None
    }

    fn founder_without_majority(&self, gathering: &Gathering) -> Option<String> {
        if !self.keeps(Rule::Majority) {
            return None;
        }
        let promised = |id: MemberId| id == self.me.id || gathering.founders.contains_key(&id);
        let own = self.has_majority(&self.me, &self.partners, promised);
        if !own {
            return Some(self.me.addr().to_owned());
        }
        let founders = gathering.founders.values();
        let mut without =
            founders.filter(|founder| !self.has_majority(&founder.identity, &founder.partners, promised));
        without.next().map(|founder| founder.identity.addr().to_owned())
    }

    /// Are more than half of the nodes which `of` lists, itself included, among these? Two addresses of one node count
    /// once; an address of which nothing is known counts as a node of its own.
    fn has_majority(&self, of: &Identity, partners: &[String], among: impl Fn(MemberId) -> bool) -> bool {
        let mut known = BTreeSet::from([of.id]);
        let mut unknown = BTreeSet::new();
        for addr in partners.iter().filter(|addr| *addr != of.addr()) {
            match self.id_at(addr) {
                Some(id) => known.insert(id),
                None => unknown.insert(addr),
            };
        }
        let present = known.iter().filter(|id| among(**id)).count();
        present * 2 > known.len() + unknown.len()
    }

    fn id_at(&self, addr: &str) -> Option<MemberId> {
        if addr == self.me.addr() {
            return Some(self.me.id);
        }
        let mut founders = self.gathering.iter().flat_map(|gathering| gathering.founders.values());
        let founder = founders.find(|founder| founder.addr == addr || founder.identity.addr() == addr);
        founder.map(|founder| founder.identity.id).or_else(|| self.targets.get(addr).and_then(Target::id))
    }

    fn is_reachable_majority(&self) -> bool {
        let new: BTreeSet<MemberId> = self.new_partners().map(|identity| identity.id).collect();
        self.has_majority(&self.me, &self.partners, |id| id == self.me.id || new.contains(&id))
    }

    pub(super) fn new_partners(&self) -> impl Iterator<Item = &Identity> {
        self.partners.iter().filter_map(|addr| match &self.targets.get(addr)?.seen.as_ref()?.1 {
            Status::New { identity, .. } if identity.id != self.me.id => Some(identity),
            Status::New { .. } | Status::Member { .. } | Status::OtherScope | Status::Unreachable => None,
        })
    }

    /// The data node whose turn it is rather than this node's: a witness leaves it to any of them.
    fn smaller_data_node(&self) -> Option<&Identity> {
        let goes_first = |other: &&Identity| {
            other.coordinates() && (!self.me.coordinates() || other.addr() < self.me.addr())
        };
        self.new_partners().filter(goes_first).min_by_key(|o| o.addr())
    }

    /// A sentence for the operator: whom this node waits for, and why.
    pub fn waiting_for(&self) -> String {
        if let Some(refused) = &self.refused {
            return refused.clone();
        }
        if let Some(waiting) = self.waiting_for_founders() {
            return waiting;
        }
        if let Some(promise) = self.promise.as_ref().filter(|_| !self.is_joining()) {
            return format!(
                "the founding by {}, to which this node has promised itself; if that node is gone for good, remove this node's raft.data_dir",
                promise.coordinator_addr
            );
        }
        if let Some((group, via)) = &self.group {
            if via == self.me.addr() {
                return format!(
                    "the group {group} to have another Raft leader: its members take an earlier node at this node's own address ({via}) for it"
                );
            }
            return format!("the group {group} to let this node in, asked at {via}");
        }
        if let Some(via) = &self.hint {
            return format!("the group which is said to exist at {via}");
        }
        self.waiting_to_begin()
    }

    /// The sentence of a coordinator; none for others.
    fn waiting_for_founders(&self) -> Option<String> {
        if self.promise.as_ref().is_some_and(|promise| promise.sealed.is_some()) {
            return Some("Raft to be initialised with the founders".to_owned());
        }
        let gathering = self.gathering.as_ref()?;
        let mut sentence = match self.missing(Duration::ZERO) {
            Missing::Nothing => "the group to be founded".to_owned(),
            Missing::Promises(of) => format!("{} to agree to the founding", of.join(", ")),
            Missing::Grace(of) => format!("{}, a little while, before founding without", of.join(", ")),
            Missing::Majority { of, absent } => format!(
                "{}: a majority of the members which {of} lists must be there to found the cluster",
                absent.join(", ")
            ),
            Missing::Clash(what) => format!("one of the two nodes which both use {what} to get another"),
        };
        if let Some(conflict) = &gathering.conflict {
            sentence.push_str(&format!("; a node is promised to the founding by {conflict}"));
        }
        Some(sentence)
    }

    fn waiting_to_begin(&self) -> String {
        if let Some(promise) = self.promises_seen().next() {
            return format!("the founding by {}", promise.coordinator_addr);
        }
        if let Some(smaller) = self.smaller_data_node() {
            return format!("{} ({}) to found the cluster", smaller.member.name, smaller.addr());
        }
        if !self.me.votes() {
            return "a voter among raft.partner_addrs: this node has no raft.self_addr and founds nothing itself"
                .to_owned();
        }
        if !self.may_coordinate() {
            return "a data node to found the cluster: a witness does not".to_owned();
        }
        let silent: Vec<String> =
            self.partners.iter().filter_map(|addr| self.describe_silent(addr)).collect();
        if silent.is_empty() {
            return "the partners to answer".to_owned();
        }
        format!(
            "{}; a majority of {} listed members is needed to found the cluster",
            silent.join(", "),
            self.partners.len() + 1
        )
    }

    fn describe_silent(&self, addr: &str) -> Option<String> {
        match self.targets.get(addr).and_then(|target| target.seen.as_ref()) {
            Some((_, Status::New { .. } | Status::Member { .. })) => None,
            Some((_, Status::OtherScope)) => {
                Some(format!("{addr}, which answers but does not serve this cluster (check scope)"))
            }
            Some((_, Status::Unreachable)) | None => Some(format!("{addr}, which does not answer")),
        }
    }
}
