//! Everything at once: true time, three machines, the network between them, the log, and what chance brings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ha::Rule;
use crate::lease::{
    Answer, BootTime, CloseVerdict, FailsafeQuestion, Licence, Promise, RenewalAnswer, Voter, deadline,
    patience, renewal_interval,
};
use crate::model::{
    Command, Epoch, GroupId, Incarnation, Member, MemberId, MemberKind, Outcome, Session, Tags,
};

use crate::daemon::{Daemon, Held};
use crate::faults::{Fault, Faults};
use crate::ledger::Ledger;
use crate::model_guard::{Due, Guard};
use crate::model_log::Log;
use crate::model_postgres::{Around, Data};
use crate::mutants::Mutant;
use crate::network::{Message, Network};
use crate::node::{NAMES, Node, index, postgres_addr};
use crate::random::Random;
use crate::settings::Settings;
use crate::worlds::Setting;

/// True time passes in steps of this many microseconds.
pub(crate) const STEP: u64 = 10_000;
const REPORT_EVERY: Duration = Duration::from_millis(500);
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Writes into the trace, if anybody is going to read it.
macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        if $world.is_told {
            let line = format!("{:>9.3} {}", $world.now as f64 / 1e6, format_args!($($what)*));
            $world.trace.push(line);
        }
    };
}
pub(crate) use note;

pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    /// What happened, in order.
    pub(crate) trace: Vec<String>,
    /// Is anybody going to read it?
    pub(crate) is_told: bool,
    /// The first broken invariant.
    pub(crate) broken: Option<String>,
    /// The timelines that were made, and by whom.
    timelines: BTreeMap<u32, usize>,
    numbers: u64,
    last_holder: Option<MemberId>,
    pub(crate) takeovers: u64,
    pub(crate) highest_epoch: Epoch,
    pub(crate) ledger: Ledger,
    /// How often a holder was replaced by fences while its server ran on.
    pub(crate) silenced_once: u64,
    /// In how many steps a primary was writable under a pinned epoch without an armed guard.
    pub(crate) pinned_steps: u64,
    /// How often fences ended a pin while the old primary ran on.
    pub(crate) unpinned_once: u64,
    /// How often promises extended a licence.
    pub(crate) extensions: u64,
    /// How often Raft's membership changed.
    pub(crate) memberships: u64,
    /// How often each rule decided.
    pub(crate) rules: BTreeMap<Rule, u64>,
    /// The settings of a new cluster.
    pub(crate) first_settings: String,
}

impl World {
    pub(crate) fn new(seed: u64, setting: Setting) -> Self {
        let mut random = Random::new(seed);
        let first_settings = Settings::random(&mut random, setting.failsafe, setting.sync).document();
        let nodes: Vec<Node> = (0..setting.nodes)
            .map(|place| Node {
                place,
                first_settings: first_settings.clone(),
                is_data: place + setting.witnesses < setting.nodes,
                store: 0,
                stopped_in_pause: Epoch(0),
                ppm: i64::try_from(random.below(1001)).expect("small") - 500,
                clock_offset: random.between(1_000_000, 1_000_000_000),
                data: Data::empty(),
                configured_upstream: None,
                floor: Epoch(0),
                given_up: Epoch(0),
                fenced: Epoch(0),
                stored: 1,
                guard: None,
                server: None,
                daemon: None,
                frozen_until: 0,
                daemon_stopped_until: 0,
                log_stalled_until: 0,
                promise_length: Duration::ZERO,
                off_for: None,
                guard_asked_until: None,
                guard_stopped: (0, 0),
                data_stalled: (0, 0),
                refuses: (0, 0),
                tools_fail_until: 0,
                tools_hang_until: 0,
                daemon_starts_at: Some(random.below(1_000_000)),
                lives: 0,
            })
            .collect();
        let mut world = Self {
            setting,
            faults: Faults::new(&mut random),
            random,
            now: 0,
            nodes,
            network: Network::new(),
            log: Log::new(),
            trace: Vec::new(),
            is_told: false,
            broken: None,
            timelines: BTreeMap::new(),
            numbers: 0,
            last_holder: None,
            takeovers: 0,
            highest_epoch: Epoch(0),
            ledger: Ledger::default(),
            silenced_once: 0,
            pinned_steps: 0,
            unpinned_once: 0,
            memberships: 0,
            extensions: 0,
            rules: BTreeMap::new(),
            first_settings,
        };
        let members = world.nodes.iter().map(|node| (node.id(), member(node))).collect();
        world.commit(&Command::Found { group: GroupId(1), scope: "sim".to_owned(), members });
        world
    }

