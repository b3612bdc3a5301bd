//! What tells the daemon at once: the guard's pushes, the guard's death, the postmaster's death. Each comes from a
//! descriptor that becomes readable; nothing is polled.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::timeout;

use super::message::{News, Push};
use super::page::Page;
use super::procfs::Exact;
use crate::ha::Process;

/// SIGKILL works at once, except on a process that waits for a disk; a guard waits for none.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes [`News`] as long as the guard lives.
pub(super) struct Watcher {
    page: Arc<Page>,
    guard: AsyncFd<OwnedFd>,
    stream: BufReader<UnixStream>,
    child: Option<Child>,
    postmaster: Option<Watched>,
    /// A postmaster whose end was seen here: its pid and start time.
    ended: Option<(u32, u64)>,
    news: watch::Sender<News>,
}

struct Watched {
    pid: u32,
    start_time: u64,
    pidfd: AsyncFd<OwnedFd>,
}

impl Watcher {
    /// Watches this guard. `child` is its process when this daemon started it, to be reaped.
    pub(super) fn new(
        page: Arc<Page>,
        guard: Exact,
        stream: BufReader<UnixStream>,
        child: Option<Child>,
    ) -> io::Result<(Self, watch::Receiver<News>)> {
        let guard = register(guard.pidfd)?;
        let (news, receiver) = watch::channel(read(&page, None));
        let mut watcher = Self { page, guard, stream, child, postmaster: None, ended: None, news };
        watcher.refresh();
        Ok((watcher, receiver))
    }

    /// Runs until the guard is dead.
    pub(super) async fn run(mut self) {
        let mut line = String::new();
        loop {
            tokio::select! {
                _ = self.guard.readable() => break,
                received = self.stream.read_line(&mut line) => {
                    if !matches!(received, Ok(len) if len > 0) {
                        break;
                    }
                    self.heard(&line);
                    line.clear();
                }
                () = ended(self.postmaster.as_ref()) => {
                    self.ended = self.postmaster.take().map(|one| (one.pid, one.start_time));
                    self.refresh();
                }
            }
        }
        self.news.send_modify(|news| *news = News { is_alive: false, ..read(&self.page, self.ended) });
        if let Some(child) = &mut self.child {
            child.wait().await.ok();
        }
    }

    fn heard(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Push::Note(note)) if note.is_warning => tracing::warn!("guard: {}", note.text),
            Ok(Push::Note(note)) => tracing::info!("guard: {}", note.text),
            Ok(Push::Changed) => self.refresh(),
            Err(error) => {
                // The guard never waits for a slow reader, so a line may have been cut; what counts is in the page.
                tracing::debug!("cannot read what the guard says: {error}");
                self.refresh();
            }
        }
    }

    /// Reads the page and follows the postmaster which it names.
    fn refresh(&mut self) {
        if let Process::Running { pid, .. } = self.page.process() {
            let start_time = self.page.postmaster_start_time();
            let is_watched = self.postmaster.as_ref().is_some_and(|one| one.pid == pid);
            if !is_watched && self.ended != Some((pid, start_time)) {
                let pidfd = Exact::hold(pid, start_time).and_then(|exact| register(exact.pidfd).ok());
                self.postmaster = pidfd.map(|pidfd| Watched { pid, start_time, pidfd });
            }
        } else {
            self.postmaster = None;
        }
        let news = read(&self.page, self.ended);
        self.news.send_if_modified(|last| {
            let is_new = *last != news;
            *last = news;
            is_new
        });
    }
}

/// What the page says, corrected by what was seen here.
fn read(page: &Page, ended: Option<(u32, u64)>) -> News {
    let process = match (page.process(), ended) {
        (Process::Running { pid, .. }, Some(gone)) if gone == (pid, page.postmaster_start_time()) => {
            Process::Ending
        }
        (process, _) => process,
    };
    let (exits, last_exit) = page.exits();
    News { is_alive: true, process, exits, last_exit, last_kill: page.last_kill() }
}

async fn ended(postmaster: Option<&Watched>) {
    match postmaster {
        // An error of the event queue is as good a reason to look.
        Some(watched) => drop(watched.pidfd.readable().await),
        None => std::future::pending().await,
    }
}

/// Hands a pidfd to the event queue of the runtime.
#[expect(unsafe_code, reason = "tokio asks its caller to promise that the descriptor stays valid")]
fn register(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, always gives the same number, and is dropped by the `AsyncFd`
    // after its registration.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

/// Kills a guard that does not answer and waits for its end.
pub(super) async fn end(guard: Exact) {
    if let Err(error) = guard.signal(Signal::KILL) {
        tracing::warn!("cannot end the guard (pid {}): {error}", guard.pid);
    }
    if let Ok(pidfd) = register(guard.pidfd)
        && timeout(END_TIMEOUT, pidfd.readable()).await.is_err()
    {
        tracing::warn!("the guard (pid {}) does not end", guard.pid);
    }
}
