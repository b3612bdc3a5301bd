//! `switchover` and `failover`: a dialogue, then one request to a member.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Answer, Client, NoAnswer};
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::list::{local_time, page};
use super::output::Output;
use super::{FailoverArguments, Failure, Format, SwitchoverArguments};

/// As patronictl prints moments: local time with five digits of the second.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S%.5f";

/// What is asked of a member.
struct Request {
    /// `switchover` or `failover`.
    action: &'static str,
    leader: Option<String>,
    candidate: Option<String>,
    /// The operator says that the present primary is dead.
    primary_is_dead: bool,
}

/// The planned change.
pub(super) async fn switchover(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &SwitchoverArguments,
) -> Result<(), Failure> {
    let scope = sources.scope_or(options.scope.as_deref())?;
    let cluster = show_topology(output, sources, client, &scope).await?;
    let Some(present) = cluster.leader().map(|leader| leader.name.clone()) else {
        return Err(Failure::because("This cluster has no leader"));
    };
    let leader = match &options.leader {
        Some(leader) => leader.clone(),
        None if options.force => present.clone(),
        None => output.ask(title_of_leader(&cluster), Some(&present))?,
    };
    if leader != present {
        return Err(Failure::because(format!("Member {leader} is not the leader of cluster {scope}")));
    }
    let candidate = choose(output, &cluster, "switchover", options.candidate.clone(), options.force)?;
    refuse_schedule(output, options)?;
    let request = Request { action: "switchover", leader: Some(leader), candidate, primary_is_dead: false };
    confirm(output, &cluster, &request, options.force)?;
    perform(output, sources, client, &cluster, &request).await
}

/// The unplanned one.
pub(super) async fn failover(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &FailoverArguments,
) -> Result<(), Failure> {
    let scope = sources.scope_or(options.scope.as_deref())?;
    let cluster = show_topology(output, sources, client, &scope).await?;
    let candidate = choose(output, &cluster, "failover", options.candidate.clone(), options.force)?;
    if candidate.is_none() {
        return Err(Failure::because("Failover could be performed only to a specific candidate"));
    }
    let primary_is_dead = options.primary_is_dead;
    let request = Request { action: "failover", leader: None, candidate, primary_is_dead };
    confirm(output, &cluster, &request, options.force)?;
    perform(output, sources, client, &cluster, &request).await
}

async fn show_topology(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    scope: &str,
) -> Result<Cluster, Failure> {
    let cluster = cluster::find(sources, client, scope).await?;
    output.say("Current cluster topology");
    output.say(&page(&cluster, Format::Pretty, false));
    Ok(cluster)
}

fn title_of_leader(cluster: &Cluster) -> &'static str {
    let is_standby_cluster = cluster.leader().is_some_and(|leader| leader.role == "standby_leader");
    if is_standby_cluster { "Standby Leader" } else { "Primary" }
}

/// The candidate that was named, or is named now; none: the cluster chooses.
fn choose(
    output: &mut Output,
    cluster: &Cluster,
    action: &str,
    named: Option<String>,
    is_forced: bool,
) -> Result<Option<String>, Failure> {
    let fit = |member: &&Member| !member.is_leader() && member.may_be_promoted();
    let mut names: Vec<&str> =
        cluster.members.iter().filter(fit).map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    if names.is_empty() {
        return Err(Failure::because(format!("No candidates found to {action} to")));
    }
    let candidate = match named {
        Some(name) => name,
        None if is_forced => String::new(),
        None => {
            let list: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            output.ask(&format!("Candidate [{}]", list.join(", ")), Some(""))?
        }
    };
    if candidate.is_empty() {
        return Ok(None);
    }
    let scope = &cluster.scope;
    if cluster.leader().is_some_and(|leader| leader.name == candidate) {
        return Err(Failure::because(format!("Member {candidate} is already the leader of cluster {scope}")));
    }
    if !names.contains(&candidate.as_str()) {
        return Err(Failure::because(format!(
            "Member {candidate} does not exist in cluster {scope} or is tagged as nofailover"
        )));
    }
    Ok(Some(candidate))
}

