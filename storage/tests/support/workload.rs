//! A workload whose state after any number of operations is known to everybody who knows the seed.
//!
//! The writer says which operation it begins and up to which one everything is acknowledged. After a crash the
//! store must be exactly in a state between the two: anything else is a lost or an invented record.

use std::collections::VecDeque;
use std::sync::Arc;

use openraft::Vote;
use openraft::alias::{SnapshotMetaOf, VoteOf};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use pgherd_storage::Store;

use super::{TestConfig, entry, id};

/// Appends that may be in flight at once.
const IN_FLIGHT: usize = 8;

/// A small generator of numbers; the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What a store must contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) operation: u64,
    term: u64,
    vote: Option<VoteOf<TestConfig>>,
    /// Log ids as (term, index), and the entry's text.
    log: VecDeque<((u64, u64), Arc<str>)>,
    purged: Option<(u64, u64)>,
    floor: u64,
    note: Option<Vec<u8>>,
    snapshot: Option<((u64, u64), Vec<u8>)>,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append(Vec<((u64, u64), Arc<str>)>),
    Vote(u64),
    Truncate(Option<(u64, u64)>),
    Snapshot((u64, u64), Vec<u8>),
    Purge((u64, u64)),
    Floor(u64),
    Note(Vec<u8>),
}

impl Model {
    /// The state after this many operations.
    pub(crate) fn after(seed: u64, operations: u64) -> Self {
        let mut model = Model::default();
        while model.operation < operations {
            let step = model.next(seed);
            model.apply(&step);
        }
        model
    }

    /// The operation that follows.
    pub(crate) fn next(&self, seed: u64) -> Step {
        let operation = self.operation + 1;
        let mut numbers = Numbers::new(seed ^ operation.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let last = self.log.back().map(|(id, _)| *id).or(self.purged);
        match numbers.below(100) {
            0..=9 => Step::Vote(self.term + 1),
            10..=14 if !self.log.is_empty() => {
                let keep = numbers.below(self.log.len() as u64) as usize;
                Step::Truncate(match keep.checked_sub(1) {
                    Some(position) => Some(self.log[position].0),
                    None => self.purged,
                })
            }
            15..=18 if !self.log.is_empty() => {
                let upto = self.log[numbers.below(self.log.len() as u64) as usize].0;
                if self.snapshot.as_ref().is_some_and(|(have, _)| *have > upto) {
                    return Step::Floor(operation);
                }
                // Now and then so large that it takes several parts.
                let size = if numbers.below(4) == 0 { 70_000 } else { 300 };
                Step::Snapshot(upto, vec![operation as u8; size])
            }
            19..=24 => match &self.snapshot {
                Some((upto, _)) if self.purged.is_none_or(|purged| purged.1 < upto.1) => Step::Purge(*upto),
                _ => Step::Floor(operation),
            },
            25..=29 => Step::Floor(operation),
            30..=34 => Step::Note(operation.to_string().into_bytes()),
            _ => {
                let first = last.map_or(0, |(_, index)| index + 1);
                let count = 1 + numbers.below(4);
                let size = if numbers.below(50) == 0 { 40_000 } else { numbers.below(400) as usize };
                let text: Arc<str> = format!("{operation} {}", "x".repeat(size)).into();
                let ids = (first..first + count).map(|index| (self.term, index));
                Step::Append(ids.map(|id| (id, Arc::clone(&text))).collect())
            }
        }
    }

    /// Applies an operation.
    pub(crate) fn apply(&mut self, step: &Step) {
        self.operation += 1;
        match step {
            Step::Append(entries) => self.log.extend(entries.iter().cloned()),
            Step::Vote(term) => {
                self.term = *term;
                self.vote = Some(Vote::new(*term, 1));
            }
            Step::Truncate(last) => {
                let keep = last.map_or(0, |(_, index)| index + 1);
                self.log.retain(|((_, index), _)| *index < keep);
                // A snapshot never covers what may be truncated; the workload's may, so it goes first.
            }
            Step::Snapshot(upto, data) => self.snapshot = Some((*upto, data.clone())),
            Step::Purge(upto) => {
                self.log.retain(|((_, index), _)| *index > upto.1);
                self.purged = Some(*upto);
            }
            Step::Floor(floor) => self.floor = *floor,
            Step::Note(note) => self.note = Some(note.clone()),
        }
    }

    /// What the store contains, with the operation left open.
    pub(crate) async fn of(store: &mut Store<TestConfig>) -> Model {
        let state = store.get_log_state().await.unwrap();
        let mut log = VecDeque::new();
        for entry in store.try_get_log_entries(..).await.unwrap() {
            let openraft::EntryPayload::Normal(text) = entry.payload else {
                panic!("an entry of unknown kind")
            };
            log.push_back((pair(&entry.log_id), text.into()));
        }
        let last = log.back().map(|(id, _)| *id).or(state.last_purged_log_id.as_ref().map(pair));
        assert_eq!(state.last_log_id.as_ref().map(pair), last);
        let vote = store.read_vote().await.unwrap();
        Model {
            operation: 0,
            term: vote.as_ref().map_or(0, |vote| vote.leader_id.term),
            vote,
            log,
            purged: state.last_purged_log_id.as_ref().map(pair),
            floor: store.floor(),
            note: store.note("note"),
            snapshot: store
                .snapshot()
                .map(|snapshot| (pair(&snapshot.meta.last_log_id.unwrap()), snapshot.snapshot)),
        }
    }

    /// Which number of operations between `acknowledged` and `begun` leads to this state.
    pub(crate) fn find(&self, seed: u64, from: &Model, acknowledged: u64, begun: u64) -> Option<Model> {
        let mut model = from.clone();
        loop {
            if model.operation >= acknowledged && *self == (Model { operation: 0, ..model.clone() }) {
                return Some(model);
            }
            if model.operation >= begun {
                return None;
            }
            let step = model.next(seed);
            model.apply(&step);
        }
    }

    /// A short text for a failed test.
    pub(crate) fn summary(&self) -> String {
        format!(
            "operation {}, vote {:?}, log {:?}..{:?}, purged {:?}, floor {}, note {:?}, snapshot {:?}",
            self.operation,
            self.vote.map(|vote| vote.leader_id.term),
            self.log.front().map(|(id, _)| id),
            self.log.back().map(|(id, _)| id),
            self.purged,
            self.floor,
            self.note.as_ref().map(|note| String::from_utf8_lossy(note).into_owned()),
            self.snapshot.as_ref().map(|(id, _)| id),
        )
    }
}

fn pair(id: &openraft::alias::LogIdOf<TestConfig>) -> (u64, u64) {
    (id.leader_id.term, id.index)
}

/// What a writer tells about its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is about to hand this operation to the store.
    Begun(u64),
    /// All operations up to this one are acknowledged.
    Acknowledged(u64),
}

