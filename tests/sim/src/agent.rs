//! The loop of one node around the real `decide`: observe, decide, act, as `src/agent` does it.

use std::time::Duration;

use crate::faults::Fault;
use crate::ha::{
    Action, Closes, GuardAction, JobKind, JobRun, LeaseAction, Observation, PgAction, Probe, Rule, StopMode,
    Upstream, decide, own_report,
};
use crate::lease::CloseRequest;
use crate::model::{ClusterState, Command, Lease};

use crate::daemon::{Closing, Daemon, Running};
use crate::model_postgres::{Directory, Server};
use crate::mutants::{self, Mutant};
use crate::network::Message;
use crate::node::{NAMES, SyncFacts};
use crate::world::{World, note};

const OBSERVE_AT_LEAST_EACH: Duration = Duration::from_secs(1);
/// As the product has it.
const GUARD_OVERDUE: Duration = Duration::from_millis(100);
const GUARD_ANSWERS_WITHIN: u64 = 500_000;
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(3);

fn place_of(upstream: &Upstream) -> usize {
    NAMES.iter().position(|name| *name == upstream.name).expect("a member")
}

fn is_immediate(action: &PgAction) -> bool {
    matches!(action, PgAction::Stop { mode: StopMode::Immediate, .. })
}

impl World {
    pub(crate) fn run_agent(&mut self, place: usize) {
        if !self.nodes[place].is_data {
            return;
        }
        if self.nodes[place].daemon.as_ref().is_some_and(|daemon| daemon.leaves_until.is_some()) {
            self.leave(place);
            return;
        }
        if self.asks_guard(place) {
            return;
        }
        self.collect_job(place);
        let clock = self.nodes[place].clock(self.now);
        let daemon = self.nodes[place].daemon.as_mut().expect("it runs");
        daemon.finish_closing(clock);
        if daemon.proposal.is_some_and(|(_, since)| clock.since(since) >= PROPOSAL_PATIENCE) {
            daemon.proposal = None;
            daemon.wake(clock);
        }
        if clock < daemon.next_decision {
            return;
        }
        self.ensure_guard(place);
        self.finish_giving_up(place);
        let sync = SyncFacts { in_use: self.note_sync(place), left_stream: self.note_streams(place) };
        let node = &self.nodes[place];
        let daemon = node.daemon.as_ref().expect("it runs");
        let mut cluster = ClusterState::clone(self.log.state(daemon.applied));
        if !daemon.takes_part {
            (cluster.group, cluster.lease) = (None, Lease::default());
        }
        let leader = self.log.working_leader().map(|leader| self.nodes[leader].id());
        let voters = &self.log.membership_at(daemon.applied).voters;
        let mut observation = node.observe(daemon, cluster, (leader, self.log.term, voters), self.now, sync);
        if let Some(mutant) = self.setting.mutant {
            mutants::distort(mutant, &mut observation);
        }
        let decision = decide(&observation);
        daemon.memory.borrow_mut().note(&observation, &decision);
        let refuses = matches!(observation.postgres.health.accepts, Probe::Fails { .. });
        *self.rules.entry(decision.rule).or_default() += 1;
        let mut report = own_report(&observation);
        decision.state.as_str().clone_into(&mut report.state);
        let daemon = self.nodes[place].daemon.as_mut().expect("it runs");
        daemon.published = Some(report);
        daemon.next_decision = clock.after(decision.wake_in.min(OBSERVE_AT_LEAST_EACH));
        let logged = Some((decision.state, decision.rule));
        if daemon.logged != logged {
            daemon.logged = logged;
            let (state, rule) = (decision.state.as_str(), decision.rule);
            note!(self, "{} {state} by {rule:?}: {}", NAMES[place], decision.because);
        }
        if decision.rule == Rule::ShutDownDone {
            self.leave(place);
            return;
        }
        if refuses {
            self.prove(Fault::StopPostmaster, place);
        }
        for action in &decision.actions {
            let mode = observation.policy.sync.mode;
            if let Some(early) = mutants::configured_first(self.setting.mutant, action, mode) {
                self.on_postgres(place, &observation, &early);
            }
            if self.setting.mutant == Some(Mutant::DisarmEarly) && mutants::pins(action) {
                self.on_guard(place, &observation, GuardAction::Disarm);
            }
            if !self.perform(place, &observation, action) {
                return;
            }
        }
    }

