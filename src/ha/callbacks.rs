//! Which of the operator's callbacks follow from what is seen of the local PostgreSQL.
//!
//! A change is told once, when it is seen: a server that came up, changed its role, or was stopped on purpose. A server
//! that crashed has not been stopped; when it is started again where it was, it has started. Where a start or a restart
//! brought another role, only the change of the role is told.

use super::action::{Action, GuardAction, JobKind, PgAction};
use super::decision::Decision;
use super::facts::{Fact, Observation, Process};
use super::report::SERVER_FRESH;
use super::rule::Rule;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackEvent {
    /// PostgreSQL came up.
    Start,
    /// It was stopped.
    Stop,
    /// It was restarted in the role that it had.
    Restart,
    /// It was told to read its configuration again.
    Reload,
    /// It was promoted, or came up in another role, or gave its role up.
    RoleChange,
}

impl CallbackEvent {
    /// The word for the command.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "on_start",
            Self::Stop => "on_stop",
            Self::Restart => "on_restart",
            Self::Reload => "on_reload",
            Self::RoleChange => "on_role_change",
        }
    }
}

/// What PostgreSQL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackRole {
    /// Out of recovery.
    Primary,
    /// In recovery.
    Replica,
    /// In recovery, with the lease, in a cluster that follows another one.
    StandbyLeader,
    /// It was a primary and has given that up.
    Demoted,
}

impl CallbackRole {
    /// The word for the command.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::StandbyLeader => "standby_leader",
            Self::Demoted => "demoted",
        }
    }
}

/// One callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callback {
    /// What happened.
    pub event: CallbackEvent,
    /// The role after it; for a stop the one that ended.
    pub role: CallbackRole,
}

/// What was told so far.
#[derive(Clone, Debug, Default)]
pub struct CallbackMemory {
    /// The last role that was told.
    role: Option<CallbackRole>,
    /// The postmaster that was seen to answer.
    up: Option<u32>,
    /// A restart was begun since.
    restarts: bool,
    /// It was told to stop since.
    stops: bool,
    /// To hand over.
    hands_over: bool,
}

impl CallbackMemory {
    /// The callbacks that this observation and the decision on it are worth, in order; mostly none.
    pub fn look(&mut self, o: &Observation, decision: &Decision) -> Vec<Callback> {
        let mut told = Vec::new();
        match &o.postgres.process {
            Fact::Known { value: Process::Running { pid, .. }, .. } => self.running(o, *pid, &mut told),
            Fact::Known { value: Process::Stopped | Process::Ending, .. } => self.not_running(o, &mut told),
            Fact::Unknown(_) => {}
        }
        self.note(decision);
        if !o.shutting_down && self.gives_up(decision) {
            self.tell(CallbackEvent::RoleChange, CallbackRole::Demoted, &mut told);
        }
        told
    }

    /// The callback after a reload of the running server.
    pub fn reloaded(&self) -> Option<Callback> {
        let role = self.role.filter(|_| self.up.is_some())?;
        Some(Callback { event: CallbackEvent::Reload, role })
    }

    fn tell(&mut self, event: CallbackEvent, role: CallbackRole, told: &mut Vec<Callback>) {
        self.role = Some(role);
        told.push(Callback { event, role });
    }

    fn running(&mut self, o: &Observation, pid: u32, told: &mut Vec<Callback>) {
        // While the first server is being set up it is nobody's.
        let is_being_made = o.job.as_ref().is_some_and(|job| job.kind == JobKind::Bootstrap);
        let Some(server) = o.postgres.server.within(SERVER_FRESH).filter(|_| !is_being_made) else { return };
        let role = if server.is_in_recovery { CallbackRole::Replica } else { CallbackRole::Primary };
        let changes = self.role.is_some_and(|before| before != role);
        if self.up == Some(pid) {
            if changes {
                self.tell(CallbackEvent::RoleChange, role, told);
            }
            return;
        }
        if self.up.is_some() {
            self.ended(told);
        }
        let changes = self.role.is_some_and(|before| before != role);
        let event = match (changes, self.restarts) {
            (true, _) => CallbackEvent::RoleChange,
            (false, true) => CallbackEvent::Restart,
            (false, false) => CallbackEvent::Start,
        };
        self.up = Some(pid);
        (self.restarts, self.stops, self.hands_over) = (false, false, false);
        self.tell(event, role, told);
    }

    fn not_running(&mut self, o: &Observation, told: &mut Vec<Callback>) {
        if self.up.is_none() {
            return;
        }
        let holds = o.cluster.lease.holder() == Some(o.me) && o.licence().is_some();
        // Without the lease it did not end by itself: the guard ended it.
        self.stops |= self.role == Some(CallbackRole::Primary) && !holds;
        self.ended(told);
    }

    /// It ran, and does so no more.
    fn ended(&mut self, told: &mut Vec<Callback>) {
        self.up = None;
        if !self.stops || self.restarts {
            return;
        }
        let role = self.role.unwrap_or(CallbackRole::Replica);
        let gives_up = self.hands_over && role == CallbackRole::Primary;
        self.tell(CallbackEvent::Stop, if gives_up { CallbackRole::Demoted } else { role }, told);
    }

    /// What is about to be done to the server.
    fn note(&mut self, decision: &Decision) {
        for action in &decision.actions {
            match action {
                Action::Postgres(PgAction::Restart { .. } | PgAction::CopySlots { .. }) => {
                    self.restarts = self.up.is_some();
                }
                Action::Postgres(PgAction::Stop { .. } | PgAction::Reinitialize { .. })
                | Action::Guard(GuardAction::Kill) => {
                    self.stops = self.up.is_some();
                    self.restarts = false;
                    self.hands_over |= decision.rule == Rule::HandOverStop;
                }
                Action::Propose(_)
                | Action::Postgres(_)
                | Action::Guard(_)
                | Action::Lease(_)
                | Action::AskPeers => {}
            }
        }
    }

    /// A primary that could not be started again gives the lease back.
    fn gives_up(&self, decision: &Decision) -> bool {
        let gives_back = matches!(decision.rule, Rule::GiveBack | Rule::Sick | Rule::GivenUpEpoch);
        gives_back && self.up.is_none() && self.role == Some(CallbackRole::Primary)
    }
}
