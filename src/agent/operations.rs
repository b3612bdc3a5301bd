//! What an operator asks of this node alone: restart, a scheduled restart, a new copy, a reload.
//!
//! [`Operator`] is the handle with which others ask. A request is judged on the next observation, becomes a fact on
//! which the decisions rest, and is answered when what was asked for is seen to have happened. No request is kept for
//! ever: what could not be begun in time is refused.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::iso_time;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::config::ReloadRequests;
use crate::ha::{DataDir, Due, JobKind, Observation, Operation, does_not_match, due, is_paused, word_of};
pub use crate::ha::{RestartFilters, ScheduledRestart};

/// So many requests wait to be judged; who asks for more has to wait.
const MOST_WAITING: usize = 16;
/// A restart that could not be begun by then is refused: without a primary, for example, something else goes first.
const BEGIN_PATIENCE: Duration = Duration::from_secs(60);

/// An operator's restart.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RestartRequest {
    /// For which server it is meant.
    pub filters: RestartFilters,
    /// How long PostgreSQL may take until that is answered; none: as long as it takes.
    pub timeout: Option<Duration>,
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The server is not the one that is meant; the end of a sentence.
    ConditionsNotMet(String),
    /// Something else goes on, in a word.
    InProgress(String),
    /// PostgreSQL was started and takes longer than the request allows.
    StillStarting,
    /// It was begun and failed.
    Failed(String),
    /// Not while automation is off.
    Paused,
    /// Another restart is scheduled.
    AlreadyScheduled,
    /// Not on this node as it is; a sentence.
    NotPossible(String),
}

/// An answer that comes later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What an operator may ask of this node alone.
pub trait LocalActions: Send + Sync {
    /// Answers when PostgreSQL is up again, or why it is not.
    fn restart(&self, request: RestartRequest) -> Answer<'_, Result<(), Refused>>;
    /// Answers when it is kept.
    fn schedule_restart(&self, schedule: ScheduledRestart) -> Answer<'_, Result<(), Refused>>;
    /// False: none was scheduled.
    fn cancel_scheduled_restart(&self) -> Answer<'_, bool>;
    /// Answers when it is begun. `force`: a long action in progress is ended for it. Every copy is one of the primary.
    fn reinitialize(&self, force: bool, from_leader: bool) -> Answer<'_, Result<(), Refused>>;
    /// Reads the configuration again.
    fn reload(&self) -> Answer<'_, Result<(), String>>;
}

#[derive(Debug)]
enum Ask {
    Restart(RestartRequest, oneshot::Sender<Result<(), Refused>>),
    Schedule(ScheduledRestart, oneshot::Sender<Result<(), Refused>>),
    Cancel(oneshot::Sender<bool>),
    Reinitialize { force: bool, answer: oneshot::Sender<Result<(), Refused>> },
}

/// The handle on the agent. The daemon that has ended answers nobody.
#[derive(Debug)]
pub struct Operator {
    asks: mpsc::Sender<Ask>,
    reload: ReloadRequests,
}

impl Operator {
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (tell, answer) = oneshot::channel();
        self.asks.send(ask(tell)).await.ok()?;
        answer.await.ok()
    }
}

fn ended() -> Result<(), Refused> {
    Err(Refused::Failed("the daemon ends".to_owned()))
}

impl LocalActions for Operator {
    fn restart(&self, request: RestartRequest) -> Answer<'_, Result<(), Refused>> {
        Box::pin(async move { self.ask(|answer| Ask::Restart(request, answer)).await.unwrap_or_else(ended) })
    }

    fn schedule_restart(&self, schedule: ScheduledRestart) -> Answer<'_, Result<(), Refused>> {
        Box::pin(
            async move { self.ask(|answer| Ask::Schedule(schedule, answer)).await.unwrap_or_else(ended) },
        )
    }

    fn cancel_scheduled_restart(&self) -> Answer<'_, bool> {
        Box::pin(async move { self.ask(Ask::Cancel).await.unwrap_or(false) })
    }

    fn reinitialize(&self, force: bool, _from_leader: bool) -> Answer<'_, Result<(), Refused>> {
        Box::pin(
            async move { self.ask(|answer| Ask::Reinitialize { force, answer }).await.unwrap_or_else(ended) },
        )
    }

    fn reload(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(self.reload.reload())
    }
}

/// A restart that was accepted.
#[derive(Debug)]
struct Restart {
    since: BootTime,
    timeout: Option<Duration>,
    /// None: nobody waits for it, since it was scheduled.
    answer: Option<oneshot::Sender<Result<(), Refused>>>,
}

impl Restart {
    fn end(self, outcome: Result<(), Refused>) {
        match self.answer {
            // Who asked may have gone away: what was done is in the log.
            Some(answer) => drop(answer.send(outcome)),
            None => {
                if let Err(why) = outcome {
                    warn!("the scheduled restart was not carried out: {why:?}");
                }
            }
        }
    }
}