    /// The loop waits for the answer of a guard that shows no heartbeat, and ends it without one.
    fn asks_guard(&mut self, place: usize) -> bool {
        let now = self.now;
        let node = &mut self.nodes[place];
        let Some(until) = node.guard_asked_until else { return false };
        if now < node.guard_stopped.1 && now < until {
            return true;
        }
        node.guard_asked_until = None;
        if now < node.guard_stopped.1 && node.guard.is_some() {
            self.end_guard(place);
        }
        false
    }

    /// What was given up while the consensus disk stalled is recorded when it answers.
    fn finish_giving_up(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let given_up =
            node.daemon.as_ref().and_then(|daemon| daemon.holder.as_ref()).map(|(_, h)| h.given_up());
        if self.now >= node.log_stalled_until {
            node.given_up = node.given_up.max(given_up.unwrap_or_default());
        }
    }

    /// A clean stop: the daemon ends, and its guard, which has nothing to watch over.
    pub(crate) fn end_daemon(&mut self, place: usize) {
        let starts_at = self.now + self.random.between(500_000, 5_000_000);
        let node = &mut self.nodes[place];
        node.daemon = None;
        if node.server.is_none() {
            node.guard = None;
        }
        node.daemon_starts_at = Some(starts_at);
        note!(self, "{} daemon ended cleanly", NAMES[place]);
        self.prove(Fault::CleanStop, place);
    }

    /// False: what follows in the decision is not done.
    fn perform(&mut self, place: usize, o: &Observation, action: &Action) -> bool {
        match action {
            Action::Propose(command) => {
                self.propose(place, command);
                true
            }
            Action::Postgres(action) => self.on_postgres(place, o, action),
            Action::Guard(action) => self.on_guard(place, o, *action),
            Action::Lease(LeaseAction::GiveUp { epoch }) => {
                let now = self.now;
                let node = &mut self.nodes[place];
                let daemon = node.daemon.as_mut().expect("it runs");
                if let Some((_, holder)) = &mut daemon.holder {
                    holder.give_up(*epoch);
                }
                if now < node.log_stalled_until {
                    self.prove(Fault::StallLog, place);
                    return false;
                }
                node.given_up = node.given_up.max(*epoch);
                true
            }
            Action::Lease(LeaseAction::CutOff { .. }) => true,
            Action::Lease(LeaseAction::Close { epoch, voters, for_real }) => {
                let clock = self.nodes[place].clock(self.now);
                let number = self.number();
                let daemon = self.nodes[place].daemon.as_mut().expect("it runs");
                if daemon.closing.is_some() {
                    return true;
                }
                let answers = Closes { epoch: *epoch, ..Closes::default() };
                daemon.closing =
                    Some(Closing { number, since: clock, asked: voters.len(), answered: 0, answers });
                let request =
                    CloseRequest { candidate: self.nodes[place].id(), epoch: *epoch, for_real: *for_real };
                for voter in voters.iter().filter_map(|voter| self.bearer(*voter)).collect::<Vec<_>>() {
                    if voter == place {
                        self.voter_closes(place, place, number, &request);
                    } else {
                        self.send(place, voter, Message::Close { number, request: request.clone() });
                    }
                }
                true
            }
            Action::AskPeers => {
                for other in (0..self.nodes.len()).filter(|other| *other != place) {
                    if self.nodes[other].is_data {
                        self.send(place, other, Message::AskReport);
                    }
                }
                true
            }
        }
    }

