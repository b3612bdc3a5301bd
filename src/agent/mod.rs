//! The loop: observe, decide, act. The only place which changes PostgreSQL, proposes, or arms the guard.
//!
//! An event (a changed record, a dead postmaster, a won licence, an ended action, a request) wakes the loop; the time
//! between observations is only the fallback. What is slow never stops the loop: long actions and proposals run as
//! tasks which the agent owns, one long action at a time. Writing ends at the deadline whatever this loop does: that is
//! the guard's business, see [`crate::guard`].

mod act;
mod callbacks;
pub mod clock;
mod cut_off;
mod health;
mod history;
mod jobs;
mod licence;
mod observe;
pub mod operations;
mod parameters;
mod policy;
mod postmaster;
mod recorder;
mod slot_board;
mod slots;
mod tell;
pub mod view;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgherd_raft::Group;
use pgherd_raft::group::{GroupView, Phase};
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Epoch, Incarnation, Member, MemberId, PostgresAddr};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::config::{Config, ReloadRequests};
use crate::guard::{News, WatchdogConfig};
use crate::ha::{self, Closes, Decision, Observation, PostgresFacts, Rule};
use crate::postgres::Postgres;

pub use cut_off::FencingCommand;
use jobs::{Jobs, Proposals};
pub use licence::{AskMember, GuardSlot, RenewerSlot};
pub use parameters::LocalCheck;
pub use policy::PolicySource;
pub use postmaster::GuardedPostmaster;
use recorder::Recorder;
pub use slot_board::SlotBoard;
use view::View;
pub use watchdog::watchdog_of;

/// The longest time between observations, whatever `loop_wait` says: reports of positions must stay young.
const OBSERVE_AT_LEAST_EACH: Duration = Duration::from_secs(1);
/// Whoever looks again so soon may be waiting for another member's report.
const WAITS_FOR_REPORTS: Duration = Duration::from_millis(200);
/// Longer than the members of a new cluster take to come.
const ADVICE_PATIENCE: Duration = Duration::from_secs(10);
/// A scheduled restart is written to disk within this time, or not at all.
const KEEP_LIMIT: Duration = Duration::from_secs(2);
/// How long a clean stop goes on trying to give the lease back once PostgreSQL is stopped.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// What the agent works with.
#[derive(Debug)]
pub struct Parts {
    /// The consensus.
    pub group: Group,
    /// The local PostgreSQL.
    pub postgres: Arc<Postgres>,
    /// The local guard, shared with the postmaster adapter.
    pub guard: Arc<GuardSlot>,
    /// The present renewer, shared with the API.
    pub renewer: Arc<RenewerSlot>,
    /// How other members are asked to stand back.
    pub members: Arc<dyn AskMember>,
    /// Positions of slots that travel with failsafe's questions.
    pub slots: Arc<SlotBoard>,
    /// This node as its configuration describes it.
    pub member: Member,
    /// The cluster's name.
    pub scope: String,
    /// PostgreSQL's data directory.
    pub data_dir: PathBuf,
    /// This program: the guard is started from it.
    pub exe: PathBuf,
    /// The settings as decisions need them.
    pub policy: PolicySource,
    /// Has the configuration read again.
    pub reload: ReloadRequests,
    /// The watchdog device behind the guard; none: there is none.
    pub watchdog: Option<WatchdogConfig>,
    /// The operator's command which cuts a silent primary off.
    pub fencing: Option<FencingCommand>,
}

/// Why the agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, and PostgreSQL is stopped.
    Stopped,
    /// It cannot go on; a sentence with the cure.
    Fatal(String),
}

