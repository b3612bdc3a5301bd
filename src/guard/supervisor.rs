//! What the guard knows of PostgreSQL and does to it: start, adopt, signal, kill, reap.
//!
//! It never waits: each step looks, acts, and says when it wants to go on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, wait};

use super::clock::{Nanos, nanos};
use super::message::{Note, PostmasterExit, PostmasterSignal, StartRequest};
use super::page::Page;
use super::postmaster::{self, Postmaster};
use super::procfs::{self, Exact, Look, Stat};
use crate::ha::Process;

/// While it kills: the next look. Processes which got SIGKILL take a few milliseconds to go.
const KILL_ROUND: Duration = Duration::from_millis(2);
/// From this round on the next look is later: what is left waits for a disk.
const PATIENT_ROUND: u32 = 200;
/// That later look.
const PATIENT_KILL_ROUND: Duration = Duration::from_millis(50);
/// After a postmaster's end: how often to look whether the rest has gone.
const ENDING_ROUND: Duration = Duration::from_millis(10);
/// After a clean end, the log collector still writes its last lines.
const CLEAN_GRACE: Duration = Duration::from_secs(1);
/// After a crash: without a postmaster its children have no work, but a loop inside a function would go on.
const CRASH_GRACE: Duration = Duration::from_millis(100);
/// How often to look for a postmaster which somebody else started.
const IDLE_ROUND: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Phase {
    /// No server is left.
    Stopped,
    /// The postmaster runs.
    Running(Postmaster),
    /// It has ended; what is left is killed at this time.
    Ending { kill_at: Nanos },
}

#[derive(Debug)]
struct Killing {
    /// Until then SIGQUIT has its chance, as long as the postmaster lives.
    hard_at: Nanos,
    round: u32,
    /// What began it: the deadline, or zero for an order.
    deadline: Nanos,
    /// There was something to kill.
    found: bool,
}

/// PostgreSQL as the guard sees it.
#[derive(Debug)]
pub(super) struct Supervisor {
    data_dir: PathBuf,
    look: Look,
    phase: Phase,
    killing: Option<Killing>,
    next_round: Nanos,
    /// What the guard's own value was before it protected itself.
    oom_score_adj: String,
    notes: Vec<Note>,
    last_trouble: Option<String>,
    has_changed: bool,
    /// The running postmaster was asked to end, or is being killed, by this guard.
    is_asked_to_end: bool,
}

impl Supervisor {
    /// Nothing is known; the first step looks.
    pub(super) fn new(data_dir: PathBuf, oom_score_adj: String) -> Self {
        let look = Look { data_dirs: vec![data_dir.clone()], guard: std::process::id() };
        Self {
            data_dir,
            look,
            phase: Phase::Stopped,
            killing: None,
            next_round: 0,
            oom_score_adj,
            notes: Vec::new(),
            last_trouble: None,
            has_changed: false,
            is_asked_to_end: false,
        }
    }

    /// The running postmaster.
    pub(super) fn postmaster(&self) -> Option<&Postmaster> {
        match &self.phase {
            Phase::Running(postmaster) => Some(postmaster),
            Phase::Stopped | Phase::Ending { .. } => None,
        }
    }