/// A restart that is to begin later; kept over a restart of the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Scheduled {
    restart: ScheduledRestart,
    /// `pg_postmaster_start_time()` when it was scheduled.
    started_at: Option<String>,
    #[serde(skip)]
    is_told: bool,
}

/// The requests on the agent's side.
#[derive(Debug)]
pub(super) struct Operations {
    asks: mpsc::Receiver<Ask>,
    inbox: Vec<Ask>,
    restart: Option<Restart>,
    reinitialize: Option<BootTime>,
    scheduled: Option<Scheduled>,
    /// What was kept last.
    kept: Option<String>,
}

/// What the agent has to do for a request before it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Nothing,
    /// The long action in progress makes way.
    CancelJob,
}

impl Operations {
    pub(super) fn new(reload: ReloadRequests) -> (Self, Operator) {
        let (sender, asks) = mpsc::channel(MOST_WAITING);
        let operations =
            Self { asks, inbox: Vec::new(), restart: None, reinitialize: None, scheduled: None, kept: None };
        (operations, Operator { asks: sender, reload })
    }

    /// Returns when something is asked; never when nobody can ask any more.
    pub(super) async fn asked(&mut self) {
        match self.asks.recv().await {
            Some(ask) => self.inbox.push(ask),
            None => std::future::pending().await,
        }
    }

    /// Judges what was asked, follows what is under way, and completes the observation with it.
    pub(super) fn look(&mut self, o: &mut Observation) -> First {
        self.follow(o);
        let mut first = First::Nothing;
        while let Ok(ask) = self.asks.try_recv() {
            self.inbox.push(ask);
        }
        for ask in std::mem::take(&mut self.inbox) {
            match ask {
                Ask::Restart(request, answer) => self.restart(o, request, answer),
                Ask::Schedule(restart, answer) => drop(answer.send(self.schedule(o, restart))),
                Ask::Cancel(answer) => drop(answer.send(self.scheduled.take().is_some())),
                Ask::Reinitialize { force, answer } => {
                    let judged = self.judge_reinitialize(o, force);
                    if judged.is_ok() && o.job.take().is_some() {
                        first = First::CancelJob;
                    }
                    drop(answer.send(judged));
                }
            }
        }
        self.follow_schedule(o);
        o.operation = self.facts(o.now);
        o.scheduled_restart = self.scheduled.as_ref().map(|scheduled| scheduled.restart.clone());
        first
    }

    fn facts(&self, now: BootTime) -> Option<Operation> {
        match (&self.reinitialize, &self.restart) {
            (Some(since), _) => Some(Operation::Reinitialize { asked: now.since(*since) }),
            (None, Some(restart)) => Some(Operation::Restart { asked: now.since(restart.since) }),
            (None, None) => None,
        }
    }

    /// Has what was accepted come to its end?
    fn follow(&mut self, o: &Observation) {
        let ended = |kinds: &[JobKind], since: BootTime| {
            let ends = kinds.iter().filter_map(|kind| o.finished.get(kind));
            ends.filter(|end| end.age < o.now.since(since)).min_by_key(|end| end.age).cloned()
        };
        let runs = |kinds: &[JobKind]| o.job.as_ref().is_some_and(|job| kinds.contains(&job.kind));
        const COPIES: [JobKind; 2] = [JobKind::Reinitialize, JobKind::Clone];
        const STARTS: [JobKind; 3] = [JobKind::Restart, JobKind::StartPrimary, JobKind::StartStandby];
        let holds = o.cluster.lease.holder() == Some(o.me);
        if let Some(since) = self.reinitialize
            && (holds || !runs(&COPIES) && ended(&COPIES, since).is_some())
        {
            self.reinitialize = None;
        }
        let Some(restart) = self.restart.take() else { return };
        let running_for = o.job.as_ref().filter(|job| STARTS.contains(&job.kind)).map(|job| job.running_for);
        match (running_for, ended(&STARTS, restart.since)) {
            (Some(time), _) if restart.timeout.is_some_and(|limit| time >= limit) => {
                restart.end(Err(Refused::StillStarting));
            }
            (Some(_), _) => self.restart = Some(restart),
            (None, Some(end)) => restart.end(end.error.map_or(Ok(()), |why| Err(Refused::Failed(why)))),
            (None, None) if o.shutting_down || o.now.since(restart.since) > BEGIN_PATIENCE => {
                restart.end(Err(Refused::Failed("it could not be begun".to_owned())));
            }
            (None, None) => self.restart = Some(restart),
        }
    }

    fn restart(
        &mut self,
        o: &Observation,
        request: RestartRequest,
        answer: oneshot::Sender<Result<(), Refused>>,
    ) {
        let restart = Restart { since: o.now, timeout: request.timeout, answer: Some(answer) };
        match self.judge_restart(o, &request.filters) {
            Ok(()) => self.restart = Some(restart),
            Err(why) => restart.end(Err(why)),
        }
    }

