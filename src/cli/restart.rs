//! `restart`: of PostgreSQL, one member after the other.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::arguments::RestartArguments;
use super::client::{Answer, Client, NoAnswer};
use super::cluster::Member;
use super::config::Sources;
use super::output::Output;
use super::select::{self, confirm, names};
use super::{Failure, moment};

/// Restarts members now, or schedules their restarts.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &RestartArguments,
) -> Result<(), Failure> {
    let is_forced = options.selection.force;
    let (cluster, mut members) = select::members(output, sources, client, &options.selection).await?;
    let when = moment::ask(output, options.scheduled.as_deref(), is_forced, "restart", "")?;
    if when.is_some() && cluster.pause {
        return Err(Failure::because("Can't schedule restart in the paused state"));
    }
    if options.any {
        members = one_of(members);
    }
    select::refresh(client, &mut members).await;
    if options.pending && when.is_none() {
        members.retain(|member| member.pending_restart);
        if members.is_empty() {
            output.say("No pending restart: nothing to do");
            return Ok(());
        }
    }
    ask_to_go_on(output, is_forced, &members, when.as_deref())?;
    if options.pending && when.is_some() {
        let question = "The nodes needing a restart will be identified at the scheduled time, and might be different from \
                        the ones showing pending restart right now. Is this fine?";
        confirm(output, is_forced, question, "Aborted scheduled restart")?;
    }
    let version = match &options.pg_version {
        Some(version) => version.clone(),
        None if is_forced => String::new(),
        None => {
            output.ask("Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ", Some(""))?
        }
    };
    let body = body(options, when.as_deref(), &version);
    let mut has_failed = false;
    for member in &members {
        if is_forced && when.is_some() && member.scheduled_restart.is_some() {
            has_failed |= !withdraw(output, client, member).await;
        }
        output.progress(&format!("Restarting {} ...", member.name));
        let answer = ask(client, member, &body).await;
        output.progress("");
        has_failed |= !tell(output, member, answer);
    }
    if has_failed { Err(Failure::Told) } else { Ok(()) }
}

/// Any one: which does not matter, so it is left to the clock.
fn one_of(members: Vec<Member>) -> Vec<Member> {
    let moment = pgherd_raft::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let place = usize::try_from(moment.subsec_micros()).unwrap_or(0).checked_rem(members.len()).unwrap_or(0);
    members.into_iter().skip(place).take(1).collect()
}

fn ask_to_go_on(
    output: &mut Output,
    is_forced: bool,
    members: &[Member],
    when: Option<&str>,
) -> Result<(), Failure> {
    let names = names(members);
    match when {
        None => confirm(
            output,
            is_forced,
            &format!("Are you sure you want to restart members {names}?"),
            "Aborted restart",
        ),
        Some(at) => confirm(
            output,
            is_forced,
            &format!("Are you sure you want to schedule restart of members {names} at {at}?"),
            "Aborted scheduled restart",
        ),
    }
}

fn body(options: &RestartArguments, when: Option<&str>, version: &str) -> String {
    let mut body = Map::new();
    if options.pending {
        body.insert("restart_pending".to_owned(), json!(true));
    }
    if !version.is_empty() {
        body.insert("postgres_version".to_owned(), json!(version));
    }
    if let Some(timeout) = &options.timeout {
        let timeout = timeout.parse::<u64>().map_or_else(|_| json!(timeout), |seconds| json!(seconds));
        body.insert("timeout".to_owned(), timeout);
    }
    if let Some(at) = when {
        body.insert("schedule".to_owned(), json!(at));
    }
    Value::Object(body).to_string()
}

async fn ask(client: &Client, member: &Member, body: &str) -> Result<Answer, String> {
    let address = select::address(member)?;
    client.restart(address, body.to_owned()).await.map_err(|why: NoAnswer| why.to_string())
}

/// Takes back the restart which is scheduled already.
async fn withdraw(output: &mut Output, client: &Client, member: &Member) -> bool {
    let answer = match select::address(member) {
        Ok(address) => client.delete(address, "/restart").await.map_err(|why| why.to_string()),
        Err(why) => Err(why),
    };
    match answer {
        Ok(answer) if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND => true,
        Ok(answer) => {
            let (name, refusal) = (&member.name, answer.refusal());
            output.say(&format!("Failed: flush scheduled restart for member {name}, {refusal}"));
            false
        }
        Err(why) => {
            output.say(&format!("Failed: flush scheduled restart for member {}: {why}", member.name));
            false
        }
    }
}

/// Says how it went; did it go well?
fn tell(output: &mut Output, member: &Member, answer: Result<Answer, String>) -> bool {
    let name = &member.name;
    let (text, is_well) = match answer {
        Ok(answer) => match answer.status {
            StatusCode::OK => (format!("Success: restart on member {name}"), true),
            StatusCode::ACCEPTED => (format!("Success: restart scheduled on member {name}"), true),
            StatusCode::CONFLICT => {
                (format!("Failed: another restart is already scheduled on member {name}"), false)
            }
            _ => (format!("Failed: restart for member {name}, {}", answer.refusal()), false),
        },
        Err(why) => (format!("Failed: restart for member {name}: {why}"), false),
    };
    output.say(&text);
    is_well
}
