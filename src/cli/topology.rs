//! `topology`: the members as a tree of who replicates from whom.

use serde_json::Value;

use super::arguments::TopologyArguments;
use super::client::Client;
use super::cluster::{Cluster, Member};
use super::config::Sources;
use super::list::{self, Style};
use super::output::Output;
use super::{Failure, watch};

/// Prints the clusters named, once or again and again.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    arguments: &TopologyArguments,
) -> Result<(), Failure> {
    let scopes = list::scopes(sources, &arguments.scopes)?;
    watch::pages(output, arguments.watch, async || {
        list::found(sources, client, &scopes, Style::Topology, false).await
    })
    .await
}

/// The members in the order of the tree, each with its depth. Who names nobody, or nobody that is there, replicates from
/// the leader.
pub(super) fn tree(cluster: &Cluster) -> Vec<(usize, &Member)> {
    let leader = cluster.leader().map(|leader| leader.name.as_str());
    let parent = |member: &Member| -> Option<String> {
        let named = match member.tags.get("replicatefrom") {
            Some(Value::String(name)) if *name != member.name => Some(name),
            _ => None,
        };
        let is_there = |name: &&String| cluster.members.iter().any(|other| other.name == **name);
        match named.filter(is_there) {
            _ if member.is_leader() => None,
            Some(name) => Some(name.clone()),
            None => leader.map(str::to_owned),
        }
    };
    let mut rows: Vec<(usize, &Member)> = Vec::new();
    let roots = cluster.members.iter().filter(|member| parent(member).is_none()).rev();
    let mut ahead: Vec<(usize, &Member)> = roots.map(|member| (0, member)).collect();
    while let Some((depth, member)) = ahead.pop() {
        rows.push((depth, member));
        let children = cluster.members.iter().filter(|child| parent(child).as_ref() == Some(&member.name));
        ahead.extend(children.rev().map(|child| (depth + 1, child)));
    }
    // Members which replicate from each other in a circle hang on nothing.
    let lost = cluster.members.iter().filter(|member| !rows.iter().any(|(_, row)| row.name == member.name));
    let lost: Vec<(usize, &Member)> = lost.map(|member| (0, member)).collect();
    rows.extend(lost);
    rows
}

/// A member's name at a depth of the tree.
pub(super) fn branch(depth: usize, name: &str) -> String {
    match depth.checked_sub(1) {
        None => name.to_owned(),
        Some(deeper) => format!("{}+ {name}", "  ".repeat(deeper)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(members: &Value) -> Vec<String> {
        let cluster: Cluster = serde_json::from_value(json!({ "members": members })).expect("a cluster");
        tree(&cluster).into_iter().map(|(depth, member)| branch(depth, &member.name)).collect()
    }

    #[test]
    fn a_cascade() {
        let members = json!([
            {"name": "a", "role": "replica", "tags": {"replicatefrom": "c"}},
            {"name": "b", "role": "leader", "tags": {"replicatefrom": "a"}},
            {"name": "c", "role": "sync_standby"},
            {"name": "d", "role": "replica", "tags": {"replicatefrom": "gone"}},
            {"name": "e", "role": "replica", "tags": {"replicatefrom": "a"}},
        ]);
        assert_eq!(drawn(&members), ["b", "+ c", "  + a", "    + e", "+ d"]);
    }

    #[test]
    fn nobody_is_lost() {
        let members = json!([
            {"name": "a", "role": "replica", "tags": {"replicatefrom": "b"}},
            {"name": "b", "role": "replica", "tags": {"replicatefrom": "a"}},
            {"name": "c", "role": "replica"},
        ]);
        assert_eq!(drawn(&members), ["c", "a", "b"]);
    }
}
