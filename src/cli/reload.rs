//! `reload`: members read their configuration files again.

use hyper::StatusCode;

use super::Failure;
use super::arguments::ReloadArguments;
use super::client::Client;
use super::config::Sources;
use super::output::Output;
use super::select::{self, confirm, names};
use super::settings::{self, loop_wait};

/// Asks each member.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &ReloadArguments,
) -> Result<(), Failure> {
    let (cluster, members) = select::members(output, sources, client, &options.selection).await?;
    let question = format!("Are you sure you want to reload members {}?", names(&members));
    confirm(output, options.selection.force, &question, "Aborted reload")?;
    let seconds = match settings::read(sources, client, &cluster).await {
        Ok(settings) => loop_wait(&settings),
        Err(_) => settings::USUAL_LOOP_WAIT,
    };
    let mut has_failed = false;
    for member in &members {
        let name = &member.name;
        let answer = match select::address(member) {
            Ok(address) => {
                client.post(address, "/reload", String::new()).await.map_err(|why| why.to_string())
            }
            Err(why) => Err(why),
        };
        let text = match answer {
            Ok(answer) if answer.status == StatusCode::OK => format!("No changes to apply on member {name}"),
            Ok(answer) if answer.status == StatusCode::ACCEPTED => {
                format!(
                    "Reload request received for member {name} and will be processed within {seconds} seconds"
                )
            }
            Ok(answer) => {
                has_failed = true;
                format!("Failed: reload for member {name}, {}", answer.refusal())
            }
            Err(why) => {
                has_failed = true;
                format!("Failed: reload for member {name}: {why}")
            }
        };
        output.say(&text);
    }
    if has_failed { Err(Failure::Told) } else { Ok(()) }
}
