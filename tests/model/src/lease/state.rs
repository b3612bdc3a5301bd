//! The state of the lease model: the replicated records, the nodes, and what is under way between them.

/// No holder: the lease is vacant.
pub const NOBODY: u8 = 15;
/// Records kept: from the one which the slowest node has applied to the last one.
pub const WINDOW: usize = 5;

/// The replicated record of the lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    pub epoch: u8,
    pub holder: u8,
    /// The life of the holder's guard.
    pub session: u8,
    /// The life of the daemon that proposed this epoch.
    pub life: u8,
    pub voters: u8,
    pub ttl: u8,
    pub wait: u8,
    pub pinned: bool,
    /// The failsafe list; 0: anybody may hold the lease.
    pub failsafe: u8,
}

/// A proposal under way. Its proposer may be long dead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Command {
    Nil,
    Release { epoch: u8 },
    Transfer { epoch: u8, to: u8, voters: u8 },
    Renew { epoch: u8, to: u8, session: u8, life: u8, voters: u8, ttl: u8, pinned: bool },
    SetFailsafe { epoch: u8, members: u8 },
}

impl Command {
    /// The epoch which it replaces or changes.
    pub fn epoch(self) -> u8 {
        match self {
            Command::Nil => 0,
            Command::Release { epoch }
            | Command::Transfer { epoch, .. }
            | Command::Renew { epoch, .. }
            | Command::SetFailsafe { epoch, .. } => epoch,
        }
    }

    /// The same with all epochs lowered.
    pub fn lowered(mut self, by: u8) -> Self {
        match &mut self {
            Command::Nil => {}
            Command::Release { epoch }
            | Command::Transfer { epoch, .. }
            | Command::Renew { epoch, .. }
            | Command::SetFailsafe { epoch, .. } => *epoch = epoch.saturating_sub(by),
        }
        self
    }
}

/// A question to the voters, and the answers on their way back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Round {
    /// 0: no round.
    pub epoch: u8,
    pub age: u8,
    pub voters: u8,
    pub ttl: u8,
    pub acks: u8,
    /// The place of its record, kept only where voters are not part of an epoch.
    pub at: u8,
}

/// A question to the failsafe list, and the promises on their way back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ask {
    /// 0: no question.
    pub epoch: u8,
    pub age: u8,
    pub of: u8,
    pub ttl: u8,
    pub wait: u8,
    pub promised: u8,
}

/// One machine: daemon, guard and PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// The daemon; guard and PostgreSQL live on without it.
    pub alive: bool,
    /// The place in the log of the record which it has applied.
    pub applied: u8,
    /// Volatile: ticks since its last acknowledgement, its start, or learning of the epoch.
    pub quiet: u8,
    /// Durable: no epoch below is acknowledged.
    pub floor: u8,
    /// Durable: no epoch up to this one is used again.
    pub given_up: u8,
    /// The life of the guard: a reboot begins another one.
    pub session: u8,
    /// The life of the daemon.
    pub life: u8,
    /// Volatile: the epoch of its last renewal.
    pub won: u8,
    /// In the guard's page: the epoch of the deadline.
    pub under: u8,
    /// In the guard's page: ticks until PostgreSQL is killed. PostgreSQL is writable whenever it may be.
    pub deadline: u8,
    /// The guard lets PostgreSQL run without a deadline.
    pub disarmed: bool,
    pub round: Round,
    /// A round of an earlier epoch, to which answers may still come.
    pub older: Round,
    /// Fenced by its synchronous standbys: acknowledges nothing in epochs up to this one.
    pub mute: u8,
    /// Replicated: its daemon was stopped in pause, and said so before.
    pub left: bool,
    /// Volatile: the pinned epoch which it wants to end.
    pub resuming: u8,
    /// Volatile: ticks in which it wins no first renewal.
    pub promise: u8,
    /// Volatile: members of failsafe lists which it proposed and whose fate it does not know.
    pub proposed: u8,
    pub ask: Ask,
    /// The deadline rests on promises, not on a majority.
    pub by_promises: bool,
    /// PostgreSQL ran before there was a lease: not under a guard (1), or adopted that many ticks less two ago. 0: no.
    pub unlicensed: u8,
}

impl Node {
    /// PostgreSQL may accept writes.
    pub fn is_writable(&self) -> bool {
        self.deadline > 0 || self.disarmed
    }

    /// Accepts writes, but acknowledges none.
    pub fn is_zombie(&self) -> bool {
        self.is_writable() && self.under <= self.mute && self.mute > 0
    }

    /// A zombie whose end the protocol promises.
    pub fn is_bounded_zombie(&self) -> bool {
        self.is_zombie() && !self.left
    }

    /// Stops PostgreSQL.
    pub fn silence(&mut self) {
        self.deadline = 0;
        self.disarmed = false;
        self.unlicensed = 0;
    }
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State<const N: usize> {
    pub log: [Record; WINDOW],
    pub len: u8,
    pub nodes: [Node; N],
    pub pending: [Command; 2],
    /// Ticks since the first renewal after a fence while the fenced primary runs.
    pub zombie: u8,
    /// Of each kind of trouble, how often it came.
    pub slow: u8,
    pub restarts: u8,
    pub reboots: u8,
    pub deaths: u8,
}

/// Is `of` a majority of the voters?
pub(super) fn is_majority(voters: u8, of: u8) -> bool {
    (voters & of).count_ones() * 2 > voters.count_ones()
}

impl<const N: usize> State<N> {
    /// The last record agreed on.
    pub fn last(&self) -> Record {
        self.log[usize::from(self.len) - 1]
    }

    /// The record which a node has applied.
    pub fn view(&self, i: usize) -> Record {
        self.log[usize::from(self.nodes[i].applied)]
    }

    /// The voters which closed an epoch.
    pub fn closed_by(&self, epoch: u8) -> u8 {
        mask_of((0..N).filter(|v| self.nodes[*v].floor > epoch))
    }

    /// Is there room in the window?
    pub fn has_room(&self) -> bool {
        usize::from(self.len) < WINDOW
    }

    pub fn push(&mut self, record: Record) {
        self.log[usize::from(self.len)] = record;
        self.len += 1;
    }

    /// False when the model's small network is full, or the command is under way already.
    pub fn propose(&mut self, command: Command) -> bool {
        if self.pending[0] != Command::Nil || self.pending.contains(&command) {
            return false;
        }
        self.pending[0] = command;
        self.pending.sort_unstable();
        true
    }
}

/// A set of nodes as bits.
pub(super) fn mask_of(nodes: impl Iterator<Item = usize>) -> u8 {
    nodes.map(|node| 1 << node).sum()
}
