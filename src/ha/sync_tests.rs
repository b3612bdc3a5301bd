//! Every order in which a change of the synchronous set can go on, be interrupted, and turn round.
//!
//! A primary with two standbys writes, is acknowledged, and walks by [`next_step`] to sets which change their mind
//! meanwhile; proposals arrive late. After each event: whoever may take over, by fences of any standbys that the rule asks
//! for, has every commit that a client was told.

use std::collections::{HashSet, VecDeque};

use super::*;

const STANDBYS: [&str; 2] = ["a", "b"];
/// The sound rule is explored to its end, which comes sooner.
const MOST_STATES: usize = 2_000_000;
const LAST_COMMIT: u64 = 2;
const CHANGES_OF_MIND: u8 = 2;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    sets: Vec<SyncSet>,
    revision: u64,
    /// On its way to the log, with the revision which it replaces.
    proposed: Option<(Step, u64)>,
    /// The one before, which nobody has heard of again.
    late: Option<(Step, u64)>,
    configured: SyncSet,
    /// What the walsender of each standby has read.
    read: [SyncSet; 2],
    /// Do commits wait at all? The checkpointer's word.
    waits: bool,
    /// Seen in use, with the position at that moment.
    seen: Option<u64>,
    written: u64,
    flushed: [u64; 2],
    told: u64,
    wanted: SyncSet,
    changes: u8,
}

fn set(names: &[&str], needed: usize) -> SyncSet {
    SyncSet { names: names.iter().map(|name| name.parse().expect("valid")).collect(), needed }
}

fn wishes() -> Vec<SyncSet> {
    vec![set(&[], 0), set(&["a"], 1), set(&["b"], 1), set(&["a", "b"], 1), set(&["a", "b"], 2), set(&[], 1)]
}

/// What a mutant leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// PostgreSQL is told before the group has agreed.
    ConfigureFirst,
    /// The old set leaves although PostgreSQL may still use it.
    NarrowUnseen,
    /// The old set leaves although the new one has not caught up.
    NarrowBehind,
    /// A change that comes late is applied.
    NoRevision,
    /// A set in force may be used, although a late end of a change may take it away.
    UseAnyInForce,
    /// PostgreSQL goes from one set to any other directly.
    NoStopBetween,
}

fn step(w: &World, mutant: Mutant) -> Option<Step> {
    let agreed = Synchrony { revision: w.revision, sets: w.sets.clone(), ..Synchrony::default() };
    let since = match mutant {
        Mutant::NarrowUnseen => Some(w.written),
        Mutant::NarrowBehind => w.seen.map(|_| 0),
        Mutant::None
        | Mutant::ConfigureFirst
        | Mutant::NoRevision
        | Mutant::UseAnyInForce
        | Mutant::NoStopBetween => w.seen,
    };
    let in_use = since.map(|since| SyncInUse { set: w.configured.clone(), since: Lsn(since) });
    let flushed =
        STANDBYS.iter().zip(w.flushed).map(|(name, at)| (name.parse().expect("valid"), Lsn(at))).collect();
    let situation = Situation {
        agreed: &agreed,
        configured: &w.configured,
        in_use: in_use.as_ref(),
        flushed: &flushed,
        wanted: &w.wanted,
        me: "p",
    };
    let step = if mutant == Mutant::NoStopBetween { step_to(&situation) } else { next_step(&situation) };
    match step {
        Some(Step::Widen(to))
            if mutant == Mutant::UseAnyInForce && w.configured != to && w.sets.contains(&to) =>
        {
            Some(Step::Configure(to))
        }
        Some(Step::Widen(to)) if mutant == Mutant::ConfigureFirst && w.configured != to => {
            Some(Step::Configure(to))
        }
        step => step,
    }
}

