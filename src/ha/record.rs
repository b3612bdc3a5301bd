//! Which changes of what this node decides are worth an event that outlives it, and what such an event says.
//!
//! Only changes make events: a node that goes on as before records nothing. What is the same again (kind, epoch, rule
//! and reason) is recorded once. Nothing is decided on events.

use std::collections::VecDeque;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{
    CandidateNote, ClusterState, Epoch, Event, EventKind, Intent, IntentEnd, MAX_EVENT_BYTES, MemberId,
    MemberName,
};

use super::decision::{Decision, State};
use super::evidence;
use super::facts::{Fact, Observation, Process};
use super::rule::Rule;
use super::succession::{AWAITS_POSITIONS, AWAITS_REPORT};

/// Waiting for what comes within half a second in every takeover is a refusal only when it lasts this long.
const REFUSAL_LASTS: Duration = Duration::from_secs(2);
/// The restart of a crashed PostgreSQL is told again after this time: a crash loop must not push everything else out.
const SICK_AGAIN: Duration = Duration::from_secs(600);
/// So many keys of recorded events are remembered; the replicated events are looked at, too.
const MAX_SEEN: usize = 64;
/// The longest sentence in bytes: an error of a tool may be of any length.
const MAX_SENTENCE: usize = 400;
/// Stands at the end of what was cut off.
const CUT: char = '…';

/// What this node has noted about itself so far.
#[derive(Debug, Default)]
pub struct Notebook {
    role: Role,
    /// How this node came by the lease it holds or asks for.
    path: Option<Path>,
    /// The epoch in which it asked for the lease.
    asked_in: Epoch,
    holder: Option<Option<MemberId>>,
    pinned: Option<(Epoch, bool)>,
    intent: Option<(u64, Intent)>,
    /// A decision which is worth an event only when it lasts.
    pending: Option<(Rule, Epoch, BootTime)>,
    sick: Option<(Rule, BootTime)>,
    seen: VecDeque<(EventKind, Epoch, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    /// Nothing is known yet: what the first look shows is no change.
    #[default]
    Unknown,
    Primary,
    Other,
}

#[derive(Clone, Debug)]
struct Path {
    rule: String,
    because: String,
    facts: Vec<String>,
    candidates: Vec<CandidateNote>,
}

impl Path {
    fn new(o: &Observation, rule: impl Into<String>, because: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            because: because.into(),
            facts: evidence::facts(o),
            candidates: evidence::candidates(o),
        }
    }

    fn of(o: &Observation, decision: &Decision) -> Self {
        Self::new(o, format!("{:?}", decision.rule), decision.because.clone())
    }
}

impl Notebook {
    /// The events that this decision is worth, in order; mostly none. Their time is zero: whoever has a clock sets it.
    pub fn look(&mut self, o: &Observation, decision: &Decision) -> Vec<Event> {
        let Some(by) = o.cluster.members.get(&o.me).map(|member| member.name.clone()) else {
            return Vec::new();
        };
        let found = [
            self.operator(o),
            self.pause(o),
            self.cut_off(o),
            self.candidacy(o, decision),
            self.refusal(o, decision),
            self.role(o, decision),
        ];
        self.holder = Some(o.cluster.lease.holder());
        let event = |(kind, path)| bounded(&by, kind, o.cluster.lease.epoch, path);
        found.into_iter().flatten().map(event).collect()
    }

