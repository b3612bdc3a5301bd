//! Before a node takes part it asks the others what they remember of it; later it goes on to tell them its mark.
//!
//! Promises that a node with a store of former times does nothing by which others could be misled before enough of
//! them said that they know nothing newer, and that a store found to be put back is never believed again, whatever
//! crashes on the way: its node ends, and comes back under a new id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::marks::Trust;
use super::node::Node;
use super::view::Phase;
use crate::model::MemberId;
use crate::network::{Kind, Target};

/// The pause before a member that did not answer is asked again: a part of the time which an election takes.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one answer may take: it comes from memory.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How often what is remembered is written, and how often others are told a new mark, at most.
const LAZY: Duration = Duration::from_secs(1);

/// The answer to "what do you remember of me?"; what is remembered travels beside it, as with every answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Recalled {
    id: MemberId,
}

impl Recalled {
    /// Of this member.
    pub(crate) fn by(node: &Node) -> Self {
        Self { id: node.id }
    }
}

/// The sets of voters of which each needs a majority: two during a change. None: no member of a group yet.
async fn voters(node: &Node) -> Option<Vec<BTreeSet<MemberId>>> {
    let sets = node
        .raft
        .with_raft_state(|state| state.membership_state.effective().membership().get_joint_config().clone());
    let sets = sets.await.ok()?;
    Some(sets.iter().map(|set| set.iter().copied().map(MemberId).collect()).collect())
}

/// Do those who answered make up a majority of each set of voters?
fn is_enough(voters: &[BTreeSet<MemberId>], answered: &BTreeSet<MemberId>) -> bool {
    voters.iter().all(|set| set.intersection(answered).count() > set.len() / 2)
}

/// Where the others can be, as far as this node knows.
fn addresses(node: &Node) -> BTreeSet<String> {
    let watch = node.raft.metrics();
    let metrics = watch.borrow_watched();
    let applied = Arc::clone(&node.applied.borrow());
    let peers = metrics.membership_config.membership().nodes().map(|(_, peer)| peer.addr.clone());
    let members = applied.state.members.values().map(|member| member.raft_addr.clone());
    let partners = node.config.partner_addrs.iter().cloned();
    peers.chain(members).chain(partners).filter(|addr| *addr != node.config.member.raft_addr).collect()
}

/// Returns when enough others have told what they remember of this node, and it may take part.
pub(crate) async fn run(node: &Arc<Node>) {
    // Without an answer Raft has ended, and this node with it.
    let Some(voters) = voters(node).await else { return };
    let mut answered = BTreeSet::from([node.id]);
    let mut asking = JoinSet::new();
    if !is_enough(&voters, &answered) {
        node.set_phase(Phase::Joining { waiting_for: waiting_for(node, &voters) });
        for addr in addresses(node) {
            asking.spawn(ask(Arc::clone(node), addr));
        }
    }
    while !is_enough(&voters, &answered) {
        match asking.join_next().await {
            Some(answer) => answered.extend(answer.ok()),
            // Nobody is left to ask: those who answered do not belong to the voters which this node knows.
            None => std::future::pending().await,
        }
    }
    open(node);
}

/// From now on this node takes part, unless its store was found to be put back.
pub(crate) fn open(node: &Node) {
    node.marks.trust();
    node.raft.runtime_config().elect(node.marks.is_trusted());
}

/// Asks whoever listens there until it answers.
async fn ask(node: Arc<Node>, addr: String) -> MemberId {
    let target = Target { addr, id: None };
    loop {
        let group = node.identity.group();
        match node.peers.call::<_, Recalled>(&target, group, Kind::Recall, &(), ANSWER_LIMIT).await {
            Ok(answer) => return answer.id,
            Err(failure) => tracing::debug!("{} does not say what it remembers: {failure}", target.addr),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn waiting_for(node: &Node, voters: &[BTreeSet<MemberId>]) -> String {
    let applied = Arc::clone(&node.applied.borrow());
    let others: BTreeSet<String> =
        voters.iter().flatten().filter(|id| **id != node.id).map(|id| applied.state.name_of(*id)).collect();
    let others = others.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "a majority of the voters, which must say first that they know this node's store: {others}; start the missing ones"
    )
}

/// Ends this node's part as soon as its store is found to be put back, today or when it is opened again.
pub(crate) async fn end_if_put_back(node: Arc<Node>) {
    let mut trust = node.marks.watch();
    let found = match trust.wait_for(|trust| matches!(trust, Trust::PutBack(_))).await {
        Ok(trust) => trust.clone(),
        Err(_) => return,
    };
    let Trust::PutBack(sentence) = found else { return };
    node.raft.runtime_config().elect(false);
    if let Err(error) = node.store.distrust(&sentence).await {
        node.fail(format!("cannot write to the store that it was put back from an older copy: {error}"));
        return;
    }
    let dir = node.config.data_dir.join(&node.config.scope);
    node.start_again(format!(
        "the store {} was put back from an older copy: {sentence}. This node does not use it any more, keeps it aside and comes back under a new id; nothing is to be done, but never put back copies of raft.data_dir",
        dir.display()
    ));
}

/// Writes what this node remembers of the others, lazily.
pub(crate) async fn remember(node: Arc<Node>) {
    loop {
        node.marks.until_news().await;
        tokio::time::sleep(LAZY).await;
        let is_up_to_date = *node.phase.borrow() == Phase::Member;
        node.marks.save(is_up_to_date).await;
    }
}

/// Tells all members how far this node's store has come, lazily: those who have nothing else to ask it would know
/// nothing of it, and could be the only ones who are left to be asked.
pub(crate) async fn tell(node: Arc<Node>) {
    let mut told: BTreeMap<MemberId, u64> = BTreeMap::new();
    loop {
        tokio::time::sleep(LAZY).await;
        if !node.marks.is_trusted() {
            continue;
        }
        let Some(mark) = node.marks.mark() else { return };
        let members: Vec<MemberId> = node.applied.borrow().state.members.keys().copied().collect();
        told.retain(|id, _| members.contains(id));
        let mut telling = JoinSet::new();
        for id in members.into_iter().filter(|id| *id != node.id && told.get(id) != Some(&mark.sequence)) {
            let node = Arc::clone(&node);
            telling.spawn(async move {
                let target = node.target(id)?;
                let group = node.identity.group();
                let answer = node.peers.call::<_, Recalled>(&target, group, Kind::Recall, &(), ANSWER_LIMIT);
                answer.await.ok().map(|_| id)
            });
        }
        while let Some(done) = telling.join_next().await {
            if let Ok(Some(id)) = done {
                told.insert(id, mark.sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    #[test]
    fn a_majority_of_each_set_of_voters_is_enough() {
        type Case<'a> = (&'a [&'a [u64]], &'a [u64], bool);
        let cases: [Case<'_>; 10] = [
            (&[], &[1], true),
            (&[&[1]], &[1], true),
            (&[&[1, 2]], &[1], false),
            (&[&[1, 2]], &[1, 2], true),
            (&[&[1, 2, 3]], &[1], false),
            (&[&[1, 2, 3]], &[1, 3], true),
            (&[&[1, 2, 3]], &[1, 9, 8], false),
            (&[&[2]], &[1], false),
            (&[&[2]], &[1, 2], true),
            (&[&[1, 2, 3], &[3, 4, 5]], &[1, 2, 3], false),
        ];
        for (voters, answered, enough) in cases {
            let sets: Vec<_> = voters.iter().map(|set| ids(set)).collect();
            assert_eq!(is_enough(&sets, &ids(answered)), enough, "{voters:?} {answered:?}");
        }
    }
}
