//! What clients were told, and that it stays.
//!
//! A commit counts from the moment at which a client may have been told of it. It must live on while a set is in force
//! by which it is known to standbys: commits that waited are *covered*; a narrowing to a set which needs standbys covers
//! whatever was told before it; a narrowing to the asynchronous set uncovers everything, since from there on nobody
//! promises anything. Commits told by a primary which waits for nobody, or for fewer than any set in force asks for, are
//! not covered, and only lawful while the asynchronous set is in force.

use std::collections::BTreeSet;

use crate::model::{Basis, ClusterState, Command, Epoch, Intent, MemberName, SyncSet};

use crate::model_postgres::Wal;
use crate::node::{NAMES, Node, index, policy};
use crate::world::World;

#[derive(Default)]
pub(crate) struct Ledger {
    /// The history up to the last commit that must live on.
    covered: Option<Wal>,
    /// The history up to the last commit of which a client was told.
    told: Option<Wal>,
    /// Former holders which fences keep from telling anybody anything new, until the lease is theirs again. One that does
    /// not know may even start its PostgreSQL once more, as long as a majority of voters knows as little.
    silenced: BTreeSet<usize>,
    /// Those of them whose epoch was pinned: nobody guards what runs there, until its daemon is back.
    unguarded: BTreeSet<usize>,
    /// How often clients were told something, waiting for standbys and alone.
    pub(crate) waited: u64,
    pub(crate) alone: u64,
}

impl Ledger {
    fn no_longer_silenced(&mut self, place: usize) {
        self.silenced.remove(&place);
        self.unguarded.remove(&place);
    }
}

impl World {
    /// What the server of this node told clients in this step.
    pub(crate) fn count_commits(&mut self, place: usize, before: u64) {
        let node = &mut self.nodes[place];
        let Some(server) = node.server.as_mut() else { return };
        let alone = std::mem::take(&mut server.commits.alone);
        let told = server.commits.told;
        if told <= before {
            return;
        }
        let point = node.data.wal.up_to(told);
        *(if alone { &mut self.ledger.alone } else { &mut self.ledger.waited }) += 1;
        let state = self.log.last().clone();
        let holder = state.lease.last_holder.map_or(place, index);
        if holder != place {
            if !point.is_part_of(&self.nodes[holder].data.wal) {
                let (me, next) = (NAMES[place], NAMES[holder]);
                self.fail(format!("{me} acknowledged a commit that {next}, which took over, does not have"));
            }
            return;
        }
        let needs_standbys = state.synchrony.needs_standbys();
        if alone && state.synchrony.can_silence() {
            self.fail(format!("{} acknowledged a commit alone: {:?}", NAMES[place], state.synchrony.sets));
        }
        if !alone && needs_standbys {
            let is_known = is_known(&self.nodes, &state, told);
            if !is_known && state.synchrony.can_silence() {
                self.too_few(&state);
            }
            if is_known {
                self.ledger.covered = Some(point.clone());
            }
        }
        self.ledger.told = Some(point);
    }

    fn too_few(&mut self, state: &ClusterState) {
        self.fail(format!("a commit was acknowledged by too few of each of {:?}", state.synchrony.sets));
    }

    /// A server is writable: what counts must be there.
    pub(crate) fn check_ledger(&mut self, place: usize) {
        let wal = &self.nodes[place].data.wal;
        let Some(covered) = self.ledger.covered.as_ref().filter(|covered| !covered.is_part_of(wal)) else {
            self.ledger.told = self.ledger.told.take().filter(|told| told.is_part_of(wal));
            return;
        };
        let what = format!(
            "{} is primary at {:?} without acknowledged commits up to {:?}",
            NAMES[place],
            wal.position(),
            covered.position()
        );
        self.fail(what);
    }