/// Performs operations until `limit` of them are done or the store fails.
pub(crate) async fn run(
    store: &mut Store<TestConfig>,
    seed: u64,
    model: &mut Model,
    limit: u64,
    mut tell: impl FnMut(Progress),
) -> std::io::Result<()> {
    let mut flying = VecDeque::new();
    while model.operation < limit {
        let step = model.next(seed);
        model.apply(&step);
        tell(Progress::Begun(model.operation));
        match step {
            Step::Append(entries) => {
                let (sender, receiver) = TestConfig::oneshot();
                let entries: Vec<_> =
                    entries.iter().map(|((term, index), text)| entry(*term, *index, text)).collect();
                store.append(entries, IOFlushed::signal(sender)).await?;
                flying.push_back((model.operation, receiver));
                if flying.len() < IN_FLIGHT {
                    continue;
                }
            }
            Step::Vote(term) => store.save_vote(&Vote::new(term, 1)).await?,
            Step::Truncate(last) => store.truncate_after(last.map(|(term, index)| id(term, index))).await?,
            Step::Snapshot((term, index), data) => {
                let meta =
                    SnapshotMetaOf::<TestConfig> { last_log_id: Some(id(term, index)), ..Default::default() };
                store.save_snapshot(&meta, data).await?;
            }
            Step::Purge((term, index)) => {
                store.purge(id(term, index)).await?;
                continue;
            }
            Step::Floor(floor) => store.set_floor(floor).await?,
            Step::Note(note) => store.set_note("note", &note).await?,
        }
        while let Some((operation, receiver)) = flying.pop_front() {
            receiver.await.map_err(std::io::Error::other)??;
            tell(Progress::Acknowledged(operation));
        }
        // Writes are acknowledged in order, so this one covers a purge before it.
        tell(Progress::Acknowledged(model.operation));
    }
    Ok(())
}
