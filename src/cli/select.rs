//! The members that a command is about.

use serde_json::Value;

use super::Failure;
use super::arguments::{Role, Selection};
use super::client::Client;
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::list::{Style, page};
use super::output::Output;

impl Role {
    /// Is this member in the role?
    pub(super) fn fits(self, member: &Member) -> bool {
        match self {
            Self::Leader => member.is_leader(),
            Self::Primary => member.role == "leader",
            Self::StandbyLeader => member.role == "standby_leader",
            Self::Replica | Self::Standby => !member.is_leader(),
            Self::Any => true,
        }
    }
}

/// Finds the cluster, shows it unless nothing is asked, and picks the members: in the order in which they are named, or by name.
pub(super) async fn members(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    selection: &Selection,
) -> Result<(Cluster, Vec<Member>), Failure> {
    let cluster = cluster::find(sources, client, &selection.scope).await?;
    if cluster.members.is_empty() {
        return Err(Failure::because(format!("{} cluster doesn't have any members", selection.scope)));
    }
    if !selection.force {
        output.say(&page(&cluster, Style::Pretty, false));
    }
    let chosen = choose(&cluster, &selection.members, selection.role)?;
    Ok((cluster, chosen))
}

/// The members named, or all, as far as they are in the role.
pub(super) fn choose(
    cluster: &Cluster,
    names: &[String],
    role: Option<Role>,
) -> Result<Vec<Member>, Failure> {
    let mut chosen: Vec<Member> = Vec::new();
    for name in names {
        let Some(member) = cluster.members.iter().find(|member| member.name == *name) else {
            return Err(Failure::because(format!("{name} is not a member of cluster")));
        };
        if !chosen.iter().any(|other| other.name == *name) {
            chosen.push(member.clone());
        }
    }
    if names.is_empty() {
        chosen.clone_from(&cluster.members);
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let role = role.unwrap_or(Role::Any);
    chosen.retain(|member| role.fits(member));
    match chosen.is_empty() {
        false => Ok(chosen),
        true if names.is_empty() => Err(Failure::because(format!(
            "{} cluster doesn't have any {} members",
            cluster.scope,
            role.word()
        ))),
        true => Err(Failure::because(format!("No '{}' among provided members", role.word()))),
    }
}

/// The names for a sentence.
pub(super) fn names(members: &[Member]) -> String {
    members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Asks whether to go on, unless nothing is asked.
pub(super) fn confirm(
    output: &mut Output,
    is_forced: bool,
    question: &str,
    aborted: &str,
) -> Result<(), Failure> {
    if is_forced || output.confirm(question)? { Ok(()) } else { Err(Failure::because(aborted)) }
}

/// Where to ask this very member, or a sentence that it cannot be asked.
pub(super) fn address(member: &Member) -> Result<&str, String> {
    member.rest_addr().ok_or_else(|| "it has no REST address".to_owned())
}

/// What each says of itself takes the place of what another member had heard of it.
pub(super) async fn refresh(client: &Client, members: &mut [Member]) {
    for member in members {
        let Some(status) = status(client, member).await else { continue };
        member.pending_restart = status.get("pending_restart") == Some(&Value::Bool(true));
        member.scheduled_restart = status.get("scheduled_restart").and_then(Value::as_object).cloned();
    }
}

/// What a member says of itself (`/patroni`).
pub(super) async fn status(client: &Client, member: &Member) -> Option<Value> {
    let answer = client.get(member.rest_addr()?, "/patroni").await.ok()?;
    serde_json::from_str(&answer.body).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chosen(names: &[&str], role: Option<Role>) -> Result<String, String> {
        let members = json!([
            {"name": "b", "role": "leader"},
            {"name": "a", "role": "replica"},
            {"name": "c", "role": "sync_standby"},
        ]);
        let cluster =
            serde_json::from_value(json!({ "scope": "demo", "members": members })).expect("a cluster");
        let given: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        match choose(&cluster, &given, role) {
            Ok(members) => Ok(self::names(&members)),
            Err(Failure::Error(error)) => Err(error.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn by_name_and_by_role() {
        assert_eq!(chosen(&[], None).as_deref(), Ok("a, b, c"));
        assert_eq!(chosen(&["c", "a", "c"], None).as_deref(), Ok("c, a"));
        assert_eq!(chosen(&["c", "b"], Some(Role::Replica)).as_deref(), Ok("c"));
        assert_eq!(chosen(&[], Some(Role::Primary)).as_deref(), Ok("b"));
        let none = chosen(&["b"], Some(Role::Standby));
        assert_eq!(none, Err("No 'standby' among provided members".to_owned()));
        assert_eq!(chosen(&["x"], None), Err("x is not a member of cluster".to_owned()));
        let none = chosen(&[], Some(Role::StandbyLeader));
        assert_eq!(none, Err("demo cluster doesn't have any standby-leader members".to_owned()));
    }
}