    /// Nothing runs and nothing is being done.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Stopped) && self.killing.is_none()
    }

    /// A kill is under way.
    pub(super) fn is_killing(&self) -> bool {
        self.killing.is_some()
    }

    /// Everything was sent SIGKILL; what is left waits for a disk. After the second look, since the first may miss what
    /// a postmaster forked before it was stopped.
    pub(super) fn is_kill_sent(&self) -> bool {
        self.killing.as_ref().is_some_and(|killing| killing.round >= 2)
    }

    /// When the next step is due.
    pub(super) fn wake_at(&self) -> Option<Nanos> {
        let runs_quietly = self.postmaster().is_some() && self.killing.is_none();
        (!runs_quietly).then_some(self.next_round)
    }

    /// Sentences for the log since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Has the page changed since the last call?
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// What can be done now without waiting. True: a kill was finished.
    pub(super) fn step(&mut self, page: &Page, now: Nanos) -> bool {
        self.reap(page, now);
        if now < self.next_round {
            return false;
        }
        if self.killing.is_some() {
            return self.kill_round(page, now);
        }
        match self.phase {
            Phase::Running(_) => {}
            Phase::Ending { kill_at } => self.ending_round(page, now, kill_at),
            Phase::Stopped => {
                self.next_round = now.saturating_add(nanos(IDLE_ROUND));
                match self.look.servers() {
                    Ok(servers) => self.recognise(page, &servers, now),
                    Err(error) => self.cannot_look(&error),
                }
            }
        }
        false
    }

    /// Collects every child that has ended, also those which came from a dead postmaster, and notices the end of the
    /// postmaster. A zombie counts as gone.
    fn reap(&mut self, page: &Page, now: Nanos) {
        let mut status = None;
        let child = self.postmaster().filter(|one| one.is_child).map(|one| one.process.pid);
        while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG) {
            if child == u32::try_from(pid.as_raw_nonzero().get()).ok() {
                status = Some(ended);
            }
        }
        let Some(postmaster) = self.postmaster() else { return };
        if status.is_none() && !has_ended(&postmaster.process) {
            return;
        }
        let exit = match status {
            None => PostmasterExit::NotKnown,
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => PostmasterExit::Exited(code),
                (None, Some(signal)) => PostmasterExit::Signalled(signal),
                (None, None) => PostmasterExit::NotKnown,
            },
        };
        let is_clean = exit == PostmasterExit::Exited(0);
        let grace = if is_clean { CLEAN_GRACE } else { CRASH_GRACE };
        let text = format!("the postmaster (pid {}) has ended: {}", postmaster.process.pid, describe(exit));
        self.notes.push(if is_clean { Note::info(text) } else { Note::warning(text) });
        page.record_exit(exit);
        let may_have_obeyed = is_clean || exit == PostmasterExit::NotKnown;
        let by_others = may_have_obeyed && !self.is_asked_to_end;
        page.record_stopped_by_others(by_others.then_some(now));
        self.enter(page, Phase::Ending { kill_at: now.saturating_add(nanos(grace)) });
        self.next_round = now;
    }

    /// Waits for the rest after the postmaster's end, then kills it.
    fn ending_round(&mut self, page: &Page, now: Nanos, kill_at: Nanos) {
        self.next_round = now.saturating_add(nanos(ENDING_ROUND));
        let family = match self.look.family(None) {
            Ok(family) => family,
            Err(error) => return self.cannot_look(&error),
        };
        if family.servers.is_empty() {
            self.enter(page, Phase::Stopped);
            self.next_round = now.saturating_add(nanos(IDLE_ROUND));
            return;
        }
        if now >= kill_at {
            for stat in family.all() {
                kill_exact(stat);
            }
        }
    }

    /// Said once in a while, not in every round.
    fn cannot_look(&mut self, error: &io::Error) {
        let text = format!("cannot read /proc: {error}; nothing is taken for gone until it can be read");
        if self.last_trouble.as_ref() != Some(&text) {
            self.notes.push(Note::warning(text.clone()));
            self.last_trouble = Some(text);
        }
    }

    /// Nothing was known to run: is there a postmaster, or what one left behind?
    fn recognise(&mut self, page: &Page, servers: &[Stat], now: Nanos) {
        if let Some(found) = postmaster::find(servers, &self.data_dir) {
            self.notes.push(Note::info(format!(
                "adopted the postmaster (pid {}): it has no death signal until its next restart",
                found.process.pid
            )));
            self.enter(page, Phase::Running(found));
            return;
        }
        // A standalone server works for initdb or pg_rewind and is left alone.
        let is_orphan = |pid| !procfs::is_standalone_server(pid);
        if servers.iter().any(|server| is_orphan(server.pid)) {
            self.enter(page, Phase::Ending { kill_at: now.saturating_add(nanos(CRASH_GRACE)) });
        }
    }

    fn enter(&mut self, page: &Page, phase: Phase) {
        self.phase = phase;
        if matches!(self.phase, Phase::Running(_)) {
            self.is_asked_to_end = false;
            page.record_stopped_by_others(None);
        }
        let start_time = self.postmaster().map(|one| one.process.start_time).unwrap_or_default();
        page.set_process(&self.process(), start_time);
        self.has_changed = true;
    }

    fn process(&self) -> Process {
        match &self.phase {
            Phase::Stopped => Process::Stopped,
            Phase::Ending { .. } => Process::Ending,
            Phase::Running(postmaster) => {
                Process::Running { pid: postmaster.process.pid, is_child: postmaster.is_child }
            }
        }
    }

    /// Starts the postmaster; its pid, or the reason why not.
    pub(super) fn start(&mut self, page: &Page, request: &StartRequest) -> Result<u32, String> {
        if let Some(running) = self.postmaster() {
            return Err(format!("the postmaster runs already (pid {})", running.process.pid));
        }
        if self.killing.is_some() {
            return Err("PostgreSQL is being killed".to_owned());
        }
        let left = self.look.servers().map_err(|error| format!("cannot read /proc: {error}"))?;
        if !left.is_empty() {
            let pids: Vec<u32> = left.iter().map(|server| server.pid).collect();
            return Err(format!("processes of the data directory are left: {pids:?}"));
        }
        let started = postmaster::start(request, &self.oom_score_adj)
            .map_err(|error| format!("cannot run {}: {error}", request.program.display()))?;
        let pid = started.process.pid;
        self.notes.push(Note::info(format!("postmaster pid={pid}")));
        self.enter(page, Phase::Running(started));
        Ok(pid)
    }

    /// Looks for a postmaster which is not known; its pid.
    pub(super) fn adopt(&mut self, page: &Page, now: Nanos) -> Result<Option<u32>, String> {
        if self.is_idle() {
            let servers = self.look.servers().map_err(|error| format!("cannot read /proc: {error}"))?;
            self.recognise(page, &servers, now);
        }
        Ok(self.postmaster().map(|one| one.process.pid))
    }

    /// Sends a signal to exactly the known postmaster.
    pub(super) fn signal(&mut self, signal: PostmasterSignal) -> Result<(), String> {
        self.is_asked_to_end |= signal != PostmasterSignal::Reload;
        let Some(postmaster) = self.postmaster() else {
            return Err("no postmaster runs".to_owned());
        };
        let signal = match signal {
            PostmasterSignal::Smart => Signal::TERM,
            PostmasterSignal::Fast => Signal::INT,
            PostmasterSignal::Immediate => Signal::QUIT,
            PostmasterSignal::Reload => Signal::HUP,
        };
        postmaster.process.signal(signal).map_err(|error| error.to_string())
    }

    /// A fresh look: the postmaster, and the pids of everything of the data directory.
    pub(super) fn look(&self) -> Result<(Process, Vec<u32>), String> {
        let family = self.look.family(self.known()).map_err(|error| format!("cannot read /proc: {error}"))?;
        Ok((self.process(), family.pids()))
    }

    /// Surely no server of the data directory is left.
    pub(super) fn is_nothing_left(&self) -> bool {
        self.look.servers().is_ok_and(|servers| servers.is_empty())
    }

    fn known(&self) -> Option<(u32, u64)> {
        self.postmaster().map(|one| (one.process.pid, one.process.start_time))
    }

    /// Begins the kill that is over at the deadline at the latest: SIGQUIT, shortly before.
    pub(super) fn begin_quit(&mut self, page: &Page, deadline: Nanos, now: Nanos) {
        self.begin(page, deadline, deadline, now);
        if let Some(postmaster) = self.postmaster() {
            let sent = postmaster.process.signal(Signal::QUIT);
            self.notes.push(match sent {
                Ok(()) => Note::warning(
                    "the deadline comes and was not moved: sent SIGQUIT to the postmaster".to_owned(),
                ),
                Err(error) => Note::warning(format!("cannot send SIGQUIT to the postmaster: {error}")),
            });
        }
    }

    /// Kills hard from now on, for the deadline that has come or by order (zero).
    pub(super) fn begin_kill(&mut self, page: &Page, deadline: Nanos, now: Nanos) {
        self.begin(page, deadline, now, now);
    }

    fn begin(&mut self, page: &Page, deadline: Nanos, hard_at: Nanos, now: Nanos) {
        if let Some(killing) = &mut self.killing {
            if hard_at < killing.hard_at {
                killing.hard_at = hard_at;
                self.next_round = now;
            }
            return;
        }
        page.record_kill(deadline, now);
        self.is_asked_to_end = true;
        let found = self.postmaster().is_some();
        self.killing = Some(Killing { hard_at, round: 0, deadline, found });
        self.next_round = now;
    }

    /// Stops the postmaster, so that it forks no more; kills every other process; kills the postmaster. Never the
    /// postmaster alone: an orphan in a server-side loop goes on committing. True: nothing is left.
    fn kill_round(&mut self, page: &Page, now: Nanos) -> bool {
        if let Some(killing) = &self.killing
            && now < killing.hard_at
            && self.postmaster().is_some()
        {
            // Its end is noticed by its pidfd.
            self.next_round = killing.hard_at;
            return false;
        }
        self.next_round = now.saturating_add(nanos(KILL_ROUND));
        let known = self.known();
        self.signal_postmaster(Signal::STOP);
        let family = match self.look.family(known) {
            Ok(family) => family,
            Err(error) => {
                // Its children cannot be seen, but it can end them itself; it alone must not be killed.
                self.signal_postmaster(Signal::QUIT);
                self.signal_postmaster(Signal::CONT);
                self.cannot_look(&error);
                return false;
            }
        };
        for stat in family.all().filter(|stat| known != Some((stat.pid, stat.start_time))) {
            kill_exact(stat);
        }
        self.signal_postmaster(Signal::KILL);
        self.reap(page, now);
        let is_gone = self.postmaster().is_none() && family.servers.is_empty();
        if let Some(killing) = &mut self.killing {
            killing.round = killing.round.saturating_add(1);
            killing.found |= !family.servers.is_empty();
            let pause = if killing.round < PATIENT_ROUND { KILL_ROUND } else { PATIENT_KILL_ROUND };
            self.next_round = now.saturating_add(nanos(pause));
            if killing.round == PATIENT_ROUND {
                self.notes.push(Note::warning(format!(
                    "processes {:?} got SIGKILL and are left: the disk may not answer",
                    family.pids()
                )));
            }
        }
        is_gone && self.finish_kill(page)
    }

    fn finish_kill(&mut self, page: &Page) -> bool {
        let finished = super::clock::now();
        page.record_killed(finished);
        if let Some(killing) = self.killing.take() {
            let why = if killing.deadline == 0 { "by order" } else { "at the deadline" };
            self.notes.push(if killing.found {
                Note::warning(format!("killed PostgreSQL {why}; no process of the data directory is left"))
            } else {
                Note::info(format!("nothing was left to kill {why}"))
            });
        }
        self.enter(page, Phase::Stopped);
        true
    }

    fn signal_postmaster(&mut self, signal: Signal) {
        if let Some(postmaster) = self.postmaster()
            && let Err(error) = postmaster.process.signal(signal)
        {
            let signal = signal.as_raw();
            self.notes.push(Note::warning(format!("cannot send signal {signal} to the postmaster: {error}")));
        }
    }
}

fn kill_exact(stat: &Stat) {
    if let Some(exact) = Exact::hold(stat.pid, stat.start_time) {
        // It may have ended meanwhile; the next round looks again.
        exact.signal(Signal::KILL).ok();
    }
}

/// A pidfd is readable once its process has ended.
fn has_ended(process: &Exact) -> bool {
    let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

fn describe(exit: PostmasterExit) -> String {
    match exit {
        PostmasterExit::Exited(0) => "exit status 0".to_owned(),
        PostmasterExit::Exited(status) => format!("exit status {status}"),
        PostmasterExit::Signalled(signal) => format!("signal {signal}"),
        PostmasterExit::NotKnown => "its status went to its parent".to_owned(),
    }
}
