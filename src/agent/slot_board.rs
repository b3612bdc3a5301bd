//! Positions of replication slots that travel with failsafe's questions and answers, where the peers' network may be
//! gone: the agent and the REST API share them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pgherd_raft::lease::BootTime;
use pgherd_raft::model::{Lsn, MemberId};

use super::clock;
use crate::ha::{SlotFacts, ToldSlots};

/// So many slots are taken from a question at most: more than that nobody has.
const MOST_SLOTS: usize = 1024;
/// An answer counts for so long.
const ANSWER_FRESH: Duration = Duration::from_secs(30);

/// What was told and answered last.
#[derive(Debug, Default)]
pub struct SlotBoard {
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    own: BTreeMap<String, u64>,
    told: Option<(MemberId, BootTime, BTreeMap<String, Lsn>)>,
    answered: BTreeMap<String, (BootTime, Lsn)>,
}

impl SlotBoard {
    /// The positions of this primary's slots, for its questions.
    pub fn own(&self) -> BTreeMap<String, u64> {
        self.board().own.clone()
    }

    /// A holder told the positions of its slots with its question.
    pub fn tell(&self, holder: MemberId, slots: impl Iterator<Item = (String, u64)>) {
        let slots = slots.take(MOST_SLOTS).map(|(name, lsn)| (name, Lsn(lsn))).collect();
        self.board().told = Some((holder, clock::now(), slots));
    }

    /// A member answered how far it has received; by the name of its slot.
    pub fn answered(&self, slot: String, lsn: Lsn) {
        let now = clock::now();
        let mut board = self.board();
        board.answered.retain(|_, (at, _)| now.since(*at) < ANSWER_FRESH);
        board.answered.insert(slot, (now, lsn));
    }

    pub(super) fn publish(&self, own: BTreeMap<String, u64>) {
        self.board().own = own;
    }

    /// What counts at the moment, under this holder.
    pub(super) fn complete(&self, facts: SlotFacts, holder: Option<MemberId>, now: BootTime) -> SlotFacts {
        let board = self.board();
        let told = board.told.as_ref().filter(|(by, ..)| Some(*by) == holder);
        let fresh = board.answered.iter().filter(|(_, (at, _))| now.since(*at) < ANSWER_FRESH);
        SlotFacts {
            told: told.map(|(_, at, slots)| ToldSlots { age: now.since(*at), slots: slots.clone() }),
            answered: fresh.map(|(name, (_, lsn))| (name.clone(), *lsn)).collect(),
            ..facts
        }
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_present_holder_told_counts() {
        let board = SlotBoard::default();
        board.tell(MemberId(1), [("a".to_owned(), 5)].into_iter());
        board.answered("b".to_owned(), Lsn(7));
        let facts = |holder| board.complete(SlotFacts::default(), holder, clock::now());
        let told = facts(Some(MemberId(1))).told.expect("told");
        assert_eq!(told.slots.get("a"), Some(&Lsn(5)));
        assert_eq!(facts(Some(MemberId(2))).told, None);
        assert_eq!(facts(None).answered.get("b"), Some(&Lsn(7)));
        let later = clock::now().after(ANSWER_FRESH);
        assert_eq!(board.complete(SlotFacts::default(), None, later).answered, BTreeMap::new());
    }
}
