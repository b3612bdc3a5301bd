//! How commits wait for standbys: walsenders, each of which uses the `synchronous_standby_names` that it has read last,
//! answers of standbys on their way, and the checkpointer, which alone says whether commits wait at all.
//!
//! A walsender which gets an answer lets go the commits that are safe by its own value, among the walsenders which count
//! by theirs. An answer arrives however long its sender is gone.

use std::collections::{BTreeMap, VecDeque};

use crate::ha::SyncNames;

use crate::node::NAMES;
use crate::random::Random;

/// The postmaster signals within this time of a reload; sessions see the new value from then on.
const SIGNALS_WITHIN: u64 = 200_000;
/// A walsender handles the signal within this time: what is waited for before a value counts as in use.
const HANDLED_WITHIN: u64 = 450_000;
/// The checkpointer handles it between checkpoints.
const CHECKPOINTER_WITHIN: u64 = 3_000_000;
/// A connection of which nothing is heard for so long is given up (`wal_sender_timeout`, shortened).
const SENDER_TIMEOUT: u64 = 3_000_000;

/// The connection of one standby, on the primary's side.
#[derive(Clone, Debug)]
pub(crate) struct Walsender {
    value: SyncNames,
    reads_at: Option<u64>,
    /// Zero: it has said nothing yet.
    pub(crate) flushed: u64,
    /// Time of arrival, and the position flushed.
    answers: VecDeque<(u64, u64)>,
    closes_at: Option<u64>,
    heard_at: u64,
}

impl Walsender {
    /// The standby says what it has flushed; in order, as TCP has it.
    pub(crate) fn answer(&mut self, arrives: u64, flushed: u64) {
        let after = self.answers.back().map_or(0, |(at, _)| *at);
        if self.answers.back().is_none_or(|(_, last)| *last != flushed) || self.answers.len() < 2 {
            self.answers.push_back((arrives.max(after), flushed));
        }
    }

    fn counts(&self, standby: usize) -> bool {
        self.flushed > 0 && self.priority(standby).is_some()
    }

    /// Its place in the list that this walsender has read.
    fn priority(&self, standby: usize) -> Option<usize> {
        self.value.set().names.iter().position(|name| name.as_str() == NAMES[standby])
    }
}

/// What clients were told, and what decides it.
#[derive(Clone, Debug)]
pub(crate) struct Commits {
    pub(crate) senders: BTreeMap<usize, Walsender>,
    /// What the postmaster has read last: every session sees it.
    pub(crate) value: SyncNames,
    reload: Option<u64>,
    file: SyncNames,
    waits: bool,
    waits_at: Option<u64>,
    /// Up to here clients may have been told that their commits are safe.
    pub(crate) told: u64,
    /// Some of that without any standby.
    pub(crate) alone: bool,
}

impl Commits {
    /// As the file says when the postmaster starts.
    pub(crate) fn new(file: &SyncNames) -> Self {
        Self {
            senders: BTreeMap::new(),
            value: file.clone(),
            reload: None,
            file: file.clone(),
            waits: !file.set().is_asynchronous(),
            waits_at: None,
            told: 0,
            alone: false,
        }
    }

    /// The file was written; the server is asked to read it.
    pub(crate) fn reload(&mut self, file: &SyncNames, now: u64, random: &mut Random) {
        self.file = file.clone();
        self.reload.get_or_insert(now + random.below(SIGNALS_WITHIN));
    }

    /// A standby connects; one connection of each, as its slot allows.
    pub(crate) fn connect(&mut self, standby: usize, now: u64) -> bool {
        if self.senders.contains_key(&standby) {
            return false;
        }
        let (value, answers) = (self.value.clone(), VecDeque::new());
        let sender = Walsender { value, reads_at: None, flushed: 0, answers, closes_at: None, heard_at: now };
        self.senders.insert(standby, sender);
        true
    }

    /// The checkpointer has handled every signal: a checkpoint that began after the signal has ended.
    pub(crate) fn checkpointer_has_read(&self) -> bool {
        self.waits_at.is_none() && self.reload.is_none()
    }

    /// Signals that are handled.
    pub(crate) fn read_values(&mut self, now: u64, random: &mut Random) {
        if self.reload.is_some_and(|at| now >= at) {
            self.reload = None;
            self.value = self.file.clone();
            self.waits_at.get_or_insert(now + random.below(CHECKPOINTER_WITHIN));
            for sender in self.senders.values_mut() {
                sender.reads_at.get_or_insert(now + random.below(HANDLED_WITHIN));
            }
        }
        for sender in self.senders.values_mut().filter(|sender| sender.reads_at.is_some_and(|at| now >= at)) {
            sender.reads_at = None;
            sender.value = self.value.clone();
        }
        if self.waits_at.is_some_and(|at| now >= at) {
            self.waits_at = None;
            self.waits = !self.value.set().is_asynchronous();
        }
    }

    /// Answers that have come in, and what clients are told by them. `flushed`: by this server itself.
    pub(crate) fn tell(
        &mut self,
        now: u64,
        flushed: u64,
        hears: impl Fn(usize) -> bool,
        is_open: impl Fn(usize) -> bool,
    ) {
        let standbys: Vec<usize> = self.senders.keys().copied().collect();
        for standby in standbys {
            let hears = hears(standby);
            let Some(sender) = self.senders.get_mut(&standby) else { continue };
            let mut answered = false;
            while hears && let Some((_, lsn)) = sender.answers.front().copied().filter(|(at, _)| *at <= now) {
                sender.answers.pop_front();
                sender.flushed = sender.flushed.max(lsn);
                sender.heard_at = now;
                answered = true;
            }
            if !is_open(standby) {
                sender.closes_at.get_or_insert(now + 20_000);
            }
            let is_closed =
                sender.closes_at.is_some_and(|at| now >= at) && sender.answers.is_empty() && hears;
            let is_gone = is_closed || now >= sender.heard_at + SENDER_TIMEOUT;
            if answered
                && self.waits
                && let Some(safe) = self.safe_for(standby)
            {
                self.told = self.told.max(safe.min(flushed));
            }
            if is_gone {
                self.senders.remove(&standby);
            }
        }
        if !self.waits && flushed > self.told {
            self.told = flushed;
            self.alone = true;
        }
    }

    /// `SyncRepGetSyncRecPtr` of this walsender.
    fn safe_for(&self, standby: usize) -> Option<u64> {
        let me = self.senders.get(&standby).filter(|sender| sender.counts(standby))?;
        let mut counted: Vec<(Option<usize>, u64)> = self
            .senders
            .iter()
            .filter(|(standby, sender)| sender.counts(**standby))
            .map(|(standby, sender)| (sender.priority(*standby), sender.flushed))
            .collect();
        let needed = me.value.set().needed;
        if counted.len() < needed || needed == 0 {
            return None;
        }
        if !me.value.is_any() {
            counted.sort_unstable();
            counted.truncate(needed);
        }
        counted.sort_unstable_by_key(|(_, flushed)| std::cmp::Reverse(*flushed));
        counted.get(needed - 1).map(|(_, flushed)| *flushed)
    }
}
