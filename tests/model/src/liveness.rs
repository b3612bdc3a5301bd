//! Can a good state be reached from everywhere? Keeps all edges: for small scenarios.

use std::collections::BTreeMap;

use crate::search::{Counterexample, Found, Limits, Model, fingerprint};

/// Looks for broken promises, and for states from which no good state can be reached.
pub fn search_for_dead_ends<M: Model>(model: &M, limits: Limits) -> Found {
    let init = model.init();
    let mut ids = BTreeMap::from([(fingerprint(&init), 0)]);
    let mut states = vec![(init, 0, 0)];
    let mut edges: Vec<(usize, usize)> = Vec::new();
    let mut good = Vec::new();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some((state, _, depth)) = states.get(at).copied() {
        let found = |promise, states: &[_]| {
            let broken = Some(Counterexample {
                promise,
                actions: way(model, states, at),
                state: format!("{state:?}"),
            });
            Found { states: states.len(), depth, exhausted: false, broken }
        };
        if let Some(promise) = model.broken(&state) {
            return found(promise, &states);
        }
        if model.is_good(&state) {
            good.push(at);
        }
        out.clear();
        model.next(&state, &mut out);
        for (_, next) in &out {
            let fresh = states.len();
            let to = *ids.entry(fingerprint(next)).or_insert(fresh);
            if to == fresh {
                states.push((*next, at, depth + 1));
            }
            edges.push((to, at));
        }
        if states.len() >= limits.states {
            return Found { states: states.len(), depth, exhausted: false, broken: None };
        }
        at += 1;
    }
    let depth = states.last().map_or(0, |last| last.2);
    let broken = dead_end(states.len(), edges, good).map(|at| Counterexample {
        promise: "from here no primary can ever be writable",
        actions: way(model, &states, at),
        state: format!("{:?}", states[at].0),
    });
    Found { states: states.len(), depth, exhausted: true, broken }
}

/// The first state from which no good state can be reached. `edges` are pairs (to, from).
fn dead_end(count: usize, mut edges: Vec<(usize, usize)>, good: Vec<usize>) -> Option<usize> {
    edges.sort_unstable();
    let mut reaches = vec![false; count];
    let mut work = good;
    for state in &work {
        reaches[*state] = true;
    }
    while let Some(state) = work.pop() {
        let first = edges.partition_point(|edge| edge.0 < state);
        for (_, from) in edges[first..].iter().take_while(|edge| edge.0 == state) {
            if !std::mem::replace(&mut reaches[*from], true) {
                work.push(*from);
            }
        }
    }
    reaches.iter().position(|reaches| !reaches)
}

fn way<M: Model>(model: &M, states: &[(M::State, usize, usize)], mut at: usize) -> Vec<String> {
    let mut actions = Vec::new();
    let mut out = Vec::new();
    while at != 0 {
        let (state, from, _) = &states[at];
        out.clear();
        model.next(&states[*from].0, &mut out);
        let wanted = fingerprint(state);
        let taken = out.iter().find(|(_, next)| fingerprint(next) == wanted);
        actions.push(taken.map_or_else(String::new, |(action, _)| format!("{action:?}")));
        at = *from;
    }
    actions.reverse();
    actions
}