    fn judge_restart(&self, o: &Observation, filters: &RestartFilters) -> Result<(), Refused> {
        if let Some(busy) = self.busy(o) {
            return Err(Refused::InProgress(busy.to_owned()));
        }
        if !matches!(o.postgres.data_dir, DataDir::Initialised { .. }) {
            return Err(Refused::NotPossible("this node has no data".to_owned()));
        }
        match does_not_match(o, filters) {
            Some(why) => {
                info!("not proceeding with the restart: {why}");
                Err(Refused::ConditionsNotMet(why))
            }
            None => Ok(()),
        }
    }

    /// What goes on, in a word.
    fn busy(&self, o: &Observation) -> Option<&'static str> {
        let job = o.job.as_ref().map(|job| word_of(job.kind));
        let restart = self.restart.as_ref().map(|_| "restart");
        job.or(restart).or(self.reinitialize.map(|_| "reinitialize"))
    }

    fn judge_reinitialize(&mut self, o: &Observation, force: bool) -> Result<(), Refused> {
        let not = |why: &str| Err(Refused::NotPossible(why.to_owned()));
        match o.cluster.lease.holder() {
            None => return not("Cluster has no leader, can not reinitialize"),
            Some(holder) if holder == o.me => return not("I am the leader, can not reinitialize"),
            Some(_) => {}
        }
        if let Some(busy) = self.busy(o).filter(|_| !force) {
            return Err(Refused::InProgress(busy.to_owned()));
        }
        if let Some(restart) = self.restart.take() {
            restart.end(Err(Refused::Failed("a new copy is made instead".to_owned())));
        }
        info!("an operator asks for a new copy of this node's data");
        self.reinitialize = Some(o.now);
        Ok(())
    }

    fn schedule(&mut self, o: &Observation, restart: ScheduledRestart) -> Result<(), Refused> {
        if is_paused(o) {
            return Err(Refused::Paused);
        }
        if self.scheduled.is_some() {
            return Err(Refused::AlreadyScheduled);
        }
        self.scheduled = Some(Scheduled { restart, started_at: started_at(o), is_told: false });
        Ok(())
    }

    /// Nothing is begun in pause. A server that was restarted since has what the restart was for.
    fn follow_schedule(&mut self, o: &Observation) {
        let Some(mut scheduled) = self.scheduled.take() else { return };
        let at = iso_time(scheduled.restart.at_ms);
        let now = started_at(o);
        if now.is_some() && scheduled.started_at.is_some() && now != scheduled.started_at {
            let now = now.unwrap_or_default();
            info!("Cancelling scheduled restart: postgres restart has already happened at {now}");
            return;
        }
        scheduled.started_at = scheduled.started_at.or(now);
        if is_paused(o) {
            self.scheduled = Some(scheduled);
            return;
        }
        match due(o, scheduled.restart.at_ms) {
            Due::In(rest) => {
                if !scheduled.is_told {
                    info!("Awaiting restart at {at} (in {} seconds)", rest.as_secs());
                }
                scheduled.is_told = true;
                self.scheduled = Some(scheduled);
            }
            Due::Stale => warn!("Found a stale restart value, cleaning up: {at}"),
            Due::Now if self.busy(o).is_some() => self.scheduled = Some(scheduled),
            Due::Now => {
                info!("Manual scheduled restart at {at}");
                if self.judge_restart(o, &scheduled.restart.filters).is_ok() {
                    let timeout = scheduled.restart.timeout_ms.map(Duration::from_millis);
                    self.restart = Some(Restart { since: o.now, timeout, answer: None });
                }
            }
        }
    }

    /// What a former life of the daemon kept.
    pub(super) fn restore(&mut self, kept: Option<String>) {
        self.scheduled = kept.as_ref().and_then(|text| serde_json::from_str(text).ok());
        self.kept = kept;
    }

    /// What is to be kept from now on, when that has changed.
    pub(super) fn take_change(&mut self) -> Option<Option<String>> {
        let text = self.scheduled.as_ref().and_then(|scheduled| serde_json::to_string(scheduled).ok());
        if text == self.kept {
            return None;
        }
        self.kept.clone_from(&text);
        Some(text)
    }

    /// How long until the scheduled restart is due, or what goes on has to be looked at.
    pub(super) fn look_again_in(&self, o: &Observation) -> Option<Duration> {
        match self.scheduled.as_ref().map(|scheduled| due(o, scheduled.restart.at_ms)) {
            Some(Due::In(rest)) => Some(rest),
            Some(Due::Now | Due::Stale) | None => None,
        }
    }
}

fn started_at(o: &Observation) -> Option<String> {
    o.postgres.server.of_any_age().map(|server| server.started_at.clone())
}
