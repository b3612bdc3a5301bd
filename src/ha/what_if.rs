//! Who would take over if a member died at this moment, and why the others would not: the rules of the succession,
//! asked about what is observed now.
//!
//! It is a forecast by one member's present knowledge. Positions move on, so the best of several equal standbys may
//! change until the moment comes.

use std::collections::BTreeSet;
use std::time::Duration;

use pgherd_raft::lease::patience;
use pgherd_raft::model::{MemberId, MemberKind, MemberName, SyncSet};
use serde::{Deserialize, Serialize};

use super::candidate::{REPORT_FRESH, Ranking};
use super::evidence;
use super::facts::{Fact, Observation};
use super::failsafe;
use super::report::own_report;
use super::sync;

/// An id that no member has: the one who looks when the primary itself is asked about its death.
const NOBODY: MemberId = MemberId(0);
/// From the granted lease to the first write, usually.
const PROMOTION: Duration = Duration::from_millis(500);

/// The answer to "what if NAME died now?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// The member that would die.
    pub member: String,
    /// What it is: `primary`, `standby` or `witness`.
    pub role: String,
    /// Whose observation this is.
    pub seen_by: String,
    /// The next primary; none: nobody, or nothing would change.
    pub would_take_over: Option<String>,
    /// Would clients be able to write again, or go on writing, without a person?
    pub writing_goes_on: bool,
    /// One sentence.
    pub because: String,
    /// What would be waited for, in order.
    pub waits: Vec<Wait>,
    /// The other members, and why they would not take over.
    pub others: Vec<Other>,
    /// What an operator should know before it happens.
    pub warnings: Vec<String>,
}

/// Something that would be waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// What.
    pub what: String,
    /// About how long, in milliseconds.
    pub about_ms: u64,
}

/// A member that would not take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Who.
    pub name: String,
    /// A sentence's end: "NAME `why_not`".
    pub why_not: String,
}

/// Forecasts the death of a member; none: there is no such member.
pub fn what_if(o: &Observation, name: &str) -> Option<Forecast> {
    let (id, member) = o.cluster.member_named(name)?;
    let is_primary = o.cluster.lease.holder() == Some(id);
    let role = match member.kind {
        MemberKind::Witness => "witness",
        MemberKind::Data if is_primary => "primary",
        MemberKind::Data => "standby",
    };
    let mut forecast = Forecast {
        member: name.to_owned(),
        role: role.to_owned(),
        seen_by: o.my_name(),
        would_take_over: None,
        writing_goes_on: true,
        because: String::new(),
        waits: Vec::new(),
        others: Vec::new(),
        warnings: Vec::new(),
    };
    if is_primary {
        primary_dies(o, id, &mut forecast);
    } else {
        another_dies(o, id, &mut forecast);
    }
    Some(forecast)
}

/// The members that answer, as far as this node knows, without the one that dies. A witness sends no reports: only the
/// holder knows of its answers, and the others take it for living.
fn living(o: &Observation, without: MemberId) -> BTreeSet<MemberId> {
    let is_holder = o.cluster.lease.holder() == Some(o.me);
    let lives = |id: MemberId, kind: MemberKind| match kind {
        MemberKind::Data => id == o.me || o.report(id, REPORT_FRESH).is_some(),
        MemberKind::Witness => !is_holder || o.lease.answering.contains(&id),
    };
    let members = o.cluster.members.iter().filter(|(id, member)| **id != without && lives(**id, member.kind));
    members.map(|(id, _)| *id).collect()
}

/// Some: without this member there is no majority. The sentence says which.
fn lost_majority(o: &Observation, without: MemberId) -> Option<String> {
    let living = living(o, without);
    let groups = [("the lease's voters", &o.cluster.lease.voters), ("the Raft voters", &o.consensus.voters)];
    let lacking = groups.into_iter().find_map(|(what, voters)| {
        let left: Vec<String> = voters.intersection(&living).map(|id| o.cluster.name_of(*id)).collect();
        let is_lost = !voters.is_empty() && left.len() * 2 <= voters.len();
        is_lost.then_some((what, left, voters.len()))
    });
    lacking.map(|(what, left, all)| {
        let names = if left.is_empty() { String::new() } else { format!(" ({})", left.join(", ")) };
        format!("only {} of {all} of {what} would be left{names}, which is no majority", left.len())
    })
}