    fn places(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    pub(crate) fn fail(&mut self, what: String) {
        if self.broken.is_none() {
            note!(self, "BROKEN: {what}");
            self.broken = Some(what);
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn step(&mut self) {
        self.now += STEP;
        self.bring_faults();
        self.start_daemons();
        self.elect();
        self.live();
        self.deliver();
        for place in self.places() {
            if self.nodes[place].daemon_runs(self.now) {
                self.release_answers(place);
                self.renew(place);
                self.report(place);
                self.heartbeat(place);
                self.join(place);
                self.lead(place);
                self.run_agent(place);
            }
        }
        self.check_invariants();
    }

    fn start_daemons(&mut self) {
        for place in self.places() {
            let node = &mut self.nodes[place];
            if node.is_frozen(self.now) || node.daemon_starts_at.is_none_or(|at| self.now < at) {
                continue;
            }
            if node.off_for.is_some()
                && node.off_for == self.log.last().intent.as_ref().map(|pending| pending.id)
            {
                continue;
            }
            node.off_for = None;
            node.daemon_starts_at = None;
            node.guard_asked_until = None;
            node.lives += 1;
            let incarnation = Incarnation(node.lives);
            // The state machine begins a little behind where it was, and comes back with the log.
            let behind = usize::try_from(self.random.below(3)).expect("small");
            let applied = node.stored.saturating_sub(behind).max(1);
            let clock = node.clock(self.now);
            let voter_since =
                if self.setting.mutant == Some(Mutant::ForgetfulVoter) { BootTime::default() } else { clock };
            let mut daemon = Daemon::new(incarnation, node.floor, applied, clock);
            daemon.promise = Promise::new(node.id(), node.promise_length, clock);
            daemon.voter = Voter::new(node.floor, voter_since);
            daemon.voter.learn(&self.log.state(applied).lease, voter_since);
            node.daemon = Some(daemon);
            note!(self, "{} daemon starts, life {}", NAMES[place], incarnation.0);
        }
    }

    /// Both ways.
    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        a == b || (self.network.reaches(a, b) && self.network.reaches(b, a))
    }

    fn elect(&mut self) {
        for place in self.places().filter(|place| self.nodes[*place].daemon.is_none()) {
            self.log.depose(place);
        }
        let works = |node: &Node| node.daemon_runs(self.now) && self.now >= node.log_stalled_until;
        let runs: Vec<usize> = self.places().filter(|place| works(&self.nodes[*place])).collect();
        let voters = &self.log.membership().voters;
        let runs: Vec<usize> =
            runs.into_iter().filter(|place| voters.contains(&self.nodes[*place].id())).collect();
        let count = voters.len();
        let majority =
            |place: &&usize| runs.iter().filter(|other| self.connected(**place, **other)).count() * 2 > count;
        let can_lead: Vec<usize> = runs.iter().filter(majority).copied().collect();
        let before = self.log.leader;
        self.log.elect(self.now, &can_lead, &mut self.random);
        if self.log.leader != before
            && let Some(leader) = self.log.leader
        {
            let committed = self.log.committed();
            self.apply(leader, committed);
        }
    }

    /// Guards and PostgreSQL, which need no daemon.
    fn live(&mut self) {
        let now = self.now;
        let drained: Vec<bool> = self.places().map(|place| self.is_drained(place)).collect();
        for place in self.places() {
            let (fresh, written) = (self.random.next(), self.random.below(200));
            let node = &mut self.nodes[place];
            if node.is_frozen(now) {
                continue;
            }
            let clock = node.clock(now);
            let is_stopped = now < node.guard_stopped.1;
            let guard = node.guard.as_mut().filter(|_| !is_stopped);
            let due = guard.map_or(Due::Nothing, |guard| guard.check(clock));
            let due = if self.setting.mutant == Some(Mutant::GuardIgnored) { Due::Nothing } else { due };
            match (due, &mut node.server) {
                (Due::Quit, Some(server)) => server.stops_at = Some((now + 100_000, false)),
                (Due::Kill, Some(_)) => {
                    node.kill_server(now);
                    note!(self, "{} guard killed PostgreSQL at the deadline", NAMES[place]);
                }
                _ => {}
            }
            let node = &mut self.nodes[place];
            let Some(server) = &mut node.server else { continue };
            let was_writable = server.is_writable(now - STEP);
            let before = node.data.wal.timeline();
            let is_stalled = now < node.data_stalled.1;
            let is_stuck = is_stalled && server.is_ready(now) && server.stops_at.is_none();
            let around = Around { now, fresh_id: fresh, written, is_drained: drained[place], is_stalled };
            let lives = server.live(&mut node.data, &around);
            let is_writable = lives && server.is_writable(now);
            if !lives {
                node.end_server();
            }
            self.count_timeline(place, before);
            if is_stuck {
                self.prove(Fault::StallData, place);
            }
            if was_writable != is_writable {
                let timeline = self.nodes[place].data.wal.timeline();
                let word = if is_writable { "writable" } else { "gone" };
                note!(self, "{} PostgreSQL {word} on timeline {timeline}", NAMES[place]);
                // One that fences keep from telling anybody anything may come up late, until its guard ends it.
                if is_writable && !self.is_silenced(place) {
                    self.check_ledger(place);
                }
            }
        }
        for place in self.places() {
            self.stream(place);
        }
        for place in self.places() {
            if !self.nodes[place].is_frozen(now) {
                self.acknowledge(place);
            }
        }
    }

    /// Does every walreceiver that is connected to this server have everything?
    fn is_drained(&self, place: usize) -> bool {
        let node = &self.nodes[place];
        let Some(server) = node.server.as_ref().filter(|server| server.drains_until.is_some()) else {
            return true;
        };
        self.nodes.iter().all(|other| {
            let receiver = other.server.as_ref().and_then(|server| server.connection);
            receiver != Some((place, server.pid)) || other.data.flushed >= node.data.wal.end
        })
    }

    /// PostgreSQL tells timelines apart by their numbers: each is made once.
    fn count_timeline(&mut self, place: usize, before: u32) {
        let made = self.nodes[place].data.wal.timeline();
        if made == before {
            return;
        }
        if let Some(earlier) = self.timelines.insert(made, place) {
            self.fail(format!("{} and {} both made timeline {made}", NAMES[earlier], NAMES[place]));
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, stores, message)) = self.network.arrived(self.now) {
            let node = &self.nodes[to];
            // Messages name the ids of sender and receiver.
            if node.daemon.is_none() || (self.nodes[from].store, node.store) != stores {
                continue;
            }
            if !node.daemon_runs(self.now) {
                // It waits in a socket.
                let is_frozen = node.is_frozen(self.now);
                let resumes = node.frozen_until.max(node.daemon_stopped_until);
                self.network.keep(from, to, stores, message, resumes);
                self.prove(if is_frozen { Fault::Freeze } else { Fault::StopDaemon }, to);
                continue;
            }
            self.receive(from, to, message);
        }
    }

    fn receive(&mut self, from: usize, to: usize, message: Message) {
        let (clock, sender) = (self.nodes[to].clock(self.now), self.nodes[from].id());
        match message {
            Message::Renewal(renewal) => self.voter_renews(to, from, &renewal),
            Message::RenewalAnswer(answer) => self.count(to, from, &answer),
            Message::Close { number, request } => self.voter_closes(to, from, number, &request),
            Message::CloseAnswer { number, verdict } => self.count_close(to, from, number, verdict),
            Message::Propose { number, command } => {
                if self.now < self.nodes[to].log_stalled_until {
                    self.prove(Fault::StallLog, to);
                } else if self.log.working_leader() == Some(to) {
                    let outcome = self.commit_at(to, &command);
                    self.send(to, from, Message::Proposed { number, outcome });
                }
            }
            Message::Join { id, member } => {
                if self.log.working_leader() == Some(to) && self.admit(to, id, &member) {
                    self.send(to, from, Message::Welcome);
                }
            }
            Message::Welcome => {
                if let Some(daemon) = &mut self.nodes[to].daemon {
                    daemon.is_welcome = true;
                }
            }
            Message::Question(question) => self.promise(to, from, question),
            Message::Promised { question, is_given } => self.count_promise(to, &question, is_given),
            Message::Proposed { number, outcome } => self.proposed(to, number, &outcome),
            Message::Entries { to: index } => {
                if self.now >= self.nodes[to].log_stalled_until {
                    self.apply(to, index);
                }
            }
            Message::Report(report) => {
                if let Some(daemon) = &mut self.nodes[to].daemon {
                    daemon.reports.insert(sender, (clock, *report));
                }
            }
            Message::AskReport => {
                let report = self.nodes[to].daemon.as_ref().and_then(|daemon| daemon.published.clone());
                if let Some(report) = report {
                    self.send(to, from, Message::Report(Box::new(report)));
                }
            }
        }
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message) {
        let stores = (self.nodes[from].store, self.nodes[to].store);
        self.network.send(from, to, stores, message, self.now, &mut self.random);
    }

    // The log.

    pub(crate) fn commit(&mut self, command: &Command) -> Outcome {
        let before = self.log.last().clone();
        let mutant = self.setting.mutant;
        let outcome = self.log.commit(command, mutant);
        if outcome == Outcome::Applied {
            self.count_command(&before, command);
        }
        let state = self.log.last().clone();
        let voters = &self.log.membership().voters;
        if let Some(stranger) = state.lease.voters.iter().find(|id| !voters.contains(id)) {
            self.fail(format!("lease voter {stranger} is no Raft voter after {command:?}"));
        }
        for violation in state.violations() {
            self.fail(format!("after {command:?}: {violation}"));
        }
        if state.lease.epoch < self.highest_epoch {
            self.fail(format!("the epoch went back from {} to {}", self.highest_epoch, state.lease.epoch));
        }
        if state.lease.epoch > self.highest_epoch {
            self.highest_epoch = state.lease.epoch;
            let holder = state.lease.holder();
            let name = holder.map_or("nobody", |holder| NAMES[index(holder)]);
            note!(self, "epoch {} to {name}, counted by {:?}", state.lease.epoch, state.lease.voters);
            if holder != self.last_holder && self.last_holder.is_some() {
                self.takeovers += 1;
            }
            self.last_holder = holder.or(self.last_holder);
        }
        outcome
    }

    pub(crate) fn commit_at(&mut self, leader: usize, command: &Command) -> Outcome {
        let outcome = self.commit(command);
        let committed = self.log.committed();
        self.apply(leader, committed);
        for other in self.places().filter(|other| *other != leader) {
            self.replicate(leader, other, committed);
        }
        outcome
    }

    pub(crate) fn apply(&mut self, place: usize, to: usize) {
        let state = self.log.state(to).clone();
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let Some(daemon) = &mut node.daemon else { return };
        if !daemon.takes_part {
            daemon.takes_part = true;
            daemon.known_at_start = state.lease.epoch;
            daemon.wake(clock);
        }
        if to > daemon.applied {
            daemon.applied = to;
            node.stored = node.stored.max(to);
            daemon.voter.learn(&state.lease, clock);
            daemon.wake(clock);
        }
    }

    fn heartbeat(&mut self, place: usize) {
        let clock = self.nodes[place].clock(self.now);
        let leads = self.log.working_leader() == Some(place);
        let Some(daemon) = self.nodes[place].daemon.as_mut() else { return };
        if clock < daemon.next_heartbeat || !leads {
            return;
        }
        daemon.next_heartbeat = clock.after(HEARTBEAT);
        let committed = self.log.committed();
        for other in self.places().filter(|other| *other != place) {
            let lags = self.nodes[other]
                .daemon
                .as_ref()
                .is_some_and(|daemon| daemon.applied < committed || !daemon.takes_part);
            if lags {
                self.replicate(place, other, committed);
            }
        }
    }

    // The lease.

    fn renew(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let session = node.guard.as_ref().map(|guard| guard.session);
        // It renews no more for a guard that shows no heartbeat.
        let is_trusted = self.setting.mutant == Some(Mutant::StoppedGuardTrusted);
        if !is_trusted && node.guard_is_stale(self.now) {
            self.prove(Fault::StopGuard, place);
            return;
        }
        let Some(daemon) = &mut node.daemon else { return };
        let lease = &self.log.state(daemon.applied).lease;
        let ttl = lease.tenure.as_ref().map_or(5000, |tenure| tenure.ttl_ms);
        let Some((of, holder)) = daemon.holder.as_mut().filter(|_| clock >= daemon.next_round) else {
            return;
        };
        daemon.next_round = clock.after(renewal_interval(Duration::from_millis(ttl)));
        if session != Some(*of) {
            return;
        }
        let Some(renewal) = holder.begin_round(lease, clock) else { return };
        if daemon.takes_part {
            holder.know_at_start(daemon.known_at_start);
        }
        let (questions, alone) = holder.ask_members(self.log.state(daemon.applied), clock);
        if let Some(won) = alone {
            self.extend(place, won);
        }
        for question in questions {
            if let Some(member) = self.bearer(question.member) {
                self.send(place, member, Message::Question(question));
            }
        }
        let lease = &self.log.state(self.nodes[place].daemon.as_ref().expect("it runs").applied).lease;
        let voters: Vec<MemberId> = lease.voters.iter().copied().collect();
        let voters: Vec<usize> = voters.into_iter().filter_map(|voter| self.bearer(voter)).collect();
        for voter in voters {
            if voter == place {
                self.voter_renews(place, place, &renewal);
            } else {
                self.send(place, voter, Message::Renewal(renewal.clone()));
            }
        }
    }

    fn voter_renews(&mut self, place: usize, from: usize, renewal: &crate::lease::Renewal) {
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let daemon = node.daemon.as_mut().expect("it runs");
        let lease = &self.log.state(daemon.applied).lease;
        let Answer { floor, verdict } = daemon.voter.renewal(lease, renewal, clock);
        let (epoch, incarnation, round) = (renewal.epoch, renewal.incarnation, renewal.round);
        let answer = RenewalAnswer { epoch, incarnation, round, verdict };
        self.answer(place, from, floor, Message::RenewalAnswer(answer));
    }

    /// Before an answer that rests on the floor leaves, the floor is on disk.
    fn answer(&mut self, place: usize, to: usize, floor: Option<Epoch>, message: Message) {
        let node = &mut self.nodes[place];
        let daemon = node.daemon.as_mut().expect("it runs");
        if let Some(floor) = floor {
            let is_stalled = self.now < node.log_stalled_until;
            if is_stalled && self.setting.mutant == Some(Mutant::AnswerBeforeFloor) {
                self.send(place, to, message);
                return;
            }
            if is_stalled {
                daemon.held.push(Held { to, floor, message });
                self.prove(Fault::StallLog, place);
                return;
            }
            node.floor = node.floor.max(floor);
            daemon.voter.written(floor);
        }
        if to == place {
            self.receive(place, place, message);
        } else {
            self.send(place, to, message);
        }
    }

    /// What waited for the consensus disk leaves when it has answered.
    fn release_answers(&mut self, place: usize) {
        if self.now < self.nodes[place].log_stalled_until {
            return;
        }
        let Some(daemon) = &mut self.nodes[place].daemon else { return };
        for Held { to, floor, message } in std::mem::take(&mut daemon.held) {
            self.answer(place, to, Some(floor), message);
        }
    }

    pub(crate) fn voter_closes(
        &mut self,
        place: usize,
        from: usize,
        number: u64,
        request: &crate::lease::CloseRequest,
    ) {
        let at_once = self.setting.mutant == Some(Mutant::CloseAtOnce);
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let daemon = node.daemon.as_mut().expect("it runs");
        let mut lease = self.log.state(daemon.applied).lease.clone();
        if let Some(tenure) =
            lease.tenure.as_mut().filter(|_| self.setting.mutant == Some(Mutant::ClosePinned))
        {
            tenure.pinned = false;
        }
        let asked_at = if at_once { clock.after(Duration::from_secs(3600)) } else { clock };
        let Answer { floor, verdict } = daemon.voter.close(&lease, request, asked_at);
        self.answer(place, from, floor, Message::CloseAnswer { number, verdict });
    }

    fn count(&mut self, place: usize, from: usize, answer: &RenewalAnswer) {
        let from = self.nodes[from].id();
        let mutated = self.setting.mutant == Some(Mutant::CountFromAnswer);
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let Some(daemon) = &mut node.daemon else { return };
        let Some((_, holder)) = &mut daemon.holder else { return };
        let before = holder.licence();
        holder.stand_back(daemon.promise.until());
        if self.setting.mutant == Some(Mutant::NoMajority) {
            for voter in self.log.last().lease.voters.iter().filter(|voter| **voter != from) {
                holder.count(*voter, answer);
            }
        }
        let Some(won) = holder.count(from, answer) else { return };
        let ttl = node.guard.as_ref().and_then(|guard| guard.armed).map(|armed| armed.ttl);
        let until = match ttl.filter(|_| mutated) {
            Some(ttl) => deadline(clock, ttl),
            None => won.deadline,
        };
        daemon.mutated = mutated.then_some(Licence { deadline: until, ..won });
        if let Some(guard) = &mut node.guard {
            guard.extend(won.epoch, until, clock);
        }
        let is_first = before.is_none_or(|last: Licence| last.epoch != won.epoch || last.deadline < won.sent);
        if is_first {
            daemon.wake(clock);
        }
    }

    /// The member's side of failsafe.
    fn promise(&mut self, place: usize, from: usize, question: FailsafeQuestion) {
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let daemon = node.daemon.as_mut().expect("it runs");
        let is_given = match daemon.promise.ask(self.log.state(daemon.applied), &question, clock) {
            Ok(Some(_)) if self.now < node.log_stalled_until => return,
            Ok(Some(length)) => {
                node.promise_length = length;
                daemon.promise.written(length);
                true
            }
            Ok(None) => true,
            Err(_) => false,
        };
        self.send(place, from, Message::Promised { question, is_given });
    }

    fn count_promise(&mut self, place: usize, question: &FailsafeQuestion, is_given: bool) {
        let mutant = self.setting.mutant;
        let Some(daemon) = &mut self.nodes[place].daemon else { return };
        let Some((_, holder)) = &mut daemon.holder else { return };
        if !is_given && mutant != Some(Mutant::MissingPromise) {
            holder.count_no_promise(question);
            return;
        }
        let mut won = holder.count_promise(question);
        if mutant == Some(Mutant::MissingPromise) {
            let members = self.log.state(daemon.applied).failsafe.clone().unwrap_or_default();
            for member in members {
                won = holder.count_promise(&FailsafeQuestion { member, ..question.clone() }).or(won);
            }
        }
        if let Some(won) = won {
            self.extend(place, won);
        }
    }

    /// All members promised.
    fn extend(&mut self, place: usize, won: Licence) {
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        if let Some(guard) = &mut node.guard {
            guard.extend(won.epoch, won.deadline, clock);
        }
        self.extensions += 1;
        for witness in self.places() {
            self.prove(Fault::LoseWitnesses, witness);
        }
    }

    fn count_close(&mut self, place: usize, from: usize, number: u64, verdict: CloseVerdict) {
        let from = self.nodes[from].id();
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let Some(daemon) = &mut node.daemon else { return };
        let Some(closing) = daemon.closing.as_mut().filter(|closing| closing.number == number) else {
            return;
        };
        closing.answered += 1;
        let ttl = self.log.state(daemon.applied).lease.tenure.as_ref().map_or(5000, |tenure| tenure.ttl_ms);
        match verdict {
            CloseVerdict::Closed => {
                closing.answers.closed.insert(from);
            }
            CloseVerdict::Would => {
                closing.answers.would.insert(from);
            }
            CloseVerdict::NotYet { quiet_ms, .. }
                if Duration::from_millis(quiet_ms) >= patience(Duration::from_millis(ttl)) =>
            {
                closing.answers.silent.insert(from);
            }
            CloseVerdict::NotYet { .. } | CloseVerdict::Mismatch { .. } | CloseVerdict::NotAVoter => {}
        }
        daemon.finish_closing(clock);
    }

    // Reports and proposals.

    fn report(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let Some(daemon) = &mut node.daemon else { return };
        let Some(report) = daemon.published.clone().filter(|_| clock >= daemon.next_report) else { return };
        daemon.next_report = clock.after(REPORT_EVERY);
        for other in self.places().filter(|other| *other != place) {
            if self.nodes[other].is_data {
                self.send(place, other, Message::Report(Box::new(report.clone())));
            }
        }
    }

    pub(crate) fn proposed(&mut self, place: usize, number: u64, outcome: &Outcome) {
        let clock = self.nodes[place].clock(self.now);
        let Some(daemon) = &mut self.nodes[place].daemon else { return };
        if daemon.proposal.is_some_and(|(waits, _)| waits == number) {
            daemon.proposal = None;
            daemon.wake(clock);
            if let Outcome::Rejected(why) = outcome {
                note!(self, "{} not agreed: {why}", NAMES[place]);
            }
        }
    }

    /// One that shows no heartbeat is ended, and PostgreSQL with it: it has its death signal.
    pub(crate) fn end_guard(&mut self, place: usize) {
        let now = self.now;
        let node = &mut self.nodes[place];
        node.guard = None;
        node.guard_stopped = (0, 0);
        if let Some(server) = &mut node.server {
            server.stops_at = Some((now + 50_000, false));
        }
    }

    /// Attaches to the living guard, or starts one; a renewer for its session.
    pub(crate) fn ensure_guard(&mut self, place: usize) {
        let fresh = Session(self.random.next());
        let node = &mut self.nodes[place];
        let me = node.id();
        let guard = node.guard.get_or_insert_with(|| Guard::new(fresh));
        let session = guard.session;
        let Some(daemon) = &mut node.daemon else { return };
        if daemon.holder.as_ref().is_none_or(|(of, _)| *of != session) {
            let armed = guard.armed.map(|armed| armed.epoch).unwrap_or_default();
            daemon.promise.armed_for(armed);
            let mut holder = crate::lease::Holder::new(me, session, daemon.incarnation, node.given_up);
            holder.armed_for(armed);
            daemon.holder = Some((session, holder));
        }
    }
}

pub(crate) fn member(node: &Node) -> Member {
    Member {
        name: NAMES[node.place].parse().expect("valid"),
        kind: if node.is_data { MemberKind::Data } else { MemberKind::Witness },
        raft_addr: format!("{}:2380", NAMES[node.place]),
        votes: true,
        api_url: None,
        postgres: node.is_data.then(|| postgres_addr(node.place)),
        tags: Tags::default(),
    }
}
