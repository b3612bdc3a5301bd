//! What the guard knows of PostgreSQL and does to it: start, adopt, signal, kill, reap.
//!
//! It never waits: each step looks, acts, and says when it wants to go on.

use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, wait};

use super::clock::{Nanos, nanos};
use super::message::{PostmasterExit, PostmasterSignal, StartRequest, Status};
use super::page::Page;
use super::postmaster::{self, Postmaster};
use super::procfs::{self, Exact, Family, Look};
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
    round: u32,
    /// What began it: the deadline, or zero for an order.
    deadline: Nanos,
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
    notes: Vec<String>,
    has_changed: bool,
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
            has_changed: false,
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

    /// When the next step is due.
    pub(super) fn wake_at(&self) -> Option<Nanos> {
        let runs_quietly = self.postmaster().is_some() && self.killing.is_none();
        (!runs_quietly).then_some(self.next_round)
    }

    /// Sentences for the log since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<String> {
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
                let family = self.look.family(None);
                self.recognise(page, &family, now);
                self.next_round = now.saturating_add(nanos(IDLE_ROUND));
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
        let grace = if exit == PostmasterExit::Exited(0) { CLEAN_GRACE } else { CRASH_GRACE };
        self.notes.push(format!(
            "the postmaster (pid {}) has ended: {}",
            postmaster.process.pid,
            describe(exit)
        ));
        page.record_exit(exit);
        self.enter(page, Phase::Ending { kill_at: now.saturating_add(nanos(grace)) });
        self.next_round = now;
    }

    /// Waits for the rest after the postmaster's end, then kills it.
    fn ending_round(&mut self, page: &Page, now: Nanos, kill_at: Nanos) {
        let family = self.look.family(None);
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
        self.next_round = now.saturating_add(nanos(ENDING_ROUND));
    }

    /// Nothing was known to run: is there a postmaster, or what one left behind?
    fn recognise(&mut self, page: &Page, family: &Family, now: Nanos) {
        if family.servers.is_empty() {
            return;
        }
        if let Some(found) = postmaster::find(family, &self.data_dir) {
            self.notes.push(format!(
                "adopted the postmaster (pid {}): it has no death signal until its next restart",
                found.process.pid
            ));
            self.enter(page, Phase::Running(found));
            return;
        }
        // A standalone server works for initdb or pg_rewind and is left alone; so is a postmaster which has not
        // written postmaster.pid yet.
        let is_orphan = |pid| !procfs::is_standalone_server(pid) && !procfs::is_postmaster(pid);
        if family.servers.iter().any(|server| is_orphan(server.pid)) {
            self.enter(page, Phase::Ending { kill_at: now.saturating_add(nanos(CRASH_GRACE)) });
        }
    }

    fn enter(&mut self, page: &Page, phase: Phase) {
        self.phase = phase;
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
        let family = self.look.family(None);
        if !family.servers.is_empty() {
            return Err(format!("processes of the data directory are left: {:?}", family.pids()));
        }
        let started = postmaster::start(request, &self.oom_score_adj)
            .map_err(|error| format!("cannot run {}: {error}", request.program.display()))?;
        let pid = started.process.pid;
        self.notes.push(format!("started the postmaster (pid {pid})"));
        self.enter(page, Phase::Running(started));
        Ok(pid)
    }

    /// Looks for a postmaster which is not known; its pid.
    pub(super) fn adopt(&mut self, page: &Page, now: Nanos) -> Option<u32> {
        if matches!(self.phase, Phase::Stopped) && self.killing.is_none() {
            let family = self.look.family(None);
            self.recognise(page, &family, now);
        }
        self.postmaster().map(|one| one.process.pid)
    }

    /// Sends a signal to exactly the known postmaster.
    pub(super) fn signal(&self, signal: PostmasterSignal) -> Result<(), String> {
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

    /// A fresh look.
    pub(super) fn status(&self) -> (Process, Family) {
        let known = self.postmaster().map(|one| (one.process.pid, one.process.start_time));
        (self.process(), self.look.family(known))
    }

    /// SIGQUIT, shortly before the deadline.
    pub(super) fn quit(&mut self) {
        if let Some(postmaster) = self.postmaster() {
            let sent = postmaster.process.signal(Signal::QUIT);
            self.notes.push(match sent {
                Ok(()) => "the deadline comes and was not moved: sent SIGQUIT to the postmaster".to_owned(),
                Err(error) => format!("cannot send SIGQUIT to the postmaster: {error}"),
            });
        }
    }

    /// Begins to kill, for the deadline that has come or by order (zero).
    pub(super) fn begin_kill(&mut self, page: &Page, deadline: Nanos, now: Nanos) {
        if self.killing.is_none() {
            page.record_kill(deadline, now);
            self.killing = Some(Killing { round: 0, deadline });
            self.next_round = now;
        }
    }

    /// Stops the postmaster, so that it forks no more; kills every other process; kills the postmaster. Never the
    /// postmaster alone: an orphan in a server-side loop goes on committing. True: nothing is left.
    fn kill_round(&mut self, page: &Page, now: Nanos) -> bool {
        let known = self.postmaster().map(|one| (one.process.pid, one.process.start_time));
        self.signal_postmaster(Signal::STOP);
        let family = self.look.family(known);
        for stat in family.all().filter(|stat| known != Some((stat.pid, stat.start_time))) {
            kill_exact(stat);
        }
        self.signal_postmaster(Signal::KILL);
        self.reap(page, now);
        let is_gone = self.postmaster().is_none() && family.servers.is_empty();
        if let Some(killing) = &mut self.killing {
            killing.round = killing.round.saturating_add(1);
            let pause = if killing.round < PATIENT_ROUND { KILL_ROUND } else { PATIENT_KILL_ROUND };
            self.next_round = now.saturating_add(nanos(pause));
            if killing.round == PATIENT_ROUND {
                self.notes.push(format!(
                    "processes {:?} got SIGKILL and are left: the disk may not answer",
                    family.pids()
                ));
            }
        }
        is_gone && self.finish_kill(page)
    }

    fn finish_kill(&mut self, page: &Page) -> bool {
        let finished = super::clock::now();
        page.record_killed(finished);
        if let Some(killing) = self.killing.take() {
            let why = if killing.deadline == 0 { "by order" } else { "at the deadline" };
            self.notes.push(format!("killed PostgreSQL {why}; no process of the data directory is left"));
        }
        self.enter(page, Phase::Stopped);
        true
    }

    fn signal_postmaster(&mut self, signal: Signal) {
        if let Some(postmaster) = self.postmaster()
            && let Err(error) = postmaster.process.signal(signal)
        {
            self.notes.push(format!("cannot send signal {} to the postmaster: {error}", signal.as_raw()));
        }
    }

    /// Everything of the data directory, for [`Status`].
    pub(super) fn describe(&self, took: Duration, warnings: &[String]) -> Status {
        let (process, family) = self.status();
        Status { process, pids: family.pids(), took, warnings: warnings.to_vec() }
    }
}

fn kill_exact(stat: &procfs::Stat) {
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
        PostmasterExit::Exited(0) => "a clean shutdown".to_owned(),
        PostmasterExit::Exited(status) => format!("exit status {status}"),
        PostmasterExit::Signalled(signal) => format!("signal {signal}"),
        PostmasterExit::NotKnown => "its status went to its parent".to_owned(),
    }
}