    /// Once for each epoch, rule and reason, a restart of the daemon included.
    fn once(&mut self, o: &Observation, kind: EventKind, path: Path) -> Option<(EventKind, Path)> {
        let epoch = o.cluster.lease.epoch;
        let key = (kind, epoch, words(&path.rule, &path.because));
        if self.seen.contains(&key) || is_recorded(&o.cluster, &o.my_name(), &key) {
            return None;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(key);
        Some((kind, path))
    }

    /// The node that the request is about tells of it.
    fn operator(&mut self, o: &Observation) -> Option<(EventKind, Path)> {
        let teller = |intent: &Intent| match intent {
            Intent::Switchover { from, .. } => *from,
            Intent::Failover { to, .. } => *to,
        };
        let pending = o.cluster.intent.as_ref().map(|pending| (pending.id, pending.intent.clone()));
        let before = std::mem::replace(&mut self.intent, pending.clone());
        if let Some((id, intent)) = &before
            && pending.as_ref().is_none_or(|(new, _)| new != id)
            && teller(intent) == o.me
        {
            let ended = o.cluster.last_intent.as_ref().filter(|ended| ended.id == *id)?;
            let end = match &ended.end {
                IntentEnd::Done { holder } => {
                    format!("is done: {} has the lease", o.cluster.name_of(*holder))
                }
                IntentEnd::Refused(why) => format!("was refused: {why}"),
                IntentEnd::Withdrawn => "was withdrawn".to_owned(),
            };
            let because = format!("the operator's request for {} {end}", evidence::wish(o, intent));
            return self.once(o, EventKind::Operator, Path::new(o, wish_name(intent), because));
        }
        let (id, intent) = pending?;
        if before.is_some_and(|(known, _)| known == id) || teller(&intent) != o.me {
            return None;
        }
        let because = format!("an operator asked for {}", evidence::wish(o, &intent));
        self.once(o, EventKind::Operator, Path::new(o, wish_name(&intent), because))
    }

    /// The holder tells when its epoch is pinned, and when it is not any more.
    fn pause(&mut self, o: &Observation) -> Option<(EventKind, Path)> {
        let tenure = o.cluster.lease.tenure.as_ref().filter(|tenure| tenure.holder == o.me);
        let Some(tenure) = tenure else {
            self.pinned = None;
            return None;
        };
        let (_, before) = self.pinned.replace((o.cluster.lease.epoch, tenure.pinned))?;
        let (rule, because) = match (before, tenure.pinned) {
            (false, true) => ("Pause", "automatic failover is switched off: the epoch is pinned"),
            (true, false) => ("Resume", "automatic failover is switched on again"),
            (true, true) | (false, false) => return None,
        };
        Some((EventKind::Pause, Path::new(o, rule, because)))
    }

    fn candidacy(&mut self, o: &Observation, decision: &Decision) -> Option<(EventKind, Path)> {
        if decision.rule == Rule::StrangerToEpoch {
            self.path.get_or_insert_with(|| Path::of(o, decision));
        }
        if decision.rule == Rule::Fence {
            return self.once(o, EventKind::Fenced, Path::of(o, decision));
        }
        if !matches!(decision.rule, Rule::TakeClosed | Rule::TakeVacant | Rule::TakeFenced | Rule::TakeCutOff)
        {
            return None;
        }
        let path = Path::of(o, decision);
        self.path = Some(path.clone());
        self.asked_in = o.cluster.lease.epoch;
        self.once(o, EventKind::Candidacy, path)
    }

    /// What became of `fencing.command`.
    fn cut_off(&mut self, o: &Observation) -> Option<(EventKind, Path)> {
        let facts = &o.lease.cut_off;
        let end = facts.ended.as_ref().filter(|_| facts.epoch == o.cluster.lease.epoch)?;
        let holder = o.cluster.lease.holder().filter(|holder| *holder != o.me)?;
        let name = o.cluster.name_of(holder);
        let because = match &end.error {
            None => format!("fencing.command confirmed that {name} is cut off"),
            Some(why) => format!("fencing.command did not cut {name} off: {why}"),
        };
        self.once(o, EventKind::CutOff, Path::new(o, "CutOff", because))
    }

    fn refusal(&mut self, o: &Observation, decision: &Decision) -> Option<(EventKind, Path)> {
        let is_paused = decision.rule == Rule::Suspect
            && o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned);
        let is_refusal =
            matches!(decision.rule, Rule::MayNotPromote | Rule::BetterCandidate | Rule::AwaitFences);
        if !is_refusal && !is_paused {
            self.pending = None;
            return None;
        }
        let waits = decision.waiting_for.as_deref().unwrap_or_default();
        let is_usual =
            decision.rule == Rule::AwaitFences || waits == AWAITS_POSITIONS || waits == AWAITS_REPORT;
        if is_usual {
            let epoch = o.cluster.lease.epoch;
            let known = self.pending.filter(|(rule, of, _)| *rule == decision.rule && *of == epoch);
            let (_, _, since) = *self.pending.insert(known.unwrap_or((decision.rule, epoch, o.now)));
            if o.now.since(since) < REFUSAL_LASTS {
                return None;
            }
        }
        self.once(o, EventKind::Refused, Path::of(o, decision))
    }

