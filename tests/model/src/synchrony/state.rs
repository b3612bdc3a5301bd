//! The state of the synchrony model: sets and fences as agreed, logs and acknowledgements as they are.

/// Records of the longest log.
pub(super) const LENGTH: usize = 3;
/// Sets in force at once.
pub const SETS: usize = 3;
/// No node.
pub const NOBODY: u8 = 15;

/// Of these names, so many must have flushed a commit before it is acknowledged. `ANY k (names)`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Set {
    pub names: u8,
    pub needed: u8,
}

/// No set in this place.
pub const UNUSED: Set = Set { names: 0, needed: 0xFF };
/// The primary acknowledges alone.
pub const ALONE: Set = Set { names: 0, needed: 0 };
/// Nobody can acknowledge.
pub const UNSATISFIABLE: Set = Set { names: 0, needed: 1 };

impl Set {
    pub fn is_asynchronous(&self) -> bool {
        self.needed == 0
    }
}

/// Each record is the epoch of the primary that wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Log {
    pub tags: [u8; LENGTH],
    pub len: u8,
}

impl Log {
    pub fn starts_with(&self, other: &Log) -> bool {
        let len = usize::from(other.len);
        self.len >= other.len && self.tags[..len] == other.tags[..len]
    }

    /// Timeline, then length.
    pub fn position(&self) -> (u8, u8) {
        (if self.len == 0 { 0 } else { self.tags[usize::from(self.len) - 1] }, self.len)
    }

    pub fn cut(&mut self, len: u8) {
        self.len = self.len.min(len);
        self.tags[usize::from(self.len)..].fill(0);
    }

    pub fn push(&mut self, tag: u8) {
        self.tags[usize::from(self.len)] = tag;
        self.len += 1;
    }

    /// How much both have in common.
    pub fn common(&self, other: &Log) -> u8 {
        let len = usize::from(self.len.min(other.len));
        (0..len).take_while(|at| self.tags[*at] == other.tags[*at]).count() as u8
    }
}

/// One PostgreSQL with its daemon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Node<const N: usize> {
    pub log: Log,
    /// The epoch under which it is primary; 0: a standby, or stopped.
    pub primary: u8,
    /// `synchronous_standby_names` in use.
    pub active: Set,
    /// The length of its log when it began to use that set.
    pub mark: u8,
    /// What each standby is known to have flushed.
    pub counted: [u8; N],
    /// The length acknowledged to clients which must not be lost.
    pub told: u8,
    /// Up to here acknowledged commits may be lost: the group agreed on the asynchronous set alone.
    pub exempt: u8,
    /// Whom it follows.
    pub upstream: u8,
    /// Durable: follows nobody of an epoch up to this one.
    pub fenced: u8,
    /// An acknowledgement on the wire: to whom, which length.
    pub flight: (u8, u8),
    /// A fence proposed: epoch and position.
    pub ordered: (u8, (u8, u8)),
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State<const N: usize> {
    pub epoch: u8,
    pub holder: u8,
    /// Nobody holds the lease; `holder` held it last.
    pub vacant: bool,
    /// In force; unused places last. PostgreSQL may go to the last one in use: the target.
    pub sets: [Set; SETS],
    /// The sets before the last change.
    pub before: [Set; SETS],
    /// The end of a change proposed, of unknown outcome.
    pub late: Set,
    /// The length which that end found flushed.
    pub late_mark: u8,
    /// The node promoted last.
    pub newest: u8,
    /// The holder's daemon restarted and has not read what was agreed.
    pub is_behind: bool,
    pub restarts: u8,
    pub copies: u8,
    pub fences: [Option<(u8, u8)>; N],
    pub nodes: [Node<N>; N],
    pub broken: u8,
}

impl<const N: usize> State<N> {
    pub fn in_force(&self) -> impl Iterator<Item = Set> + '_ {
        self.sets.iter().copied().filter(|set| *set != UNUSED)
    }

    /// The set to which PostgreSQL may go, as the holder knows it.
    pub fn target(&self) -> Set {
        let sets = if self.is_behind { &self.before } else { &self.sets };
        sets.iter().copied().rfind(|set| *set != UNUSED).unwrap_or(ALONE)
    }

    /// The set becomes the target. False: no place is left.
    pub fn widen(&mut self, set: Set) -> bool {
        let others: Vec<Set> = self.in_force().filter(|known| *known != set).collect();
        if others.len() >= SETS {
            return false;
        }
        self.before = self.sets;
        self.sets = [UNUSED; SETS];
        self.sets[..others.len()].copy_from_slice(&others);
        self.sets[others.len()] = set;
        true
    }

    /// Only this set is left.
    pub fn narrow(&mut self, set: Set) {
        self.before = self.sets;
        self.sets = [UNUSED; SETS];
        self.sets[0] = set;
    }
}

/// How many nodes of a set pass the test.
pub(super) fn count(names: u8, test: impl Fn(usize) -> bool) -> u8 {
    (0..8).filter(|i| names & 1 << i != 0 && test(*i)).count() as u8
}
