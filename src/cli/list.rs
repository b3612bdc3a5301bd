//! `list`: the members of a cluster as a table.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::output::Output;
use super::table::{Column, Table};
use super::{Failure, Format, ListArguments};

/// What `-W` means.
const USUAL_WATCH: u64 = 2;
/// PostgreSQL's port: hosts are shown without it when all members use it.
const USUAL_PORT: u16 = 5432;
/// A pending parameter's entry of more characters is hidden in a drawing.
const LONGEST_REASON: usize = 50;

/// Prints the clusters named, once or again and again.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    arguments: &ListArguments,
) -> Result<(), Failure> {
    let scopes = match arguments.scopes.as_slice() {
        [] => vec![sources.scope_or(None)?],
        named => named.to_vec(),
    };
    let watch = arguments.watch.or(arguments.watch_two.then_some(USUAL_WATCH));
    loop {
        let mut pages = Vec::new();
        for scope in &scopes {
            let found = cluster::find(sources, client, scope).await;
            match (found, watch) {
                (Ok(cluster), _) => {
                    pages.push(page(&cluster, arguments.format, arguments.extended));
                }
                // Whoever watches wants to see the end of an outage, too.
                (Err(Failure::Error(error)), Some(_)) => pages.push(format!("Error: {error:#}")),
                (Err(failure), _) => return Err(failure),
            }
        }
        if watch.is_some() {
            output.clear();
        }
        if arguments.timestamp {
            output.say(&local_time("%Y-%m-%d %H:%M:%S", Duration::ZERO));
        }
        for page in pages {
            output.say(&page);
        }
        match watch {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => return Ok(()),
        }
    }
}

/// This machine's time in its zone, or so much later.
pub(super) fn local_time(format: &str, later: Duration) -> String {
    let time = jiff::Timestamp::try_from(pgherd_raft::clock::wall() + later).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string()
}

/// A cluster in one of the formats.
pub(super) fn page(cluster: &Cluster, format: Format, is_extended: bool) -> String {
    let table = table(cluster, format, is_extended);
    match format {
        Format::Pretty => [table.pretty(), footer(cluster)].concat(),
        Format::Tsv => table.tsv(),
        Format::Json => table.json(),
        Format::Yaml => table.yaml(),
    }
}

fn table(cluster: &Cluster, format: Format, is_extended: bool) -> Table {
    let is_pretty = format == Format::Pretty;
    let left = |key| Column { key, title: Some(key), is_right: false };
    let right = |key, title| Column { key, title: Some(title), is_right: true };
    let mut columns = vec![
        Column { key: "Cluster", title: None, is_right: false },
        left("Member"),
        left("Host"),
        left("Role"),
        left("State"),
        right("TL", "TL"),
        right("Receive LSN", "Receive LSN"),
        right("Receive Lag", "Lag"),
        right("Replay LSN", "Replay LSN"),
        right("Replay Lag", "Lag"),
    ];
    let has_port = shows_ports(&cluster.members);
    let rows = cluster.members.iter().map(|member| usual_cells(cluster, member, has_port));
    let mut rows: Vec<Vec<Value>> = rows.collect();
    let mut has_rules = false;
    for (key, cell) in extra_columns(is_pretty) {
        let cells: Vec<Value> = cluster.members.iter().map(cell).collect();
        let is_empty = cells
            .iter()
            .all(|cell| cell.is_null() || cell.as_object().is_some_and(serde_json::Map::is_empty));
        if is_empty && !is_extended {
            continue;
        }
        has_rules |= key == "Tags" || key == "Pending restart reason";
        columns.push(left(key));
        for (row, cell) in rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }
    Table { title: title(cluster), columns, rows, has_rules }
}

fn title(cluster: &Cluster) -> String {
    let identity = match &cluster.pgherd.system_identifier {
        Some(identifier) => identifier.clone(),
        None if cluster.members.is_empty() => "initializing".to_owned(),
        None => "uninitialized".to_owned(),
    };
    format!(" Cluster: {} ({identity}) ", cluster.scope)
}

