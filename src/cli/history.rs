//! `history`: the past changes of the primary.

use serde_json::Value;

use super::arguments::HistoryArguments;
use super::client::Client;
use super::config::Sources;
use super::output::Output;
use super::table::{Column, Table};
use super::{Failure, cluster};

/// Prints a row a timeline.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &HistoryArguments,
) -> Result<(), Failure> {
    let scope = sources.scope_or(options.scope.as_deref())?;
    let cluster = cluster::find(sources, client, &scope).await?;
    let document = cluster::ask_any(client, &cluster, "/history").await?;
    let rows = document.as_array().map_or(&[][..], Vec::as_slice);
    let column = |key, is_right| Column::titled(key, key, is_right);
    let columns = vec![
        column("TL", true),
        column("LSN", true),
        column("Reason", false),
        column("Timestamp", false),
        column("New Leader", false),
    ];
    let cell = |row: &Value, place: usize| row.get(place).cloned().unwrap_or(Value::Null);
    let rows = rows.iter().map(|row| (0..columns.len()).map(|place| cell(row, place)).collect()).collect();
    let table = Table { title: String::new(), columns, rows, keeps_empty: false };
    output.say(&table.in_format(options.format));
    Ok(())
}
