//! Who is synchronous: what is wanted, and the safe next step towards it.
//!
//! Two things change: what is agreed (`Synchrony::sets`) and what PostgreSQL uses (`synchronous_standby_names`). A set is
//! agreed on, as the last one, before PostgreSQL uses it, and an old one leaves only when PostgreSQL is seen to use the new one *and* as
//! many of the new one as must acknowledge have flushed what was written until then. So at every moment, and after an
//! interruption at any moment, whatever may have been acknowledged is known to a set in force.
//!
//! PostgreSQL does not change at one moment: each walsender reads the new value for itself, counts by the one that it
//! has read, and takes from the others whether they count. From `1 (b)` to `2 (b, c)` a walsender of b that still has the
//! old value is content with c alone, whose walsender has the new one. So a change goes directly only where no mixture
//! is content with less than either of the two, else over a set between them ([`next_stop`]).

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgherd_raft::model::{Command, Lsn, MAX_SETS, MemberKind, MemberName, SyncSet, Synchrony};

use super::action::{Action, PgAction, SyncNames};
use super::candidate::REPORT_FRESH;
use super::decide::SOON;
use super::decision::{Decision, State};
use super::facts::{Observation, Sender, Server, SyncInUse};
use super::member_report::MemberReport;
use super::policy::{CommitWaitsFor, SyncMode};
use super::report::SERVER_FRESH;
use super::rule::Rule;

/// A synchronous standby whose stream broke is counted for so long: a broken connection comes back sooner, and commits
/// wait meanwhile.
const STREAM_MAY_COME_BACK: Duration = Duration::from_secs(2);

/// One that says of itself that it runs is waited for longer: it learns of a new primary by a report, and PostgreSQL may
/// retry a broken connection only after its `wal_retrieve_retry_interval`.
const RUNNING_STANDBY_COMES_BACK: Duration = Duration::from_secs(6);

/// A synchronous standby that flushes nothing for so long though there is more keeps commits waiting: its connection or
/// its disk hangs. It makes room for another one, if there are enough which get on.
const STANDBY_STALLS: Duration = Duration::from_secs(4);

/// One step. Performed by the holder; then looked at again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Agree on this set beside the others.
    Widen(SyncSet),
    /// Let PostgreSQL use it.
    Configure(SyncSet),
    /// Agree that only this set is left.
    Narrow(SyncSet),
}

/// What the next step depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What is agreed, as it was applied here.
    pub agreed: &'a Synchrony,
    /// What PostgreSQL was told to use.
    pub configured: &'a SyncSet,
    /// What it was seen to use, and what it had written then.
    pub in_use: Option<&'a SyncInUse>,
    /// What each standby has flushed, by its name.
    pub flushed: &'a BTreeMap<MemberName, Lsn>,
    /// Where to go.
    pub wanted: &'a SyncSet,
    /// The name of the primary: the sets which include it were another's.
    pub me: &'a str,
}

/// The safe next step; none: it is done, or something has to happen first.
pub fn next_step(s: &Situation<'_>) -> Option<Step> {
    step_to(&Situation { wanted: &next_stop(s), ..*s })
}

/// The wanted set, or one on the way to it which no walsender mixes up with what it may have read before.
fn next_stop(s: &Situation<'_>) -> SyncSet {
    let counts = |set: &&SyncSet| set.needed > 0 && !set.names.is_empty();
    let is_mine = |set: &&SyncSet| set.names.iter().all(|name| name.as_str() != s.me);
    let readable: Vec<&SyncSet> = s.agreed.sets.iter().filter(counts).filter(is_mine).collect();
    if !counts(&s.wanted) || readable.iter().all(|set| may_be_mixed(set, s.wanted)) {
        return s.wanted.clone();
    }
    let all = || readable.iter().copied().chain([s.wanted]);
    let names = all().flat_map(|set| set.names.iter().cloned()).collect();
    SyncSet { names, needed: all().map(|set| set.needed).min().unwrap_or(1) }
}

