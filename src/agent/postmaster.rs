//! The guard as the parent of the postmaster, for [`crate::postgres`], which does not know it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use pgherd_raft::model::Session;
use tokio::time::{sleep, timeout};

use super::licence::GuardSlot;
use crate::guard::{Guard, PostmasterExit, PostmasterSignal as GuardSignal, StartRequest};
use crate::ha::{Fact, Process};
use crate::postgres::{Postmaster, PostmasterCommand, PostmasterError, PostmasterSignal};

/// The news tell at once when a postmaster ends; this is only for news that came before the page was read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The postmaster through the present guard.
///
/// What may end in a writable server is decided for one life of the guard, the one which was armed for it. When that
/// guard dies meanwhile, the next one is not armed and must not be used for it.
#[derive(Debug)]
pub struct GuardedPostmaster {
    slot: Arc<GuardSlot>,
    session: Option<Session>,
}

impl GuardedPostmaster {
    /// Through the guard in this slot, whichever it is at the time. Nothing becomes writable this way.
    pub fn new(slot: Arc<GuardSlot>) -> Self {
        Self { slot, session: None }
    }

    /// Through this life of the guard only.
    pub fn of_session(slot: Arc<GuardSlot>, session: Session) -> Self {
        Self { slot, session: Some(session) }
    }

    /// The slot is empty while the daemon attaches anew, which may take seconds on a busy machine.
    async fn guard(&self) -> Result<Guard, PostmasterError> {
        loop {
            if let Some(guard) = self.slot.get() {
                return self.meant(guard);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn meant(&self, guard: Guard) -> Result<Guard, PostmasterError> {
        match self.session {
            Some(session) if session != guard.session() => {
                Err(PostmasterError(format!("the guard of this action (session {session}) is gone")))
            }
            Some(_) | None => Ok(guard),
        }
    }

    /// The postmaster, or that its guard gets no time to show itself; fails when the guard is dead.
    async fn look(&self) -> Result<(Guard, Option<Process>), PostmasterError> {
        let guard = self.guard().await?;
        if !guard.watch().borrow().is_alive {
            return Err(PostmasterError("the guard is dead".to_owned()));
        }
        let process = guard.process().of_any_age().cloned();
        Ok((guard, process))
    }
}

fn failed(error: impl std::error::Error) -> PostmasterError {
    PostmasterError(super::jobs::chain(&error))
}

impl Postmaster for GuardedPostmaster {
    fn process(&self) -> Fact<Process> {
        match self.slot.get() {
            Some(guard) => guard.process(),
            None => Fact::Unknown("there is no guard".to_owned()),
        }
    }

    fn known(&self) -> BoxFuture<'_, Result<Process, PostmasterError>> {
        Box::pin(async move {
            loop {
                if let (_, Some(process)) = self.look().await? {
                    return Ok(process);
                }
                sleep(LOOK_AGAIN).await;
            }
        })
    }

    fn may_write(&self) -> Result<(), PostmasterError> {
        let refuse = |why: &str| Err(PostmasterError(why.to_owned()));
        if self.session.is_none() {
            return refuse("it was decided for no life of the guard");
        }
        match self.slot.get().map(|guard| self.meant(guard)).transpose()? {
            Some(guard) if guard.is_armed() => Ok(()),
            Some(_) => refuse("the guard is not armed"),
            None => refuse("there is no guard"),
        }
    }

    fn start(&self, command: PostmasterCommand) -> BoxFuture<'_, Result<u32, PostmasterError>> {
        Box::pin(async move {
            let PostmasterCommand { program, args, env, log_file, may_write } = command;
            if may_write {
                self.may_write()?;
            }
            let request = StartRequest { program, args, env, log_file, must_be_armed: may_write };
            self.guard().await?.start(request).await.map_err(failed)
        })
    }

    fn signal(&self, signal: PostmasterSignal) -> BoxFuture<'_, Result<(), PostmasterError>> {
        let signal = match signal {
            PostmasterSignal::Fast => GuardSignal::Fast,
            PostmasterSignal::Immediate => GuardSignal::Immediate,
            PostmasterSignal::Reload => GuardSignal::Reload,
        };
        Box::pin(async move { self.guard().await?.signal(signal).await.map_err(failed) })
    }

    fn stopped(&self) -> BoxFuture<'_, Result<String, PostmasterError>> {
        Box::pin(async move {
            loop {
                // The page is ahead of the news: it is written before a start is answered.
                let (guard, process) = self.look().await?;
                let mut news = guard.watch();
                if process == Some(Process::Stopped) {
                    return Ok(how_it_ended(guard.stopped().await.last_exit));
                }
                if timeout(LOOK_AGAIN, news.changed()).await.is_ok_and(|news| news.is_err()) {
                    return Err(PostmasterError("the guard is gone".to_owned()));
                }
            }
        })
    }
}

fn how_it_ended(exit: Option<PostmasterExit>) -> String {
    match exit {
        Some(PostmasterExit::Exited(status)) => format!("exit status {status}"),
        Some(PostmasterExit::Signalled(signal)) => format!("signal {signal}"),
        Some(PostmasterExit::NotKnown) | None => "exit status not known".to_owned(),
    }
}