/// All that can happen next.
fn events(w: &World, mutant: Mutant) -> Vec<World> {
    let mut next = Vec::new();
    let mut add = |change: &dyn Fn(&mut World)| {
        let mut after = w.clone();
        change(&mut after);
        if after != *w {
            next.push(after);
        }
    };
    if w.written < LAST_COMMIT {
        add(&|w| w.written += 1);
    }
    for i in 0..2 {
        add(&|w| w.flushed[i] = w.written);
    }
    let counts = |i: usize| w.read[i].names.iter().any(|name| name.as_str() == STANDBYS[i]);
    let acknowledged = |upto: u64| {
        let has = (0..2).filter(|i| counts(*i) && w.flushed[*i] >= upto).count();
        !w.waits || (0..2).any(|i| counts(i) && has >= w.read[i].needed)
    };
    if let Some(upto) = (w.told + 1..=w.written).rev().find(|upto| acknowledged(*upto)) {
        add(&|w| w.told = upto);
    }
    for i in 0..2 {
        add(&|w| w.read[i] = w.configured.clone());
    }
    let waits = !w.configured.is_asynchronous();
    add(&|w| w.waits = waits);
    if w.read.iter().all(|read| *read == w.configured) && w.waits == waits && w.seen.is_none() {
        add(&|w| w.seen = Some(w.written));
    }
    if w.changes < CHANGES_OF_MIND {
        for wish in wishes() {
            add(&|w| (w.wanted, w.changes) = (wish.clone(), w.changes + 1));
        }
    }
    match step(w, mutant) {
        Some(Step::Configure(to)) => add(&|w| (w.configured, w.seen) = (to.clone(), None)),
        Some(step) => add(&|w| {
            let next = Some((step.clone(), w.revision));
            if w.proposed != next {
                w.late = w.proposed.take();
                w.proposed = next;
            }
        }),
        None => {}
    }
    // It lands, and a copy of it stays on its way.
    for (step, revision) in w.proposed.iter().chain(&w.late) {
        if *revision == w.revision || mutant == Mutant::NoRevision {
            add(&|w| land(w, step));
        }
    }
    next
}

fn land(w: &mut World, step: &Step) {
    match step {
        Step::Widen(to) if w.sets.len() < MAX_SETS => {
            if w.sets.is_empty() {
                w.sets.push(SyncSet::default());
            }
            if w.sets.last() == Some(to) {
                return;
            }
            w.sets.retain(|set| set != to);
            w.sets.push(to.clone());
        }
        Step::Narrow(to) if w.sets.contains(to) => w.sets = vec![to.clone()],
        Step::Widen(_) | Step::Narrow(_) | Step::Configure(_) => return,
    }
    w.revision += 1;
}

/// Some standbys which satisfy the rule for a take-over by fences, and lack a commit that a client was told.
fn lost(w: &World) -> bool {
    let agreed = Synchrony { sets: w.sets.clone(), ..Synchrony::default() };
    if !agreed.can_silence() {
        return false;
    }
    (1..4_usize).any(|fenced| {
        let is_fenced = |i: usize| fenced & (1 << i) != 0;
        let counts = |set: &SyncSet| {
            let named =
                |i: &usize| is_fenced(*i) && set.names.iter().any(|name| name.as_str() == STANDBYS[*i]);
            (0..2).filter(named).count() >= set.fences_needed()
        };
        let highest = (0..2).filter(|i| is_fenced(*i)).map(|i| w.flushed[i]).max().unwrap_or(0);
        w.sets.iter().all(counts) && highest < w.told
    })
}

/// How many states there are, or the first one in which a commit would be lost.
fn explore(mutant: Mutant) -> Result<usize, Box<World>> {
    let start = World {
        sets: vec![set(&["a"], 1)],
        revision: 1,
        proposed: None,
        late: None,
        configured: set(&["a"], 1),
        read: [set(&["a"], 1), set(&["a"], 1)],
        waits: true,
        seen: Some(0),
        written: 0,
        flushed: [0, 0],
        told: 0,
        wanted: set(&["a"], 1),
        changes: 0,
    };
    let mut seen = HashSet::from([start.clone()]);
    let mut open = VecDeque::from([start]);
    while let Some(world) = open.pop_front() {
        if lost(&world) {
            return Err(Box::new(world));
        }
        for next in events(&world, mutant) {
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
        if seen.len() > MOST_STATES {
            break;
        }
    }
    Ok(seen.len())
}

#[test]
fn no_interruption_loses_what_a_client_was_told() {
    let states = explore(Mutant::None).unwrap_or_else(|world| panic!("lost: {world:#?}"));
    assert!((10_000..MOST_STATES).contains(&states), "{states} states");
}

#[test]
fn each_half_of_the_order_is_needed() {
    for (mutant, name) in [
        (Mutant::ConfigureFirst, "configured first"),
        (Mutant::NarrowUnseen, "narrowed unseen"),
        (Mutant::NarrowBehind, "narrowed behind"),
        (Mutant::NoRevision, "late changes count"),
        (Mutant::UseAnyInForce, "any set in force is used"),
        (Mutant::NoStopBetween, "directly to any set"),
    ] {
        let found = explore(mutant);
        assert!(found.is_err(), "{name} is not caught in {found:?} states");
    }
}
