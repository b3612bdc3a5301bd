//! `reinit`: a standby's PostgreSQL is made anew, as a copy of another member's.

use std::time::Duration;

use hyper::StatusCode;
use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use serde_json::{Value, json};

use super::Failure;
use super::arguments::ReinitArguments;
use super::client::Client;
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::list::{Style, page};
use super::output::Output;
use super::select::{self, choose, confirm, names};

/// Between two looks at the members.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A member that was copied and whose PostgreSQL does not run for so long will not start by itself: longer than the pause
/// between two attempts to copy.
const START_PATIENCE: Duration = Duration::from_secs(45);
/// The word for a member that is being copied.
const STATE_OF_A_COPY: &str = "creating replica";

/// A member whose copy is under way.
struct Copy {
    member: Member,
    /// When its PostgreSQL had been started before.
    started_before: Option<String>,
    /// It was seen being copied.
    was_seen: bool,
    /// When it was seen being copied or starting last.
    last_seen: BootTime,
}

/// Asks the members to begin, and waits for the end of it if that is wanted.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &ReinitArguments,
) -> Result<(), Failure> {
    let cluster = cluster::find(sources, client, &options.scope).await?;
    if cluster.members.is_empty() {
        return Err(Failure::because(format!("{} cluster doesn't have any members", options.scope)));
    }
    if !options.force {
        output.say(&page(&cluster, Style::Pretty, false));
    }
    let members = choose(&cluster, &wanted(output, options, &cluster)?, None)?;
    let question = format!("Are you sure you want to reinitialize members {}?", names(&members));
    confirm(output, options.force, &question, "Aborted reinitialize")?;
    let mut has_failed = false;
    let mut copies = Vec::new();
    for member in members {
        let started_before = select::status(client, &member).await.as_ref().and_then(started_at);
        if begin(output, client, &member, options).await? {
            copies.push(Copy { member, started_before, was_seen: false, last_seen: clock::now() });
        } else {
            has_failed = true;
        }
    }
    if options.wait && !copies.is_empty() {
        has_failed |= !wait(output, client, copies).await;
    }
    if has_failed { Err(Failure::Told) } else { Ok(()) }
}

/// Whom the operator names; nobody is made anew because nobody was named.
fn wanted(output: &mut Output, options: &ReinitArguments, cluster: &Cluster) -> Result<Vec<String>, Failure> {
    if !options.members.is_empty() {
        return Ok(options.members.clone());
    }
    let standbys: Vec<&str> = cluster
        .members
        .iter()
        .filter(|member| !member.is_leader())
        .map(|member| member.name.as_str())
        .collect();
    let list = standbys.join(", ");
    if options.force {
        return Err(Failure::because(format!("name the members to reinitialize: some of {list}")));
    }
    let answer = output.ask(&format!("Which member do you want to reinitialize [{list}]?"), None)?;
    Ok(vec![answer])
}

/// Asks a member to begin; did it?
async fn begin(
    output: &mut Output,
    client: &Client,
    member: &Member,
    options: &ReinitArguments,
) -> Result<bool, Failure> {
    let name = &member.name;
    let address = match select::address(member) {
        Ok(address) => address,
        Err(why) => {
            output.say(&format!("Failed: reinitialize for member {name}: {why}"));
            return Ok(false);
        }
    };
    let mut force = options.force;
    loop {
        let body = json!({ "force": force, "from_leader": options.from_leader }).to_string();
        let answer = match client.post(address, "/reinitialize", body).await {
            Ok(answer) => answer,
            Err(why) => {
                output.say(&format!("Failed: reinitialize for member {name}: {why}"));
                return Ok(false);
            }
        };
        if answer.status.is_success() {
            output.say(&format!("Success: reinitialize for member {name}"));
            return Ok(true);
        }
        output.say(&format!("Failed: reinitialize for member {name}, {}", answer.refusal()));
        let is_busy =
            answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.body.contains("already in progress");
        if force || !is_busy || !output.confirm("Do you want to cancel it and reinitialize anyway?")? {
            return Ok(false);
        }
        force = true;
    }
}

