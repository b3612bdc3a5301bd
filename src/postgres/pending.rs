//! Which parameters wait for a restart of the running server, and why.
//!
//! The server itself says so of what stands in files; what the postmaster got as arguments is compared with what the
//! configuration wants.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use serde::Deserialize;
use tracing::{debug, info};

use super::control_data::LeastSettings;
use super::error::PgError;
use super::quote::literal;
use super::settings::Settings;
use super::tool::{QUICK, Tool};
use super::{Postgres, conf};
use crate::ha::PendingParameter;

/// How often is looked, and how soon again after the server was told to read its files.
const INTERVAL: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(300);
/// A backend reads the files a moment after the postmaster.
const LOOKS_AFTER_RELOAD: u32 = 3;
/// As many parameters are told: each costs a run of a program, and all of it goes to the other members.
const MOST_TOLD: usize = 40;
/// As much is told of a value.
const MOST_CHARACTERS: usize = 500;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The postmaster of which it is known.
    pid: u32,
    found: BTreeMap<String, PendingParameter>,
    next_look: Option<BootTime>,
    looks_soon: u32,
    is_looking: bool,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    setting: Option<String>,
    unit: Option<String>,
    shown: Option<String>,
    is_pending: bool,
}

impl Postgres {
    /// What waits for a restart of this postmaster; a look is begun when one is due.
    pub(super) fn pending_restart(&self, pid: u32) -> BTreeMap<String, PendingParameter> {
        let now = clock::now();
        let mut cache = self.cache();
        let pending = &mut cache.pending;
        if pending.pid != pid {
            *pending = Pending { pid, looks_soon: 1, is_looking: pending.is_looking, ..Pending::default() };
        }
        let is_due = pending.next_look.is_none_or(|at| at <= now) && !pending.is_looking;
        if is_due {
            pending.is_looking = true;
            pending.looks_soon = pending.looks_soon.saturating_sub(1);
            let pause = if pending.looks_soon > 0 { SOON } else { INTERVAL };
            pending.next_look = Some(now.after(pause));
        }
        let found = pending.found.clone();
        drop(cache);
        if is_due {
            let this = self.clone();
            self.in_background(async move { this.look_at_pending(pid).await });
        }
        found
    }

    /// The server was told to read its files.
    pub(super) fn look_at_pending_soon(&self) {
        let mut cache = self.cache();
        cache.pending.looks_soon = LOOKS_AFTER_RELOAD;
        cache.pending.next_look = Some(clock::now().after(SOON));
    }

    async fn look_at_pending(&self, pid: u32) {
        let found = self.find_pending().await;
        let mut cache = self.cache();
        let pending = &mut cache.pending;
        pending.is_looking = false;
        match found {
            Ok(found) if pending.pid == pid => {
                if found != pending.found {
                    tell(&found);
                    pending.found = found;
                }
            }
            Ok(_) => {}
            Err(error) => debug!("it is not known what waits for a restart: {}", error.in_full()),
        }
    }

    async fn find_pending(&self) -> Result<BTreeMap<String, PendingParameter>, PgError> {
        let settings = self.settings();
        let mut wanted = conf::wanted_arguments(&settings);
        // It is on in every server which pgherd runs.
        wanted.remove("hot_standby");
        let names: Vec<String> = wanted.keys().map(|name| literal(name)).collect();
        let sql = format!(
            "SELECT coalesce(json_agg(json_build_object('name', name, 'setting', setting, 'unit', unit, \
             'shown', current_setting(name), 'is_pending', pending_restart)), '[]') FROM pg_settings \
             WHERE pending_restart OR name IN ({})",
            names.join(", ")
        );
        let text = self.session().await?.text("pg_settings", &sql).await?.unwrap_or_default();
        let rows: Vec<Row> = serde_json::from_str(&text)
            .map_err(|error| PgError::Refused(format!("pg_settings is not understood: {error}")))?;
        let mut found = BTreeMap::new();
        for row in rows.into_iter().take(MOST_TOLD) {
            let old_value = row.shown.clone().unwrap_or_default();
            let new_value = match wanted.get(&row.name) {
                Some(wanted) if is_same(row.setting.as_deref().unwrap_or_default(), wanted) => continue,
                Some(wanted) => wanted.clone(),
                None if row.is_pending => self.future_value(&settings, &row).await,
                None => continue,
            };
            // Parameters that left the files, as those of a recovery do on a promotion, are flagged with any value.
            if new_value == old_value {
                continue;
            }
            let parameter = PendingParameter { old_value: cut(old_value), new_value: cut(new_value) };
            found.insert(row.name, parameter);
        }
        Ok(found)
    }

