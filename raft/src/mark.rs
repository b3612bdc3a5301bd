//! The rule by which a store that was put back from an older copy is found out. Pure.
//!
//! Every message carries its sender's [`Mark`], members remember the highest one of each other, and both sides of a
//! conversation judge, [`judge`] and [`is_put_back`]: the hearer whether it may believe the sender, the sender whether its own store
//! is the one that made the promises which the others heard.

use serde::{Deserialize, Serialize};

/// How far the sender's store has come.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Mark {
    /// How often it was opened, this time included.
    #[prost(uint64, tag = "1")]
    pub(crate) boot: u64,
    /// Random number of this opening: two copies of one directory have the same count of openings.
    #[prost(fixed64, tag = "2")]
    pub(crate) nonce: u64,
    /// Number of the last write found at this opening.
    #[prost(uint64, tag = "3")]
    pub(crate) opened: u64,
    /// Number of the last durable write.
    #[prost(uint64, tag = "4")]
    pub(crate) sequence: u64,
}

/// What a member remembers of another one's marks.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, prost::Message)]
pub(crate) struct Seen {
    /// [`Mark::boot`] of the last opening heard of.
    #[prost(uint64, tag = "1")]
    pub(crate) boot: u64,
    /// Its nonce.
    #[prost(fixed64, tag = "2")]
    pub(crate) nonce: u64,
    /// The highest number of a write heard of.
    #[prost(uint64, tag = "3")]
    pub(crate) sequence: u64,
}

impl Seen {
    fn of(mark: &Mark) -> Self {
        Self { boot: mark.boot, nonce: mark.nonce, sequence: mark.sequence }
    }
}

/// What a mark means to somebody who remembers another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing new.
    Known,
    /// To be remembered from now on.
    News(Seen),
    /// The bearer of this mark does not have everything that was heard from its id: its store was put back, or the
    /// message is one of an earlier run that is very late. Only the bearer itself knows which.
    Older,
}

/// Compares what is remembered of an id with a mark of it.
pub(crate) fn judge(seen: Option<&Seen>, mark: &Mark) -> Verdict {
    let Some(seen) = seen else { return Verdict::News(Seen::of(mark)) };
    if mark.boot == seen.boot && mark.nonce == seen.nonce {
        // A lower sequence is a delayed message of the same run.
        let is_news = mark.sequence > seen.sequence;
        return if is_news { Verdict::News(Seen::of(mark)) } else { Verdict::Known };
    }
    if mark.boot > seen.boot && mark.opened >= seen.sequence {
        return Verdict::News(Seen::of(mark));
    }
    Verdict::Older
}

/// Was the bearer's own store put back? `seen` is what another member remembers of it, `own` its mark after it heard
/// that. Nobody can have heard of a write that was never made: a machine resumed from a snapshot of its memory, too,
/// sees that others know more of its run than itself.
pub(crate) fn is_put_back(seen: &Seen, own: &Mark) -> bool {
    if own.boot == seen.boot && own.nonce == seen.nonce {
        return seen.sequence > own.sequence;
    }
    judge(Some(seen), own) == Verdict::Older
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(boot: u64, nonce: u64, opened: u64, sequence: u64) -> Mark {
        Mark { boot, nonce, opened, sequence }
    }

    #[test]
    fn every_case_of_the_rule() {
        let seen = Seen { boot: 3, nonce: 7, sequence: 20 };
        let news = |boot, nonce, sequence| Verdict::News(Seen { boot, nonce, sequence });
        let cases = [
            ("the same run, nothing written", mark(3, 7, 10, 20), Verdict::Known),
            ("the same run, a delayed message", mark(3, 7, 10, 19), Verdict::Known),
            ("the same run, a write", mark(3, 7, 10, 21), news(3, 7, 21)),
            ("opened again, nothing lost", mark(4, 8, 20, 20), news(4, 8, 20)),
            ("opened again with a write that nobody heard of", mark(4, 8, 21, 25), news(4, 8, 25)),
            ("opened some times without contact", mark(9, 8, 20, 20), news(9, 8, 20)),
            ("opened again without the last write", mark(4, 8, 19, 19), Verdict::Older),
            ("opened so often that only the writes tell", mark(9, 8, 19, 19), Verdict::Older),
            ("writes of the present run make up for nothing", mark(4, 8, 19, 500), Verdict::Older),
            ("a copy opened as often as the original", mark(3, 8, 10, 20), Verdict::Older),
            ("a copy opened as often, with more writes", mark(3, 8, 25, 30), Verdict::Older),
            ("a copy of long ago", mark(2, 8, 5, 5), Verdict::Older),
            ("a copy of long ago with many writes", mark(2, 8, 50, 60), Verdict::Older),
            ("the same nonce by accident", mark(4, 7, 19, 19), Verdict::Older),
        ];
        for (what, mark, verdict) in cases {
            assert_eq!(judge(Some(&seen), &mark), verdict, "{what}");
        }
        assert_eq!(judge(None, &mark(1, 2, 3, 4)), news(1, 2, 4), "somebody never heard of");
    }

    #[test]
    fn the_bearer_knows_better_than_its_hearers() {
        let seen = Seen { boot: 3, nonce: 7, sequence: 20 };
        let cases = [
            (mark(3, 7, 10, 20), false),
            (mark(3, 7, 10, 21), false),
            // For a hearer this is a delayed message.
            (mark(3, 7, 10, 19), true),
            (mark(4, 8, 20, 20), false),
            (mark(4, 8, 19, 30), true),
            (mark(3, 8, 20, 20), true),
            (mark(2, 8, 50, 60), true),
        ];
        for (mark, put_back) in cases {
            assert_eq!(is_put_back(&seen, &mark), put_back, "{mark:?}");
        }
    }

    #[test]
    fn what_was_remembered_is_never_older_than_what_it_came_from() {
        for seen in [None, Some(Seen { boot: 3, nonce: 7, sequence: 20 })] {
            for boot in 2..5 {
                for opened in 19..22 {
                    let mark = mark(boot, 7, opened, 22);
                    if let Verdict::News(next) = judge(seen.as_ref(), &mark) {
                        assert_eq!(judge(Some(&next), &mark), Verdict::Known);
                    }
                }
            }
        }
    }
}
