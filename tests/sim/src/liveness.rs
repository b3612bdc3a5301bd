//! When faults stop, the cluster comes together by itself: one primary, and everybody follows.

use crate::ha::SyncMode;

use crate::faults::{END, ENOUGH};
use crate::node::{Node, index, policy};
use crate::world::{World, note};

/// Clients that wait are behind by no more than what is written in a few seconds.
const ENOUGH_TOLD: u64 = 50_000;

/// The bound: a failed promotion makes a node stand back for half a minute, attempts are paced.
pub(crate) const BOUND: u64 = 90_000_000;

impl World {
    /// One primary with the lease, every other data node streams from it.
    pub(crate) fn is_whole(&self) -> bool {
        let now = self.now;
        let Some(holder) = self.log.last().lease.holder().map(index) else { return false };
        let primary = &self.nodes[holder];
        let pinned = self.log.last().lease.tenure.as_ref().is_some_and(|tenure| tenure.pinned);
        let voters = &self.log.last().lease.voters;
        let all_count = self.nodes.iter().all(|node| voters.contains(&node.id()));
        !pinned
            && all_count
            && primary.acknowledges(now)
            && self.is_settled(primary)
            && self.nodes.iter().filter(|node| node.is_data && node.place != holder).all(|node| {
                let follows = node.server.as_ref().is_some_and(|server| server.upstream == Some(holder));
                follows && node.streams(now) && node.data.wal.is_part_of(&primary.data.wal)
            })
    }

    /// Clients are told, by the one set that is wanted.
    fn is_settled(&self, primary: &Node) -> bool {
        let Some(server) = &primary.server else { return false };
        let policy = policy(self.log.last(), &self.first_settings);
        let standbys = self.nodes.iter().filter(|node| node.is_data).count() - 1;
        let needed = if policy.sync.mode == SyncMode::Off { 0 } else { policy.sync.node_count.min(standbys) };
        let is_wanted = match self.log.last().synchrony.sets.as_slice() {
            [] => needed == 0,
            [set] => set.needed == needed,
            _ => false,
        };
        is_wanted && server.commits.told + ENOUGH_TOLD > primary.data.wal.end
    }

    /// Runs to the end: an error is a broken invariant or a cluster that does not come together.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let mut bootstrapped = false;
        while self.now < END + BOUND {
            self.step();
            if let Some(broken) = &self.broken {
                return Err(broken.clone());
            }
            bootstrapped |= self.is_whole();
            if self.now > END && self.faults.effects >= ENOUGH && self.is_whole() {
                note!(self, "whole");
                return Ok(());
            }
        }
        let was = if bootstrapped { "it had been" } else { "it never was" };
        Err(format!("{} s after the last fault the cluster is not whole; {was}", BOUND / 1_000_000))
    }
}
