//! `dsn`: where a member's PostgreSQL is.

use super::Failure;
use super::arguments::{DsnArguments, Role};
use super::client::Client;
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::output::Output;

/// Prints host and port for libpq.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &DsnArguments,
) -> Result<(), Failure> {
    refuse_both(options.role, options.member.as_deref())?;
    let scope = sources.scope_or(options.scope.as_deref())?;
    let cluster = cluster::find(sources, client, &scope).await?;
    let member = find(&cluster, options.role, options.member.as_deref());
    let Some((host, port)) = member.and_then(address) else {
        return Err(Failure::because("Can not find a suitable member"));
    };
    output.say(&format!("host={host} port={port}"));
    Ok(())
}

/// Either a role or a member.
pub(super) fn refuse_both(role: Option<Role>, member: Option<&str>) -> Result<(), Failure> {
    if role.is_some() && member.is_some() {
        return Err(Failure::because("--role and --member are mutually exclusive options"));
    }
    Ok(())
}

/// The member named, or the first one in the role, the leader when no role is given.
pub(super) fn find<'a>(cluster: &'a Cluster, role: Option<Role>, member: Option<&str>) -> Option<&'a Member> {
    let role = role.unwrap_or(if member.is_some() { Role::Any } else { Role::Leader });
    let is_meant =
        |candidate: &&Member| role.fits(candidate) && member.is_none_or(|name| name == candidate.name);
    let mut fit: Vec<&Member> = cluster.members.iter().filter(is_meant).collect();
    // One that runs rather than one that does not, the leader rather than another one.
    fit.sort_by_key(|member| {
        (!matches!(member.state.as_str(), "running" | "streaming"), !member.is_leader())
    });
    fit.first().copied()
}

/// Host and port.
pub(super) fn address(member: &Member) -> Option<(&str, u16)> {
    Some((member.host.as_deref()?, member.port?))
}
