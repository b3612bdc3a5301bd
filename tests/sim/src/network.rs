//! Messages between nodes: lost, late, twice, in any order; links cut one way or both.

use std::collections::{BTreeMap, BTreeSet};

use crate::ha::MemberReport;
use crate::lease::{CloseRequest, CloseVerdict, Renewal, RenewalAnswer};
use crate::model::{Command, Outcome};

use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Renewal(Renewal),
    RenewalAnswer(RenewalAnswer),
    Close { number: u64, request: CloseRequest },
    CloseAnswer { number: u64, verdict: CloseVerdict },
    Propose { number: u64, command: Command },
    Proposed { number: u64, outcome: Outcome },
    Entries { to: usize },
    Report(Box<MemberReport>),
    AskReport,
}

/// How badly messages fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Of a thousand messages so many are lost, twice there, or very late.
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) late: u64,
}

pub(crate) const CALM: Weather = Weather { lost: 0, twice: 0, late: 0 };

pub(crate) const HARSH: Weather = Weather { lost: 50, twice: 50, late: 500 };

pub(crate) struct Network {
    /// By the time of arrival: from, to, and whether it waits at the receiver already.
    queue: BTreeMap<(u64, u64), (usize, usize, bool, Message)>,
    sent: u64,
    pub(crate) weather: Weather,
    /// From, to.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// What weather and cuts did to messages.
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) late: u64,
}

impl Network {
    pub(crate) fn new() -> Self {
        let (queue, cut) = (BTreeMap::new(), BTreeSet::new());
        Self { queue, sent: 0, weather: CALM, cut, lost: 0, twice: 0, late: 0 }
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message, now: u64, random: &mut Random) {
        if random.per_mille(self.weather.lost) {
            self.lost += 1;
            return;
        }
        let mut copies = 1;
        if random.per_mille(self.weather.twice) {
            self.twice += 1;
            copies = 2;
        }
        for _ in 0..copies {
            let mut delay = random.between(200, 5_000);
            if random.per_mille(self.weather.late) {
                self.late += 1;
                delay = random.between(5_000, 4_000_000);
            }
            self.sent += 1;
            self.queue.insert((now + delay, self.sent), (from, to, false, message.clone()));
        }
    }

    /// The next message that has arrived by now.
    pub(crate) fn arrived(&mut self, now: u64) -> Option<(usize, usize, Message)> {
        loop {
            let key = *self.queue.first_key_value().filter(|((at, _), _)| *at <= now)?.0;
            let (from, to, is_there, message) = self.queue.remove(&key)?;
            if is_there || self.reaches(from, to) {
                return Some((from, to, message));
            }
            self.lost += 1;
        }
    }
}

impl Network {
    /// It waits at the receiver.
    pub(crate) fn keep(&mut self, from: usize, to: usize, message: Message, until: u64) {
        self.sent += 1;
        self.queue.insert((until, self.sent), (from, to, true, message));
    }
}
