//! Runs seeds, shows how to run one again, and sums up.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::mutants::{CASES, Case};
use crate::reach::Sum;
use crate::world::World;
use crate::worlds::{KINDS, Setting};

/// A mutant has to be caught within so many seeds from the one that is known to catch it.
const MUTANT_SEEDS: u64 = 4_000;

/// Which seeds of which kinds of world.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// A kind of world by name, or a mutant; none: all kinds.
    pub name: Option<String>,
    /// The first seed.
    pub first: u64,
    /// How many of each kind; none: as many as the tests run.
    pub seeds: Option<u64>,
}

/// Runs seeds, and says what was met.
///
/// # Errors
/// The first broken invariant with the command that shows it again, or what no seed has met although it should.
pub fn run(chosen: &Chosen) -> Result<String, String> {
    let (mut text, mut total) = (String::new(), Sum::default());
    let named = |name: &str| chosen.name.as_ref().is_none_or(|wanted| wanted == name);
    let kinds: Vec<_> = KINDS.iter().filter(|kind| named(kind.name)).collect();
    if kinds.is_empty() {
        return Err(format!("no such kind of world: {}", KINDS.map(|kind| kind.name).join(", ")));
    }
    for kind in kinds {
        let seeds: Vec<u64> = (chosen.first..).take(usize_of(chosen.seeds.unwrap_or(kind.seeds))).collect();
        let sums = in_parallel(&seeds, |seed| sum_of(kind.name, kind.setting, *seed))?;
        let mut sum = Sum::default();
        sums.iter().for_each(|one| sum.merge(one));
        total.merge(&sum);
        write!(text, "{}: {sum}", kind.name).expect("a string");
    }
    if chosen.name.is_none() && total.seeds >= KINDS.iter().map(|kind| kind.seeds).sum() {
        write!(text, "all: {total}").expect("a string");
        let unmet = total.unmet();
        if !unmet.is_empty() {
            return Err(format!("{text}never met: {}", unmet.join(", ")));
        }
    }
    Ok(text)
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).expect("fits in memory")
}

fn sum_of(name: &str, setting: Setting, seed: u64) -> Result<Sum, String> {
    let mut world = World::new(seed, setting);
    let outcome = world.run();
    let mut sum = Sum::default();
    match outcome {
        Ok(()) => sum.add(&world),
        Err(broken) => {
            let told = trace(name, seed)?.0;
            let last = told[told.len().saturating_sub(60)..].join("\n");
            return Err(format!(
                "{last}\n{name}, seed {seed}: {broken}\nwhat happened: cargo run -q -p pgherd-sim -- {name} --seed {seed}"
            ));
        }
    }
    Ok(sum)
}

/// One thread for each core; the first error ends all.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    one: impl Fn(&T) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut done = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            match one(item) {
                Ok(result) => done.push(result),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let parts: Vec<Result<Vec<R>, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|failure| std::panic::resume_unwind(failure))
        };
        threads.into_iter().map(join).collect()
    });
    let mut all = Vec::new();
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// What happened in one seed, and how it ended.
///
/// # Errors
/// There is no such kind of world.
pub fn trace(name: &str, seed: u64) -> Result<(Vec<String>, Result<(), String>), String> {
    let kind = KINDS.iter().find(|kind| kind.name == name);
    let mutant = CASES.iter().find(|case| case.name() == name).map(Case::setting);
    let setting = kind.map(|kind| kind.setting).or(mutant);
    let setting = setting.ok_or_else(|| format!("{name} is neither a kind of world nor a mutant"))?;
    let mut world = World::new(seed, setting);
    world.is_told = true;
    let outcome = world.run();
    Ok((world.trace, outcome))
}

/// Switches the rules off one by one; says which seed notices.
///
/// # Errors
/// A mutant that nothing notices, or a seed that fails although no rule is off.
pub fn mutants(chosen: &Chosen) -> Result<String, String> {
    let named = |name: &str| chosen.name.as_ref().is_none_or(|wanted| wanted == name);
    let cases: Vec<&Case> = CASES.iter().filter(|case| named(&case.name())).collect();
    let mut lines = in_parallel(&cases, |case| {
        let first = if chosen.name.is_some() && chosen.first > 0 { chosen.first } else { case.seed };
        caught(case, first, chosen.seeds.unwrap_or(MUTANT_SEEDS))
    })?;
    lines.sort();
    if lines.is_empty() {
        return Err(format!("no such mutant: {:?}", CASES.map(|case| case.name())));
    }
    Ok(lines.join("\n"))
}

/// The seed of a case is known to catch it; after changes elsewhere another one near it may be needed.
fn caught(case: &Case, first: u64, seeds: u64) -> Result<String, String> {
    let name = case.name();
    let found = (first..first + seeds).find_map(|seed| {
        let mut world = World::new(seed, case.setting());
        let broken = world.run().err()?;
        world.broken.is_some().then_some((seed, broken))
    });
    let (seed, broken) = found.ok_or_else(|| format!("{name} was not noticed in {seeds} seeds"))?;
    match World::new(seed, Setting { mutant: None, ..case.setting() }).run() {
        Ok(()) => Ok(format!("{name} caught with seed {seed}: {broken}")),
        Err(error) => Err(format!("{name}, seed {seed} with all rules: {error}")),
    }
}
