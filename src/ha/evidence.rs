//! What a decision about the succession rests on, in words: facts as sentences, and a verdict on each candidate.
//!
//! For people only: nothing is decided on it. It says what the rules saw, with the same ranking.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use pgherd_raft::lease::patience;
use pgherd_raft::model::{CandidateNote, Intent, MemberId, WalPosition};

use super::candidate::{Candidate, Ranking, Unfit, rank};
use super::facts::{Fact, Observation};
use super::report::own_report;
use super::sync;

/// Facts about the lease, the positions, the voters, the synchronous sets and the operator's request.
pub(super) fn facts(o: &Observation) -> Vec<String> {
    let mut facts = vec![about_lease(o)];
    facts.extend(about_positions(o));
    facts.extend(about_voters(o));
    facts.extend(about_synchrony(o));
    facts.extend(about_wishes(o));
    facts
}

fn about_lease(o: &Observation) -> String {
    let lease = &o.cluster.lease;
    let epoch = lease.epoch;
    let Some(tenure) = &lease.tenure else {
        let end = lease.left_at.map_or(String::new(), |at| format!("; the last holder's WAL ended at {at}"));
        return format!("the lease is vacant after epoch {epoch}{end}");
    };
    let name = o.cluster.name_of(tenure.holder);
    if !is_silent(o) {
        return format!("{name} holds the lease in epoch {epoch} (ttl {} ms)", tenure.ttl_ms);
    }
    let quiet = o.lease.quiet_for.as_millis();
    format!(
        "{name} holds the lease in epoch {epoch} (ttl {} ms); {} has heard no renewal for {quiet} ms",
        tenure.ttl_ms,
        o.my_name()
    )
}

fn about_positions(o: &Observation) -> Vec<String> {
    let mut facts = Vec::new();
    match own_report(o).position {
        Some(at) => facts.push(format!("{} has WAL up to {at}", o.my_name())),
        None => facts.push(format!("{} does not know its WAL position", o.my_name())),
    }
    let Some(holder) = o.cluster.lease.holder().filter(|holder| *holder != o.me) else { return facts };
    let name = o.cluster.name_of(holder);
    facts.push(match o.peers.get(&holder) {
        Some(Fact::Known { value, age }) => {
            let at = value.position.map_or_else(|| "without a position".to_owned(), |at| format!("at {at}"));
            format!("{name} last reported {} ms before, {at}", age.as_millis())
        }
        Some(Fact::Unknown(_)) | None => format!("{name} has not reported its WAL position"),
    });
    facts
}