    pub(crate) fn propose(&mut self, place: usize, command: &Command) {
        let clock = self.nodes[place].clock(self.now);
        let number = self.number();
        let daemon = self.nodes[place].daemon.as_mut().expect("it runs");
        if daemon.proposal.is_some() {
            return;
        }
        if let Command::SetFailsafe { epoch, members } = command {
            let holder = daemon.holder.as_mut().map(|(_, holder)| holder);
            if !holder.is_some_and(|holder| holder.propose_failsafe(*epoch, members.as_ref())) {
                return;
            }
        }
        daemon.proposal = Some((number, clock));
        match self.log.working_leader() {
            Some(leader) if leader == place => {
                let outcome = self.commit_at(place, command);
                self.proposed(place, number, &outcome);
            }
            Some(leader) => self.send(place, leader, Message::Propose { number, command: command.clone() }),
            None => {}
        }
    }

    fn on_guard(&mut self, place: usize, o: &Observation, action: GuardAction) -> bool {
        let now = self.now;
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        match action {
            GuardAction::Ensure => {
                let deadline = node.guard.as_ref().and_then(|guard| guard.armed).map(|armed| armed.deadline);
                if deadline.is_some_and(|deadline| clock.since(deadline) > GUARD_OVERDUE) {
                    self.end_guard(place);
                } else if node.guard_is_stale(now) {
                    // It is asked first, in case that it was the machine.
                    node.guard_asked_until = Some(now + GUARD_ANSWERS_WITHIN);
                    return false;
                }
                self.ensure_guard(place);
                true
            }
            GuardAction::Kill => {
                node.kill_server(now);
                true
            }
            GuardAction::Disarm => node.guard.as_mut().is_some_and(|guard| {
                guard.disarm();
                true
            }),
            GuardAction::Arm { epoch } => {
                let licence = node.daemon.as_ref().and_then(Daemon::licence);
                let Some(licence) = licence.filter(|won| won.epoch == epoch && won.deadline > clock) else {
                    return false;
                };
                let ttl = o.cluster.lease.tenure.as_ref().map_or(0, |tenure| tenure.ttl_ms);
                let ttl = Duration::from_millis(ttl);
                node.guard.as_mut().is_some_and(|guard| guard.arm(epoch, licence.deadline, ttl, clock))
            }
        }
    }

    fn on_postgres(&mut self, place: usize, o: &Observation, action: &PgAction) -> bool {
        if let Some(kind) = action.job() {
            self.begin_job(place, o, action, kind);
            return true;
        }
        let now = self.now;
        // The walreceiver is seen to be gone 0.3 s after the order; a tool may fail between two of its steps.
        let (ends_in, fails) = (self.random.between(20_000, 300_000), self.random.per_mille(50));
        let node = &mut self.nodes[place];
        match action {
            PgAction::Follow { upstream } => {
                let upstream = upstream.as_ref().map(place_of);
                node.configured_upstream = upstream;
                let Some(server) = node.server.as_mut().filter(|server| server.is_ready(now)) else {
                    return false;
                };
                server.follow(upstream, now + ends_in);
            }
            PgAction::Fence { epoch } => {
                node.fenced = node.fenced.max(*epoch);
                if fails {
                    return false;
                }
                node.configured_upstream = None;
                let Some(server) = node.server.as_mut().filter(|server| server.is_ready(now)) else {
                    return false;
                };
                server.follow(None, now + ends_in);
            }
            PgAction::SetSync { names } => {
                if fails || now < node.data_stalled.1 {
                    return false;
                }
                node.data.sync_names = names.clone();
                if let Some(server) = node.server.as_mut().filter(|server| server.is_ready(now)) {
                    server.commits.reload(names, now, &mut self.random);
                }
            }
            PgAction::DiscardOldData => node.data.has_old_data = false,
            PgAction::DiscardIncomplete => {
                if node.data.directory == Directory::Incomplete {
                    node.data.directory = Directory::Empty;
                }
            }
            PgAction::KeepSlots { .. } => {}
            PgAction::Bootstrap
            | PgAction::StartPrimary
            | PgAction::StartStandby { .. }
            | PgAction::Stop { .. }
            | PgAction::Promote { .. }
            | PgAction::Rewind { .. }
            | PgAction::Clone { .. }
            | PgAction::PrePromote
            | PgAction::Restart { .. }
            | PgAction::Restore
            | PgAction::CopySlots { .. }
            | PgAction::Reinitialize { .. } => panic!("a job: {action:?}"),
        }
        true
    }