    fn role(&mut self, o: &Observation, decision: &Decision) -> Option<(EventKind, Path)> {
        let is_mine = o.cluster.lease.holder() == Some(o.me);
        if is_mine && self.path.is_none() {
            self.path = self.came_by_the_lease(o, decision);
        }
        let server = o.postgres.server.of_any_age();
        let is_writable = server.is_some_and(|server| !server.is_in_recovery);
        if decision.state == State::Primary && is_writable {
            let before = std::mem::replace(&mut self.role, Role::Primary);
            let path = self.path.take();
            return match before {
                Role::Other => Some((EventKind::Promoted, promoted(o, decision, path))),
                Role::Primary | Role::Unknown => self.sick(o, decision),
            };
        }
        // The grant may be seen a look after the lease has changed: what is asked for stays asked for that long.
        let is_over = o.cluster.lease.epoch != self.asked_in || decision.state == State::Standby;
        if !is_mine && decision.state != State::Candidate && is_over {
            self.path = None;
        }
        match self.role {
            Role::Primary if has_ceased(o, decision) => {
                self.role = Role::Other;
                Some((EventKind::Demoted, demoted(o, decision)))
            }
            Role::Primary => self.sick(o, decision),
            Role::Unknown if is_known(o) => {
                self.role = Role::Other;
                None
            }
            Role::Unknown | Role::Other => None,
        }
    }

    /// The primary's PostgreSQL ended and is started again where it is, or is of no use and nobody could take over.
    fn sick(&mut self, o: &Observation, decision: &Decision) -> Option<(EventKind, Path)> {
        let is_same = |(rule, at): (Rule, BootTime)| rule == decision.rule && o.now.since(at) < SICK_AGAIN;
        let is_sick = matches!(decision.rule, Rule::RestartInPlace | Rule::Sick);
        if !is_sick || self.sick.is_some_and(is_same) {
            return None;
        }
        self.sick = Some((decision.rule, o.now));
        Some((EventKind::Sick, Path::of(o, decision)))
    }

    /// The lease is this node's, and it did not take it itself.
    fn came_by_the_lease(&self, o: &Observation, decision: &Decision) -> Option<Path> {
        match self.holder {
            Some(Some(from)) if from != o.me => {
                let because = format!("{} handed the lease over", o.cluster.name_of(from));
                Some(Path::new(o, "HandOverTransfer", because))
            }
            _ if matches!(decision.rule, Rule::Bootstrap | Rule::RestartInPlace) => {
                Some(Path::of(o, decision))
            }
            Some(_) | None => None,
        }
    }
}

fn promoted(o: &Observation, decision: &Decision, path: Option<Path>) -> Path {
    let again = "it holds the lease, and PostgreSQL accepts writes";
    let mut path = path.unwrap_or_else(|| Path::new(o, format!("{:?}", decision.rule), again));
    let epoch = o.cluster.lease.epoch;
    let at = super::report::own_report(o).position;
    let timeline = at.map_or(String::new(), |at| format!(" on timeline {}", at.timeline));
    path.because = format!("{} became the primary in epoch {epoch}{timeline}: {}", o.my_name(), path.because);
    path
}

