//! The model counts fences as the replicated state does: every take-over from every small situation, asked of both.

use std::collections::{BTreeMap, BTreeSet};

use pgherd_model::scenarios::synchrony::quorums;
use pgherd_model::search::Model;
use pgherd_model::synchrony::{ALONE, Rules, Set, Synchrony as Fences, UNSATISFIABLE, UNUSED};
use pgherd_raft::model::{
    Basis, ClusterState, Command, Epoch, GroupId, Lease, Lsn, Member, MemberId, MemberKind, MemberName,
    Outcome, Session, SyncSet, Synchrony, Tags, Tenure, TimelineId, WalPosition, apply,
};

/// The holder and three standbys.
const NODES: usize = 4;

fn id(node: usize) -> MemberId {
    MemberId(node as u64 + 1)
}

fn name(node: usize) -> MemberName {
    format!("n{node}").parse().expect("a name")
}

fn nodes(mask: u8) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |node| mask & 1 << node != 0)
}

/// The first node holds the first epoch; all nodes are voters.
fn cluster(sets: &[Set], fences: &[Option<(u8, u8)>; NODES]) -> ClusterState {
    let member = |node: usize| Member {
        name: name(node),
        kind: MemberKind::Data,
        raft_addr: format!("n{node}:2000"),
        votes: true,
        api_url: None,
        postgres: None,
        tags: Tags::default(),
    };
    let tenure = Tenure { holder: id(0), session: Session(1), ttl_ms: 5000, wait_ms: 5000, pinned: false };
    let set = |set: &Set| SyncSet { names: nodes(set.names).map(name).collect(), needed: set.needed.into() };
    let position =
        |at: (u8, u8)| WalPosition { timeline: TimelineId(u32::from(at.0)), lsn: Lsn(u64::from(at.1)) };
    let fenced = fences.iter().enumerate().filter_map(|(node, at)| Some((id(node), position((*at)?))));
    ClusterState {
        group: Some(GroupId(1)),
        members: (0..NODES).map(|node| (id(node), member(node))).collect(),
        lease: Lease {
            epoch: Epoch(1),
            voters: (0..NODES).map(id).collect(),
            tenure: Some(tenure),
            last_holder: Some(id(0)),
            ..Lease::default()
        },
        synchrony: Synchrony {
            sets: sets.iter().map(set).collect(),
            fences: fenced.collect::<BTreeMap<_, _>>(),
            ..Synchrony::default()
        },
        ..ClusterState::default()
    }
}

fn is_granted(cluster: &ClusterState, to: usize, basis: Basis) -> bool {
    let grant =
        Command::Grant { expected_epoch: Epoch(1), to: id(to), session: Session(2), ttl_ms: 5000, basis };
    apply(&mut cluster.clone(), 1, &grant) == Outcome::Applied
}

#[test]
fn a_take_over_needs_the_same_fences_in_the_model_and_in_the_replicated_state() {
    let model = Fences::<NODES> {
        rules: Rules::sound(),
        epochs: 2,
        first: ALONE,
        sets: Vec::new(),
        is_silent: true,
        changes: true,
        restarts: 0,
        copies: 0,
    };
    let mut sets: Vec<Set> = quorums(4).into_iter().filter(|set| set.names & 1 == 0).collect();
    sets.extend([ALONE, UNSATISFIABLE]);
    let positions = [None, Some((1, 1)), Some((1, 2)), Some((2, 1))];
    let closed = Basis::Closed { by: (0..NODES).map(id).collect::<BTreeSet<_>>() };
    let mut granted = 0;
    for (first, second) in sets.iter().flat_map(|first| sets.iter().map(move |second| (*first, *second))) {
        for fences in 0..positions.len().pow(3) {
            let at = |place: u32| positions[fences / positions.len().pow(place) % positions.len()];
            let mut state = model.init();
            state.sets = [first, if second == first { UNUSED } else { second }, UNUSED];
            state.fences = [None, at(0), at(1), at(2)];
            let in_force: Vec<Set> = state.in_force().collect();
            let cluster = cluster(&in_force, &state.fences);
            for to in 1..NODES {
                let expected = model.may_take_over(&state, to);
                let found =
                    (is_granted(&cluster, to, Basis::Fenced), is_granted(&cluster, to, closed.clone()));
                assert_eq!(expected, found, "{to} under {in_force:?} with {:?}", state.fences);
                granted += u32::from(found.1);
            }
        }
    }
    assert!(granted > 1000, "only {granted} take-overs were possible");
}