/// Does every mixture of walsenders that have read the one or the other wait for as many of one of the two?
fn may_be_mixed(a: &SyncSet, b: &SyncSet) -> bool {
    match a.needed.cmp(&b.needed) {
        Ordering::Less => a.names.is_superset(&b.names),
        Ordering::Greater => b.names.is_superset(&a.names),
        Ordering::Equal => a.needed == 1 || a.names.is_superset(&b.names) || b.names.is_superset(&a.names),
    }
}

fn step_to(s: &Situation<'_>) -> Option<Step> {
    if s.configured != s.wanted {
        if s.agreed.is_target(s.wanted) {
            return Some(Step::Configure(s.wanted.clone()));
        }
        if has_room(s.agreed, s.wanted) {
            return Some(Step::Widen(s.wanted.clone()));
        }
        if !s.agreed.is_target(s.configured) && s.agreed.is_in_force(s.configured) {
            return Some(Step::Widen(s.configured.clone()));
        }
        return is_settled(s, s.configured).then(|| Step::Narrow(s.configured.clone()));
    }
    if !s.agreed.is_target(s.wanted) {
        return Some(Step::Widen(s.wanted.clone()));
    }
    let is_alone = s.agreed.sets.iter().all(|set| set == s.wanted);
    (!is_alone && is_settled(s, s.wanted)).then(|| Step::Narrow(s.wanted.clone()))
}

/// Two places: the asynchronous set may have to be named beside the first other one.
fn has_room(agreed: &Synchrony, set: &SyncSet) -> bool {
    agreed.is_in_force(set) || agreed.sets.len() + 2 <= MAX_SETS
}

/// Is this set in use, and does every commit from before live on in enough of its names?
fn is_settled(s: &Situation<'_>, set: &SyncSet) -> bool {
    let Some(in_use) = s.in_use.filter(|in_use| in_use.set == *set && s.agreed.is_target(set)) else {
        return false;
    };
    let caught_up = |name: &&MemberName| s.flushed.get(*name).is_some_and(|lsn| *lsn >= in_use.since);
    set.names.iter().filter(caught_up).count() >= set.needed
}

/// The next step of a running primary, as a decision.
pub(super) fn of_primary(o: &Observation, server: &Server) -> Option<Decision> {
    let configured = &o.postgres.sync_configured;
    let wanted = wanted(o, &standbys(o, server));
    let set = wanted.set();
    let flushed = flushed(server);
    let in_use = o.postgres.sync_in_use.as_ref();
    let situation = Situation {
        agreed: &o.cluster.synchrony,
        configured: &configured.set(),
        in_use,
        flushed: &flushed,
        wanted: &set,
        me: &o.my_name(),
    };
    let Some(step) = next_step(&situation) else {
        // The same set in other words: another mode, or the operator's own value instead of an empty one.
        let is_other_text = *configured != wanted && configured.set() == set;
        return is_other_text.then(|| configure(&wanted));
    };
    Some(decision(o, step, &wanted))
}

/// Before PostgreSQL may become writable it is told to use a set in force; none: it does.
pub(super) fn before_writing(o: &Observation) -> Option<Decision> {
    let agreed = &o.cluster.synchrony;
    let configured = &o.postgres.sync_configured;
    if agreed.is_target(&configured.set()) {
        return None;
    }
    let wanted = wanted(o, &expected(o));
    if agreed.is_target(&wanted.set()) {
        return Some(configure(&wanted));
    }
    if has_room(agreed, &wanted.set()) {
        return Some(decision(o, Step::Widen(wanted.set()), &wanted));
    }
    let last = agreed.sets.last().cloned().unwrap_or_default();
    Some(configure(&SyncNames::Agreed { set: last, any: wanted.is_any() }))
}

