//! What is recorded tells what happened, and what was forecast is what happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::wait;
use crate::run;

/// Events are recorded after the takeover that they are about.
const RECORDED_LIMIT: Duration = Duration::from_secs(20);

fn text<'a>(document: &'a Value, pointer: &str) -> Result<&'a str> {
    document.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {document}"))
}

/// Waits until pgherdctl tells something that holds.
async fn told(cluster: &Cluster, arguments: &[&str], holds: impl Fn(&str) -> bool) -> Result<String> {
    let what = format!("pgherdctl {}", arguments.join(" "));
    wait::until(&what, RECORDED_LIMIT, async || match cluster.ctl(arguments).await {
        Ok(output) if holds(&output) => Ok(output),
        Ok(output) => Err(output),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

#[test]
fn a_takeover_is_forecast_and_then_explained() {
    run(Plan::of(3), async |cluster| {
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let old = cluster.wait_for_primary(HEAL_LIMIT).await?;
        let old_name = cluster.node(old)?.name.clone();
        let first = told(cluster, &["why"], |text| text.contains("became the primary")).await?;
        ensure!(first.contains(&old_name), "the first primary is not explained:\n{first}");

        let loser = cluster.data_nodes().map(|(index, _)| index).filter(|index| *index != old).last();
        let loser = cluster.node(loser.context("no standby")?)?.name.clone();
        let harmless = cluster.ctl(&["what-if", &loser]).await?;
        ensure!(harmless.contains("no role would change"), "{harmless}");
        let forecast: Value =
            serde_json::from_str(&cluster.ctl(&["what-if", &old_name, "--output", "json"]).await?)?;
        let successor = text(&forecast, "/would_take_over")?.to_owned();
        ensure!(successor != loser, "the name that comes first goes first: {forecast}");
        let spoken = cluster.ctl(&["what-if", &old_name]).await?;
        ensure!(spoken.contains(&format!("{successor} would take over after about")), "{spoken}");

        cluster.node_mut(old)?.kill_everything()?;
        let new = cluster.wait_for_takeover(old, HEAL_LIMIT).await?;
        ensure!(cluster.node(new)?.name == successor, "{successor} was forecast: {forecast}");
        let story =
            told(cluster, &["why"], |text| text.contains(&format!("{successor} became the primary"))).await?;
        println!("{first}\n----\n{harmless}\n----\n{spoken}\n----\n{story}");
        ensure!(story.contains("By rule TakeClosed"), "the rule is missing:\n{story}");
        ensure!(story.contains(&format!("{old_name} last reported")), "a fact is missing:\n{story}");
        let refusal = format!("- {loser} has the same WAL position and priority as {successor}, whose name");
        let said = story.replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(said.contains(&refusal), "why {loser} did not is missing:\n{story}");

        let warned = told(cluster, &["what-if", &successor], |text| text.contains("NOBODY")).await?;
        ensure!(warned.contains("WARNING: writing would end"), "{warned}");
        println!("----\n{warned}");
        cluster.start_node(old)?;
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        let everything = cluster.ctl(&["why", "--since", "1h", "-o", "json"]).await?;
        let everything: Vec<Value> = serde_json::from_str(&everything)?;
        ensure!(everything.len() < 20, "an idle cluster records nothing: {everything:#?}");
        println!("----\n{}", cluster.ctl(&["why"]).await?);
        println!("----\n{}", cluster.ctl(&["why", "--since", "1h"]).await?);
        Ok(())
    });
}
