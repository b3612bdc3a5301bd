//! The guard as the parent of the postmaster, for [`crate::postgres`], which does not know it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::licence::GuardSlot;
use crate::guard::{Guard, PostmasterExit, PostmasterSignal as GuardSignal, StartRequest};
use crate::ha::{Fact, Process};
use crate::postgres::{Postmaster, PostmasterCommand, PostmasterError, PostmasterSignal};

/// The news tell at once when a postmaster ends; this is only for news that came before the page was read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The postmaster through the present guard.
#[derive(Debug)]
pub struct GuardedPostmaster {
    slot: Arc<GuardSlot>,
}

impl GuardedPostmaster {
    /// Through the guard in this slot, whichever it is at the time.
    pub fn new(slot: Arc<GuardSlot>) -> Self {
        Self { slot }
    }

    fn guard(&self) -> Result<Guard, PostmasterError> {
        self.slot.get().ok_or_else(|| PostmasterError("there is no guard".to_owned()))
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

    fn start(&self, command: PostmasterCommand) -> BoxFuture<'_, Result<u32, PostmasterError>> {
        Box::pin(async move {
            let PostmasterCommand { program, args, env, log_file } = command;
            self.guard()?.start(StartRequest { program, args, env, log_file }).await.map_err(failed)
        })
    }

    fn signal(&self, signal: PostmasterSignal) -> BoxFuture<'_, Result<(), PostmasterError>> {
        let signal = match signal {
            PostmasterSignal::Fast => GuardSignal::Fast,
            PostmasterSignal::Immediate => GuardSignal::Immediate,
            PostmasterSignal::Reload => GuardSignal::Reload,
        };
        Box::pin(async move { self.guard()?.signal(signal).await.map_err(failed) })
    }

    fn stopped(&self) -> BoxFuture<'_, Result<String, PostmasterError>> {
        Box::pin(async move {
            let guard = self.guard()?;
            let mut news = guard.watch();
            loop {
                // The page is ahead of the news: it is written before a start is answered.
                match guard.process() {
                    Fact::Known { value: Process::Stopped, .. } => {
                        let last_exit = news.borrow().last_exit;
                        return Ok(how_it_ended(last_exit));
                    }
                    Fact::Known { .. } => {}
                    Fact::Unknown(why) => return Err(PostmasterError(why)),
                }
                if tokio::time::timeout(LOOK_AGAIN, news.changed()).await.is_ok_and(|news| news.is_err()) {
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