fn about_voters(o: &Observation) -> Vec<String> {
    let lease = &o.cluster.lease;
    let all = lease.voters.len();
    let Some(closes) = o.lease.closes.as_ref().filter(|closes| closes.epoch == lease.epoch) else {
        return Vec::new();
    };
    let age = closes.age.as_millis();
    let count = |ids: &BTreeSet<MemberId>, what: &str| {
        (!ids.is_empty()).then(|| {
            format!("{} of {all} voters {what}: {} (answers {age} ms old)", ids.len(), names(o, ids))
        })
    };
    let missing: BTreeSet<MemberId> = closes.silent.union(&closes.would).copied().collect();
    [
        count(&closes.closed, &format!("closed epoch {}", lease.epoch)),
        count(&missing, "miss the holder's renewals"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn about_synchrony(o: &Observation) -> Vec<String> {
    let synchrony = &o.cluster.synchrony;
    if !synchrony.needs_standbys() {
        return Vec::new();
    }
    let sets = synchrony.sets.iter().map(sync::describe).collect::<Vec<_>>().join("; ");
    let mut facts = vec![format!("commits are acknowledged by {sets}")];
    for (id, at) in &synchrony.fences {
        facts.push(format!("{} follows nobody (fence) at {at}", o.cluster.name_of(*id)));
    }
    facts
}

fn about_wishes(o: &Observation) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(pending) = &o.cluster.intent {
        facts.push(format!("an operator asked for {}", wish(o, &pending.intent)));
    }
    if o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned) {
        facts.push("the epoch is pinned: automatic failover is paused".to_owned());
    }
    if let Some(list) = &o.cluster.failsafe {
        facts.push(format!("failsafe: only these may get the lease: {}", names(o, list)));
    }
    facts
}

/// What an operator asked for, as an object: "a switchover from a to b".
pub(super) fn wish(o: &Observation, intent: &Intent) -> String {
    let name = |id: &MemberId| o.cluster.name_of(*id);
    match intent {
        Intent::Switchover { from, to: Some(to) } => {
            format!("a switchover from {} to {}", name(from), name(to))
        }
        Intent::Switchover { from, to: None } => {
            format!("a switchover from {} to the best standby", name(from))
        }
        Intent::Failover { to, accepts_loss, holder_is_dead } => {
            let word = match (accepts_loss, holder_is_dead) {
                (_, true) => ", saying that the primary is dead",
                (true, false) => ", accepting the loss of acknowledged commits",
                (false, false) => "",
            };
            format!("a failover to {}{word}", name(to))
        }
    }
}

fn names(o: &Observation, ids: &BTreeSet<MemberId>) -> String {
    ids.iter().map(|id| o.cluster.name_of(*id)).collect::<Vec<_>>().join(", ")
}

/// A verdict on each data member, this one included; the best candidate first, the holder of the lease last.
pub(super) fn candidates(o: &Observation) -> Vec<CandidateNote> {
    let holder = o.cluster.lease.holder();
    let mut notes: Vec<(MemberId, String)> = verdicts(o, &ranking(o, holder));
    if let Some(id) = holder {
        let silent = if is_silent(o) { " and is not heard of" } else { "" };
        notes.push((id, format!("holds the lease{silent}")));
    }
    notes
        .into_iter()
        .filter_map(|(id, verdict)| {
            let name = o.cluster.members.get(&id)?.name.clone();
            Some(CandidateNote { name, verdict })
        })
        .collect()
}

/// Another member holds the lease, and this node misses its renewals.
fn is_silent(o: &Observation) -> bool {
    let others = o.cluster.lease.tenure.as_ref().filter(|tenure| tenure.holder != o.me);
    others.is_some_and(|tenure| o.lease.quiet_for > patience(Duration::from_millis(tenure.ttl_ms)))
}

/// [`rank`], and where commits wait for standbys, only those that have every acknowledged commit are candidates: by
/// their fence where there is one.
pub(super) fn ranking(o: &Observation, without: Option<MemberId>) -> Ranking {
    let mut ranking = rank(o, without);
    let synchrony = &o.cluster.synchrony;
    if !synchrony.needs_standbys() {
        return ranking;
    }
    let is_synchronous = |id: MemberId| {
        let name = o.cluster.members.get(&id).map(|member| &member.name);
        o.cluster.lease.last_holder.filter(|last| Some(*last) != without) == Some(id)
            || name.is_some_and(|name| synchrony.includes(name))
    };
    let why = "is not a synchronous standby and may lack acknowledged commits";
    exclude(&mut ranking, why, |c| !is_synchronous(c.id));
    for candidate in &mut ranking.candidates {
        if let Some(fence) = synchrony.fences.get(&candidate.id) {
            candidate.position = *fence;
        }
    }
    ranking.candidates.sort_by_cached_key(|c| {
        (Reverse(c.position), c.report.stands_back, Reverse(c.priority), o.cluster.name_of(c.id))
    });
    ranking
}

fn exclude(ranking: &mut Ranking, why: &str, is_excluded: impl Fn(&Candidate) -> bool) {
    let (out, rest) = std::mem::take(&mut ranking.candidates).into_iter().partition(|c| is_excluded(c));
    ranking.candidates = rest;
    ranking.unfit.extend(out.into_iter().map(|c| Unfit { id: c.id, why: why.to_owned() }));
}

/// What is to be said of each member of a ranking: a sentence's end after its name.
pub(super) fn verdicts(o: &Observation, ranking: &Ranking) -> Vec<(MemberId, String)> {
    let best = ranking.candidates.first();
    let fit = ranking.candidates.iter().map(|candidate| {
        let verdict = match best {
            Some(best) if best.id != candidate.id => behind(o, best, candidate),
            Some(_) | None => the_best(o, candidate),
        };
        (candidate.id, verdict)
    });
    let unfit = ranking.unfit.iter().map(|unfit| (unfit.id, unfit.why.clone()));
    fit.chain(unfit).collect()
}

fn the_best(o: &Observation, candidate: &Candidate) -> String {
    let priority = priority(o, candidate.id);
    let is = if o.cluster.lease.holder() == Some(o.me) { "would be next" } else { "is the best candidate" };
    format!("{is}: {}{}{priority}", candidate.position, fenced(o, candidate.id))
}

/// The priority is worth a word only when an operator set one.
fn priority(o: &Observation, id: MemberId) -> String {
    let tags = o.cluster.members.get(&id).map(|member| &member.tags.0);
    let is_set = tags.is_some_and(|tags| tags.iter().any(|(key, _)| key == "failover_priority"));
    let value = o.cluster.members.get(&id).map_or(0, |member| member.tags.failover_priority());
    if is_set { format!(", failover_priority {value}") } else { String::new() }
}

fn fenced(o: &Observation, id: MemberId) -> &'static str {
    if o.cluster.synchrony.fences.contains_key(&id) { " (fenced)" } else { "" }
}

fn behind(o: &Observation, best: &Candidate, candidate: &Candidate) -> String {
    let name = o.cluster.name_of(best.id);
    let at = format!("{}{}", candidate.position, fenced(o, candidate.id));
    if candidate.report.stands_back && !best.report.stands_back {
        return format!("recently failed to become writable, so {name} goes first ({at})");
    }
    match behind_by(best.position, candidate.position) {
        Some(how) => format!("{how} {name} ({at})"),
        None if best.priority > candidate.priority => format!(
            "has the same WAL position as {name} ({at}), but failover_priority {} against {}",
            candidate.priority, best.priority
        ),
        None => {
            format!("has the same WAL position and priority as {name}, whose name comes first ({at})")
        }
    }
}

fn behind_by(best: WalPosition, other: WalPosition) -> Option<String> {
    if best.timeline > other.timeline {
        return Some("is on an earlier timeline than".to_owned());
    }
    let bytes = best.lsn.bytes_after(other.lsn);
    (bytes > 0).then(|| format!("lies {bytes} bytes behind"))
}