/// The agent's state: handles, and what is under way.
#[derive(Debug)]
pub struct Agent {
    parts: Parts,
    me: MemberId,
    incarnation: Incarnation,
    jobs: Jobs,
    proposals: Proposals,
    recorder: Recorder,
    historian: history::Historian,
    callbacks: callbacks::Callbacks,
    slots: slots::SlotKeeper,
    operations: operations::Operations,
    operator: Arc<operations::Operator>,
    closing: act::Closing,
    closes: Option<(Closes, BootTime)>,
    last_postgres: Option<(PostgresFacts, BootTime)>,
    wake: Arc<Notify>,
    pulse: Arc<licence::Pulse>,
    /// What the present guard tells; one receiver for its whole life, so that nothing it told is told again.
    guard_news: Option<watch::Receiver<News>>,
    logged: String,
    race: tell::Race,
    /// What of the last report others may be waiting for: PostgreSQL runs, in recovery, its stream ended, it ends.
    reported: Option<(bool, Option<bool>, bool, bool)>,
    guard_trouble: String,
    views: Option<watch::Sender<Arc<View>>>,
    consensus_seen: Option<SystemTime>,
    /// The pending request of an operator, and when this daemon learned of it.
    intent_seen: Option<(u64, BootTime)>,
    shutting_down_since: Option<BootTime>,
    health: ha::HealthMemory,
    watchdog: watchdog::Watchdog,
    cut_offs: cut_off::CutOffs,
    /// The epoch when this daemon began to take part.
    known_at_start: Option<Epoch>,
    /// What an operator should know, since when, and whether it was said.
    advice: Option<(String, BootTime, bool)>,
    /// The warning about a strict primary without standbys was given.
    is_alone_told: bool,
    /// The scheduled switchover that was told, and when.
    schedule_told: Option<(i64, BootTime)>,
}

impl Agent {
    /// An agent and the receiver of what it publishes, beginning with a first look at everything.
    pub async fn new(parts: Parts, incarnation: Incarnation) -> (Self, watch::Receiver<Arc<View>>) {
        let me = parts.group.id();
        let wake = Arc::new(Notify::new());
        let recorder = Recorder::start(parts.group.clone());
        let cut_offs = cut_off::CutOffs::new(parts.fencing.clone(), Arc::clone(&wake));
        let watchdog = watchdog::Watchdog::new(parts.watchdog.clone());
        let (operations, operator) = operations::Operations::new(parts.reload.clone());
        let slots = slots::SlotKeeper::new(Arc::clone(&wake), Arc::clone(&parts.slots));
        let mut agent = Self {
            parts,
            me,
            incarnation,
            jobs: Jobs::new(Arc::clone(&wake)),
            proposals: Proposals::new(Arc::clone(&wake)),
            recorder,
            historian: history::Historian::default(),
            callbacks: callbacks::Callbacks::start(),
            slots,
            operations,
            operator: Arc::new(operator),
            closing: act::Closing::new(Arc::clone(&wake)),
            closes: None,
            last_postgres: None,
            wake,
            pulse: Arc::default(),
            guard_news: None,
            logged: String::new(),
            race: tell::Race::default(),
            reported: None,
            guard_trouble: String::new(),
            views: None,
            consensus_seen: None,
            intent_seen: None,
            shutting_down_since: None,
            health: ha::HealthMemory::default(),
            watchdog,
            cut_offs,
            known_at_start: None,
            advice: None,
            is_alone_told: false,
            schedule_told: None,
        };
        agent.operations.restore(agent.parts.postgres.kept_restart().await);
        let observation = agent.observe().await;
        let decision = ha::decide(&observation);
        let (views, receiver) = watch::channel(agent.view(&observation, &decision));
        agent.views = Some(views);
        (agent, receiver)
    }

    /// Wakes the loop: something changed that it cannot see by itself.
    pub fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// The handle with which operators' requests reach this node.
    pub fn operator(&self) -> Arc<dyn operations::LocalActions> {
        Arc::clone(&self.operator) as Arc<dyn operations::LocalActions>
    }