fn primary_dies(o: &Observation, dead: MemberId, forecast: &mut Forecast) {
    let name = o.cluster.name_of(dead);
    let hypothetical = without_primary(o, dead);
    let mut ranking = evidence::ranking(&hypothetical, Some(dead));
    if o.cluster.synchrony.needs_standbys() {
        let living = living(o, dead);
        if let Some(why) = too_few_fences(o, &living) {
            forecast.others = others(&hypothetical, &ranking, None);
            return nobody(forecast, why);
        }
    }
    if let Some(why) = lost_majority(o, dead) {
        forecast.others = others(&hypothetical, &ranking, None);
        return nobody(forecast, why);
    }
    if o.cluster.lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned) {
        forecast.others = others(&hypothetical, &ranking, None);
        return nobody(forecast, "automatic failover is paused (pgherdctl resume, or failover)".to_owned());
    }
    // The dead one's own word on a request of an operator does not matter: the request ends with it, or names another.
    let Some(best) = ranking.candidates.first().map(|best| best.id) else {
        forecast.others = others(&hypothetical, &ranking, None);
        return nobody(forecast, format!("no other member could follow {name}"));
    };
    forecast.because = evidence::verdicts(&hypothetical, &ranking)
        .into_iter()
        .find(|(id, _)| *id == best)
        .map(|(_, verdict)| format!("{} {verdict}", o.cluster.name_of(best)))
        .unwrap_or_default();
    forecast.waits = waits(o);
    forecast.others = others(&hypothetical, &ranking, Some(best));
    forecast.would_take_over = Some(o.cluster.name_of(best));
    ranking.candidates.retain(|candidate| candidate.id != best);
    if ranking.candidates.is_empty() {
        forecast.warnings.push(format!("nobody could follow {} after that", o.cluster.name_of(best)));
    }
}

/// What another member would see: the primary's last report is what it says now.
fn without_primary(o: &Observation, dead: MemberId) -> Observation {
    let mut hypothetical = o.clone();
    if dead == o.me {
        hypothetical.peers.insert(dead, Fact::fresh(own_report(o)));
        hypothetical.me = NOBODY;
    }
    hypothetical
}

fn nobody(forecast: &mut Forecast, why: String) {
    forecast.warnings.insert(0, format!("writing would end until a person acts or members come back: {why}"));
    forecast.because = why;
    forecast.writing_goes_on = false;
}

/// Could the rest fence so many of each set that it knows every acknowledged commit?
fn too_few_fences(o: &Observation, living: &BTreeSet<MemberId>) -> Option<String> {
    let sets = o.cluster.synchrony.sets.iter().filter(|set| !set.is_asynchronous());
    sets.map(|set| (set, living_names(o, set, living))).find_map(|(set, names)| {
        let needed = set.fences_needed();
        (names.len() < needed).then(|| {
            format!(
                "commits are acknowledged by {}, so {needed} of these have to be asked for what they have, and {}",
                sync::describe(set),
                if names.is_empty() { "none answers".to_owned() } else { format!("only {} answers", names.join(", ")) }
            )
        })
    })
}

fn living_names(o: &Observation, set: &SyncSet, living: &BTreeSet<MemberId>) -> Vec<String> {
    let names = living.iter().filter_map(|id| Some(&o.cluster.members.get(id)?.name));
    names.filter(|name| set.names.contains(*name)).map(MemberName::to_string).collect()
}

fn waits(o: &Observation) -> Vec<Wait> {
    let Some(tenure) = &o.cluster.lease.tenure else { return Vec::new() };
    let wait = |what: String, time: Duration| Wait {
        what,
        about_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    };
    let ttl = Duration::from_millis(tenure.ttl_ms);
    let is_fast = o.policy.sync.fast_failover && o.cluster.synchrony.can_silence();
    let first = if is_fast {
        let sets = o.cluster.synchrony.sets.iter();
        let fences = sets.map(|set| format!("{} of {}", set.fences_needed(), names_of(set)));
        let fences = fences.collect::<Vec<_>>().join("; ");
        wait(format!("three renewals are missed, and the fences of {fences}"), patience(ttl))
    } else {
        wait("the lease expires".to_owned(), Duration::from_millis(tenure.wait_ms))
    };
    vec![first, wait("the promotion".to_owned(), PROMOTION)]
}

