//! The guard process: a deadline, a seal, a kill. It lives without its daemon.

use std::time::Duration;

use crate::lease::BootTime;
use crate::model::{Epoch, Session};

/// SIGQUIT goes out so long before the deadline.
const EARLY: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) session: Session,
    pub(crate) armed: Option<Armed>,
    sealed: bool,
    /// Since when it kills what does not die.
    pub(crate) killing_since: Option<BootTime>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    pub(crate) epoch: Epoch,
    pub(crate) deadline: BootTime,
    pub(crate) ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Quit,
    Kill,
}

impl Guard {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, armed: None, sealed: false, killing_since: None }
    }

    pub(crate) fn arm(&mut self, epoch: Epoch, deadline: BootTime, ttl: Duration, now: BootTime) -> bool {
        let good = !self.sealed && deadline > now.after(EARLY) && deadline <= now.after(ttl);
        if good {
            self.armed = Some(Armed { epoch, deadline, ttl });
        }
        good
    }

    pub(crate) fn disarm(&mut self) {
        self.armed = None;
        self.sealed = false;
    }

    /// Never backwards, only under the same epoch, never once the end has begun.
    pub(crate) fn extend(&mut self, epoch: Epoch, deadline: BootTime, now: BootTime) {
        if let Some(armed) = self.armed.as_mut().filter(|armed| armed.epoch == epoch)
            && !self.sealed
            && deadline <= now.after(armed.ttl)
        {
            armed.deadline = armed.deadline.max(deadline);
        }
    }

    /// What its timer brings.
    pub(crate) fn check(&mut self, now: BootTime) -> Due {
        let Some(armed) = self.armed else { return Due::Nothing };
        if now >= armed.deadline {
            self.disarm();
            return Due::Kill;
        }
        if !self.sealed && now.after(EARLY) >= armed.deadline {
            self.sealed = true;
            return Due::Quit;
        }
        Due::Nothing
    }
}
