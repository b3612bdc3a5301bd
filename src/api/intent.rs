//! Operators' wishes: `POST /switchover` and `POST /failover`, `DELETE /switchover`.
//!
//! Any member may be asked. It checks the wish against its last view, writes it into the replicated state, and answers
//! when the state says how it ended. What nobody carried out in time is withdrawn, so that it cannot happen later by
//! surprise. What is for a later time is written as a schedule, and looked at again when it is due.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use pgherd_raft::Group;
use pgherd_raft::group::{GroupView, Proposed, ReadError};
use pgherd_raft::model::{
    ClusterState, Command, EndedIntent, Intent, IntentEnd, MemberId, Outcome, Rejection, ScheduledSwitchover,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use super::reply::Reply;
use super::wish::{Judged, Word, judge_patiently, read_wish};
use super::{ApiState, Shared, body};
use crate::agent::view::View;

/// The most bytes of a request's body; a wish needs a hundred.
const MAX_BODY: usize = 16 * 1024;
/// An operation may take twice `loop_wait`, and at least this, as in Patroni.
const LEAST_PATIENCE: Duration = Duration::from_secs(20);
/// After an answer of unknown outcome, a wish which was written shows within a few elections.
const APPEARANCE_PATIENCE: Duration = Duration::from_secs(5);
/// After the lease went over, the new primary is waited for this long; the wish is fulfilled without it too.
const PROMOTION_PATIENCE: Duration = Duration::from_secs(5);

/// Where wishes are written, and where is seen what came of them.
pub trait Intents: Send + Sync {
    /// Asks for a change of the replicated state; bounded in time.
    fn propose(&self, command: Command) -> BoxFuture<'_, Proposed>;
    /// The replicated state, not older than the moment of this call.
    fn read(&self) -> BoxFuture<'_, Result<ClusterState, ReadError>>;
    /// The replicated state as applied here.
    fn watch(&self) -> watch::Receiver<Arc<GroupView>>;
}

impl Intents for Group {
    fn propose(&self, command: Command) -> BoxFuture<'_, Proposed> {
        Box::pin(Self::propose(self, command))
    }

    fn read(&self) -> BoxFuture<'_, Result<ClusterState, ReadError>> {
        Box::pin(Self::read(self))
    }

    fn watch(&self) -> watch::Receiver<Arc<GroupView>> {
        Self::watch(self)
    }
}

/// Answers `POST /switchover` and `POST /failover`.
pub(super) async fn post(shared: Shared, request: Request, word: Word) -> Reply {
    let wish = match body::object(request, MAX_BODY).await.and_then(|fields| read_wish(&fields)) {
        Ok(wish) => wish,
        Err(refusal) => return refusal,
    };
    info!("received {} request with {wish}", word.lower());
    let (view, judged) = judge_patiently(word, &wish, shared.api.view.clone()).await;
    // As in Patroni, a failover from a named leader is a switchover.
    let word = if wish.leader.is_some() { Word::Switchover } else { word };
    let api = shared.api.clone();
    match judged {
        Ok(Judged::Now(intent)) => {
            let patience = LEAST_PATIENCE.max(view.observation.policy.loop_wait * 2);
            shared.operations.run(async move { carry_out(&api, word, intent, patience).await }).await
        }
        Ok(Judged::Later(schedule)) => {
            shared.operations.run(async move { write_schedule(&api, schedule).await }).await
        }
        Err(refusal) => {
            info!("the {} is refused: {}", word.lower(), refusal.body);
            refusal
        }
    }
}

async fn write_schedule(api: &ApiState, schedule: ScheduledSwitchover) -> Reply {
    let unavailable = |text: String| Reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
    let unwritten = || unavailable("failed to write failover key into DCS".to_owned());
    match api.intents.propose(Command::ScheduleSwitchover { schedule }).await {
        Proposed::Outcome(Outcome::Applied) => Reply::text(StatusCode::ACCEPTED, "Switchover scheduled"),
        Proposed::Outcome(Outcome::Rejected(why)) => unwritten().because(&why.to_string()),
        Proposed::Unknown(why) => match api.intents.read().await {
            Ok(state) if state.scheduled_switchover == Some(schedule) => {
                Reply::text(StatusCode::ACCEPTED, "Switchover scheduled")
            }
            Ok(_) => unwritten().because(&why),
            Err(_) => unknown(Word::Switchover, &why),
        },
    }
}