/// Before a standby is promoted: PostgreSQL must be seen to use a set that is agreed on, or under which nobody
/// acknowledges anything; none: it does.
///
/// Whether commits wait at all is told to the sessions by the checkpointer alone, which may be in the middle of a long
/// restartpoint: a value written at the last moment would come too late, and the first commits would be acknowledged by
/// nobody else. So a standby keeps a value under which everything waits ([`for_standby`]), and starts its time as the
/// primary with that one, or with the one that follows it meanwhile ([`while_promoted`]).
pub(super) fn before_promotion(o: &Observation) -> Option<Decision> {
    if o.policy.sync.mode == SyncMode::Off {
        return before_writing(o);
    }
    let (agreed, configured) = (&o.cluster.synchrony, o.postgres.sync_configured.set());
    let is_standby =
        |name: &MemberName| o.cluster.member_named(name.as_str()).is_some_and(|(id, _)| id != o.me);
    if configured.is_asynchronous() || !configured.names.iter().all(is_standby) {
        return Some(configure(&waiting(o)));
    }
    if o.postgres.sync_in_use.as_ref().is_none_or(|in_use| in_use.set != configured) {
        let because = "commits must wait for standbys from the first one on";
        return Some(
            Decision::new(State::Promoting, Rule::ConfigureSync, because, SOON)
                .wait("PostgreSQL to use its synchronous_standby_names"),
        );
    }
    let is_silent = configured.names.len() < configured.needed;
    if is_silent || agreed.is_target(&configured) {
        return None;
    }
    // Without room it goes on with more than is agreed: nobody is told anything under it, and the next step makes room.
    has_room(agreed, &configured).then(|| decision(o, Step::Widen(configured.clone()), &waiting(o)))
}

/// While a standby is promoted: the step towards the set of the standbys that are about to follow it, so that its first
/// commit waits for their streams and for nothing else.
pub(super) fn while_promoted(o: &Observation) -> Option<Action> {
    let wanted = wanted(o, &expected(o));
    let set = wanted.set();
    let configured = o.postgres.sync_configured.set();
    if set.is_asynchronous() || configured.is_asynchronous() {
        return None;
    }
    let situation = Situation {
        agreed: &o.cluster.synchrony,
        configured: &configured,
        in_use: None,
        flushed: &BTreeMap::new(),
        wanted: &set,
        me: &o.my_name(),
    };
    let step = next_step(&situation)?;
    let may_be_done = match &step {
        Step::Widen(_) | Step::Configure(_) => true,
        Step::Narrow(_) => false,
    };
    may_be_done.then(|| decision(o, step, &wanted).actions.into_iter().next()).flatten()
}

/// A standby is told to use the set under which nobody acknowledges, for the moment of its promotion; none: it does.
pub(super) fn for_standby(o: &Observation) -> Option<Decision> {
    let wanted = waiting(o);
    if o.policy.sync.mode == SyncMode::Off || o.postgres.sync_configured.set() == wanted.set() {
        return None;
    }
    let because = "as a primary it would wait for standbys from the first commit on";
    Some(
        Decision::new(State::Standby, Rule::ConfigureSync, because, SOON)
            .act(Action::Postgres(PgAction::SetSync { names: wanted })),
    )
}

fn waiting(o: &Observation) -> SyncNames {
    let set = SyncSet { names: BTreeSet::new(), needed: 1 };
    SyncNames::Agreed { set, any: o.policy.sync.mode == SyncMode::Quorum }
}

fn decision(o: &Observation, step: Step, wanted: &SyncNames) -> Decision {
    let (epoch, revision) = (o.cluster.lease.epoch, o.cluster.synchrony.revision);
    let primary = |rule, because: String| Decision::new(State::Primary, rule, because, SOON);
    match step {
        Step::Widen(to) => {
            primary(Rule::WidenSync, format!("{} may acknowledge from here on", describe(&to)))
                .act(Action::Propose(Command::WidenSync { epoch, revision, to }))
                .wait("the agreement of the group")
        }
        Step::Configure(set) => configure(&match wanted {
            SyncNames::Agreed { any, .. } => SyncNames::Agreed { set, any: *any },
            SyncNames::Own => SyncNames::Own,
        }),
        Step::Narrow(to) => {
            primary(Rule::NarrowSync, format!("only {} acknowledges from here on", describe(&to)))
                .act(Action::Propose(Command::NarrowSync { epoch, revision, to }))
                .wait("the agreement of the group")
        }
    }
}

