//! When the deadline comes: pure over page and clock.
//!
//! The guard believes nothing but its own last accepted deadline. What it finds in the page it accepts only when it
//! lies ahead of that and not further away than the ttl; anything else is put back, and the accepted one stays in
//! force. So a daemon gone mad can make PostgreSQL die early, never late.

use std::time::Duration;

use pgherd_raft::model::Epoch;

use super::clock::{Nanos, nanos};
use super::page::Page;

/// SIGQUIT goes out this long before the deadline, so that clients get a proper message and most is over in time.
pub(super) const EARLY: Duration = Duration::from_millis(300);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// SIGQUIT; the deadline, which is sealed.
    Quit(Nanos),
    /// Kill everything; the deadline which has come.
    Kill(Nanos),
}

/// The guard's view of the deadline.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    accepted: Option<Nanos>,
    is_sealed: bool,
    /// Deadlines that were put back.
    refused: Vec<Nanos>,
}

impl Expiry {
    /// Sets a deadline. The reason when it is refused; the former one then stays in force.
    pub(super) fn arm(
        &mut self,
        page: &Page,
        epoch: Epoch,
        deadline: Nanos,
        ttl: Nanos,
        now: Nanos,
    ) -> Result<(), &'static str> {
        if self.is_sealed {
            return Err("the former deadline has come and PostgreSQL is being killed");
        }
        if deadline <= now.saturating_add(nanos(EARLY)) {
            return Err("the deadline is past, or too near to stop PostgreSQL in time");
        }
        if deadline > now.saturating_add(ttl) {
            return Err("the deadline is further away than the ttl");
        }
        page.arm(epoch, deadline, ttl);
        self.accepted = Some(deadline);
        Ok(())
    }

    /// Takes over the deadline of a guard that died, for what is left of its PostgreSQL. It cannot be extended: the
    /// daemon must arm anew, under an epoch of the new session.
    pub(super) fn inherit(&mut self, page: &Page, deadline: Nanos, ttl: Nanos) {
        page.arm(Epoch::default(), deadline, ttl);
        self.accepted = Some(deadline);
    }

    /// Voids the deadline.
    pub(super) fn disarm(&mut self, page: &Page) {
        page.disarm();
        self.accepted = None;
        self.is_sealed = false;
    }

    /// Looks at the page: takes over an extension, seals the deadline when it comes.
    pub(super) fn check(&mut self, page: &Page, now: Nanos) -> Due {
        while let Some(accepted) = self.accepted {
            if self.is_sealed {
                return if now >= accepted { Due::Kill(accepted) } else { Due::Nothing };
            }
            let found = page.deadline_word();
            if found != accepted {
                if found > accepted && found <= now.saturating_add(page.ttl()) {
                    self.accepted = Some(found);
                } else if page.put_back(found, accepted) {
                    self.refused.push(found);
                }
                continue;
            }
            if now < accepted.saturating_sub(nanos(EARLY)) {
                return Due::Nothing;
            }
            // An extension that comes in between wins, and is looked at.
            self.is_sealed = page.seal(accepted);
            if self.is_sealed {
                return if now >= accepted { Due::Kill(accepted) } else { Due::Quit(accepted) };
            }
        }
        Due::Nothing
    }

    /// The accepted deadline; none: disarmed.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.accepted
    }

    /// When to look at the latest.
    pub(super) fn wake_at(&self) -> Option<Nanos> {
        let accepted = self.accepted?;
        Some(if self.is_sealed { accepted } else { accepted.saturating_sub(nanos(EARLY)) })
    }

    /// The deadlines that were put back since the last call.
    pub(super) fn take_refused(&mut self) -> Vec<Nanos> {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::page::Unmoved;
    use crate::guard::page::tests::page;

    const SECOND: Nanos = 1_000_000_000;
    const TTL: Nanos = 5 * SECOND;

    fn armed(page: &Page) -> Expiry {
        let mut expiry = Expiry::default();
        expiry.arm(page, Epoch(1), 104 * SECOND, TTL, 100 * SECOND).expect("armed");
        expiry
    }

    #[test]
    fn quit_comes_early_and_kill_at_the_deadline_once_sealed() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        let mut expiry = armed(&page);
        assert_eq!(expiry.wake_at(), Some(103_700_000_000));
        assert_eq!(expiry.check(&page, 103_699_999_999), Due::Nothing);
        assert_eq!(expiry.check(&page, 103_700_000_000), Due::Quit(104 * SECOND));
        assert_eq!(expiry.check(&page, 103_900_000_000), Due::Nothing);
        assert_eq!(page.extend(Epoch(1), 105 * SECOND), Err(Unmoved::Sealed));
        assert_eq!(expiry.check(&page, 104 * SECOND), Due::Kill(104 * SECOND));
        assert!(expiry.arm(&page, Epoch(2), 108 * SECOND, TTL, 104 * SECOND).is_err(), "while it kills");
        expiry.disarm(&page);
        assert_eq!(expiry.check(&page, 200 * SECOND), Due::Nothing);
        assert_eq!(page.extend(Epoch(1), 105 * SECOND), Err(Unmoved::NotArmed));
    }

    #[test]
    fn an_extension_is_noticed_when_the_timer_fires() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        let mut expiry = armed(&page);
        page.extend(Epoch(1), 106 * SECOND).expect("extended");
        assert_eq!(expiry.check(&page, 104 * SECOND), Due::Nothing);
        assert_eq!(expiry.wake_at(), Some(105_700_000_000));
    }

    #[test]
    fn a_guard_that_slept_over_the_deadline_kills_at_once() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        assert_eq!(armed(&page).check(&page, 500 * SECOND), Due::Kill(104 * SECOND));
    }

    #[test]
    fn a_deadline_beyond_the_ttl_is_put_back_and_the_accepted_one_stays() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        let mut expiry = armed(&page);
        page.extend(Epoch(1), 107 * SECOND).expect("the page itself knows no clock");
        assert_eq!(expiry.check(&page, 101 * SECOND), Due::Nothing);
        assert_eq!(expiry.take_refused(), vec![107 * SECOND]);
        assert_eq!(page.deadline(), Some((104 * SECOND, false)));
        page.extend(Epoch(1), 106 * SECOND).expect("a proper one");
        assert_eq!(expiry.check(&page, 101 * SECOND), Due::Nothing);
        assert_eq!(expiry.wake_at(), Some(105_700_000_000));
    }

    #[test]
    fn a_page_that_lost_its_deadline_gets_it_back() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        let mut expiry = armed(&page);
        page.disarm();
        assert_eq!(expiry.check(&page, 104 * SECOND), Due::Kill(104 * SECOND));
    }

    #[test]
    fn an_inherited_deadline_comes_and_cannot_be_extended() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        let mut expiry = Expiry::default();
        expiry.inherit(&page, 104 * SECOND, TTL);
        assert_eq!(page.extend(Epoch(1), 106 * SECOND), Err(Unmoved::NotArmed));
        assert_eq!(expiry.check(&page, 103_800_000_000), Due::Quit(104 * SECOND));
        let mut expiry = Expiry::default();
        expiry.inherit(&page, 104 * SECOND, TTL);
        expiry.arm(&page, Epoch(2), 106 * SECOND, TTL, 103 * SECOND).expect("armed anew");
        assert_eq!(expiry.check(&page, 104 * SECOND), Due::Nothing);
    }

    #[test]
    fn what_is_too_near_or_too_far_is_not_armed() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (_, page, _) = page(temp.path());
        let mut expiry = Expiry::default();
        for deadline in [0, 99, 100, 100 * SECOND + 300_000_000, 105 * SECOND + 1, u64::MAX] {
            assert!(expiry.arm(&page, Epoch(1), deadline, TTL, 100 * SECOND).is_err(), "{deadline}");
        }
        assert_eq!(expiry.wake_at(), None);
    }
}
