//! Operators' wishes: `POST /switchover` and `POST /failover`.
//!
//! Any member may be asked. It checks the wish against its last view, writes it into the replicated state, and answers
//! when the state says how it ended. What nobody carried out in time is withdrawn, so that it cannot happen later by
//! surprise.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use pgherd_raft::Group;
use pgherd_raft::group::{GroupView, Proposed, ReadError};
use pgherd_raft::model::{
    ClusterState, Command, EndedIntent, Intent, IntentEnd, MemberId, MemberKind, Outcome, Rejection,
};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::info;

use super::reply::Reply;
use super::{ApiState, Shared};
use crate::agent::view::View;
use crate::ha::{Ranking, is_paused, rank};

/// The most bytes of a request's body; a wish needs a hundred.
const MAX_BODY: usize = 16 * 1024;
/// How long a client may take to send it.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
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

/// Operations go on when the client who asked for them is gone; they end with the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Operations {
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Operations {
    pub(super) async fn run(&self, operation: impl Future<Output = Reply> + Send + 'static) -> Reply {
        let (tell, answer) = oneshot::channel();
        {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                let reply = operation.await;
                if let Err(unheard) = tell.send(reply) {
                    info!("nobody waits any more for this answer to an operator: {}", unheard.body);
                }
            });
        }
        let ended = "the daemon ends: the outcome is not known";
        answer.await.unwrap_or_else(|_| Reply::text(StatusCode::SERVICE_UNAVAILABLE, ended))
    }

    /// Ends all.
    pub(super) async fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

/// Which of the two was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Switchover,
    Failover,
}

impl Word {
    fn lower(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        }
    }

    fn upper(self) -> &'static str {
        match self {
            Self::Switchover => "Switchover",
            Self::Failover => "Failover",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Switchover => "switched over",
            Self::Failover => "failed over",
        }
    }
}

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wish {
    leader: Option<String>,
    candidate: Option<String>,
    scheduled_at: Option<String>,
    /// The operator says that the primary is dead.
    primary_is_dead: bool,
}

/// Patroni's words for it.
const NO_GOOD_CANDIDATES: &str = "no good candidates have been found";
/// How long a candidate may take to be known as fit: a few exchanges of reports.
const CANDIDATE_PATIENCE: Duration = Duration::from_secs(2);

/// Answers `POST /switchover` and `POST /failover`.
pub(super) async fn post(shared: Shared, request: Request, word: Word) -> Reply {
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY);
    let body = match timeout(BODY_PATIENCE, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return bad(format!("the body is incomplete or longer than {MAX_BODY} bytes")),
        Err(_) => return Reply::text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let wish = match read_wish(&body) {
        Ok(wish) => wish,
        Err(refusal) => return refusal,
    };
    // As in Patroni, a failover from a named leader is a switchover.
    let word = if wish.leader.is_some() { Word::Switchover } else { word };
    let (view, judged) = judge_patiently(word, &wish, shared.api.view.clone()).await;
    match judged {
        Ok(intent) => {
            info!("an operator asks for a {}: {intent:?}", word.lower());
            let api = shared.api.clone();
            let patience = LEAST_PATIENCE.max(view.observation.policy.loop_wait * 2);
            shared.operations.run(async move { carry_out(&api, word, intent, patience).await }).await
        }
        Err(refusal) => {
            info!("an operator's {} is refused: {}", word.lower(), refusal.body);
            refusal
        }
    }
}

fn bad(text: impl Into<String>) -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, text)
}

/// The type that the client gave the body does not matter: Patroni's clients send none.
fn read_wish(body: &[u8]) -> Result<Wish, Reply> {
    let document: Value =
        serde_json::from_slice(body).map_err(|source| bad(format!("not JSON: {source}")))?;
    let Value::Object(fields) = document else { return Err(bad("the body is not a JSON object")) };
    let text = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(bad(format!("{key} is not a string"))),
    };
    let candidate = match text("candidate")? {
        Some(name) => Some(name),
        None => text("member")?,
    };
    let primary_is_dead = match fields.get("primary_is_dead") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(says)) => *says,
        Some(_) => return Err(bad("primary_is_dead is not a boolean")),
    };
    Ok(Wish { leader: text("leader")?, candidate, scheduled_at: text("scheduled_at")?, primary_is_dead })
}

/// A candidate that has just come back is known to be fit a moment later: nobody is refused on a report of before.
async fn judge_patiently(
    word: Word,
    wish: &Wish,
    mut views: watch::Receiver<Arc<View>>,
) -> (Arc<View>, Result<Intent, Reply>) {
    let first = Arc::clone(&views.borrow());
    let judged = judge(word, wish, &first);
    if !judged.as_ref().is_err_and(|refusal| refusal.body.contains(NO_GOOD_CANDIDATES)) {
        return (first, judged);
    }
    let fit = views.wait_for(|view| judge(word, wish, view).is_ok());
    let view = match timeout(CANDIDATE_PATIENCE, fit).await {
        Ok(Ok(view)) => Arc::clone(&view),
        Ok(Err(_)) | Err(_) => first,
    };
    let judged = judge(word, wish, &view);
    (view, judged)
}