    /// Runs until `stop` says so and PostgreSQL is stopped, or until it cannot go on.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let mut changes = self.parts.group.watch();
        let ended = loop {
            changes.mark_unchanged();
            if let Some(news) = &mut self.guard_news {
                news.mark_unchanged();
            }
            if let Some(fatal) = fatal_phase(&changes.borrow()) {
                break Ended::Fatal(fatal);
            }
            if *stop.borrow() && self.shutting_down_since.is_none() {
                self.shutting_down_since = Some(clock::now());
            }
            self.ensure_guard().await;
            self.follow_settings().await;
            self.finish_giving_up().await;
            let mut observation = self.observe().await;
            self.operate(&mut observation).await;
            let decision = ha::decide(&observation);
            self.pulse.turned(observation.now, ha::patience_with_holder(&observation));
            self.publish(&observation, &decision);
            self.advise(&observation);
            self.recorder.look(&observation, &decision);
            self.historian.look(&observation, &self.parts.group, &self.parts.postgres);
            self.callbacks.look(&observation, &decision, self.parts.policy.callbacks());
            let over = self.is_over(&observation, &decision);
            // What the daemon ends with is said by whoever runs it.
            if !matches!(over, Some(Ended::Fatal(_))) {
                self.log(&decision);
                self.tell(&observation, &decision);
            }
            if let Some(ended) = over {
                break ended;
            }
            self.slots.tell(&observation, &decision);
            self.health.note(&observation, &decision);
            self.direct_probes(&observation);
            self.act(&observation, &decision).await;
            let pause = decision.wake_in.min(OBSERVE_AT_LEAST_EACH);
            let pause = self.operations.look_again_in(&observation).map_or(pause, |rest| pause.min(rest));
            self.wait(pause, &mut changes, &mut stop).await;
        };
        self.jobs.cancel().await;
        self.cut_offs.end().await;
        self.parts.renewer.end();
        self.historian.end().await;
        self.recorder.end().await;
        self.callbacks.end().await;
        self.slots.end().await;
        ended
    }

    /// Looks after what operators ask of this node alone.
    async fn operate(&mut self, observation: &mut Observation) {
        if self.operations.look(observation) == operations::First::CancelJob {
            self.jobs.cancel().await;
        }
        let Some(kept) = self.operations.take_change() else { return };
        let done = tokio::time::timeout(KEEP_LIMIT, self.parts.postgres.keep_restart(kept)).await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("the scheduled restart is not kept: {}", jobs::chain(&error)),
            Err(_) => warn!("the scheduled restart is not kept: the disk does not answer"),
        }
    }

    async fn wait(
        &mut self,
        pause: Duration,
        changes: &mut watch::Receiver<Arc<GroupView>>,
        stop: &mut watch::Receiver<bool>,
    ) {
        let news = self.guard_news.as_mut();
        let guard_news = async {
            match news {
                Some(news) => news.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let stopping = self.shutting_down_since.is_some();
        // Reports come in several times a second: they are looked at as they come only while something is under way.
        let is_waiting = pause <= WAITS_FOR_REPORTS;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.wake.notified() => {}
            () = self.parts.group.report_received(), if is_waiting => {}
            () = self.parts.policy.config_read() => {}
            () = self.operations.asked() => {}
            _ = changes.changed() => {}
            _ = guard_news => {}
            _ = stop.changed(), if !stopping => {}
        }
    }

    fn is_over(&self, observation: &Observation, decision: &Decision) -> Option<Ended> {
        if decision.rule == Rule::OtherSystem {
            return Some(Ended::Fatal(decision.because.clone()));
        }
        let since = self.shutting_down_since?;
        let waited_long = observation.now.since(since) > RELEASE_PATIENCE;
        let is_done = matches!(decision.rule, Rule::ShutDownDone | Rule::ForeignDataDir);
        let gives_back =
            matches!(decision.rule, Rule::ShutDownRelease | Rule::ShutDownHandOver | Rule::GivenUpEpoch);
        if gives_back && waited_long {
            warn!("the lease could not be given back: {}; it will expire by itself", decision.because);
        }
        // What hinders a clean end need not go away: a daemon that never ended would only be killed. PostgreSQL does not
        // outlive its guard, or ends with the deadline.
        let is_hindered =
            matches!(decision.rule, Rule::GuardMissing | Rule::IncompleteDataDir | Rule::Paused);
        if is_hindered && waited_long {
            warn!("the daemon ends although {}", decision.because);
        }
        (is_done || (gives_back || is_hindered) && waited_long).then_some(Ended::Stopped)
    }

    /// Logs a decision when it differs from the last one in more than its numbers.
    fn log(&mut self, decision: &Decision) {
        let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        let waiting = decision.waiting_for.as_deref().unwrap_or_default();
        let line = format!("{:?} {} {}", decision.rule, words(&decision.because), words(waiting));
        if line == self.logged {
            return;
        }
        self.logged = line;
        let actions = decision.actions.len();
        let because = self.jobs.without_told_errors(&decision.because);
        match &decision.waiting_for {
            Some(waiting) => info!("{because} (rule {:?}, waiting for {waiting})", decision.rule),
            None if actions == 0 => info!("{because}"),
            None => info!("{because} (rule {:?})", decision.rule),
        }
    }

    /// Says what an operator should know about the cluster's plan, once it has been so for a while: members come one by
    /// one.
    fn advise(&mut self, observation: &Observation) {
        let Some(text) = ha::advice(observation) else {
            self.advice = None;
            return;
        };
        let known = self.advice.take().filter(|(known, ..)| *known == text);
        let (text, since, told) = known.unwrap_or((text, observation.now, false));
        let is_due = !told && observation.now.since(since) >= ADVICE_PATIENCE;
        if is_due {
            warn!("{text}");
        }
        self.advice = Some((text, since, told || is_due));
    }

    fn publish(&mut self, observation: &Observation, decision: &Decision) {
        let mut report = ha::own_report(observation);
        decision.state.as_str().clone_into(&mut report.state);
        self.slots.publish(&report);
        let news = (report.is_running, report.is_in_recovery, report.stream_ended, report.shutting_down);
        if self.reported.replace(news) != Some(news) {
            self.parts.group.exchange_reports_soon();
        }
        match serde_json::to_vec(&report) {
            Ok(bytes) => self.parts.group.publish_report(bytes),
            Err(error) => warn!("this node's report cannot be written: {error}"),
        }
        if observation.consensus.raft_leader.is_some() {
            self.consensus_seen = Some(clock::wall());
        }
        let view = self.view(observation, decision);
        if let Some(views) = &self.views {
            views.send_replace(view);
        }
    }

    fn view(&self, observation: &Observation, decision: &Decision) -> Arc<View> {
        Arc::new(View {
            scope: self.parts.scope.clone(),
            member: self.parts.member.clone(),
            proxy_url: self.parts.policy.proxy_url(),
            observation: observation.clone(),
            decision: decision.clone(),
            consensus_seen: self.consensus_seen,
        })
    }

    /// The cluster's settings changed: PostgreSQL's configuration follows. A server that cannot be reloaded now takes
    /// it with its next start.
    async fn follow_settings(&mut self) {
        let settings = self.parts.group.watch().borrow().state.settings.clone();
        let was_read_again = self.parts.policy.take_config();
        if was_read_again {
            let config = Arc::clone(self.parts.policy.config());
            self.follow_config(&config);
        }
        if !(self.parts.policy.take(&settings) || was_read_again) {
            return;
        }
        match self.parts.postgres.reconfigure(self.parts.policy.postgres()).await {
            Ok(()) => self.callbacks.reloaded(&self.parts.scope, self.parts.policy.callbacks()),
            Err(error) => warn!("PostgreSQL's configuration was not changed: {}", jobs::chain(&error)),
        }
    }

    /// This node's configuration was read again.
    fn follow_config(&mut self, config: &Config) {
        let member = &mut self.parts.member;
        let postgres = &config.postgresql.connect_address;
        member.tags = config.tags.published();
        member.api_url = Some(config.restapi.url());
        member.postgres = Some(PostgresAddr { host: postgres.host.clone(), port: postgres.port });
        self.parts.group.describe(self.parts.member.clone());
        self.watchdog.configure(watchdog_of(config));
        match FencingCommand::of(config) {
            Ok(command) => self.cut_offs.configure(command),
            Err(why) => warn!("{why}; the one of before stays"),
        }
    }

    fn given_up(&self) -> Epoch {
        self.parts.group.given_up()
    }
}

fn fatal_phase(view: &GroupView) -> Option<String> {
    match &view.phase {
        Phase::Refused(why) => Some(format!("Can't start; {why}")),
        Phase::StartAgain(why) | Phase::Failed(why) => Some(why.clone()),
        Phase::Founding { .. } | Phase::Joining { .. } | Phase::Member => None,
    }
}
