//! Synchronous sets, fences, take-over.

use super::{MUTANT, QUICK, Scenario};
use crate::search::{Limits, search};
use crate::synchrony::{ALONE, Rules, Set, Synchrony, UNSATISFIABLE};

/// Every quorum of `n` nodes: some of the names, and any number of them that is needed.
pub fn quorums(n: u32) -> Vec<Set> {
    let with = |names: u8| (1..=names.count_ones() as u8).map(move |needed| Set { names, needed });
    (1..1u8 << n).flat_map(with).collect()
}

/// Any one of all the others.
fn one_of_all(n: u32) -> Vec<Set> {
    let all = (1u8 << n) - 1;
    (0..n).map(|primary| Set { names: all & !(1 << primary), needed: 1 }).collect()
}

fn model<const N: usize>(first: Set, sets: Vec<Set>) -> Synchrony<N> {
    Synchrony {
        rules: Rules::sound(),
        epochs: 3,
        first,
        sets,
        is_silent: false,
        changes: true,
        restarts: 0,
        copies: 0,
    }
}

fn sound<const N: usize>(name: &'static str, model: Synchrony<N>) -> Scenario {
    Scenario {
        name,
        is_mutant: false,
        quick: QUICK,
        search: Box::new(move |limits: Limits| search(&model, limits)),
    }
}

fn mutant<const N: usize>(name: &'static str, mut model: Synchrony<N>, change: fn(&mut Rules)) -> Scenario {
    change(&mut model.rules);
    Scenario {
        name,
        is_mutant: true,
        quick: MUTANT,
        search: Box::new(move |limits: Limits| search(&model, limits)),
    }
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let one_of_two = Set { names: 0b110, needed: 1 };
    let three = || model::<3>(one_of_two, quorums(3));
    let singles = || (1..8u8).map(|names| Set { names, needed: 1 }).collect::<Vec<_>>();
    let one = || Synchrony { epochs: 2, ..model::<3>(one_of_two, singles()) };
    let one_twice = || Synchrony { epochs: 3, changes: false, ..one() };
    let restart = || Synchrony { restarts: 1, ..one() };
    let copies = || Synchrony { copies: 1, is_silent: true, ..one() };
    let silent = || Synchrony { is_silent: true, ..three() };
    let with_alone = || Synchrony { sets: [one_of_all(3), vec![ALONE]].concat(), is_silent: true, ..three() };
    let strict =
        || Synchrony { sets: [one_of_all(3), vec![UNSATISFIABLE]].concat(), is_silent: true, ..three() };
    let two_of_three = Set { names: 0b1110, needed: 2 };
    let twos = |n: u32| (0..n).map(move |p| Set { names: ((1u8 << n) - 1) & !(1 << p), needed: 2 }).collect();
    let four = || Synchrony { changes: false, epochs: 2, ..model::<4>(two_of_three, twos(4)) };
    vec![
        mutant("synchrony mutant: n-k are fenced", three(), |r| r.fence_enough = false),
        mutant("synchrony mutant: n-k of two of three are fenced", four(), |r| r.fence_enough = false),
        mutant("synchrony mutant: fences of the present set alone", three(), |r| r.fence_every_set = false),
        mutant("synchrony mutant: used before it is in force", three(), |r| r.widen_first = false),
        mutant("synchrony mutant: ended before it is used", three(), |r| r.reload_before_end = false),
        mutant("synchrony mutant: ended before it caught up (earlier text)", three(), |r| {
            r.catch_up_before_end = false;
        }),
        mutant("synchrony mutant: old set dropped at the grant (earlier text)", one_twice(), |r| {
            r.old_sets_stay = false
        }),
        mutant("synchrony mutant: position before the walreceiver ended", three(), |r| {
            r.receiver_gone_first = false
        }),
        mutant("synchrony mutant: follows again in the epoch", three(), |r| {
            r.fenced_until_next_epoch = false
        }),
        mutant("synchrony mutant: candidate not the highest", three(), |r| r.candidate_is_highest = false),
        mutant("synchrony mutant: two of three, not the highest", four(), |r| r.candidate_is_highest = false),
        mutant("synchrony mutant: fences silence a lone primary", with_alone(), |r| {
            r.alone_is_not_silenced = false
        }),
        mutant("synchrony mutant: closes without fences", silent(), |r| r.fences_after_closes = false),
        mutant("synchrony mutant: strict, ended before it caught up", strict(), |r| {
            r.catch_up_before_end = false
        }),
        mutant("synchrony mutant: back to a set without agreement", one(), |r| r.target_only = false),
        mutant("synchrony mutant: a late end counts", one(), |r| r.change_by_revision = false),
        mutant("synchrony mutant: acts on what was agreed before its start", restart(), |r| {
            r.read_at_start = false
        }),
        mutant("synchrony mutant: a new copy of a standby", copies(), |r| r.copy_of_primary = false),
        mutant("synchrony mutant: a new copy of a fenced standby", copies(), |r| r.copy_obeys_fence = false),
        sound("synchrony: one of two, then others", one()),
        sound("synchrony: restarts of the holder", restart()),
        sound("synchrony: new copies", copies()),
        sound("synchrony: quorums of three nodes", three()),
        sound("synchrony: closes and vacant", silent()),
        sound("synchrony: with the asynchronous set", with_alone()),
        sound("synchrony: asynchronous at first", Synchrony { first: ALONE, ..with_alone() }),
        sound("synchrony: strict without a standby", strict()),
        sound("synchrony: two of three", four()),
        sound("synchrony: two of three, two take-overs", Synchrony { epochs: 3, is_silent: true, ..four() }),
        sound(
            "synchrony: quorums of four nodes",
            Synchrony { epochs: 2, ..model::<4>(two_of_three, quorums(4)) },
        ),
    ]
}
