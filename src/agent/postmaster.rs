//! The guard as the parent of the postmaster, for [`crate::postgres`], which does not know it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::licence::GuardSlot;
use crate::guard::{Guard, PostmasterExit, PostmasterSignal as GuardSignal, StartRequest};
use crate::ha::{Fact, Process};
use crate::postgres::{Postmaster, PostmasterCommand, PostmasterError, PostmasterSignal};

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
                let seen = news.borrow_and_update().clone();
                if !seen.is_alive {
                    return Err(PostmasterError("the guard is gone".to_owned()));
                }
                if matches!(seen.process, Process::Stopped) {
                    return Ok(how_it_ended(seen.last_exit));
                }
                if news.changed().await.is_err() {
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
