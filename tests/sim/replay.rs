//! Runs seeds, shows how to run one again, and sums up.

use std::collections::BTreeMap;

use crate::faults::{ALL, Fault};
use crate::world::{Mutant, Setting, World};

const SEEDS: u64 = 150;
/// A mutant has to be caught within so many seeds.
const MUTANT_SEEDS: u64 = 4000;

const THREE: Setting = Setting { witness: false, harsh: false, faults: &ALL, mutant: None };
const WITNESS: Setting = Setting { witness: true, ..THREE };
const HARSH: Setting = Setting { harsh: true, ..THREE };

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Default)]
struct Sum {
    faults: BTreeMap<Fault, u64>,
    takeovers: u64,
    lost: u64,
    twice: u64,
    late: u64,
}

impl Sum {
    fn add(&mut self, world: &World) {
        for (fault, count) in &world.faults.counts {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.takeovers += world.takeovers;
        self.lost += world.network.lost;
        self.twice += world.network.twice;
        self.late += world.network.late;
    }
}

fn run(setting: Setting, name: &str) {
    let only = number("PGHERD_SIM_SEED");
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..number("PGHERD_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let mut sum = Sum::default();
    for seed in seeds {
        let mut world = World::new(seed, setting);
        let outcome = world.run();
        if only.is_some() {
            println!("{}", world.trace.join("\n"));
        }
        if let Err(broken) = outcome {
            let last = world.trace.len().saturating_sub(60);
            println!("{}", world.trace[last..].join("\n"));
            panic!(
                "seed {seed}: {broken}\nrun it again: PGHERD_SIM_SEED={seed} cargo test --test sim {name} -- --exact --nocapture"
            );
        }
        sum.add(&world);
    }
    println!("{name}: {count} seeds, {} takeovers", sum.takeovers);
    println!("  messages lost {}, twice there {}, late {}", sum.lost, sum.twice, sum.late);
    for fault in ALL {
        println!("  {fault:?} {}", sum.faults.get(&fault).copied().unwrap_or_default());
    }
    if count >= 20 {
        let idle: Vec<_> = ALL.iter().filter(|fault| !sum.faults.contains_key(fault)).collect();
        assert!(idle.is_empty(), "these faults never took effect: {idle:?}");
        assert!(sum.takeovers > 0 && sum.lost > 0 && sum.twice > 0 && sum.late > 0, "nothing happened");
    }
}

#[test]
fn three_data_nodes_never_have_two_writers_and_come_together() {
    run(THREE, "replay::three_data_nodes_never_have_two_writers_and_come_together");
}

#[test]
fn two_data_nodes_and_a_witness_never_have_two_writers_and_come_together() {
    run(WITNESS, "replay::two_data_nodes_and_a_witness_never_have_two_writers_and_come_together");
}

#[test]
fn late_messages_never_make_two_writers() {
    run(HARSH, "replay::late_messages_never_make_two_writers");
}

#[test]
fn a_seed_determines_everything() {
    let trace = |seed| {
        let mut world = World::new(seed, THREE);
        // A failure is shown by the other tests.
        drop(world.run());
        world.trace
    };
    let first = trace(7);
    assert!(first.len() > 50, "nothing happened");
    assert_eq!(first, trace(7));
    assert_ne!(first, trace(8));
}

fn caught(mutant: Mutant, setting: Setting) {
    let setting = Setting { mutant: Some(mutant), ..setting };
    let found = (0..MUTANT_SEEDS).find_map(|seed| {
        let mut world = World::new(seed, setting);
        let broken = world.run().err()?;
        world.broken.is_some().then_some((seed, broken))
    });
    let (seed, broken) = found.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
    println!("{mutant:?} caught with seed {seed}: {broken}");
    let sound = World::new(seed, Setting { mutant: None, ..setting }).run();
    assert_eq!(sound, Ok(()), "the same seed with all rules");
}

#[test]
fn counting_from_the_answer_is_caught() {
    let faults = &[Fault::StopDaemon, Fault::Isolate];
    caught(Mutant::CountFromAnswer, Setting { faults, ..HARSH });
}

#[test]
fn an_idle_guard_is_caught() {
    caught(Mutant::GuardIgnored, THREE);
}

#[test]
fn closing_without_waiting_is_caught() {
    caught(Mutant::CloseAtOnce, THREE);
}

#[test]
fn a_voter_that_forgets_its_start_is_caught() {
    let faults = &[Fault::KillDaemon, Fault::TwoWay, Fault::OneWay];
    caught(Mutant::ForgetfulVoter, Setting { faults, ..THREE });
}

#[test]
fn a_promotion_without_a_reserved_number_is_caught() {
    caught(Mutant::NextTimeline, THREE);
}