/// `DELETE /switchover`. Only what was scheduled when the operator asked is deleted.
pub(super) async fn cancel(shared: Shared) -> Reply {
    let unavailable = |why: &str| Reply::text(StatusCode::SERVICE_UNAVAILABLE, why);
    let state = match shared.api.intents.read().await {
        Ok(state) => state,
        Err(why) => return unavailable(&why.to_string()),
    };
    let Some(schedule) = state.scheduled_switchover else {
        return Reply::text(StatusCode::NOT_FOUND, "no switchover is scheduled");
    };
    let command = Command::CancelSchedule { at_ms: Some(schedule.at_ms) };
    match shared.api.intents.propose(command).await {
        Proposed::Outcome(Outcome::Applied) => {
            info!("an operator deletes the scheduled switchover");
            Reply::text(StatusCode::OK, "scheduled switchover deleted")
        }
        Proposed::Outcome(Outcome::Rejected(_)) => {
            Reply::text(StatusCode::CONFLICT, "the scheduled switchover changed meanwhile: ask again")
        }
        Proposed::Unknown(why) => {
            unavailable(&format!("it is not known whether the scheduled switchover was deleted: {why}"))
        }
    }
}

/// Writes the intent and waits for its end, at most so long.
pub(super) async fn carry_out(api: &ApiState, word: Word, intent: Intent, patience: Duration) -> Reply {
    let before = last_id(&api.intents.watch().borrow().state);
    let id = match api.intents.propose(Command::SetIntent { intent: intent.clone() }).await {
        Proposed::Outcome(Outcome::Applied) => match api.intents.read().await {
            Ok(state) => last_id(&state),
            Err(ReadError { reason }) => match find(api, &intent, before).await {
                Some(id) => id,
                None => return unknown(word, &reason),
            },
        },
        Proposed::Outcome(Outcome::Rejected(rejection)) => return rejected(word, &rejection),
        Proposed::Unknown(reason) => match find(api, &intent, before).await {
            Some(id) => id,
            None => return unknown(word, &reason),
        },
    };
    let end = match timeout(patience, end_of(api, id)).await {
        Ok(Some(end)) => Some(end),
        Ok(None) | Err(_) => withdraw(api, id).await,
    };
    match end {
        Some(end) => report(api, word, &intent, end).await,
        None => unknown(word, "nobody carried it out in time, and it could not be withdrawn"),
    }
}

/// The number of the last request in a state, ended or not. At most one is pending at a time, and numbers rise.
fn last_id(state: &ClusterState) -> u64 {
    let pending = state.intent.as_ref().map(|pending| pending.id);
    let ended = state.last_intent.as_ref().map(|ended| ended.id);
    pending.max(ended).unwrap_or(0)
}

/// The number of an intent whose proposal's outcome is not known; none: it does not show in time. It may have ended
/// before it is seen here.
async fn find(api: &ApiState, intent: &Intent, before: u64) -> Option<u64> {
    let mut watch = api.intents.watch();
    let is_ours = |view: &Arc<GroupView>| match &view.state.intent {
        Some(pending) => pending.id > before && pending.intent == *intent,
        None => last_id(&view.state) > before,
    };
    let shown = timeout(APPEARANCE_PATIENCE, watch.wait_for(is_ours)).await.ok()?.ok()?;
    Some(last_id(&shown.state))
}

/// How this request ended. None: the group is gone.
async fn end_of(api: &ApiState, id: u64) -> Option<IntentEnd> {
    let mut watch = api.intents.watch();
    let is_over = |view: &Arc<GroupView>| view.state.last_intent.as_ref().is_some_and(|ended| ended.id >= id);
    let shown = watch.wait_for(is_over).await.ok()?;
    match &shown.state.last_intent {
        Some(EndedIntent { id: ended, end }) if *ended == id => Some(end.clone()),
        // A later one has ended since; what became of this one shows only in who holds the lease.
        Some(_) | None => shown.state.lease.holder().map(|holder| IntentEnd::Done { holder }),
    }
}

