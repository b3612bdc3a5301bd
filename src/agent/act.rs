//! Performs a decision's actions in order. The first one that fails ends the sequence: what is left is decided anew
//! from the next observation.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::clock;
use pgherd_raft::lease::{CloseRequest, CloseVerdict, patience};
use pgherd_raft::model::{Command, Epoch, MemberId};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::Agent;
use super::jobs::chain;
use super::postmaster::GuardedPostmaster;
use crate::ha::{Action, Closes, Decision, GuardAction, LeaseAction, Observation, PgAction, Process};
use crate::postgres::Postgres;

/// A voter which has not answered a close after this time is asked again.
const CLOSE_PATIENCE: Duration = Duration::from_millis(400);
/// A short action on PostgreSQL may take this long.
const SHORT_ACTION: Duration = Duration::from_secs(2);

impl Agent {
    pub(super) async fn act(&mut self, observation: &Observation, decision: &Decision) {
        let mut commands = Vec::new();
        for action in &decision.actions {
            let done = if let Action::Propose(command) = action {
                self.may_propose(command).map(|()| commands.push(stamped(command)))
            } else {
                self.proposals.propose(&self.parts.group, std::mem::take(&mut commands));
                self.perform(observation, action).await
            };
            if let Err(why) = done {
                warn!("{why} (rule {:?})", decision.rule);
                break;
            }
        }
        self.proposals.propose(&self.parts.group, commands);
    }

    async fn perform(&mut self, o: &Observation, action: &Action) -> Result<(), String> {
        match action {
            Action::Propose(command) => {
                self.may_propose(command)?;
                self.proposals.propose(&self.parts.group, vec![stamped(command)]);
                Ok(())
            }
            Action::Postgres(action) => self.on_postgres(o, action).await,
            Action::Guard(action) => self.on_guard(o, *action).await,
            Action::Lease(LeaseAction::GiveUp { epoch }) => self.give_up(*epoch).await,
            Action::Lease(LeaseAction::Close { epoch, voters, for_real }) => {
                let group = self.parts.group.clone();
                let ttl_ms = o.cluster.lease.tenure.as_ref().map_or(0, |tenure| tenure.ttl_ms);
                let request = CloseRequest { candidate: self.me, epoch: *epoch, for_real: *for_real };
                self.closing.ask(&group, request, voters, patience(Duration::from_millis(ttl_ms)));
                Ok(())
            }
            Action::Lease(LeaseAction::CutOff { epoch, member }) => {
                let known = o.cluster.members.get(member).filter(|_| *member != self.me);
                let known = known.ok_or_else(|| format!("member {member} is not cut off"))?;
                self.cut_offs.start(&self.parts.scope, *epoch, *member, known);
                Ok(())
            }
            Action::AskPeers => {
                self.parts.group.exchange_reports_soon();
                Ok(())
            }
        }
    }

    /// From here on a change of the failsafe list counts as done and as not done.
    fn may_propose(&self, command: &Command) -> Result<(), String> {
        let Command::SetFailsafe { epoch, members } = command else { return Ok(()) };
        if self.parts.renewer.propose_failsafe(*epoch, members.as_ref()) {
            return Ok(());
        }
        Err("the failsafe list is not changed while the licence does not rest on a majority".to_owned())
    }

    async fn on_postgres(&mut self, o: &Observation, action: &PgAction) -> Result<(), String> {
        if let PgAction::KeepSlots { steps } = action {
            self.slots.start(&self.parts.postgres, steps, o);
            return Ok(());
        }
        if action.job().is_some() {
            let postgres = self.postgres_for(o, action);
            self.jobs.start(postgres, action, o.cluster.lease.epoch).await;
            return Ok(());
        }
        let done = tokio::time::timeout(SHORT_ACTION, self.parts.postgres.perform(action)).await;
        match done {
            Ok(result) => result.map_err(|error| chain(&error)),
            Err(_) => {
                Err(format!("PostgreSQL did not answer within {} s to {action:?}", SHORT_ACTION.as_secs()))
            }
        }
    }

    /// An action is performed through the guard for which it was decided; a stop through any.
    fn postgres_for(&self, o: &Observation, action: &PgAction) -> Postgres {
        let session = o.guard.of_any_age().map(|guard| guard.session);
        match (action, session) {
            (PgAction::Stop { .. }, _) | (_, None) => Postgres::clone(&self.parts.postgres),
            (_, Some(session)) => {
                let slot = Arc::clone(&self.parts.guard);
                self.parts.postgres.through(Arc::new(GuardedPostmaster::of_session(slot, session)))
            }
        }
    }