/// Patroni's checks in Patroni's order.
fn judge(word: Word, wish: &Wish, view: &View) -> Result<Intent, Reply> {
    match word {
        Word::Failover if wish.candidate.is_none() => {
            return Err(bad("Failover could be performed only to a specific candidate"));
        }
        Word::Failover if wish.scheduled_at.is_some() => return Err(bad("Failover can't be scheduled")),
        Word::Switchover if wish.leader.is_none() => {
            return Err(bad("Switchover could be performed only from a specific leader"));
        }
        Word::Switchover if wish.leader == wish.candidate => {
            return Err(bad("Switchover target and source are the same"));
        }
        Word::Switchover if wish.primary_is_dead => {
            return Err(bad("a primary that is dead hands nothing over: ask for a failover"));
        }
        Word::Switchover | Word::Failover => {}
    }
    if word == Word::Switchover && is_paused(&view.observation) {
        if wish.scheduled_at.is_some() {
            return Err(bad("Can't schedule switchover in the paused state"));
        }
        if wish.candidate.is_none() {
            return Err(bad("Switchover is possible only to a specific candidate in a paused state"));
        }
    }
    if let Some(at) = &wish.scheduled_at {
        return Err(refuse_schedule(at));
    }
    let failed = |text: String| Reply::text(StatusCode::PRECONDITION_FAILED, text);
    let cluster = &view.observation.cluster;
    let holder = cluster.lease.holder();
    if word == Word::Switchover
        && (holder.is_none() || wish.leader != holder.map(|holder| cluster.name_of(holder)))
    {
        return Err(failed("leader name does not match".to_owned()));
    }
    let ranking = rank(&view.observation, holder);
    let target = match &wish.candidate {
        Some(name) => {
            let known = cluster.member_named(name).filter(|(_, member)| member.kind == MemberKind::Data);
            let (id, _) = known.ok_or_else(|| failed("candidate does not exists".to_owned()))?;
            Some(id)
        }
        None => None,
    };
    if target.is_some() && target == holder {
        return Err(failed(format!("{} is not possible: the candidate is the leader", word.lower())));
    }
    check_candidates(word, view, &ranking, target)?;
    match (word, holder, target) {
        (Word::Switchover, Some(from), to) => Ok(Intent::Switchover { from, to }),
        (_, _, Some(to)) => {
            Ok(Intent::Failover { to, accepts_loss: false, holder_is_dead: wish.primary_is_dead })
        }
        (_, _, None) => Err(bad("Failover could be performed only to a specific candidate")),
    }
}

fn check_candidates(
    word: Word,
    view: &View,
    ranking: &Ranking,
    target: Option<MemberId>,
) -> Result<(), Reply> {
    let failed = |text: &str| {
        Reply::text(StatusCode::PRECONDITION_FAILED, format!("{} is not possible: {text}", word.lower()))
    };
    if ranking.candidates.is_empty() && ranking.unfit.is_empty() {
        return Err(failed("cluster does not have members except leader"));
    }
    let fit = match target {
        Some(id) => ranking.place_of(id).is_some(),
        None => !ranking.candidates.is_empty(),
    };
    if fit {
        return Ok(());
    }
    let reasons: Vec<String> = ranking
        .unfit
        .iter()
        .filter(|unfit| target.is_none_or(|id| id == unfit.id))
        .map(|unfit| format!("{} {}", view.observation.cluster.name_of(unfit.id), unfit.why))
        .collect();
    Err(failed(NO_GOOD_CANDIDATES).because(&reasons.join("; ")))
}

/// Wrong times are refused as in Patroni; right ones, because there is no schedule yet.
fn refuse_schedule(at: &str) -> Reply {
    let unprocessable = |text: &str| Reply::text(StatusCode::UNPROCESSABLE_ENTITY, text);
    match at.parse::<jiff::Timestamp>() {
        Ok(time) => {
            let now = jiff::Timestamp::try_from(pgherd_raft::clock::wall()).unwrap_or_default();
            if time <= now {
                return unprocessable("Cannot schedule switchover in the past");
            }
            let text = "this version of pgherd cannot schedule a switchover yet; ask again at that time";
            Reply::text(StatusCode::NOT_IMPLEMENTED, text)
        }
        Err(_) if at.parse::<jiff::civil::DateTime>().is_ok() => {
            bad("Timezone information is mandatory for the scheduled switchover")
        }
        Err(_) => unprocessable(
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        ),
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
    let failed =
        |why: &str| Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{} failed: {why}", word.upper()));
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
            (StatusCode::SERVICE_UNAVAILABLE, format!("{} failed: {rejection}", word.upper()))
        }
    };
    Reply::text(code, text)
}

fn unknown(word: Word, why: &str) -> Reply {
    let text = format!("{} status unknown: {why}", word.upper());
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, text)
}