fn configure(names: &SyncNames) -> Decision {
    let because = match names {
        SyncNames::Own => "Disabled synchronous replication".to_owned(),
        SyncNames::Agreed { set, .. } => {
            let names: Vec<String> = set.names.iter().map(|name| format!("'{name}'")).collect();
            format!("Assigning synchronous standby status to [{}], {} needed", names.join(", "), set.needed)
        }
    };
    Decision::new(State::Primary, Rule::ConfigureSync, because, SOON)
        .act(Action::Postgres(PgAction::SetSync { names: names.clone() }))
}

/// The warning about a strict primary without standbys, in the words that operators of Patroni look for.
pub const STRICT_ALONE: &str =
    "No active replication connections from Patroni members and synchronous_mode_strict is requested";

/// A primary whose commits must wait for standbys, and has none: its old `synchronous_standby_names` stay.
pub fn is_strict_and_alone(o: &Observation) -> bool {
    let sync = &o.policy.sync;
    let server = o.postgres.server.within(SERVER_FRESH).filter(|server| !server.is_in_recovery);
    let streams = |server: &Server| {
        let mut senders = server.senders.iter().filter(|sender| sender.state == "streaming");
        senders.any(|sender| o.cluster.member_named(&sender.application_name).is_some())
    };
    sync.mode != SyncMode::Off
        && sync.strict
        && o.cluster.lease.holder() == Some(o.me)
        && server.is_some_and(|server| !streams(server))
}

/// Is a change under way that no event brings on?
pub(super) fn is_changing(o: &Observation) -> bool {
    o.cluster.synchrony.sets.len() > 1
}

/// A set in words.
pub(super) fn describe(set: &SyncSet) -> String {
    let names = set.names.iter().map(MemberName::as_str).collect::<Vec<_>>().join(", ");
    match set.needed {
        0 => "the primary alone".to_owned(),
        needed if set.names.is_empty() => format!("nobody ({needed} of no standbys)"),
        needed => format!("{needed} of ({names})"),
    }
}

/// A standby that could be synchronous.
struct Standby {
    name: MemberName,
    priority: i64,
    lsn: Lsn,
}

/// Members that stream from this primary, or did a moment ago, and may be synchronous.
fn standbys(o: &Observation, server: &Server) -> Vec<Standby> {
    let present = o.postgres.sync_configured.set();
    let mut found = Vec::new();
    for (name, priority) in eligible(o, Absent::DoNot) {
        let mut senders = server.senders.iter().filter(|sender| sender.application_name == name.as_str());
        let streaming = senders.find(|sender| sender.state == "streaming");
        let went = o.postgres.left_stream.get(name.as_str());
        let patience = if runs(o, &name) { RUNNING_STANDBY_COMES_BACK } else { STREAM_MAY_COME_BACK };
        let may_come_back = present.names.contains(&name) && went.is_some_and(|ago| *ago < patience);
        match streaming {
            Some(sender) => {
                found.push(Standby { name, priority, lsn: acknowledged(o.policy.sync.waits_for, sender) })
            }
            // Its lag is not known while it is away: it counts as having none.
            None if may_come_back => found.push(Standby { name, priority, lsn: server.position.lsn }),
            None => {}
        }
    }
    let best = found.iter().map(|standby| standby.lsn).max().unwrap_or_default();
    let limit = o.policy.sync.maximum_lag;
    found.retain(|standby| limit.is_none_or(|limit| best.bytes_after(standby.lsn) <= limit));
    let stalled = |name: &MemberName| o.postgres.stalled_stream.get(name.as_str());
    let gets_on = |standby: &Standby| stalled(&standby.name).is_none_or(|time| *time < STANDBY_STALLS);
    if found.iter().filter(|standby| gets_on(standby)).count() >= o.policy.sync.node_count {
        found.retain(gets_on);
    }
    found
}

/// Does this member say that its PostgreSQL runs as a standby?
fn runs(o: &Observation, name: &MemberName) -> bool {
    let report = o.cluster.member_named(name.as_str()).and_then(|(id, _)| o.report(id, REPORT_FRESH));
    report.is_some_and(|report| report.is_running && report.is_in_recovery == Some(true))
}

/// How far a standby is depends on what commits wait for.
fn acknowledged(waits_for: CommitWaitsFor, sender: &Sender) -> Lsn {
    let position = match waits_for {
        CommitWaitsFor::Replay => sender.replayed,
        CommitWaitsFor::Write => sender.written,
        CommitWaitsFor::Flush => sender.flushed,
    };
    position.unwrap_or_default()
}

