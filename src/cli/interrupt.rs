//! Ctrl-C: the tool says that it was aborted, leaves the terminal as it found it, and ends with status 1.
//!
//! A prompt is a read which nothing else ends, so the command has a thread of its own, and the main one waits for its end
//! or for the signal.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// As much as the main thread has.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// What is to be known of the terminal when Ctrl-C is pressed.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    /// An editor or a pager has it: Ctrl-C is for that program.
    is_lent: AtomicBool,
    /// How it was before what is typed was hidden.
    shown: Mutex<Option<Termios>>,
}

impl Terminal {
    /// Does something while a program of the operator's has the terminal.
    pub(super) fn lent<T>(&self, work: impl FnOnce() -> T) -> T {
        self.is_lent.store(true, Ordering::SeqCst);
        let result = work();
        self.is_lent.store(false, Ordering::SeqCst);
        result
    }

    /// Hides what is typed; false: there is no terminal.
    pub(super) fn hide(&self) -> rustix::io::Result<bool> {
        let Ok(shown) = tcgetattr(rustix::stdio::stdin()) else { return Ok(false) };
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &hidden).map(|()| true)
    }

    /// Shows again what is typed.
    pub(super) fn show(&self) {
        if let Some(shown) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Where the terminal went away there is nothing to set right.
            tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &shown).ok();
        }
    }
}

/// Carries a command out, up to Ctrl-C.
pub(super) fn run_abortable(
    terminal: &Arc<Terminal>,
    command: impl FnOnce() -> ExitCode + Send + 'static,
) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(_) => return command(),
    };
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).ok();
        let (ended, mut end) = oneshot::channel();
        let work = move || {
            // Nobody listens any more: it was aborted.
            ended.send(command()).ok();
        };
        if std::thread::Builder::new().name("command".to_owned()).stack_size(STACK_BYTES).spawn(work).is_err()
        {
            return ExitCode::FAILURE;
        }
        loop {
            let pressed = async {
                match &mut interrupt {
                    Some(interrupt) => drop(interrupt.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                code = &mut end => return code.unwrap_or(ExitCode::FAILURE),
                () = pressed => {}
            }
            if !terminal.is_lent.load(Ordering::SeqCst) {
                terminal.show();
                // Nobody may be left who could be told.
                writeln!(std::io::stderr(), "\nAborted!").ok();
                return ExitCode::FAILURE;
            }
        }
    })
}