    /// What a server that is started now would run with.
    async fn future_value(&self, settings: &Settings, row: &Row) -> String {
        let Ok(programs) = self.programs() else { return "?".to_owned() };
        let printed = Tool::new(programs.path("postgres"))
            .args(["-C", row.name.as_str()])
            .args(conf::arguments(settings, &LeastSettings::default()))
            .run(Some(QUICK))
            .await;
        match printed {
            Ok(value) => for_people(value.trim_end_matches('\n'), row.unit.as_deref()),
            Err(_) => "?".to_owned(),
        }
    }
}

fn tell(found: &BTreeMap<String, PendingParameter>) {
    if found.is_empty() {
        info!("no parameter of PostgreSQL waits for a restart");
        return;
    }
    let changes: Vec<String> = found
        .iter()
        .map(|(name, change)| format!("{name}: {} -> {}", change.old_value, change.new_value))
        .collect();
    info!("Pending restart: {}", changes.join(", "));
}

fn cut(text: String) -> String {
    if text.chars().count() <= MOST_CHARACTERS {
        return text;
    }
    text.chars().take(MOST_CHARACTERS).chain("...".chars()).collect()
}

/// Do these texts mean the same to the server? Of parameters without a unit.
fn is_same(running: &str, wanted: &str) -> bool {
    let boolean = |text: &str| match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    };
    let list = |text: &str| text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>();
    let by_number = running.trim().parse::<i64>().ok().zip(wanted.trim().parse::<i64>().ok());
    match (by_number, boolean(running), boolean(wanted)) {
        (Some((running, wanted)), ..) => running == wanted,
        (None, Some(running), Some(wanted)) => running == wanted,
        _ => list(running) == list(wanted),
    }
}

/// A value in the parameter's own unit, as `SHOW` prints it.
fn for_people(value: &str, unit: Option<&str>) -> String {
    const BYTES: [(&str, i64); 5] =
        [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];
    const TIMES: [(&str, i64); 6] = [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("min", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1000),
        ("us", 1),
    ];
    let (Some(unit), Ok(number)) = (unit, value.parse::<i64>()) else { return value.to_owned() };
    let digits = unit.chars().take_while(char::is_ascii_digit).count();
    let (count, name) = unit.split_at(digits);
    let count: i64 = count.parse().unwrap_or(1);
    let names = |units: &'static [(&'static str, i64)]| {
        units.iter().find(|(known, _)| *known == name).map(|(_, f)| (*f, units))
    };
    let Some((factor, units)) = names(&BYTES).or_else(|| names(&TIMES)) else { return value.to_owned() };
    let Some(total) = number.checked_mul(count).and_then(|number| number.checked_mul(factor)) else {
        return value.to_owned();
    };
    // Zero and negative numbers mean something else than an amount.
    let whole = |(_, factor): &&(&str, i64)| total > 0 && total.checked_rem(*factor) == Some(0);
    match units.iter().find(whole) {
        Some((name, factor)) => format!("{}{name}", total.checked_div(*factor).unwrap_or(total)),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_the_server_does() {
        assert_eq!(for_people("16384", Some("8kB")), "128MB");
        assert_eq!(for_people("131072", Some("8kB")), "1GB");
        assert_eq!(for_people("1", Some("kB")), "1kB");
        assert_eq!(for_people("-1", Some("8kB")), "-1");
        assert_eq!(for_people("0", Some("ms")), "0");
        assert_eq!(for_people("300", Some("s")), "5min");
        assert_eq!(for_people("90", Some("s")), "90s");
        assert_eq!(for_people("86400", Some("s")), "1d");
        assert_eq!(for_people("on", None), "on");
        assert_eq!(for_people("200", None), "200");
    }

    #[test]
    fn the_same_value_may_be_written_otherwise() {
        assert!(is_same("on", "True") && is_same("100", " 100") && is_same("0", "0"));
        assert!(is_same("localhost, 10.0.0.1", "localhost,10.0.0.1"));
        assert!(!is_same("100", "101") && !is_same("on", "off") && !is_same("replica", "logical"));
        assert_eq!(cut("x".repeat(1000)).len(), MOST_CHARACTERS + 3);
    }
}
