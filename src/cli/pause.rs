//! `pause` and `resume`: one setting of the cluster, and the wait until everybody has noticed.

use std::time::Duration;

use serde_json::{Value, json};

use super::Failure;
use super::arguments::PauseArguments;
use super::client::Client;
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::output::Output;
use super::settings::{self, loop_wait};

/// Between two looks at the members.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Switches automation off or on.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &PauseArguments,
    pause: bool,
) -> Result<(), Failure> {
    let scope = sources.scope_or(options.scope.as_deref())?;
    let cluster = cluster::find(sources, client, &scope).await?;
    let addresses = cluster.rest_addrs(sources);
    let settings = settings::read(sources, client, &cluster).await?;
    let is_wanted = settings.get("pause").is_some_and(|value| is_true(Some(value)));
    if is_wanted == pause {
        return Err(Failure::because(already(&cluster, pause)));
    }
    // Patroni's clients take the setting away rather than to write false.
    let body = json!({ "pause": if pause { Value::Bool(true) } else { Value::Null } }).to_string();
    for address in &addresses {
        let Ok(answer) = client.patch(address, "/config", body.clone()).await else { continue };
        if !answer.status.is_success() {
            let (verb, code) = (if pause { "pause" } else { "resume" }, answer.status.as_u16());
            output.say(&format!("Failed: {verb} cluster management status code={code}, ({})", answer.body));
            return Err(Failure::Told);
        }
        if options.wait {
            wait(output, client, &cluster, pause, loop_wait(&settings).saturating_add(1)).await?;
        }
        let done = if pause { "paused" } else { "resumed" };
        output.say(&format!("Success: cluster management is {done}"));
        return Ok(());
    }
    Err(Failure::because("Can not find accessible cluster member"))
}

fn is_true(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => matches!(text.to_lowercase().as_str(), "true" | "on" | "yes" | "1"),
        Some(Value::Number(number)) => number.as_f64() == Some(1.0),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
    }
}

/// Nothing is to be asked for. The end of a pause may still be waited for.
fn already(cluster: &Cluster, pause: bool) -> String {
    if pause {
        return "Cluster is already paused".to_owned();
    }
    if !cluster.pgherd.pinned {
        return "Cluster is not paused".to_owned();
    }
    format!("Cluster is not paused; {}", awaited(cluster))
}

/// Whom the end of a pause waits for.
fn awaited(cluster: &Cluster) -> String {
    let holder = cluster.leader().map_or("its primary", |leader| leader.name.as_str());
    format!(
        "{holder} has to end the pause, since its PostgreSQL may run on unguarded: start its daemon, or, when you know \
         that it is dead, pgherdctl failover --primary-is-dead"
    )
}

async fn wait(
    output: &mut Output,
    client: &Client,
    cluster: &Cluster,
    pause: bool,
    seconds: u64,
) -> Result<(), Failure> {
    let word = if pause { "pause" } else { "resume" };
    output.say(&format!("'{word}' request sent, waiting until it is recognized by all nodes"));
    let mut missing: Vec<String> = Vec::new();
    let all = async {
        loop {
            missing.clear();
            for member in &cluster.members {
                if !has_noticed(client, member, pause).await {
                    missing.push(member.name.clone());
                }
            }
            if missing.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(seconds), all).await.is_ok() {
        return Ok(());
    }
    let names = missing.join(", ");
    let mut text = format!("{names} members didn't recognized {word} state after {seconds} seconds");
    if !pause {
        text = format!("{text}; {}", awaited(cluster));
    }
    Err(Failure::because(text))
}

async fn has_noticed(client: &Client, member: &Member, pause: bool) -> bool {
    let Some(address) = member.rest_addr() else { return false };
    let Ok(answer) = client.get(address, "/patroni").await else { return false };
    let Ok(status) = serde_json::from_str::<Value>(&answer.body) else { return false };
    is_true(status.get("pause")) == pause
}
