//! Who can acknowledge a commit: synchronous sets, fences, and take-over while the old primary lives on.
//!
//! Every record of a log is the epoch of the primary that wrote it; what a client was told is a length of such a log. A
//! fenced take-over never stops the old primary from outside: it may write on for ever. Closes, release and their
//! silence are one step each here; the lease model shows why they are silent.

mod primary;
mod standby;
mod state;
mod takeover;

use crate::search::Model;

pub use state::{ALONE, NOBODY, SETS, Set, State, UNSATISFIABLE, UNUSED};
use state::{Log, Node};

/// The rules under test: all on is the protocol, a mutant turns one off.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// n-k+1 of each set in force are fenced, not n-k.
    pub fence_enough: bool,
    /// Every set in force counts, not the newest alone.
    pub fence_every_set: bool,
    /// While a set needs nobody, fences silence nobody.
    pub alone_is_not_silenced: bool,
    /// A lease that is closed or vacant needs the fences too: for what was acknowledged.
    pub fences_after_closes: bool,
    /// A new set is in force before PostgreSQL uses it.
    pub widen_first: bool,
    /// The old sets stay in force until PostgreSQL uses the new one.
    pub reload_before_end: bool,
    /// PostgreSQL goes to the last set in force only; to go back to another one, that is made the last.
    pub target_only: bool,
    /// A change names the number of changes before it: a late one does nothing.
    pub change_by_revision: bool,
    /// A daemon that starts reads what was agreed before it acts.
    pub read_at_start: bool,
    /// While a set in force names a standby, its data directory is replaced by a copy of the primary's only.
    pub copy_of_primary: bool,
    /// The data directory of a fenced standby is not replaced in that epoch: its fence says what is in it.
    pub copy_obeys_fence: bool,
    /// And until k of the new set have flushed the position at which it began to use it.
    pub catch_up_before_end: bool,
    /// A fence reads the position after the walreceiver has ended.
    pub receiver_gone_first: bool,
    /// A fenced standby follows nobody for the rest of the epoch.
    pub fenced_until_next_epoch: bool,
    /// Who takes over has the highest fenced position.
    pub candidate_is_highest: bool,
    /// A take-over adds its set to those in force.
    pub old_sets_stay: bool,
}

impl Rules {
    /// The protocol.
    pub fn sound() -> Self {
        Self {
            fence_enough: true,
            fence_every_set: true,
            alone_is_not_silenced: true,
            fences_after_closes: true,
            widen_first: true,
            reload_before_end: true,
            target_only: true,
            change_by_revision: true,
            read_at_start: true,
            copy_of_primary: true,
            copy_obeys_fence: true,
            catch_up_before_end: true,
            receiver_gone_first: true,
            fenced_until_next_epoch: true,
            candidate_is_highest: true,
            old_sets_stay: true,
        }
    }
}

/// What may happen.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is the name of a step of the protocol")]
pub enum Action {
    Write(u8),
    Stream(u8),
    SendAck(u8),
    ReceiveAck(u8),
    OrderFence(u8),
    CommitFence(u8),
    Unfence(u8),
    Expire(u8),
    Release(u8),
    StopOld(u8),
    Follow(u8),
    GrantFenced(u8),
    GrantSilent(u8),
    GrantToLast(u8),
    Promote(Set),
    Widen(Set),
    Configure(Set),
    ProposeNarrow(Set),
    Narrow(Set),
    RestartHolder,
    CatchUp,
    Copy { to: u8, from: u8 },
}

type Next<const N: usize> = Vec<(Action, State<N>)>;

/// The model.
#[derive(Clone, Debug)]
pub struct Synchrony<const N: usize> {
    /// What the protocol demands.
    pub rules: Rules,
    /// The last epoch.
    pub epochs: u8,
    /// The set that the first primary uses.
    pub first: Set,
    /// Sets which a primary may come to use.
    pub sets: Vec<Set>,
    /// The lease may expire or be given back.
    pub is_silent: bool,
    /// A primary changes its set, not only a take-over.
    pub changes: bool,
    /// Restarts of the holder's daemon.
    pub restarts: u8,
    /// Data directories of standbys that are replaced.
    pub copies: u8,
}

impl<const N: usize> Synchrony<N> {
    /// What was acknowledged must be in the node that was promoted last.
    fn judge(s: &mut State<N>) {
        let newest = s.nodes[usize::from(s.newest)].log;
        for n in s.nodes.iter().filter(|n| n.told > n.exempt) {
            let mut told = n.log;
            told.cut(n.told);
            if !newest.starts_with(&told) {
                s.broken = 1;
            }
        }
    }

    /// Makes states equal that differ in nothing which can still matter.
    fn settle(&self, t: &mut State<N>) {
        let primaries = t.nodes.map(|n| n.primary);
        for n in t.nodes.iter_mut() {
            if n.primary == 0 {
                (n.counted, n.mark) = ([0; N], 0);
            }
            if n.flight.0 != NOBODY && primaries[usize::from(n.flight.0)] == 0 {
                n.flight = (NOBODY, 0);
            }
            if n.ordered.0 < t.epoch {
                n.ordered = (0, (0, 0));
            }
            if n.fenced < t.epoch && self.rules.fenced_until_next_epoch {
                n.fenced = 0;
            }
        }
        if t.late == UNUSED {
            t.late_mark = 0;
        }
        if t.restarts >= self.restarts && !t.is_behind {
            t.before = t.sets;
        }
    }

    /// Sets which node `p` may use as primary.
    fn usable(&self, p: usize) -> impl Iterator<Item = Set> + '_ {
        self.sets.iter().copied().filter(move |set| set.names & 1 << p == 0)
    }
}

impl<const N: usize> Model for Synchrony<N> {
    type State = State<N>;
    type Action = Action;

    fn init(&self) -> State<N> {
        let standby = Node {
            log: Log::default(),
            primary: 0,
            active: UNUSED,
            mark: 0,
            counted: [0; N],
            told: 0,
            exempt: 0,
            upstream: 0,
            fenced: 0,
            flight: (NOBODY, 0),
            ordered: (0, (0, 0)),
        };
        let mut nodes = [standby; N];
        nodes[0] = Node { primary: 1, active: self.first, upstream: NOBODY, ..standby };
        let mut sets = [UNUSED; SETS];
        sets[0] = self.first;
        State {
            epoch: 1,
            holder: 0,
            vacant: false,
            sets,
            before: sets,
            late: UNUSED,
            late_mark: 0,
            newest: 0,
            is_behind: false,
            restarts: 0,
            copies: 0,
            fences: [None; N],
            nodes,
            broken: 0,
        }
    }

    fn next(&self, s: &State<N>, out: &mut Next<N>) {
        for i in 0..N {
            if s.nodes[i].primary > 0 {
                self.primary(s, i, out);
            } else {
                self.standby(s, i, out);
            }
            let (to, len) = s.nodes[i].flight;
            if to != NOBODY {
                let mut t = *s; // may come long after the walreceiver is gone
                t.nodes[i].flight = (NOBODY, 0);
                let counted = &mut t.nodes[usize::from(to)].counted[i];
                *counted = len.max(*counted);
                out.push((Action::ReceiveAck(i as u8), t));
            }
        }
        self.holder(s, out);
        for (_, t) in out.iter_mut() {
            self.tell_clients(t);
            self.settle(t);
        }
    }

    fn broken(&self, s: &State<N>) -> Option<&'static str> {
        (s.broken != 0).then_some("an acknowledged commit is not in the newest primary")
    }
}
