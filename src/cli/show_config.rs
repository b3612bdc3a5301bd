//! `show-config`: the settings that all members share, and their past revisions.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::arguments::ShowConfigArguments;
use super::client::Client;
use super::cluster::Cluster;
use super::config::Sources;
use super::output::Output;
use super::table::{Column, Table, yaml_object};
use super::{Failure, cluster, settings};

/// A revision of the settings, as `/config/history` shows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Revision {
    /// Its number.
    pub(super) revision: u64,
    /// When, as ISO 8601.
    #[serde(default)]
    pub(super) at: Option<String>,
    /// Who.
    #[serde(default)]
    pub(super) by: Option<String>,
    /// The whole document.
    #[serde(default)]
    pub(super) config: Option<Map<String, Value>>,
}

/// Prints the settings or the list of their revisions.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &ShowConfigArguments,
) -> Result<(), Failure> {
    let scope = sources.scope_or(options.scope.as_deref())?;
    let cluster = cluster::find(sources, client, &scope).await?;
    if options.history {
        let revisions = revisions(client, &cluster).await?;
        output.say(&table(&revisions).pretty());
        return Ok(());
    }
    let settings = settings::read(sources, client, &cluster).await?;
    output.say(as_text(&settings).trim_end());
    Ok(())
}

/// As YAML with sorted keys.
pub(super) fn as_text(settings: &Map<String, Value>) -> String {
    yaml_object(&Value::Object(settings.clone()))
}

/// The revisions that are kept, the oldest first.
pub(super) async fn revisions(client: &Client, cluster: &Cluster) -> Result<Vec<Revision>, Failure> {
    let document = cluster::ask_any(client, cluster, "/config/history").await?;
    let mut revisions: Vec<Revision> = serde_json::from_value(document)
        .map_err(|source| Failure::because(format!("the revisions cannot be read: {source}")))?;
    revisions.sort_by_key(|revision| revision.revision);
    Ok(revisions)
}

fn table(revisions: &[Revision]) -> Table {
    let column = |key, is_right| Column::titled(key, key, is_right);
    let row = |revision: &Revision| vec![json!(revision.revision), json!(revision.at), json!(revision.by)];
    Table {
        title: String::new(),
        columns: vec![column("Revision", true), column("Timestamp", false), column("Changed by", false)],
        rows: revisions.iter().map(row).collect(),
        keeps_empty: false,
    }
}