    /// How long a job of this kind takes, in microseconds.
    fn job_takes(&mut self, kind: JobKind) -> u64 {
        match kind {
            JobKind::Bootstrap | JobKind::Clone => self.random.between(800_000, 3_000_000),
            JobKind::Rewind => self.random.between(300_000, 2_000_000),
            JobKind::StartPrimary | JobKind::StartStandby | JobKind::Promote => {
                self.random.between(100_000, 1_000_000)
            }
            JobKind::Stop => self.random.between(50_000, 500_000),
            JobKind::PrePromote | JobKind::Restart | JobKind::Reinitialize | JobKind::CopySlots => {
                panic!("nobody asks for it: {kind:?}")
            }
        }
    }

    fn begin_job(&mut self, place: usize, o: &Observation, action: &PgAction, kind: JobKind) {
        let (now, pid) = (self.now, u32::try_from(self.number()).expect("small"));
        let takes = self.job_takes(kind);
        let node = &mut self.nodes[place];
        let clock = node.clock(now);
        let daemon = node.daemon.as_mut().expect("it runs");
        if !daemon.jobs.makes_way(action, kind, clock) {
            return;
        }
        let epoch = o.cluster.lease.epoch;
        let fails = now < node.tools_fail_until && kind != JobKind::Stop;
        let hangs = now + takes < node.tools_hang_until && (kind != JobKind::Stop || !is_immediate(action));
        let takes = if hangs { node.tools_hang_until - now } else { takes };
        daemon.jobs.running = Some(Running {
            run: JobRun { kind, since: clock, epoch },
            action: action.clone(),
            ends_at: now + takes,
            fails,
        });
        let fault = [(fails, Fault::FailTools), (hangs, Fault::HangTools)];
        for (_, fault) in fault.iter().filter(|(is_met, _)| *is_met) {
            self.prove(*fault, place);
        }
        let node = &mut self.nodes[place];
        match action {
            PgAction::Bootstrap => node.data.directory = Directory::Incomplete,
            PgAction::Clone { .. } => {
                node.data.has_old_data |= node.data.directory == Directory::Initialised;
                node.data.directory = Directory::Incomplete;
            }
            PgAction::StartPrimary | PgAction::StartStandby { .. } => {
                if let PgAction::StartStandby { upstream } = action {
                    node.configured_upstream = upstream.as_ref().map(place_of);
                    node.data.has_standby_signal = true;
                }
                let upstream = node.configured_upstream.filter(|_| node.data.has_standby_signal);
                if node.server.is_none() && node.guard.is_some() {
                    let mut server = Server::start(pid, &mut node.data, upstream, now, takes);
                    server.stops_at = fails.then_some((now + takes / 2, false));
                    node.server = Some(server);
                }
            }
            PgAction::Stop { mode, .. } => {
                if let Some(server) = &mut node.server {
                    let clean = *mode == StopMode::Fast;
                    let sooner =
                        server.stops_at.is_none_or(|(at, was_clean)| at > now + takes || was_clean != clean);
                    if sooner {
                        server.stops_at = Some((now + takes, clean));
                    }
                }
            }
            PgAction::Promote { timeline } => {
                if let Some(server) = &mut node.server {
                    let is_reserved = self.setting.mutant != Some(Mutant::NextTimeline);
                    // What was written before the first request stays until PostgreSQL has left recovery.
                    if server.promoted_at.is_none() {
                        server.reserved = is_reserved.then_some(timeline.0);
                    }
                    if fails {
                        server.stops_at = Some((now + takes, false));
                    } else {
                        server.promoted_at.get_or_insert(now + takes);
                    }
                }
            }
            PgAction::Rewind { .. }
            | PgAction::PrePromote
            | PgAction::Restart { .. }
            | PgAction::Restore
            | PgAction::Reinitialize { .. }
            | PgAction::Follow { .. }
            | PgAction::DiscardOldData
            | PgAction::DiscardIncomplete
            | PgAction::Fence { .. }
            | PgAction::SetSync { .. }
            | PgAction::CopySlots { .. }
            | PgAction::KeepSlots { .. } => {}
        }
    }