/// Waits until every copy runs; did they all? On a terminal a line shows what they do.
async fn wait(output: &mut Output, client: &Client, mut copies: Vec<Copy>) -> bool {
    let members: Vec<Member> = copies.iter().map(|copy| copy.member.clone()).collect();
    output.say(&format!("Waiting for reinitialize to complete on: {}", names(&members)));
    let began = clock::now();
    let mut do_all_run = true;
    while !copies.is_empty() {
        tokio::time::sleep(LOOK_AGAIN).await;
        let mut done = Vec::new();
        let mut idle = Vec::new();
        let mut progress = Vec::new();
        for copy in &mut copies {
            let status = select::status(client, &copy.member).await;
            if is_done(copy, status.as_ref()) {
                done.push(copy.member.clone());
            } else if copy.was_seen && clock::now().since(copy.last_seen) > START_PATIENCE {
                idle.push((copy.member.name.clone(), doing(status.as_ref())));
            } else {
                progress.push(format!("{}: {}", copy.member.name, doing(status.as_ref())));
            }
        }
        let is_over = |name: &String| {
            done.iter().any(|member| member.name == *name) || idle.iter().any(|(idle, _)| idle == name)
        };
        copies.retain(|copy| !is_over(&copy.member.name));
        output.progress("");
        for (name, doing) in idle {
            do_all_run = false;
            output.say(&format!(
                "Failed: reinitialize for member {name}: it does not run after the copy, {doing}"
            ));
        }
        if !done.is_empty() {
            output.say(&format!("Reinitialize is completed on: {}", names(&done)));
        }
        if !copies.is_empty() {
            output.progress(&format!("{} s  {}", clock::now().since(began).as_secs(), progress.join("; ")));
        }
    }
    output.progress("");
    do_all_run
}

/// It runs, and it is another PostgreSQL than the one before.
fn is_done(copy: &mut Copy, status: Option<&Value>) -> bool {
    let Some(status) = status else { return false };
    let state = status.get("state").and_then(Value::as_str).unwrap_or_default();
    if state == STATE_OF_A_COPY || state == "starting" {
        copy.was_seen |= state == STATE_OF_A_COPY;
        copy.last_seen = clock::now();
    }
    let started = started_at(status);
    state == "running" && started.is_some() && (copy.was_seen || started != copy.started_before)
}

fn started_at(status: &Value) -> Option<String> {
    Some(status.get("postmaster_start_time")?.as_str()?.to_owned())
}

/// What a member does, for a line of progress.
fn doing(status: Option<&Value>) -> String {
    let Some(status) = status else { return "does not answer".to_owned() };
    let text = |path: &str| status.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let state = text("/state").unwrap_or("unknown");
    match text("/pgherd/waiting_for").or_else(|| text("/pgherd/because")) {
        Some(detail) => format!("{state} ({detail})"),
        None => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_is_another_running_server() {
        let mut copy = Copy {
            member: Member::default(),
            started_before: Some("2026-11-20 17:02:11+00:00".to_owned()),
            was_seen: false,
            last_seen: clock::now(),
        };
        let before = json!({"state": "running", "postmaster_start_time": "2026-11-20 17:02:11+00:00"});
        let after = json!({"state": "running", "postmaster_start_time": "2026-11-20 18:02:11+00:00"});
        assert!(!is_done(&mut copy, Some(&before)) && !is_done(&mut copy, None));
        assert!(!is_done(&mut copy, Some(&json!({"state": "stopped"}))));
        assert!(is_done(&mut copy, Some(&after)));
        assert!(!is_done(&mut copy, Some(&json!({"state": "creating replica"}))));
        assert!(copy.was_seen);
    }
}
