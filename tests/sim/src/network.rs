//! Messages between nodes: lost, late, twice, in any order; links cut one way or both.

use std::collections::{BTreeMap, BTreeSet};

use crate::ha::MemberReport;
use crate::lease::{CloseRequest, CloseVerdict, FailsafeQuestion, Renewal, RenewalAnswer};
use crate::model::{Command, Member, MemberId, Outcome};

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
    Join { id: MemberId, member: Box<Member> },
    Welcome,
    Question(FailsafeQuestion),
    Promised { question: FailsafeQuestion, is_given: bool },
    Report(Box<MemberReport>),
    AskReport,
}

/// From, to, and whether it waits at the receiver already.
type Parcel = (usize, usize, Stores, bool, Message);

/// Of sender and receiver when it was sent.
pub(crate) type Stores = (u64, u64);

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
    queue: BTreeMap<(u64, u64), Parcel>,
    sent: u64,
    pub(crate) weather: Weather,
    /// From, to.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// What weather and cuts did to messages.
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) late: u64,
    /// Of the lost ones, those which a cut link lost.
    pub(crate) cut_off: u64,
    /// Answers that a proposal was applied, lost.
    pub(crate) lost_answers: u64,
}

impl Network {
    pub(crate) fn new() -> Self {
        let (queue, cut) = (BTreeMap::new(), BTreeSet::new());
        Self { queue, sent: 0, weather: CALM, cut, lost: 0, twice: 0, late: 0, cut_off: 0, lost_answers: 0 }
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    pub(crate) fn send(
        &mut self,
        from: usize,
        to: usize,
        stores: Stores,
        message: Message,
        now: u64,
        random: &mut Random,
    ) {
        if random.per_mille(self.weather.lost) {
            self.lose(&message);
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
            self.queue.insert((now + delay, self.sent), (from, to, stores, false, message.clone()));
        }
    }

    /// The next message that has arrived by now.
    pub(crate) fn arrived(&mut self, now: u64) -> Option<(usize, usize, Stores, Message)> {
        loop {
            let key = *self.queue.first_key_value().filter(|((at, _), _)| *at <= now)?.0;
            let (from, to, stores, is_there, message) = self.queue.remove(&key)?;
            if is_there || self.reaches(from, to) {
                return Some((from, to, stores, message));
            }
            self.cut_off += 1;
            self.lose(&message);
        }
    }

    fn lose(&mut self, message: &Message) {
        self.lost += 1;
        let is_answer = matches!(message, Message::Proposed { outcome: Outcome::Applied, .. });
        self.lost_answers += u64::from(is_answer);
    }
}

impl Network {
    /// It waits at the receiver.
    pub(crate) fn keep(&mut self, from: usize, to: usize, stores: Stores, message: Message, until: u64) {
        self.sent += 1;
        self.queue.insert((until, self.sent), (from, to, stores, true, message));
    }
}