    /// A command was applied.
    pub(crate) fn count_command(&mut self, before: &ClusterState, command: &Command) {
        match command {
            Command::NarrowSync { to, .. } => {
                if let Some(told) = self.ledger.told.as_ref().map(|told| told.end).filter(|_| to.needed > 0) {
                    let state = self.log.last().clone();
                    if !is_known(&self.nodes, &state, told) {
                        self.too_few(&state);
                    }
                }
                self.ledger.covered = if to.is_asynchronous() { None } else { self.ledger.told.clone() };
            }
            Command::Grant { to, basis, .. } => {
                self.ledger.no_longer_silenced(index(*to));
                if let Some(Intent::Failover { to: named, accepts_loss, holder_is_dead }) =
                    before.intent.as_ref().map(|pending| &pending.intent)
                    && named == to
                    && (*accepts_loss || *holder_is_dead)
                {
                    // What is lost by it was told to the operator.
                    (self.ledger.covered, self.ledger.told) = (None, None);
                }
                if let (Basis::Fenced, Some(tenure)) = (basis, &before.lease.tenure) {
                    let old = index(tenure.holder);
                    self.silence(before, old);
                    if tenure.pinned {
                        self.check_goodbye(before, old);
                    }
                }
            }
            Command::Transfer { to, .. } => self.ledger.no_longer_silenced(index(*to)),
            _ => {}
        }
    }

    /// So many of each set in force follow nobody that the rest cannot acknowledge: counted anew, by what the standbys
    /// really do.
    fn silence(&mut self, before: &ClusterState, old: usize) {
        let epoch = before.lease.epoch;
        let follows_nobody = |name: &str| {
            let place = NAMES.iter().position(|known| *known == name).expect("a member");
            self.nodes[place].fenced >= epoch && !self.nodes[place].receives()
        };
        for set in &before.synchrony.sets {
            let fenced = set.names.iter().filter(|name| follows_nobody(name.as_str())).count();
            if set.needed == 0 || fenced + set.needed < set.names.len() + 1 {
                self.fail(format!("{} was replaced with {fenced} fenced of {set:?}", NAMES[old]));
                return;
            }
        }
        self.ledger.silenced.insert(old);
        self.silenced_once += u64::from(self.nodes[old].server.is_some());
    }

    /// A pin ends by fences only where the daemon of the holder was stopped in pause, and the pause is over.
    fn check_goodbye(&mut self, before: &ClusterState, old: usize) {
        let is_paused = policy(before, &self.first_settings).pause;
        if is_paused || self.nodes[old].stopped_in_pause < before.lease.epoch {
            self.fail(format!("the pin of {} was ended from elsewhere", NAMES[old]));
        }
        self.ledger.unguarded.insert(old);
        self.unpinned_once += u64::from(self.nodes[old].server.is_some());
    }

    /// Nobody guards the former primary, whose pin fences ended.
    pub(crate) fn is_unguarded(&self, place: usize) -> bool {
        self.ledger.unguarded.contains(&place)
    }

    pub(crate) fn is_silenced(&self, place: usize) -> bool {
        self.ledger.silenced.contains(&place)
    }

    /// A fenced standby stands still for the rest of the epoch.
    pub(crate) fn check_fences(&mut self) {
        let state = self.log.last();
        let epoch: Epoch = state.lease.epoch;
        let moved = state.synchrony.fences.iter().find(|(id, position)| {
            let node = &self.nodes[index(**id)];
            node.receives() || node.data.wal.end > position.lsn.0
        });
        if let Some((id, position)) = moved {
            let what =
                format!("{} is fenced at {position:?} in epoch {epoch} and receives", NAMES[index(*id)]);
            self.fail(what);
        }
    }
}

/// Some set in force has enough names with this commit: then everybody whom fences elect has it.
fn is_known(nodes: &[Node], state: &ClusterState, told: u64) -> bool {
    let has = |name: &MemberName| {
        let place = NAMES.iter().position(|known| *known == name.as_str()).expect("a member");
        nodes[place].data.flushed >= told
    };
    let is_known =
        |set: &SyncSet| set.needed > 0 && set.names.iter().filter(|name| has(name)).count() >= set.needed;
    state.synchrony.sets.iter().any(is_known)
}