    /// The data directory and server of another node, as a tool here would find them.
    fn source(&self, place: usize, upstream: &Upstream) -> Result<usize, String> {
        let from = place_of(upstream);
        let source = &self.nodes[from];
        let usable = !source.is_frozen(self.now)
            && self.connected(place, from)
            && source.server.as_ref().is_some_and(|server| server.is_writable(self.now));
        if usable { Ok(from) } else { Err(format!("cannot connect to {}", upstream.name)) }
    }

    fn collect_job(&mut self, place: usize) {
        let Some(outcome) = self.job_outcome(place) else { return };
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        let daemon = node.daemon.as_mut().expect("it runs");
        daemon.jobs.end(outcome.err(), clock);
        daemon.wake(clock);
    }

    /// How the job ended; none: it goes on.
    fn job_outcome(&mut self, place: usize) -> Option<Result<(), String>> {
        let now = self.now;
        let running = self.nodes[place].daemon.as_ref()?.jobs.running.clone()?;
        let server = self.nodes[place].server.as_ref();
        let tool_ended = now >= running.ends_at;
        let is_stalled = now < self.nodes[place].data_stalled.1;
        match &running.action {
            PgAction::StartPrimary | PgAction::StartStandby { .. } => match server {
                None => Some(Err("PostgreSQL ended".to_owned())),
                Some(server) => server.is_ready(now).then_some(Ok(())),
            },
            PgAction::Promote { .. } => match server {
                None => Some(Err("PostgreSQL ended".to_owned())),
                Some(server) => (!server.is_in_recovery).then_some(Ok(())),
            },
            PgAction::Stop { .. } => server.is_none().then_some(Ok(())),
            PgAction::Bootstrap | PgAction::Clone { .. } | PgAction::Rewind { .. } if is_stalled => None,
            PgAction::Clone { .. } | PgAction::Rewind { .. } if tool_ended && running.fails => {
                Some(Err("the tool failed".to_owned()))
            }
            PgAction::Bootstrap if tool_ended => Some(self.bootstrapped(place)),
            PgAction::Clone { source } if tool_ended => Some(self.source(place, source).map(|from| {
                let copy = self.nodes[from].data.clone();
                self.nodes[place].data.copy_of(&copy);
            })),
            PgAction::Rewind { source } if tool_ended => {
                let from = match self.source(place, source) {
                    Ok(from) => from,
                    Err(error) => return Some(Err(error)),
                };
                let copy = self.nodes[from].data.clone();
                if !self.nodes[place].data.rewind_to(&copy) {
                    self.fail(format!("{}: pg_rewind sees no difference where there is one", NAMES[place]));
                }
                Some(Ok(()))
            }
            PgAction::Bootstrap | PgAction::Clone { .. } | PgAction::Rewind { .. } => None,
            PgAction::PrePromote
            | PgAction::Restart { .. }
            | PgAction::Restore
            | PgAction::Reinitialize { .. }
            | PgAction::Follow { .. }
            | PgAction::DiscardOldData
            | PgAction::DiscardIncomplete
            | PgAction::Fence { .. }
            | PgAction::SetSync { .. }
            | PgAction::CopySlots { .. }
            | PgAction::KeepSlots { .. } => None,
        }
    }

    /// initdb has ended: the server starts, and is writable at once.
    fn bootstrapped(&mut self, place: usize) -> Result<(), String> {
        let (system, pid) = (self.random.next(), u32::try_from(self.number()).expect("small"));
        let now = self.now;
        let node = &mut self.nodes[place];
        let armed = node.guard.as_ref().is_some_and(|guard| guard.armed.is_some());
        if !armed {
            return Err("the guard does not start PostgreSQL: its deadline has passed".to_owned());
        }
        node.data.make(system);
        node.server = Some(Server::start(pid, &mut node.data, None, now, 50_000));
        Ok(())
    }
}
