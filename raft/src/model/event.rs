//! What happened and why: a bounded record that survives whoever wrote it. Nothing is decided on it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::ids::{Epoch, MemberName};

/// As many events are kept; older ones go first.
pub const MAX_EVENTS: usize = 128;
/// The longest event in bytes, all its texts together: keeps the state small.
pub const MAX_EVENT_BYTES: usize = 4 * 1024;

/// Something that an operator will ask about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970 by the wall clock of `by`; for people only.
    pub at_ms: u64,
    /// Who saw or did it.
    pub by: MemberName,
    /// What kind of thing.
    pub kind: EventKind,
    /// The epoch of the lease at that time.
    pub epoch: Epoch,
    /// The rule that decided, for example `TakeClosed`.
    pub rule: String,
    /// One sentence.
    pub because: String,
    /// What the rule was decided on, a sentence each.
    pub facts: Vec<String>,
    /// What was found about each candidate.
    pub candidates: Vec<CandidateNote>,
}

/// The kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A member became the primary.
    Promoted,
    /// A member stopped being the primary.
    Demoted,
    /// A member would have been a successor and did not stand, or gave way.
    Refused,
    /// A standby stopped following, so that the old primary cannot acknowledge.
    Fenced,
    /// An operator's `fencing.command` was run against the primary.
    CutOff,
    /// A member asked for the lease.
    Candidacy,
    /// The primary was found to be sick.
    Sick,
    /// Automatic failover was switched off or on.
    Pause,
    /// An operator asked for something, or it ended.
    Operator,
}

/// What was found about one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateNote {
    /// Who.
    pub name: MemberName,
    /// A sentence's end: `NAME verdict`.
    pub verdict: String,
}

/// An event with the log index at which it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// Its number.
    pub id: u64,
    /// What happened.
    pub event: Event,
}

impl Event {
    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let facts: usize = self.facts.iter().map(String::len).sum();
        let notes: usize =
            self.candidates.iter().map(|note| note.verdict.len() + note.name.as_str().len()).sum();
        self.rule.len() + self.because.len() + facts + notes
    }
}

/// Adds an event; the oldest goes when there are too many. One whose answer was lost may be proposed again: it is there
/// once.
pub(super) fn record(events: &mut VecDeque<RecordedEvent>, id: u64, event: &Event) {
    if events.iter().any(|known| known.event == *event) {
        return;
    }
    if events.len() >= MAX_EVENTS {
        events.pop_front();
    }
    events.push_back(RecordedEvent { id, event: event.clone() });
}
