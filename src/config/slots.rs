//! The settings of replication slots: those which are permanent, and those which are left alone.

use std::collections::BTreeMap;

use pgherd_raft::config::{Report, Section, not_a, shown_key};
use pgherd_raft::yaml::{Node, Value};

/// More slots than these no server should have.
const MOST_SLOTS: usize = 256;
/// The longest name of a slot.
const LONGEST_NAME: usize = 63;
/// The names of the setting, those first over which the later ones win.
const NAMES: [&str; 3] = ["permanent_replication_slots", "permanent_slots", "slots"];

/// A slot that exists whoever is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermanentSlot {
    /// Streams WAL.
    Physical,
    /// Decodes WAL.
    Logical {
        /// The database.
        database: String,
        /// The output plugin.
        plugin: String,
    },
}

/// Slots to leave alone; what is not given matches any.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IgnoredSlots {
    /// `slot_name`.
    pub name: Option<String>,
    /// `physical` or `logical`.
    pub slot_type: Option<String>,
    /// The database of a logical slot.
    pub database: Option<String>,
    /// The output plugin of a logical slot.
    pub plugin: Option<String>,
}

/// Permanent slots, under each of the names which Patroni takes.
pub(super) fn permanent(section: &mut Section<'_>) -> BTreeMap<String, PermanentSlot> {
    let mut found = BTreeMap::new();
    for key in NAMES {
        let slots = section.section(key);
        for entry in slots.entries() {
            if !is_name(&entry.key) {
                section.report.error(
                    &section.key(key),
                    &entry.place,
                    format!("{:?} is no name for a slot", shown_key(&entry.key)),
                    "use 1 to 63 lower case letters, digits and underscores",
                );
                continue;
            }
            let path = format!("{}.{}", section.key(key), entry.key);
            if let Some(slot) = slot(&entry.value, &path, section.report) {
                found.insert(entry.key.clone(), slot);
            }
        }
    }
    if found.len() > MOST_SLOTS {
        too_many(section, "slots");
        found = found.into_iter().take(MOST_SLOTS).collect();
    }
    found
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn too_many(section: &Section<'_>, key: &str) {
    let place = section.value_place(key);
    let what = format!("has more than {MOST_SLOTS} entries");
    section.report.error(&section.key(key), &place, what, "name the slots that are needed");
}

/// Without a type a slot is logical when a database and a plugin are given; whatever is no map is a physical slot. None:
/// it cannot be made, or is meant for a standby cluster only.
fn slot(node: &Node, path: &str, report: &Report) -> Option<PermanentSlot> {
    if !matches!(node.value, Value::Map(_)) {
        return Some(PermanentSlot::Physical);
    }
    let mut section = Section::top(node, path, report);
    let (database, plugin) = (section.text("database"), section.text("plugin"));
    let cluster_type = one_of(&mut section, "cluster_type", ["primary", "standby"]);
    let slot_type = one_of(&mut section, "type", ["physical", "logical"]);
    let place = section.value_place("type");
    let is_logical = match slot_type {
        Some(slot_type) => slot_type == "logical",
        None => database.is_some() && plugin.is_some(),
    };
    section.close();
    let slot = match (is_logical, database, plugin) {
        (false, ..) => PermanentSlot::Physical,
        (true, Some(database), Some(plugin)) => PermanentSlot::Logical { database, plugin },
        (true, ..) => {
            let what = "a logical slot needs a database and a plugin";
            report.error(path, &place, what, "give both, for example plugin: pgoutput");
            return None;
        }
    };
    (cluster_type.as_deref() != Some("standby")).then_some(slot)
}

fn one_of(section: &mut Section<'_>, key: &str, words: [&str; 2]) -> Option<String> {
    let node = section.get(key)?;
    let text = section.text(key)?;
    if words.contains(&text.as_str()) {
        return Some(text);
    }
    let [one, other] = words;
    let cure = format!("write {one} or {other}");
    let what = not_a(&format!("{one} or {other}"), node);
    section.report.error(&section.key(key), &node.place, what, cure);
    None
}

/// `ignore_slots`.
pub(super) fn ignored(section: &mut Section<'_>) -> Vec<IgnoredSlots> {
    let nodes = section.list("ignore_slots").unwrap_or_default();
    if nodes.len() > MOST_SLOTS {
        too_many(section, "ignore_slots");
    }
    let key = section.key("ignore_slots");
    let report = section.report;
    let entry = |(index, node): (usize, &Node)| {
        let path = format!("{key}[{index}]");
        if !matches!(node.value, Value::Map(_)) {
            report.error(&path, &node.place, not_a("a map", node), "write name, type, database or plugin");
            return None;
        }
        let mut entry = Section::top(node, &path, report);
        let matcher = IgnoredSlots {
            name: entry.text("name"),
            slot_type: one_of(&mut entry, "type", ["physical", "logical"]),
            database: entry.text("database"),
            plugin: entry.text("plugin"),
        };
        entry.close();
        let is_empty = matcher == IgnoredSlots::default();
        if is_empty {
            let what = "would leave every slot alone";
            report.error(&path, &node.place, what, "write name, type, database or plugin");
        }
        (!is_empty).then_some(matcher)
    };
    nodes.iter().take(MOST_SLOTS).enumerate().filter_map(entry).collect()
}
