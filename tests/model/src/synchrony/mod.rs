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
    TellClient(u8),
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
    Reload(Set),
    Narrow(Set),
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
}

impl<const N: usize> Synchrony<N> {
    /// What was acknowledged must be in the newest primary, or in the highest candidate to come.
    fn judge(s: &mut State<N>) {
        let newest = (0..N).max_by_key(|i| s.nodes[*i].primary).unwrap_or(0);
        if s.nodes[newest].primary == 0 {
            return;
        }
        for p in 0..N {
            let mut told = s.nodes[p].log;
            told.cut(s.nodes[p].told);
            if !s.nodes[newest].log.starts_with(&told) {
                s.broken = 1;
            }
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
            upstream: 0,
            fenced: 0,
            flight: (NOBODY, 0),
            ordered: (0, (0, 0)),
        };
        let mut nodes = [standby; N];
        nodes[0] = Node { primary: 1, active: self.first, upstream: NOBODY, ..standby };
        let mut sets = [UNUSED; SETS];
        sets[0] = self.first;
        State { epoch: 1, holder: 0, vacant: false, sets, next: UNUSED, fences: [None; N], nodes, broken: 0 }
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
        self.promote(s, out);
    }

    fn broken(&self, s: &State<N>) -> Option<&'static str> {
        (s.broken != 0).then_some("an acknowledged commit is not in the newest primary")
    }
}