    async fn on_guard(&mut self, o: &Observation, action: GuardAction) -> Result<(), String> {
        let guard = || self.parts.guard.get().ok_or_else(|| "there is no guard".to_owned());
        match action {
            GuardAction::Ensure => {
                self.replace_guard().await;
                Ok(())
            }
            GuardAction::Kill => guard()?.order_kill().await.map_err(|error| chain(&error)),
            GuardAction::Disarm => {
                let guard = guard()?;
                guard.disarm().await.map_err(|error| chain(&error))?;
                // A start which was on its way when it was cut short comes before the disarming.
                let was_stopped = matches!(o.postgres.process.of_any_age(), Some(Process::Stopped));
                match guard.process().of_any_age() {
                    Some(Process::Stopped) => Ok(()),
                    Some(_) if !was_stopped => Ok(()),
                    Some(_) | None => Err("PostgreSQL was started meanwhile".to_owned()),
                }
            }
            GuardAction::Arm { epoch } => {
                let facts = self.parts.renewer.facts();
                let licence = facts
                    .licence
                    .filter(|licence| licence.epoch == epoch && licence.deadline > clock::now())
                    .ok_or_else(|| format!("there is no licence of epoch {epoch} to arm the guard with"))?;
                let ttl_ms = o.cluster.lease.tenure.as_ref().map_or(0, |tenure| tenure.ttl_ms);
                let ttl = Duration::from_millis(ttl_ms);
                let watchdog = self.watchdog.config.clone();
                let armed = guard()?.arm_watched(epoch, licence.deadline, ttl, watchdog).await;
                let trouble = armed.map_err(|error| chain(&error))?;
                self.watchdog.armed(trouble.clone(), clock::now());
                let is_writable = o.postgres.server.of_any_age().is_some_and(|server| !server.is_in_recovery);
                match trouble.filter(|_| self.watchdog.is_required() && !is_writable) {
                    Some(why) => Err(format!("watchdog could not be activated: {why}")),
                    None => Ok(()),
                }
            }
        }
    }

    /// In this order: nothing of the epoch is sent or counted any more, then that is made durable.
    async fn give_up(&mut self, epoch: Epoch) -> Result<(), String> {
        self.parts.renewer.give_up(epoch);
        // On a disk that hangs this does not come back. No renewal is sent any more, so the lease expires by itself.
        let recorded = tokio::time::timeout(SHORT_ACTION, self.parts.group.record_given_up(epoch)).await;
        recorded
            .map_err(|_| {
                format!("it is not on disk yet that epoch {epoch} is given up: the lease expires by itself")
            })?
            .map_err(|error| chain(&error))
    }

    /// What was given up while the disk hung is recorded when the disk answers: until then this node neither renews its
    /// lease nor gives it back.
    pub(super) async fn finish_giving_up(&mut self) {
        let epoch = self.parts.renewer.facts().given_up;
        if epoch > self.parts.group.given_up()
            && let Err(why) = self.give_up(epoch).await
        {
            debug!("{why}");
        }
    }

    /// Takes in the answers of the voters.
    pub(super) fn collect_closes(&mut self) {
        let Some(new) = self.closing.answers() else { return };
        let now = clock::now();
        let (earlier, ago) = self.closes.as_ref().map(|(old, at)| (old, now.since(*at))).unzip();
        let closes = new.after(earlier, ago.unwrap_or_default());
        debug!("closes of epoch {}: would {:?}, closed {:?}", closes.epoch, closes.would, closes.closed);
        self.closes = Some((closes, now));
    }
}

/// Decisions read no clock: what carries the time for people gets it here.
fn stamped(command: &Command) -> Command {
    let mut command = command.clone();
    if let Command::SetSettings { at_ms, .. } = &mut command {
        *at_ms = clock::wall_ms();
    }
    command
}

/// The question to the voters, one round at a time.
#[derive(Debug)]
pub(super) struct Closing {
    round: JoinSet<Closes>,
    wake: Arc<Notify>,
}

impl Closing {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { round: JoinSet::new(), wake }
    }

    fn ask(
        &mut self,
        group: &pgherd_raft::Group,
        request: CloseRequest,
        voters: &BTreeSet<MemberId>,
        patience: Duration,
    ) {
        if !self.round.is_empty() {
            return;
        }
        let (group, voters, wake) = (group.clone(), voters.clone(), Arc::clone(&self.wake));
        self.round.spawn(async move {
            let mut asked = JoinSet::new();
            for voter in voters {
                let (group, request) = (group.clone(), request.clone());
                asked.spawn(async move {
                    let answer = tokio::time::timeout(CLOSE_PATIENCE, group.ask_close(voter, request)).await;
                    (voter, answer)
                });
            }
            let epoch = request.epoch;
            let mut closes = Closes { epoch, ..Closes::default() };
            let (all, mut answered) = (asked.len(), 0_usize);
            // A majority is enough: a dead voter must not cost its whole time-out.
            while (closes.would.len() + closes.closed.len() + closes.silent.len()) * 2 <= all
                && let Some(joined) = asked.join_next().await
            {
                answered += usize::from(matches!(joined, Ok((_, Ok(Ok(_))))));
                closes.is_answered = answered * 2 > all;
                match joined {
                    Ok((voter, Ok(Ok(CloseVerdict::Closed)))) => {
                        closes.closed.insert(voter);
                    }
                    Ok((voter, Ok(Ok(CloseVerdict::Would)))) => {
                        closes.would.insert(voter);
                    }
                    Ok((voter, Ok(Ok(CloseVerdict::NotYet { quiet_ms, .. }))))
                        if Duration::from_millis(quiet_ms) >= patience =>
                    {
                        closes.silent.insert(voter);
                    }
                    Ok((voter, answer)) => debug!("voter {voter} on closing epoch {epoch}: {answer:?}"),
                    Err(broken) => warn!("asking a voter broke: {broken}"),
                }
            }
            wake.notify_one();
            closes
        });
    }

    fn answers(&mut self) -> Option<Closes> {
        match self.round.try_join_next()? {
            Ok(closes) => Some(closes),
            Err(broken) => {
                warn!("asking the voters broke: {broken}");
                None
            }
        }
    }
}
