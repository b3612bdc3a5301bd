//! Breadth-first search of all states that a model can reach, so that a counterexample is a shortest one.
//!
//! Owns what is remembered of a state: a fingerprint of 64 bits, and how it was reached. Two states with one fingerprint
//! are taken for one: with 10^8 states the chance that any two share one is about 1 in 3,000. Whole states are kept of
//! two levels only. The search ends by itself at its limits and then says that it was not exhaustive.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// States a chunk of a level: freed as the search goes through them.
const CHUNK: usize = 1 << 16;
/// Tables over which the fingerprints are spread: only one at a time grows.
const SHARDS: usize = 256;

/// What is searched.
pub trait Model {
    /// A plain value.
    type State: Copy + Hash + Debug;
    /// What may happen.
    type Action: Copy + Debug;

    /// Where it begins.
    fn init(&self) -> Self::State;

    /// Every state that is one action away, always in the same order.
    fn next(&self, state: &Self::State, out: &mut Vec<(Self::Action, Self::State)>);

    /// Which promise this state breaks.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;

    /// A state that must remain reachable from everywhere (looked at only when this is asked for).
    fn is_good(&self, _state: &Self::State) -> bool {
        true
    }
}

/// Where a search ends although there is more.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most states.
    pub states: usize,
    /// The most memory, in bytes, as counted by the search itself.
    pub bytes: usize,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// States seen.
    pub states: usize,
    /// Actions from the beginning to the last state seen.
    pub depth: usize,
    /// No state is left to look at.
    pub exhausted: bool,
    /// A broken promise with the shortest way to it.
    pub broken: Option<Counterexample>,
}

/// The shortest way to a broken promise.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which promise.
    pub promise: &'static str,
    /// The actions.
    pub actions: Vec<String>,
    /// The state that breaks it.
    pub state: String,
}

/// Looks at every state within the limits.
pub fn search<M: Model>(model: &M, limits: Limits) -> Found {
    let mut seen = Seen::new();
    let mut ways = Ways::default();
    let init = model.init();
    seen.insert(fingerprint(&init));
    ways.push(0, 0);
    let mut level: Level<M::State> = Level::default();
    level.push(init);
    let mut depth = 0;
    let mut first = 0;
    let mut out = Vec::new();
    while level.count > 0 {
        let mut next_level = Level::default();
        let mut id = first;
        for chunk in level.chunks {
            for state in chunk {
                out.clear();
                model.next(&state, &mut out);
                for (ordinal, (_, next)) in out.iter().enumerate() {
                    if !seen.insert(fingerprint(next)) {
                        continue;
                    }
                    ways.push(id, ordinal);
                    if let Some(promise) = model.broken(next) {
                        let actions = ways.replay(model, ways.len() - 1);
                        let broken = Some(Counterexample { promise, actions, state: format!("{next:?}") });
                        return Found { states: ways.len(), depth: depth + 1, exhausted: false, broken };
                    }
                    next_level.push(*next);
                }
                id += 1;
                let bytes = seen.bytes() + ways.bytes() + next_level.bytes();
                if ways.len() >= limits.states || bytes >= limits.bytes {
                    return Found { states: ways.len(), depth, exhausted: false, broken: None };
                }
            }
        }
        first += level.count;
        depth += usize::from(next_level.count > 0);
        level = next_level;
    }
    Found { states: ways.len(), depth, exhausted: true, broken: None }
}

/// States of equal distance from the beginning.
struct Level<S> {
    chunks: Vec<Vec<S>>,
    count: usize,
}

impl<S> Default for Level<S> {
    fn default() -> Self {
        Self { chunks: Vec::new(), count: 0 }
    }
}

impl<S> Level<S> {
    fn push(&mut self, state: S) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(state),
            _ => {
                let mut chunk = Vec::with_capacity(if self.count == 0 { 16 } else { CHUNK });
                chunk.push(state);
                self.chunks.push(chunk);
            }
        }
        self.count += 1;
    }

    /// This level, and the one before which is at most about as large.
    fn bytes(&self) -> usize {
        2 * self.count * size_of::<S>()
    }
}