fn names_of(set: &SyncSet) -> String {
    format!("({})", set.names.iter().map(MemberName::as_str).collect::<Vec<_>>().join(", "))
}

/// Everybody but the dead one and its successor, witnesses included.
fn others(o: &Observation, ranking: &Ranking, successor: Option<MemberId>) -> Vec<Other> {
    let mut verdicts = evidence::verdicts(o, ranking);
    verdicts.retain(|(id, _)| Some(*id) != successor);
    if let (None, Some(best), Some((_, verdict))) =
        (successor, ranking.candidates.first(), verdicts.first_mut())
    {
        *verdict = format!("would be the next primary, but for that ({})", best.position);
    }
    let witnesses = o.cluster.members.iter().filter(|(_, member)| member.kind == MemberKind::Witness);
    let witnesses =
        witnesses.map(|(id, _)| (*id, "is a witness: it votes, and has no PostgreSQL".to_owned()));
    verdicts
        .into_iter()
        .chain(witnesses)
        .map(|(id, why_not)| Other { name: o.cluster.name_of(id), why_not })
        .collect()
}

fn another_dies(o: &Observation, dead: MemberId, forecast: &mut Forecast) {
    let name = o.cluster.name_of(dead);
    let Some(holder) = o.cluster.lease.holder() else {
        forecast.because = format!("there is no primary, and {name} is none");
        forecast.writing_goes_on = false;
        forecast.warnings.push("there is no primary at this moment".to_owned());
        return;
    };
    let primary = o.cluster.name_of(holder);
    forecast.because = format!("{name} is not the primary: {primary} stays it");
    if let Some(why) = lost_majority(o, dead) {
        if let Some(names) = failsafe::would_carry(o, &living(o, dead)) {
            forecast.because =
                format!("{primary} would go on without a majority while {names} (failsafe): {why}");
            forecast.warnings.push(format!("nobody could take over from {primary} until a majority is back"));
            return;
        }
        let ttl_ms = o.cluster.lease.tenure.as_ref().map_or(0, |tenure| tenure.ttl_ms);
        forecast.because = format!("{primary} could not renew its lease and would stop PostgreSQL: {why}");
        forecast.waits = vec![Wait { what: "the lease expires".to_owned(), about_ms: ttl_ms }];
        forecast.warnings.push(format!("writing would end within {ttl_ms} ms: {why}"));
        forecast.writing_goes_on = false;
        return;
    }
    synchronous_standby_dies(o, dead, &primary, forecast);
    let after = without_primary(o, holder);
    let mut ranking = evidence::ranking(&after, Some(holder));
    ranking.candidates.retain(|candidate| candidate.id != dead);
    if ranking.candidates.is_empty() {
        forecast.warnings.push(format!("nobody could follow {primary} after that"));
    }
}

fn synchronous_standby_dies(o: &Observation, dead: MemberId, primary: &str, forecast: &mut Forecast) {
    let Some(member) = o.cluster.members.get(&dead) else { return };
    let mut living = living(o, dead);
    living.remove(&dead);
    let sets = o.cluster.synchrony.sets.iter().filter(|set| set.names.contains(&member.name));
    let short =
        sets.map(|set| (set, living_names(o, set, &living).len())).find(|(set, left)| *left < set.needed);
    let Some((set, _)) = short else { return };
    let others = living.iter().filter(|id| {
        let is_data = o.cluster.is_data_member(**id) && o.cluster.lease.holder() != Some(**id);
        let tags = o.cluster.members.get(id).map(|member| &member.tags);
        is_data && tags.is_some_and(|tags| !tags.flag("nosync"))
    });
    let described = sync::describe(set);
    match (o.policy.sync.strict, others.count()) {
        (true, 0) => {
            forecast.writing_goes_on = false;
            forecast.warnings.push(format!(
                "commits would hang: they wait for {described}, no other standby is left, and synchronous_mode_strict is on"
            ));
        }
        (false, 0) => forecast.warnings.push(format!(
            "commits would wait some seconds for {described}; then {primary} would acknowledge alone (no standby is left)"
        )),
        (_, _) => forecast.warnings.push(format!(
            "commits would wait some seconds for {described}, until {primary} has chosen another standby"
        )),
    }
}