fn demoted(o: &Observation, decision: &Decision) -> Path {
    let me = o.my_name();
    let in_recovery = o.postgres.server.of_any_age().is_some_and(|server| server.is_in_recovery);
    let process = match &o.postgres.process {
        Fact::Known { value: Process::Running { .. }, .. } if in_recovery => "PostgreSQL runs as a standby",
        Fact::Known { value: Process::Stopped, .. } => "PostgreSQL is stopped",
        Fact::Known { value: Process::Ending, .. } => "PostgreSQL is ending",
        Fact::Known { value: Process::Running { .. }, .. } => "PostgreSQL still runs and is being stopped",
        Fact::Unknown(_) => "it is not known whether PostgreSQL runs",
    };
    let reason = match o.cluster.lease.holder() {
        Some(holder) if holder == o.me => decision.because.clone(),
        Some(holder) => format!("the lease is held by {}", o.cluster.name_of(holder)),
        None => format!("the lease is vacant; {}", decision.because),
    };
    let because = format!("{me} ceased to be the primary: {reason}");
    let mut path = Path::new(o, format!("{:?}", decision.rule), because);
    path.facts.push(process.to_owned());
    if let Some(guard) = o.guard.of_any_age().filter(|guard| guard.deadline.is_some_and(|at| at <= o.now)) {
        path.facts.push(format!("the guard's deadline of epoch {} has passed", guard.epoch));
    }
    path
}

/// The primary is one no more, and does not come back by itself.
fn has_ceased(o: &Observation, decision: &Decision) -> bool {
    let is_mine = o.cluster.lease.holder() == Some(o.me);
    let awaits = decision.rule == Rule::AwaitLicence && decision.state != State::Primary;
    !is_mine || awaits || matches!(decision.state, State::Demoting | State::Draining | State::Stopping)
}

/// Is it known what the local PostgreSQL is?
fn is_known(o: &Observation) -> bool {
    match &o.postgres.process {
        Fact::Known { value: Process::Running { .. }, .. } => o.postgres.server.of_any_age().is_some(),
        Fact::Known { .. } => true,
        Fact::Unknown(_) => false,
    }
}

fn wish_name(intent: &Intent) -> &'static str {
    match intent {
        Intent::Switchover { .. } => "Switchover",
        Intent::Failover { .. } => "Failover",
    }
}

/// Rule and reason without the numbers, which differ from look to look.
fn words(rule: &str, because: &str) -> String {
    let text: String = because.chars().filter(|c| !c.is_ascii_digit()).take(MAX_SENTENCE / 2).collect();
    format!("{rule} {text}")
}

fn is_recorded(cluster: &ClusterState, by: &str, key: &(EventKind, Epoch, String)) -> bool {
    let (kind, epoch, said) = key;
    cluster.events.iter().map(|recorded| &recorded.event).any(|event| {
        event.by.as_str() == by
            && event.kind == *kind
            && event.epoch == *epoch
            && words(&event.rule, &event.because) == *said
    })
}

/// An event whose texts are within the limits.
fn bounded(by: &MemberName, kind: EventKind, epoch: Epoch, path: Path) -> Event {
    let mut event = Event {
        at_ms: 0,
        by: by.clone(),
        kind,
        epoch,
        rule: path.rule,
        because: cut(path.because),
        facts: path.facts.into_iter().map(cut).collect(),
        candidates: path.candidates,
    };
    for note in &mut event.candidates {
        note.verdict = cut(std::mem::take(&mut note.verdict));
    }
    let mut left_out = 0_usize;
    while event.text_bytes() > MAX_EVENT_BYTES - MAX_SENTENCE {
        left_out += 1;
        if event.candidates.pop().is_none() && event.facts.pop().is_none() {
            break;
        }
    }
    if left_out > 0 {
        event.facts.push(format!("{left_out} more sentences did not fit {CUT}"));
    }
    event
}

fn cut(mut text: String) -> String {
    if text.len() <= MAX_SENTENCE {
        return text;
    }
    let mut end = MAX_SENTENCE - CUT.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push(CUT);
    text
}