/// How each state was reached: from which one, by which of its actions.
#[derive(Default)]
struct Ways {
    chunks: Vec<(Vec<u32>, Vec<u8>)>,
    count: usize,
}

impl Ways {
    fn len(&self) -> usize {
        self.count
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * 5
    }

    fn push(&mut self, from: usize, ordinal: usize) {
        if self.count.is_multiple_of(CHUNK) {
            self.chunks.push((Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK)));
        }
        let last = self.chunks.last_mut().expect("just made");
        last.0.push(u32::try_from(from).expect("fewer than 2^32 states"));
        last.1.push(u8::try_from(ordinal).expect("fewer than 256 actions of one state"));
        self.count += 1;
    }

    fn replay<M: Model>(&self, model: &M, mut id: usize) -> Vec<String> {
        let mut ordinals = Vec::new();
        while id > 0 {
            let (from, by) = &self.chunks[id / CHUNK];
            ordinals.push(by[id % CHUNK]);
            id = from[id % CHUNK] as usize;
        }
        let mut state = model.init();
        let mut out = Vec::new();
        let mut actions = Vec::new();
        for ordinal in ordinals.iter().rev() {
            out.clear();
            model.next(&state, &mut out);
            let (action, next) = out[usize::from(*ordinal)];
            actions.push(format!("{action:?}"));
            state = next;
        }
        actions
    }
}

/// The fingerprints seen: open addressing, grown by half.
struct Seen {
    shards: Vec<Shard>,
}

struct Shard {
    slots: Vec<u64>,
    used: usize,
}

impl Seen {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard { slots: vec![0; 64], used: 0 }).collect() }
    }

    fn bytes(&self) -> usize {
        // Shards grow at about the same time: the sum is close to one shard's size times their number.
        self.shards[0].slots.len() * SHARDS * 8
    }

    /// True: not seen before.
    fn insert(&mut self, print: u64) -> bool {
        let print = print.max(1); // zero is an empty slot
        let shard = &mut self.shards[(print & 0xFF) as usize];
        if shard.used * 7 >= shard.slots.len() * 6 {
            shard.grow();
        }
        shard.insert(print)
    }
}

impl Shard {
    fn insert(&mut self, print: u64) -> bool {
        let size = self.slots.len();
        let mut at = ((u128::from(print) * size as u128) >> 64) as usize;
        loop {
            match self.slots[at] {
                0 => {
                    self.slots[at] = print;
                    self.used += 1;
                    return true;
                }
                found if found == print => return false,
                _ => at = if at + 1 == size { 0 } else { at + 1 },
            }
        }
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 3 / 2;
        let old = std::mem::replace(&mut self.slots, vec![0; size]);
        self.used = 0;
        for print in old.into_iter().filter(|print| *print != 0) {
            self.insert(print);
        }
    }
}

/// Collects the bytes of a state into words and mixes each.
#[derive(Default)]
struct Mix {
    hash: u64,
    word: u64,
    bytes: u32,
}

impl Mix {
    fn add(&mut self, word: u64) {
        let mixed = u128::from(self.hash.rotate_left(29) ^ word ^ 0xA076_1D64_78BD_642F)
            * u128::from(0xE703_7ED1_A0B4_28DBu64 ^ word.rotate_left(32));
        self.hash = (mixed as u64) ^ ((mixed >> 64) as u64) ^ word.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let mut last = Mix { hash: self.hash, ..Mix::default() };
        last.add(self.word ^ (u64::from(self.bytes) << 60));
        let mut x = last.hash;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.word = self.word << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes == 8 {
            let word = std::mem::take(&mut self.word);
            self.bytes = 0;
            self.add(word);
        }
    }

    /// The lengths of arrays are the same in all states.
    fn write_usize(&mut self, _: usize) {}

    /// The variants of enums.
    fn write_isize(&mut self, variant: isize) {
        self.write_u8(variant.to_le_bytes()[0]);
    }
}

pub(crate) fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut mix = Mix::default();
    state.hash(&mut mix);
    mix.finish()
}
