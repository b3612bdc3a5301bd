//! What an operator wishes, and whether it can be done: the words of a request judged against the last view.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use pgherd_raft::model::{Intent, MemberId, MemberKind, ScheduledSwitchover};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::reply::{Reply, shown};
use super::schedule;
use crate::agent::view::View;
use crate::ha::{Ranking, SyncMode, is_paused, rank};

/// Which of the two was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Switchover,
    Failover,
}

impl Word {
    pub(super) fn lower(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        }
    }

    pub(super) fn upper(self) -> &'static str {
        match self {
            Self::Switchover => "Switchover",
            Self::Failover => "Failover",
        }
    }

    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Switchover => "switched over",
            Self::Failover => "failed over",
        }
    }
}

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) leader: Option<String>,
    candidate: Option<String>,
    scheduled_at: Option<String>,
    /// The operator says that the primary is dead.
    primary_is_dead: bool,
}

/// For the log, in Patroni's words.
impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |name: &Option<String>| name.as_deref().map_or_else(|| "None".to_owned(), shown);
        let (leader, candidate) = (named(&self.leader), named(&self.candidate));
        write!(f, "leader={leader} candidate={candidate} scheduled_at={}", named(&self.scheduled_at))
    }
}

/// Patroni's words for it.
const NO_GOOD_CANDIDATES: &str = "no good candidates have been found";
/// How long a candidate may take to be known as fit: a few exchanges of reports.
const CANDIDATE_PATIENCE: Duration = Duration::from_secs(2);

/// What a wish comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Now(Intent),
    Later(ScheduledSwitchover),
}

fn bad(text: impl Into<String>) -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, text)
}

pub(super) fn read_wish(fields: &Map<String, Value>) -> Result<Wish, Reply> {
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
pub(super) async fn judge_patiently(
    word: Word,
    wish: &Wish,
    mut views: watch::Receiver<Arc<View>>,
) -> (Arc<View>, Result<Judged, Reply>) {
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

/// Patroni's checks in Patroni's order. What is for later is looked at when it is due; its names must be known.
fn judge(word: Word, wish: &Wish, view: &View) -> Result<Judged, Reply> {
    let at_ms = check_words(word, wish, is_paused(&view.observation))?;
    // As in Patroni, a failover from a named leader is a switchover.
    let word = if wish.leader.is_some() { Word::Switchover } else { word };
    if let Some(at_ms) = at_ms {
        return later(wish, at_ms, view).map(Judged::Later);
    }
    now(word, wish, view).map(Judged::Now)
}

/// What can be said without looking at the cluster's members. The time for which the wish is, if it is for later.
fn check_words(word: Word, wish: &Wish, is_paused: bool) -> Result<Option<i64>, Reply> {
    match word {
        Word::Failover if wish.candidate.is_none() => {
            return Err(bad("Failover could be performed only to a specific candidate"));
        }
        Word::Switchover if wish.leader.is_none() => {
            return Err(bad("Switchover could be performed only from a specific leader"));
        }
        Word::Switchover | Word::Failover => {}
    }
    let at_ms = match &wish.scheduled_at {
        Some(_) if word == Word::Failover => return Err(bad("Failover can't be scheduled")),
        Some(_) if is_paused => return Err(bad("Can't schedule switchover in the paused state")),
        Some(at) => Some(schedule::parse(at, "switchover")?),
        None => None,
    };
    if is_paused && wish.candidate.is_none() {
        return Err(bad("Switchover is possible only to a specific candidate in a paused state"));
    }
    if wish.leader == wish.candidate {
        return Err(bad("Switchover target and source are the same"));
    }
    if wish.leader.is_some() && wish.primary_is_dead {
        return Err(bad("a primary that is dead hands nothing over: ask for a failover"));
    }
    Ok(at_ms)
}

fn later(wish: &Wish, at_ms: i64, view: &View) -> Result<ScheduledSwitchover, Reply> {
    let cluster = &view.observation.cluster;
    let member = |name: &String, unknown: &str| {
        let known = cluster.member_named(name).filter(|(_, member)| member.kind == MemberKind::Data);
        known.map(|(id, _)| id).ok_or_else(|| Reply::text(StatusCode::PRECONDITION_FAILED, unknown))
    };
    let from = wish.leader.as_ref().map(|name| member(name, "leader name does not match")).transpose()?;
    let to = wish.candidate.as_ref().map(|name| member(name, "candidate does not exists")).transpose()?;
    Ok(ScheduledSwitchover { at_ms, from, to })
}

fn now(word: Word, wish: &Wish, view: &View) -> Result<Intent, Reply> {
    let failed = |text: String| Reply::text(StatusCode::PRECONDITION_FAILED, text);
    let cluster = &view.observation.cluster;
    let holder = cluster.lease.holder();
    if word == Word::Switchover
        && (holder.is_none() || wish.leader != holder.map(|holder| cluster.name_of(holder)))
    {
        return Err(failed("leader name does not match".to_owned()));
    }
    // Patroni names these before it looks at whether the candidate is there at all.
    let is_synchronous = view.observation.policy.sync.mode == SyncMode::On;
    let is_sync_standby = |name: &str| name.parse().is_ok_and(|name| cluster.synchrony.includes(&name));
    let target = match &wish.candidate {
        Some(name) if word == Word::Switchover && is_synchronous && !is_sync_standby(name) => {
            return Err(failed("candidate name does not match with sync_standby".to_owned()));
        }
        Some(name) => {
            let known = cluster.member_named(name).filter(|(_, member)| member.kind == MemberKind::Data);
            let (id, _) = known.ok_or_else(|| failed("candidate does not exists".to_owned()))?;
            Some(id)
        }
        None if is_synchronous && !cluster.synchrony.sets.iter().any(|set| !set.names.is_empty()) => {
            return Err(failed(format!("{} is not possible: can not find sync_standby", word.lower())));
        }
        None => None,
    };
    if target.is_some() && target == holder {
        return Err(failed(format!("{} is not possible: the candidate is the leader", word.lower())));
    }
    let ranking = rank(&view.observation, holder);
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
