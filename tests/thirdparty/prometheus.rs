//! `/metrics` as Prometheus reads it: strictly by the text format's rules, and by Prometheus' own Python client.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Plan};
use crate::harness::rest;
use crate::{programs, run};

/// Patroni's series: name and type.
const PATRONIS: &[(&str, &str)] = &[
    ("patroni_version", "gauge"),
    ("patroni_postgres_running", "gauge"),
    ("patroni_postmaster_start_time", "gauge"),
    ("patroni_primary", "gauge"),
    ("patroni_xlog_location", "counter"),
    ("patroni_standby_leader", "gauge"),
    ("patroni_replica", "gauge"),
    ("patroni_sync_standby", "gauge"),
    ("patroni_quorum_standby", "gauge"),
    ("patroni_xlog_received_location", "counter"),
    ("patroni_xlog_replayed_location", "counter"),
    ("patroni_xlog_replayed_timestamp", "gauge"),
    ("patroni_xlog_paused", "gauge"),
    ("patroni_postgres_streaming", "gauge"),
    ("patroni_postgres_in_archive_recovery", "gauge"),
    ("patroni_postgres_server_version", "gauge"),
    ("patroni_cluster_unlocked", "gauge"),
    ("patroni_failsafe_mode_is_active", "gauge"),
    ("patroni_postgres_timeline", "gauge"),
    ("patroni_dcs_last_seen", "gauge"),
    ("patroni_pending_restart", "gauge"),
    ("patroni_is_paused", "gauge"),
    ("patroni_postgres_state", "gauge"),
];

/// Reads with Prometheus' own client, and prints one line a sample.
const READER: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    for sample in family.samples:
        print(family.type, sample.name, sorted(sample.labels), sample.value)
";

/// A metric: its type, and its samples by their labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<BTreeMap<String, String>, f64>,
}

/// The page by the rules of the text format, version 0.0.4: a metric's lines stand together, its help and its type come
/// once and before its samples, and no sample comes twice.
fn parse(page: &str) -> Result<BTreeMap<String, Family>> {
    ensure!(page.ends_with('\n'), "the last line does not end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').with_context(|| format!("no help: {line}"))?;
            ensure!(helped.insert(name.to_owned()), "help comes twice: {line}");
            ensure!(!families.contains_key(name), "help comes after the type: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').with_context(|| format!("no type: {line}"))?;
            ensure!(matches!(kind, "gauge" | "counter"), "an unexpected type: {line}");
            ensure!(helped.contains(name), "no help before: {line}");
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            ensure!(families.insert(name.to_owned(), family).is_none(), "the type comes twice: {line}");
            name.clone_into(&mut current);
        } else if !line.starts_with('#') {
            let (name, labels, value) = sample(line)?;
            ensure!(name == current, "a sample of {name} among those of {current}: {line}");
            let family = families.get_mut(&name).with_context(|| format!("no type before: {line}"))?;
            ensure!(family.samples.insert(labels, value).is_none(), "the sample comes twice: {line}");
        }
    }
    Ok(families)
}

fn is_name(text: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_first) && text.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

/// `name{label="value",...} number`
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64)> {
    let (name, rest) = line.split_once('{').with_context(|| format!("no labels: {line}"))?;
    ensure!(is_name(name), "no name: {line}");
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    let after = loop {
        let (label, value) = rest.split_once("=\"").with_context(|| format!("no label: {line}"))?;
        ensure!(is_name(label), "no label's name: {line}");
        let (text, behind) = quoted(value).with_context(|| format!("an unfinished value: {line}"))?;
        ensure!(labels.insert(label.to_owned(), text).is_none(), "a label comes twice: {line}");
        match (behind.strip_prefix(','), behind.strip_prefix("} ")) {
            (Some(next), _) => rest = next,
            (None, Some(after)) => break after,
            (None, None) => bail!("something odd after a label: {line}"),
        }
    };
    let value: f64 = after.parse().with_context(|| format!("no number: {line}"))?;
    ensure!(value.is_finite(), "no finite number: {line}");
    Ok((name.to_owned(), labels, value))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

fn check(page: &str, name: &str, primary: bool) -> Result<()> {
    let families = parse(page)?;
    for (metric, kind) in PATRONIS {
        let family = families.get(*metric).with_context(|| format!("{metric} is missing"))?;
        ensure!(family.kind == *kind, "{metric} is a {}, not a {kind}", family.kind);
        ensure!(family.samples.len() == 1, "{metric}: {family:?}");
        let labels = family.samples.keys().next().context("a sample")?;
        let wanted = [("name", name), ("scope", "batch")];
        let found: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        ensure!(found == wanted, "{metric} has the labels {found:?}");
    }
    let value = |metric: &str| -> Option<f64> { families.get(metric)?.samples.values().next().copied() };
    let role = if primary { "patroni_primary" } else { "patroni_replica" };
    for (metric, wanted) in [
        (role, 1.0),
        ("patroni_postgres_running", 1.0),
        ("patroni_postgres_streaming", if primary { 0.0 } else { 1.0 }),
        ("patroni_postgres_timeline", 1.0),
        ("patroni_postgres_state", 5.0),
        ("patroni_cluster_unlocked", 0.0),
        ("patroni_is_paused", 0.0),
        ("patroni_pending_restart", 0.0),
    ] {
        ensure!(value(metric) == Some(wanted), "{metric} of {name} is {:?}, not {wanted}", value(metric));
    }
    let others = families.keys().filter(|metric| !metric.starts_with("patroni_"));
    ensure!(others.clone().all(|metric| metric.starts_with("pgherd_")), "{:?}", others.collect::<Vec<_>>());
    Ok(())
}

#[test]
fn the_metrics_are_patronis_and_read_strictly() {
    run(Plan::of(2), async |cluster| {
        let python = programs::of_python("python")?;
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        for (index, node) in cluster.data_nodes() {
            let page = rest::get(node.ports.rest_at(), "/metrics").await?;
            ensure!(page.status == 200, "{page:?}");
            check(&page.body, &node.name, index == primary).with_context(|| page.body.clone())?;
            let path = cluster.directory().join("metrics.txt");
            std::fs::write(&path, &page.body)?;
            let said = programs::said(&python, &["-c", READER, &path.display().to_string()]).await?;
            ensure!(said.status == Some(0), "prometheus_client: {said:?}");
            let samples = page.body.lines().filter(|line| !line.starts_with('#')).count();
            ensure!(said.text.lines().count() == samples, "{samples} samples, and it read: {}", said.text);
        }
        Ok(())
    });
}

#[test]
fn the_strict_reading_is_strict() {
    let head = "# HELP a b\n# TYPE a gauge\n";
    parse(&format!("{head}a{{x=\"1\\n\\\"\"}} 1.5\n")).expect("right");
    for wrong in [
        "a 1\n",
        "a{x=\"1} 1\n",
        "a{x=\"1\"} one\n",
        "b{x=\"1\"} 1\n",
        "a{x=\"1\"} 1\na{x=\"1\"} 2\n",
        "a{x=\"1\"} 1",
    ] {
        assert!(parse(&format!("{head}{wrong}")).is_err(), "{wrong}");
    }
    assert!(parse("# TYPE a gauge\na{x=\"1\"} 1\n").is_err());
}