/// Asks when, as patronictl does; the only answer which can be carried out is `now`.
fn refuse_schedule(output: &mut Output, options: &SwitchoverArguments) -> Result<(), Failure> {
    let when = match &options.scheduled {
        Some(when) => when.clone(),
        None if options.force => return Ok(()),
        None => {
            let example = local_time("%Y-%m-%dT%H:%M", Duration::from_secs(3600));
            let question = format!("When should the switchover take place (e.g. {example} ) ");
            output.ask(&question, Some("now"))?
        }
    };
    if when.eq_ignore_ascii_case("now") {
        return Ok(());
    }
    Err(Failure::because(format!(
        "a switchover at {when}: this version of pgherd cannot schedule one yet; ask again at that time, or leave --scheduled out to do it now"
    )))
}

fn confirm(
    output: &mut Output,
    cluster: &Cluster,
    request: &Request,
    is_forced: bool,
) -> Result<(), Failure> {
    if is_forced {
        return Ok(());
    }
    let demoting = cluster
        .leader()
        .map_or_else(String::new, |leader| format!(", demoting current leader {}", leader.name));
    let question =
        format!("Are you sure you want to {} cluster {}{demoting}?", request.action, cluster.scope);
    if request.primary_is_dead {
        let name = cluster.leader().map_or("the old primary", |leader| leader.name.as_str());
        output.say(&format!(
            "Only you can know that {name} is dead. Everything that it committed and {} has not received is lost. If {name} \
             still runs, two nodes take writes, and those of {name} are lost: switch its machine off first.",
            request.candidate.as_deref().unwrap_or("the candidate")
        ));
    }
    if output.confirm(&question)? {
        return Ok(());
    }
    Err(Failure::because(format!("Aborting {}", request.action)))
}

async fn perform(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    cluster: &Cluster,
    request: &Request,
) -> Result<(), Failure> {
    let answer = ask_a_member(sources, client, cluster, request).await?;
    if !answer.status.is_success() {
        let title = if request.action == "failover" { "Failover" } else { "Switchover" };
        let because = answer.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let code = answer.status.as_u16();
        output.say(&format!("{title} failed, details: {code}, {}{because}", answer.body));
        return Err(Failure::Told);
    }
    output.say(&format!("{} {}", local_time(MOMENT, Duration::ZERO), answer.body));
    let cluster = cluster::find(sources, client, &cluster.scope).await?;
    output.say(&page(&cluster, Format::Pretty, false));
    Ok(())
}

/// Any member can be asked; the leader first. The next one is asked only when nothing was sent to the one before.
async fn ask_a_member(
    sources: &Sources,
    client: &Client,
    cluster: &Cluster,
    request: &Request,
) -> Result<Answer, Failure> {
    let mut members: Vec<&Member> = cluster.members.iter().collect();
    members.sort_by_key(|member| {
        let is_candidate = request.candidate.as_deref() == Some(member.name.as_str());
        (!member.is_leader(), !is_candidate)
    });
    let known = members.iter().filter_map(|member| member.rest_addr());
    let mut addresses: Vec<&str> = Vec::new();
    for address in known.chain(sources.restapi_addrs.iter().map(String::as_str)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut body = json!({ "candidate": request.candidate });
    if let (Some(leader), Value::Object(fields)) = (&request.leader, &mut body) {
        fields.insert("leader".to_owned(), json!(leader));
    }
    if let (true, Value::Object(fields)) = (request.primary_is_dead, &mut body) {
        fields.insert("primary_is_dead".to_owned(), json!(true));
    }
    let mut refusals = Vec::new();
    for address in addresses {
        match client.post(address, &format!("/{}", request.action), body.to_string()).await {
            Ok(answer) => return Ok(answer),
            Err(NoAnswer::Connect(why)) => refusals.push(format!("{address}: {why}")),
            Err(NoAnswer::Lost(why)) => {
                return Err(Failure::because(format!(
                    "{address} was asked for a {}, but the answer was lost ({why}): look at `pgherdctl list` before asking again",
                    request.action
                )));
            }
        }
    }
    let tried = refusals.join("\n  ");
    Err(Failure::because(format!("no member can be asked for a {}. Tried:\n  {tried}", request.action)))
}
