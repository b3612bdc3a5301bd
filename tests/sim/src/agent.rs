//! The loop of one node around the real `decide`: observe, decide, act, as `src/agent` does it.

use std::time::Duration;

use crate::ha::{
    Action, Closes, GuardAction, JobKind, LeaseAction, Observation, PgAction, Rule, StopMode, Upstream,
    decide, own_report,
};
use crate::lease::CloseRequest;
use crate::model::{ClusterState, Command, Lease};

use crate::daemon::{Closing, Daemon, Running};
use crate::model_postgres::{Directory, Server};
use crate::mutants::{self, Mutant};
use crate::network::Message;
use crate::node::{NAMES, SyncFacts, id, index};
use crate::world::{World, note};

const OBSERVE_AT_LEAST_EACH: Duration = Duration::from_secs(1);
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(3);

fn place_of(upstream: &Upstream) -> usize {
    NAMES.iter().position(|name| *name == upstream.name).expect("a member")
}

impl World {
    pub(crate) fn run_agent(&mut self, place: usize) {
        if !self.nodes[place].is_data {
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
        let sync = SyncFacts { in_use: self.note_sync(place), left_stream: self.note_streams(place) };
        let node = &self.nodes[place];
        let daemon = node.daemon.as_ref().expect("it runs");
        let mut cluster = ClusterState::clone(self.log.state(daemon.applied));
        if !daemon.takes_part {
            (cluster.group, cluster.lease) = (None, Lease::default());
        }
        let mut observation =
            node.observe(daemon, cluster, self.log.working_leader(), self.log.term, self.now, sync);
        if let Some(mutant) = self.setting.mutant {
            mutants::distort(mutant, &mut observation);
        }
        let decision = decide(&observation);
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
            self.end_daemon(place);
            return;
        }
        for action in &decision.actions {
            let mode = observation.policy.sync.mode;
            if let Some(early) = mutants::configured_first(self.setting.mutant, action, mode) {
                self.on_postgres(place, &observation, &early);
            }
            if !self.perform(place, &observation, action) {
                return;
            }
        }
    }

    /// A clean stop: the daemon ends, and its guard, which has nothing to watch over.
    fn end_daemon(&mut self, place: usize) {
        let starts_at = self.now + self.random.between(500_000, 5_000_000);
        let node = &mut self.nodes[place];
        (node.daemon, node.guard) = (None, None);
        node.daemon_starts_at = Some(starts_at);
        note!(self, "{} daemon ended cleanly", NAMES[place]);
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
                let node = &mut self.nodes[place];
                let daemon = node.daemon.as_mut().expect("it runs");
                if let Some((_, holder)) = &mut daemon.holder {
                    holder.give_up(*epoch);
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
                let request = CloseRequest { candidate: id(place), epoch: *epoch, for_real: *for_real };
                for voter in voters.iter().map(|voter| index(*voter)) {
                    if voter == place {
                        self.close_here(place, number, &request);
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

    fn propose(&mut self, place: usize, command: &Command) {
        let clock = self.nodes[place].clock(self.now);
        let number = self.number();
        let daemon = self.nodes[place].daemon.as_mut().expect("it runs");
        if daemon.proposal.is_some() {
            return;
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
        let node = &mut self.nodes[place];
        let clock = node.clock(self.now);
        match action {
            GuardAction::Ensure => {
                self.ensure_guard(place);
                true
            }
            GuardAction::Kill => {
                node.server = None;
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
                if fails {
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
            PgAction::EnsureSlots { .. } => {}
            PgAction::Bootstrap
            | PgAction::StartPrimary
            | PgAction::StartStandby { .. }
            | PgAction::Stop { .. }
            | PgAction::Promote { .. }
            | PgAction::Rewind { .. }
            | PgAction::Clone { .. } => panic!("a job: {action:?}"),
        }
        true
    }

    fn begin_job(&mut self, place: usize, o: &Observation, action: &PgAction, kind: JobKind) {
        let (now, pid) = (self.now, u32::try_from(self.number()).expect("small"));
        let takes = match kind {
            JobKind::Bootstrap | JobKind::Clone => self.random.between(800_000, 3_000_000),
            JobKind::Rewind => self.random.between(300_000, 2_000_000),
            JobKind::StartPrimary | JobKind::StartStandby | JobKind::Promote => {
                self.random.between(100_000, 1_000_000)
            }
            JobKind::Stop => self.random.between(50_000, 500_000),
        };
        let node = &mut self.nodes[place];
        let clock = node.clock(now);
        let daemon = node.daemon.as_mut().expect("it runs");
        if !daemon.jobs.makes_way(action, kind, clock) {
            return;
        }
        let epoch = o.cluster.lease.epoch;
        daemon.jobs.running =
            Some(Running { kind, action: action.clone(), since: clock, epoch, ends_at: now + takes });
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
                    node.server = Some(Server::start(pid, &mut node.data, upstream, now, takes));
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
                    server.promoted_at.get_or_insert(now + takes);
                }
            }
            PgAction::Rewind { .. }
            | PgAction::Follow { .. }
            | PgAction::DiscardOldData
            | PgAction::DiscardIncomplete
            | PgAction::Fence { .. }
            | PgAction::SetSync { .. }
            | PgAction::EnsureSlots { .. } => {}
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
            PgAction::Follow { .. }
            | PgAction::DiscardOldData
            | PgAction::DiscardIncomplete
            | PgAction::Fence { .. }
            | PgAction::SetSync { .. }
            | PgAction::EnsureSlots { .. } => None,
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