/// Takes a request back. The answer is how it ended, which may be that it was done after all.
async fn withdraw(api: &ApiState, id: u64) -> Option<IntentEnd> {
    let command = Command::EndIntent { id, end: IntentEnd::Withdrawn };
    match api.intents.propose(command).await {
        Proposed::Outcome(Outcome::Applied) => Some(IntentEnd::Withdrawn),
        Proposed::Outcome(Outcome::Rejected(_)) => {
            timeout(APPEARANCE_PATIENCE, end_of(api, id)).await.ok().flatten()
        }
        Proposed::Unknown(_) => None,
    }
}

async fn report(api: &ApiState, word: Word, intent: &Intent, end: IntentEnd) -> Reply {
    let failed = |why: &str| failed(word, why);
    let holder = match end {
        IntentEnd::Done { holder } => holder,
        IntentEnd::Refused(why) => return failed(&why),
        IntentEnd::Withdrawn => return failed("nobody carried it out in time, so it was withdrawn"),
    };
    let state = api.intents.watch().borrow().state.clone();
    if let Intent::Switchover { from, .. } = intent
        && holder == *from
    {
        return failed("the leader is the same");
    }
    // The lease went over; that the new primary can be written to follows within a promotion. Either way it is done.
    let mut view = api.view.clone();
    let promoted = timeout(PROMOTION_PATIENCE, view.wait_for(|view| is_writable(view, holder))).await;
    if promoted.is_err() {
        info!("the lease went to {}, which is not seen to be writable yet", state.name_of(holder));
    }
    let name = state.name_of(holder);
    let text = match intent.target().filter(|target| *target != holder) {
        Some(other) => {
            let sentence = format!("{} to \"{name}\" instead of \"{}\"", word.done(), state.name_of(other));
            capitalised(&sentence)
        }
        None => format!("Successfully {} to \"{name}\"", word.done()),
    };
    Reply::text(StatusCode::OK, text)
}

fn capitalised(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn is_writable(view: &View, holder: MemberId) -> bool {
    let observation = &view.observation;
    if observation.me == holder {
        return observation.postgres.server.of_any_age().is_some_and(|server| !server.is_in_recovery);
    }
    let report = observation.peers.get(&holder).and_then(|fact| fact.of_any_age());
    report.is_some_and(|report| report.is_in_recovery == Some(false))
}

fn rejected(word: Word, rejection: &Rejection) -> Reply {
    let (code, text) = match rejection {
        Rejection::Tenure => (StatusCode::PRECONDITION_FAILED, "leader name does not match".to_owned()),
        Rejection::Member { .. } => {
            (StatusCode::PRECONDITION_FAILED, format!("{} is not possible: {rejection}", word.lower()))
        }
        Rejection::Intent => {
            (StatusCode::CONFLICT, "another switchover or failover is in progress".to_owned())
        }
        Rejection::Founding
        | Rejection::Epoch { .. }
        | Rejection::Revision { .. }
        | Rejection::TooFewCloses
        | Rejection::TooFewFences
        | Rejection::BehindFence { .. }
        | Rejection::Synchrony { .. }
        | Rejection::Failsafe
        | Rejection::Pinned
        | Rejection::Voters
        | Rejection::NameTaken { .. }
        | Rejection::AddressTaken { .. }
        | Rejection::StillVoter { .. }
        | Rejection::SystemIdentifier { .. }
        | Rejection::Limit { .. } => {
            return failed(word, &rejection.to_string());
        }
    };
    Reply::text(code, text)
}

fn failed(word: Word, why: &str) -> Reply {
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{} failed", word.upper())).because(why)
}

fn unknown(word: Word, why: &str) -> Reply {
    let text = format!("{} status unknown", word.upper());
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, text).because(why)
}
