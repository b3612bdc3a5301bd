//! `switchover` and `failover`: a dialogue, then one request to a member.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::arguments::{FailoverArguments, SwitchoverArguments};
use super::client::{Answer, Client, NoAnswer};
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::list::{Style, page};
use super::moment::{self, MOMENT, local_time};
use super::output::Output;
use super::{Failure, settings};

/// What is asked of a member.
struct Request {
    /// `switchover` or `failover`.
    action: &'static str,
    leader: Option<String>,
    candidate: Option<String>,
    /// When, as ISO 8601; none: now.
    scheduled_at: Option<String>,
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
    let scheduled_at = moment::ask(output, options.scheduled.as_deref(), options.force, "switchover", " ")?;
    if scheduled_at.is_some() && cluster.pause {
        return Err(Failure::because("Can't schedule switchover in the paused state"));
    }
    let request = Request {
        action: "switchover",
        leader: Some(leader),
        candidate,
        scheduled_at,
        primary_is_dead: false,
    };
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
    let request =
        Request { action: "failover", leader: None, candidate, scheduled_at: None, primary_is_dead };
    if !options.force {
        confirm_asynchronous(output, sources, client, &cluster, &request).await?;
    }
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
    output.say(&page(&cluster, Style::Pretty, false));
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
    let question = match &request.scheduled_at {
        None => format!("Are you sure you want to {} cluster {}{demoting}?", request.action, cluster.scope),
        Some(at) => format!(
            "Are you sure you want to schedule {} of cluster {} at {at}{demoting}?",
            request.action, cluster.scope
        ),
    };
    if request.primary_is_dead {
        let name = cluster.leader().map_or("the old primary", |leader| leader.name.as_str());
        output.say(&format!(
            "Only you can know that {name} is dead. Everything that it committed and {} has not received is lost. If {name} \
             still runs, two nodes take writes, and those of {name} are lost: switch its machine off first.",
            request.candidate.as_deref().unwrap_or("the candidate")
        ));
    }
    if output.confirm(&question)? { Ok(()) } else { Err(aborting(request)) }
}

fn aborting(request: &Request) -> Failure {
    let scheduled = if request.scheduled_at.is_some() { "scheduled " } else { "" };
    Failure::because(format!("Aborting {scheduled}{}", request.action))
}

/// In synchronous mode a standby that commits did not wait for may lack some.
async fn confirm_asynchronous(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    cluster: &Cluster,
    request: &Request,
) -> Result<(), Failure> {
    let candidate = cluster.members.iter().find(|member| Some(&member.name) == request.candidate.as_ref());
    let Some(candidate) = candidate.filter(|member| member.role == "replica") else { return Ok(()) };
    let settings = settings::read(sources, client, cluster).await?;
    let is_on = match settings.get("synchronous_mode") {
        Some(Value::Bool(is_on)) => *is_on,
        Some(Value::String(word)) => matches!(word.to_lowercase().as_str(), "on" | "true" | "yes" | "1"),
        Some(Value::Number(number)) => number.as_i64() == Some(1),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
    };
    let question = format!("Are you sure you want to failover to the asynchronous node {}?", candidate.name);
    if !is_on || output.confirm(&question)? { Ok(()) } else { Err(aborting(request)) }
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
        let because = answer.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        // The member does not know yet how it ended, or has lost sight of it.
        if answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.body.contains("status unknown") {
            output.say(&format!("{} {}{because}: look at `pgherdctl list`", local_time(MOMENT), answer.body));
            return Err(Failure::Told);
        }
        let title = if request.action == "failover" { "Failover" } else { "Switchover" };
        let code = answer.status.as_u16();
        output.say(&format!("{title} failed, details: {code}, {}{because}", answer.body));
        return Err(Failure::Told);
    }
    output.say(&format!("{} {}", local_time(MOMENT), answer.body));
    let cluster = cluster::find(sources, client, &cluster.scope).await?;
    output.say(&page(&cluster, Style::Pretty, false));
    Ok(())
}

/// Any member can be asked; the leader first. The next one is asked only when nothing was sent to the one before.
async fn ask_a_member(
    sources: &Sources,
    client: &Client,
    cluster: &Cluster,
    request: &Request,
) -> Result<Answer, Failure> {
    let mut addresses = cluster.rest_addrs(sources);
    // Without a leader the candidate is the one that it is about.
    let is_candidate = |member: &&Member| request.candidate.as_deref() == Some(member.name.as_str());
    let candidate = cluster.members.iter().find(is_candidate).and_then(Member::rest_addr);
    if cluster.leader().is_none() {
        addresses.sort_by_key(|address| Some(address.as_str()) != candidate);
    }
    let mut body = json!({ "candidate": request.candidate });
    if let (Some(leader), Value::Object(fields)) = (&request.leader, &mut body) {
        fields.insert("leader".to_owned(), json!(leader));
    }
    if let (Some(at), Value::Object(fields)) = (&request.scheduled_at, &mut body) {
        fields.insert("scheduled_at".to_owned(), json!(at));
    }
    if let (true, Value::Object(fields)) = (request.primary_is_dead, &mut body) {
        fields.insert("primary_is_dead".to_owned(), json!(true));
    }
    let mut refusals = Vec::new();
    for address in addresses {
        match client.post(&address, &format!("/{}", request.action), body.to_string()).await {
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