/// Ports are shown when one is unusual or an address belongs to several members.
fn shows_ports(members: &[Member]) -> bool {
    let hosts: BTreeSet<&Option<String>> = members.iter().map(|member| &member.host).collect();
    hosts.len() < members.len() || members.iter().any(|member| member.port.is_some_and(|p| p != USUAL_PORT))
}

fn usual_cells(cluster: &Cluster, member: &Member, has_port: bool) -> Vec<Value> {
    let host = match (&member.host, member.port) {
        (Some(host), Some(port)) if has_port && host.contains(':') => format!("[{host}]:{port}"),
        (Some(host), Some(port)) if has_port => format!("{host}:{port}"),
        (Some(host), _) => host.clone(),
        (None, _) => String::new(),
    };
    vec![
        json!(cluster.scope),
        json!(member.name),
        json!(host),
        json!(role(&member.role)),
        json!(member.state),
        json!(member.timeline),
        member.receive_lsn.clone(),
        megabytes(&member.receive_lag),
        member.replay_lsn.clone(),
        megabytes(&member.replay_lag),
    ]
}

/// `sync_standby` as `Sync Standby`.
fn role(word: &str) -> String {
    let capital = |part: &str| {
        let mut chars = part.chars();
        chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
    };
    word.split('_').map(capital).collect::<Vec<_>>().join(" ")
}

/// Bytes as whole megabytes; what is no number is an empty cell.
fn megabytes(lag: &Value) -> Value {
    const MEGABYTE: u64 = 1024 * 1024;
    lag.as_u64().map_or(Value::Null, |bytes| json!(bytes.saturating_add(MEGABYTE / 2) / MEGABYTE))
}

type Cell = fn(&Member) -> Value;

/// Columns that appear when a member has a value for them.
fn extra_columns(is_pretty: bool) -> [(&'static str, Cell); 4] {
    let reason: Cell = if is_pretty { short_reasons } else { all_reasons };
    [
        ("Pending restart", |member| if member.pending_restart { json!("*") } else { Value::Null }),
        ("Pending restart reason", reason),
        ("Scheduled restart", scheduled_restart),
        ("Tags", |member| if member.tags.is_empty() { Value::Null } else { json!(member.tags) }),
    ]
}

fn short_reasons(member: &Member) -> Value {
    reasons(member, LONGEST_REASON)
}

fn all_reasons(member: &Member) -> Value {
    reasons(member, usize::MAX)
}

fn reasons(member: &Member, longest: usize) -> Value {
    if member.pending_restart_reason.is_empty() {
        return Value::Null;
    }
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let line = |(name, change): (&String, &Value)| {
        let line = format!("{name}: {}->{}", text(change.get("old_value")), text(change.get("new_value")));
        if line.chars().count() > longest { format!("{name}: [hidden - too long]") } else { line }
    };
    json!(member.pending_restart_reason.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn scheduled_restart(member: &Member) -> Value {
    let Some(restart) = &member.scheduled_restart else { return Value::Null };
    let text = |key: &str| restart.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match text("postgres_version").as_str() {
        "" => json!(text("schedule")),
        version => json!(format!("{} if version < {version}", text("schedule"))),
    }
}

fn footer(cluster: &Cluster) -> String {
    let mut footer = String::new();
    if cluster.pause {
        footer.push_str("\n Maintenance mode: on");
    }
    for warning in &cluster.pgherd.warnings {
        footer.push_str(&format!("\n Warning: {warning}"));
    }
    if let Some(planned) = &cluster.scheduled_switchover {
        footer.push_str(&format!("\n Switchover scheduled at: {}", planned.at));
        for (word, name) in [("from", &planned.from), ("to", &planned.to)] {
            if let Some(name) = name {
                footer.push_str(&format!("\n{:>24}: {name}", word));
            }
        }
    }
    footer
}