/// Members that should stream from this node once it is the primary: they report, and none of them streams yet.
fn expected(o: &Observation) -> Vec<Standby> {
    let reports = eligible(o, Absent::DoNot).into_iter().filter_map(|(name, priority)| {
        let (id, _) = o.cluster.member_named(name.as_str())?;
        let report = o.report(id, REPORT_FRESH)?;
        let is_standby = report.is_in_recovery == Some(true) && report.is_running;
        is_standby.then_some(Standby { name, priority, lsn: report.position?.lsn })
    });
    reports.collect()
}

/// What counts of members that stop or have stopped, or would stream from another standby.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Count,
    DoNot,
}

fn eligible(o: &Observation, absent: Absent) -> Vec<(MemberName, i64)> {
    let me = o.my_name();
    let members = o.cluster.members.iter().filter(|(id, member)| {
        let is_about_to_stop = |report: &MemberReport| report.shutting_down || report.leaves_sync;
        let leaves =
            o.cluster.leaving.contains(*id) || o.report(**id, REPORT_FRESH).is_some_and(is_about_to_stop);
        let cascades = member.tags.text("replicatefrom").is_some_and(|from| from != me);
        let counts = !(leaves || cascades) || absent == Absent::Count;
        **id != o.me && member.kind == MemberKind::Data && counts
    });
    let named = members.map(|(_, member)| (member.name.clone(), member.tags.sync_priority()));
    named.filter(|(_, priority)| *priority > 0).collect()
}

/// What PostgreSQL should use, given these standbys.
fn wanted(o: &Observation, standbys: &[Standby]) -> SyncNames {
    let sync = &o.policy.sync;
    let any = match sync.mode {
        SyncMode::Off => return SyncNames::Own,
        SyncMode::On => false,
        SyncMode::Quorum => true,
    };
    let present = o.postgres.sync_configured.set();
    let set = match (standbys, sync.strict) {
        ([], false) => SyncSet::default(),
        ([], true) if present.is_asynchronous() => SyncSet { names: BTreeSet::new(), needed: 1 },
        ([], true) if present.names.is_empty() => chosen(o, &absent(o), any).unwrap_or(present),
        ([], true) => present,
        (standbys, _) => chosen(o, standbys, any).unwrap_or_default(),
    };
    SyncNames::Agreed { set, any }
}

/// Of a new primary in strict mode to which nobody streams yet: the others, as if it had been theirs to wait for before.
fn absent(o: &Observation) -> Vec<Standby> {
    let took_over = o.cluster.members.get(&o.me).is_some_and(|me| o.cluster.synchrony.includes(&me.name));
    let others = eligible(o, Absent::Count).into_iter().filter(|_| took_over);
    others.map(|(name, priority)| Standby { name, priority, lsn: Lsn::default() }).collect()
}

/// The best of these; none: there are none.
fn chosen(o: &Observation, standbys: &[Standby], any: bool) -> Option<SyncSet> {
    let present = o.postgres.sync_configured.set();
    let mut order: Vec<&Standby> = standbys.iter().collect();
    order.sort_by_key(|standby| {
        let priority = if any { 0 } else { standby.priority };
        (Reverse((priority, present.names.contains(&standby.name), standby.lsn)), &standby.name)
    });
    let take = if any { order.len() } else { o.policy.sync.node_count };
    let names: BTreeSet<MemberName> =
        order.into_iter().take(take).map(|standby| standby.name.clone()).collect();
    let needed = o.policy.sync.node_count.min(names.len());
    (!names.is_empty()).then_some(SyncSet { names, needed })
}

fn flushed(server: &Server) -> BTreeMap<MemberName, Lsn> {
    let mut flushed = BTreeMap::new();
    for sender in server.senders.iter().filter(|sender| sender.state == "streaming") {
        if let (Ok(name), Some(lsn)) = (sender.application_name.parse::<MemberName>(), sender.flushed) {
            flushed.insert(name, lsn);
        }
    }
    flushed
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
