//! `show-config`: the settings that all members share, and their past revisions.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::arguments::ShowConfigArguments;
use super::client::Client;
use super::cluster::Cluster;
use super::config::Sources;
use super::output::Output;
use super::table::{Column, Table};
use super::{Failure, cluster, settings};
use crate::config::to_yaml;

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
    to_yaml(&sorted(&Value::Object(settings.clone())))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            Value::Object(pairs.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
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
        has_rules: false,
    }
}
