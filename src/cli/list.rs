//! `list`: the members of a cluster as a table.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::arguments::{Format, ListArguments};
use super::client::Client;
use super::cluster::{self, Cluster, Member};
use super::config::Sources;
use super::moment::{SECOND, local_time};
use super::output::Output;
use super::table::{Column, Table, flow};
use super::{Failure, topology, watch};

/// PostgreSQL's port: hosts are shown without it when all members use it.
const USUAL_PORT: u16 = 5432;
/// A pending parameter's entry of more characters is hidden in a drawing.
const LONGEST_REASON: usize = 50;

/// How a cluster is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Pretty,
    /// Pretty, as a tree.
    Topology,
    Tsv,
    Json,
    Yaml,
}

impl Style {
    /// For the eye.
    fn is_drawn(self) -> bool {
        matches!(self, Self::Pretty | Self::Topology)
    }
}

impl From<Format> for Style {
    fn from(format: Format) -> Self {
        match format {
            Format::Pretty => Self::Pretty,
            Format::Tsv => Self::Tsv,
            Format::Json => Self::Json,
            Format::Yaml => Self::Yaml,
        }
    }
}

/// Prints the clusters named, once or again and again.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    arguments: &ListArguments,
) -> Result<(), Failure> {
    let scopes = scopes(sources, &arguments.scopes)?;
    watch::pages(output, arguments.watch, async || {
        let pages = found(sources, client, &scopes, arguments.format.into(), arguments.extended).await?;
        Ok(match arguments.timestamp {
            true => format!("{}\n{pages}", local_time(SECOND)),
            false => pages,
        })
    })
    .await
}

/// The clusters that are meant.
pub(super) fn scopes(sources: &Sources, named: &[String]) -> Result<Vec<String>, Failure> {
    Ok(if named.is_empty() { vec![sources.scope_or(None)?] } else { named.to_vec() })
}

/// Asks for clusters and prints them one below the other.
pub(super) async fn found(
    sources: &Sources,
    client: &Client,
    scopes: &[String],
    style: Style,
    is_extended: bool,
) -> Result<String, Failure> {
    let mut pages = Vec::new();
    for scope in scopes {
        let cluster = cluster::find(sources, client, scope).await?;
        pages.push(page(&cluster, style, is_extended));
    }
    Ok(pages.join("\n"))
}

/// A cluster in one of the styles.
pub(super) fn page(cluster: &Cluster, style: Style, is_extended: bool) -> String {
    let table = table(cluster, style, is_extended);
    match style {
        Style::Pretty | Style::Topology => [table.pretty(), footer(cluster)].concat(),
        Style::Tsv => table.tsv("\t"),
        Style::Json => table.json(),
        Style::Yaml => table.yaml(),
    }
}

fn table(cluster: &Cluster, style: Style, is_extended: bool) -> Table {
    let left = |key: &'static str| Column::titled(key, key, false);
    let right = |key: &'static str, title: &'static str| Column::titled(key, title, true);
    let mut columns = vec![
        Column { key: "Cluster".into(), title: None, is_right: false },
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
    let members: Vec<(usize, &Member)> = match style {
        Style::Topology => topology::tree(cluster),
        Style::Pretty | Style::Tsv | Style::Json | Style::Yaml => {
            cluster.members.iter().map(|member| (0, member)).collect()
        }
    };
    let rows = members.iter().map(|(depth, member)| usual_cells(cluster, *depth, member, has_port));
    let mut rows: Vec<Vec<Value>> = rows.collect();
    for (key, cell) in extra_columns(style) {
        let cells: Vec<Value> = members.iter().map(|(_, member)| cell(member)).collect();
        let is_empty = cells
            .iter()
            .all(|cell| cell.is_null() || cell.as_object().is_some_and(serde_json::Map::is_empty));
        if is_empty && !is_extended {
            continue;
        }
        columns.push(left(key));
        for (row, cell) in rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }
    Table { title: title(cluster), columns, rows, keeps_empty: false }
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

fn usual_cells(cluster: &Cluster, depth: usize, member: &Member, has_port: bool) -> Vec<Value> {
    let host = match (&member.host, member.port) {
        (Some(host), Some(port)) if has_port && host.contains(':') => format!("[{host}]:{port}"),
        (Some(host), Some(port)) if has_port => format!("{host}:{port}"),
        (Some(host), _) => host.clone(),
        (None, _) => String::new(),
    };
    vec![
        json!(cluster.scope),
        json!(topology::branch(depth, &member.name)),
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
fn extra_columns(style: Style) -> [(&'static str, Cell); 4] {
    let reason: Cell = if style.is_drawn() { short_reasons } else { all_reasons };
    let tags: Cell = if style == Style::Topology { tags_in_a_line } else { tags };
    [
        ("Pending restart", |member| if member.pending_restart { json!("*") } else { Value::Null }),
        ("Pending restart reason", reason),
        ("Scheduled restart", scheduled_restart),
        ("Tags", tags),
    ]
}

fn tags(member: &Member) -> Value {
    if member.tags.is_empty() { Value::Null } else { json!(member.tags) }
}

fn tags_in_a_line(member: &Member) -> Value {
    if member.tags.is_empty() { Value::Null } else { json!(flow(&tags(member))) }
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
