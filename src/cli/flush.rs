//! `flush`: withdraws what is scheduled.

use hyper::StatusCode;

use super::Failure;
use super::arguments::{FlushArguments, Selection};
use super::client::Client;
use super::cluster;
use super::config::Sources;
use super::output::Output;
use super::select::{self, confirm, names};

/// Withdraws restarts of members, or the switchover.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &FlushArguments,
) -> Result<(), Failure> {
    let Some((target, members)) = options.words.split_last() else {
        return Err(Failure::Usage("say what to withdraw: restart or switchover".to_owned()));
    };
    match target.as_str() {
        "restart" => restarts(output, sources, client, options, members).await,
        "switchover" => switchover(output, sources, client, options).await,
        other => Err(Failure::Usage(format!(
            "{other:?} cannot be withdrawn: the last word has to be restart or switchover"
        ))),
    }
}

async fn restarts(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &FlushArguments,
    members: &[String],
) -> Result<(), Failure> {
    let selection = Selection {
        scope: options.scope.clone(),
        members: members.to_vec(),
        role: options.role,
        force: options.force,
    };
    let (_, mut members) = select::members(output, sources, client, &selection).await?;
    let question = format!("Are you sure you want to flush members {}?", names(&members));
    confirm(output, options.force, &question, "Aborted flush")?;
    select::refresh(client, &mut members).await;
    let mut has_failed = false;
    for member in &members {
        let name = &member.name;
        if member.scheduled_restart.is_none() {
            output.say(&format!("No scheduled restart for member {name}"));
            continue;
        }
        let answer = match select::address(member) {
            Ok(address) => client.delete(address, "/restart").await.map_err(|why| why.to_string()),
            Err(why) => Err(why),
        };
        let text = match answer {
            Ok(answer) if answer.status.is_success() => {
                format!("Success: flush scheduled restart for member {name}")
            }
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                format!("No scheduled restart for member {name}")
            }
            Ok(answer) => {
                has_failed = true;
                let code = answer.status.as_u16();
                format!("Failed: member={name}, status_code={code}, ({})", answer.body)
            }
            Err(why) => {
                has_failed = true;
                format!("Failed: member={name}: {why}")
            }
        };
        output.say(&text);
    }
    if has_failed { Err(Failure::Told) } else { Ok(()) }
}

async fn switchover(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &FlushArguments,
) -> Result<(), Failure> {
    let cluster = cluster::find(sources, client, &options.scope).await?;
    if cluster.scheduled_switchover.is_none() {
        output.say("No pending scheduled switchover");
        return Ok(());
    }
    let mut refusals = 0_usize;
    let mut members: Vec<_> = cluster.members.iter().collect();
    members.sort_by_key(|member| !member.is_leader());
    for member in members {
        let Ok(address) = select::address(member) else { continue };
        let Ok(answer) = client.delete(address, "/switchover").await else { continue };
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
            output.say("Success: scheduled switchover deleted");
            return Ok(());
        }
        refusals += 1;
        let (name, code) = (&member.name, answer.status.as_u16());
        output.say(&format!("Failed: member={name}, status_code={code}, ({})", answer.body));
    }
    if refusals > 0 {
        return Err(Failure::Told);
    }
    Err(Failure::because(format!("Could not find any accessible member of cluster {}", options.scope)))
}
