//! `version`: of the tool, and of a cluster's members.

use serde_json::Value;

use super::Failure;
use super::arguments::VersionArguments;
use super::client::Client;
use super::cluster::{self, Member};
use super::config::Sources;
use super::output::Output;

/// Prints the tool's own version.
pub(super) fn own(output: &mut Output) {
    output.say(concat!("pgherdctl version ", env!("CARGO_PKG_VERSION")));
}

/// Prints the tool's version and asks each member for its own.
pub(super) async fn of_members(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    arguments: &VersionArguments,
) -> Result<(), Failure> {
    own(output);
    output.say("");
    let scope = sources.scope_or(arguments.scope.as_deref())?;
    let cluster = cluster::find(sources, client, &scope).await?;
    for name in &arguments.members {
        if !cluster.members.iter().any(|member| member.name == *name) {
            return Err(Failure::because(format!("{name} is not a member of cluster")));
        }
    }
    let wanted = |member: &&Member| arguments.members.is_empty() || arguments.members.contains(&member.name);
    let mut has_failed = false;
    for member in cluster.members.iter().filter(wanted) {
        match ask(client, member).await {
            Ok(versions) => output.say(&format!("{}: {versions}", member.name)),
            Err(why) => {
                has_failed = true;
                output.say(&format!("{}: failed to get version: {why}", member.name));
            }
        }
    }
    if has_failed { Err(Failure::Told) } else { Ok(()) }
}

async fn ask(client: &Client, member: &Member) -> Result<String, String> {
    let addr = member.rest_addr().ok_or("it has no http address")?;
    let answer = client.get(addr, "/patroni").await.map_err(|error| error.to_string())?;
    let document: Value = serde_json::from_str(&answer.body).map_err(|source| source.to_string())?;
    let text = |path: &str| document.pointer(path).and_then(Value::as_str);
    let own = text("/pgherd/version").or_else(|| text("/patroni/version")).unwrap_or("unknown");
    let postgres = match document.get("server_version").and_then(Value::as_u64) {
        Some(number) => format!(" PostgreSQL {}.{}", number / 10_000, number % 10_000),
        None => String::new(),
    };
    Ok(format!("pgherd {own}{postgres}"))
}
