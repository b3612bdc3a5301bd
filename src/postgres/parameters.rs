//! Asks PostgreSQL itself which parameters it would start with.
//!
//! `postgres -C` reads a configuration file as a starting server does, checks every name, type, range and word in it, and
//! ends. Promises: nothing of the data directory is touched; when PostgreSQL cannot be asked, nothing is held against a
//! parameter.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tracing::warn;

use super::error::PgError;
use super::files::{self, blocking};
use super::programs::Programs;
use super::quote::conf_value;
use super::settings::Settings;
use super::tool::{Tool, ToolError};
use super::{Postgres, conf};

/// How long PostgreSQL may take to read a file.
const LIMIT: Duration = Duration::from_secs(3);
/// Each round takes out what the last one complained about; names are complained about before values.
const MOST_ROUNDS: usize = 8;

/// The server writes its complaints where they are read, whatever the checked parameters say about its log.
const PLAIN_LOG: [&str; 6] = [
    "--log_destination=stderr",
    "--logging_collector=off",
    "--log_line_prefix=",
    "--log_min_messages=warning",
    "--log_error_verbosity=default",
    "--lc_messages=C",
];

/// What a server loads at its start; it does not start without one of them.
const LIBRARIES: &str = "shared_preload_libraries";

/// Why PostgreSQL would not start with a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterRefusal {
    /// The parameter.
    pub name: String,
    /// PostgreSQL's own words.
    pub reason: String,
    /// It has no parameter of this name; otherwise it does not like the value.
    pub is_unknown: bool,
    /// The nearest value which it takes, in the parameter's own unit.
    nearest: Option<i64>,
    /// The nearest one is greater.
    is_too_low: bool,
}

/// What PostgreSQL was asked last, and what it said.
#[derive(Debug)]
pub(super) struct Asked {
    parameters: BTreeMap<String, String>,
    /// When the server's program was installed.
    modified: Option<SystemTime>,
    refusals: Vec<ParameterRefusal>,
}

impl Postgres {
    /// Which of these parameters PostgreSQL would not start with.
    ///
    /// # Errors
    /// PostgreSQL cannot be asked: nothing is known against them.
    pub async fn refusals(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Vec<ParameterRefusal>, PgError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let scratch = self.layout().check_dir(NUMBER.fetch_add(1, Ordering::Relaxed));
        refusals(&self.programs()?.path("postgres"), &scratch, parameters).await
    }

    /// The same, and libraries which are not there. A running configuration is not changed for that: it may be that the
    /// server finds them where they are not looked for here.
    ///
    /// # Errors
    /// As [`Self::refusals`].
    pub async fn refusals_of_change(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Vec<ParameterRefusal>, PgError> {
        let mut found = self.refusals(parameters).await?;
        let has_other_path =
            |parameters: &BTreeMap<String, String>| parameters.contains_key("dynamic_library_path");
        if !has_other_path(parameters) && !has_other_path(&self.settings().parameters) {
            let server = self.programs()?.path("postgres");
            let libraries = parameters.get(LIBRARIES).cloned();
            found.extend(blocking(move || Ok(missing_library(&server, libraries.as_deref()))).await?);
        }
        Ok(found)
    }

    /// The settings change more often than the parameters in them, and the answer is waited for. With it: is it news?
    async fn refusals_once(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<(Vec<ParameterRefusal>, bool), PgError> {
        let server = self.programs()?.path("postgres");
        let modified = std::fs::metadata(&server).and_then(|is| is.modified()).ok();
        if let Some(known) = &self.cache().asked
            && known.parameters == *parameters
            && known.modified == modified
        {
            return Ok((known.refusals.clone(), false));
        }
        let refusals = self.refusals(parameters).await?;
        let asked = Asked { parameters: parameters.clone(), modified, refusals: refusals.clone() };
        self.cache().asked = Some(asked);
        Ok((refusals, true))
    }

    /// The settings without what PostgreSQL would not start with. As Patroni does it: a number beyond the limits becomes
    /// the nearest allowed one, everything else is left out.
    pub(super) async fn sifted(&self, mut settings: Settings) -> Settings {
        let is_checked = |(name, _): &(&String, &String)| conf::is_allowed(name);
        let of_both = settings.parameters.iter().chain(&settings.recovery_parameters);
        let asked: BTreeMap<String, String> =
            of_both.filter(is_checked).map(|(name, value)| (name.clone(), value.clone())).collect();
        let (refusals, is_news) = match self.refusals_once(&asked).await {
            Ok(answer) => answer,
            Err(error) => {
                warn!("PostgreSQL could not be asked about its parameters: {}", error.in_full());
                return settings;
            }
        };
        for refusal in refusals {
            let ParameterRefusal { name, reason, is_unknown, nearest, is_too_low } = refusal;
            let value = asked.get(&name).map(String::as_str).unwrap_or_default();
            match nearest {
                Some(nearest) => {
                    let how = if is_too_low { "low, increasing" } else { "big, decreasing" };
                    if is_news {
                        warn!("Value={value} of parameter={name} is too {how} to {nearest}");
                    }
                    settings.parameters.entry(name.clone()).and_modify(|value| *value = nearest.to_string());
                    settings.recovery_parameters.entry(name).and_modify(|value| *value = nearest.to_string());
                }
                None => {
                    let why = if is_unknown { String::new() } else { format!(": {reason}") };
                    let kind = if is_unknown { "unexpected" } else { "invalid" };
                    if is_news {
                        warn!("Removing {kind} parameter={name} value={value} from the config{why}");
                    }
                    settings.parameters.remove(&name);
                    settings.recovery_parameters.remove(&name);
                }
            }
        }
        settings
    }

    /// What the data directory remembers of the cluster's settings; none: nothing that can be read.
    pub async fn kept_document(&self) -> Option<Value> {
        let path = self.layout().document_file();
        let here = path.clone();
        let text = blocking(move || files::read(&here)).await.ok()??;
        match serde_json::from_str(&text) {
            Ok(document @ Value::Object(_)) => Some(document),
            Ok(_) | Err(_) => {
                warn!("{} is no JSON object and is not used", path.display());
                None
            }
        }
    }
}

/// Which of these parameters the programs of this directory (none: those which are found) would not start with.
///
/// # Errors
/// They cannot be asked.
pub async fn refused_parameters(
    bin_dir: Option<&Path>,
    bin_names: &BTreeMap<String, String>,
    parameters: &BTreeMap<String, String>,
) -> Result<Vec<ParameterRefusal>, PgError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let server = Programs::find(bin_dir, bin_names, &path, None)?.path("postgres");
    let scratch = std::env::temp_dir().join(format!("pgherd-check-{}", std::process::id()));
    refusals(&server, &scratch, parameters).await
}

async fn refusals(
    server: &Path,
    scratch: &Path,
    parameters: &BTreeMap<String, String>,
) -> Result<Vec<ParameterRefusal>, PgError> {
    let mut left = parameters.clone();
    let mut found = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let refused = match ask(server, scratch, &left).await {
            Ok(()) => break,
            Err(PgError::Tool(ToolError::Failed { said, .. })) => parse(&said),
            Err(error) => return Err(error),
        };
        let before = left.len();
        left.retain(|name, _| refused.iter().all(|refusal| refusal.name != *name));
        found.extend(refused.into_iter().filter(|refusal| parameters.contains_key(&refusal.name)));
        if left.len() == before {
            // It complains about something else: that is not for this check to judge.
            break;
        }
    }
    found.extend(reserved_connections(parameters));
    Ok(found)
}

async fn ask(server: &Path, scratch: &Path, parameters: &BTreeMap<String, String>) -> Result<(), PgError> {
    let file = scratch.join("check.conf");
    let lines = parameters.iter().map(|(name, value)| format!("{name} = {}\n", conf_value(value)));
    let content: String = lines.collect();
    let (made, written) = (scratch.to_owned(), file.clone());
    blocking(move || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&made).map_err(PgError::file("make", &made))?;
        files::write(&written, &content).map(|_| ())
    })
    .await?;
    let asked = Tool::new(server)
        .args(["-C", "max_connections", "-D"])
        .arg(scratch.as_os_str())
        .arg(format!("--config-file={}", file.display()))
        .args(PLAIN_LOG)
        .run(Some(LIMIT))
        .await;
    // It is small, and of this process alone.
    let used = scratch.to_owned();
    blocking(move || Ok(std::fs::remove_dir_all(&used).ok())).await?;
    asked.map(|_| ()).map_err(PgError::from)
}

/// A library which PostgreSQL would look for in its own directory and not find. Where that directory is not known, nothing
/// is held against a name.
fn missing_library(server: &Path, libraries: Option<&str>) -> Option<ParameterRefusal> {
    let prefix = server.canonicalize().ok()?.parent()?.parent()?.to_owned();
    let directories =
        ["lib", "lib/postgresql", "lib/pgsql", "lib64", "lib64/pgsql"].map(|name| prefix.join(name));
    let has = |directory: &PathBuf, name: &str| directory.join(format!("{name}.so")).is_file();
    // Every server has this one.
    let directory = directories.iter().find(|directory| has(directory, "plpgsql"))?;
    let names = libraries?.split(',').map(|name| name.trim().trim_matches('"'));
    let own = names.filter(|name| !name.is_empty() && !name.contains('/'));
    let missing = own.into_iter().find(|name| !has(directory, name.trim_end_matches(".so")))?;
    Some(ParameterRefusal {
        name: LIBRARIES.to_owned(),
        reason: format!("there is no library {missing:?} in {} of this node", directory.display()),
        is_unknown: false,
        nearest: None,
        is_too_low: false,
    })
}

/// A check which PostgreSQL makes only when it starts in earnest.
fn reserved_connections(parameters: &BTreeMap<String, String>) -> Option<ParameterRefusal> {
    let number = |name: &str, default: u64| match parameters.get(name) {
        Some(value) => value.trim().parse::<u64>().ok(),
        None => Some(default),
    };
    let name = "superuser_reserved_connections";
    let most = number("max_connections", 100)?;
    let reserved = number(name, 3)?.saturating_add(number("reserved_connections", 0)?);
    (parameters.contains_key(name) && reserved >= most).then(|| ParameterRefusal {
        name: name.to_owned(),
        reason: format!("{reserved} reserved connections are not less than max_connections ({most})"),
        is_unknown: false,
        nearest: None,
        is_too_low: false,
    })
}

/// Reads the complaints of a server that did not start: lines of its log, joined by ` | `.
fn parse(said: &str) -> Vec<ParameterRefusal> {
    let mut found: Vec<ParameterRefusal> = Vec::new();
    for line in said.split(" | ") {
        if let (Some(hint), Some(last)) = (line.strip_prefix("HINT:"), found.last_mut()) {
            last.reason = format!("{} ({})", last.reason, hint.trim());
            continue;
        }
        if let Some(detail) = line.strip_prefix("DETAIL:") {
            if let Some(last) = found.last_mut() {
                last.reason = format!("{}: {}", last.reason, detail.trim());
            }
            continue;
        }
        let Some(reason) = line.split_once("LOG:").map(|(_, reason)| reason.trim()) else { continue };
        let Some((before, rest)) = reason.split_once("parameter \"") else { continue };
        let Some((name, after)) = rest.split_once('"') else { continue };
        let is_unknown = before.starts_with("unrecognized configuration");
        let range = before.contains("outside the valid range").then(|| bounds(before, after)).flatten();
        // The rest of such a line is the name of our file.
        let reason = if is_unknown { "PostgreSQL has no such parameter" } else { reason };
        let refusal = ParameterRefusal {
            name: name.to_ascii_lowercase(),
            reason: reason.to_owned(),
            is_unknown,
            nearest: range.map(|(nearest, _)| nearest),
            is_too_low: range.is_some_and(|(_, is_too_low)| is_too_low),
        };
        if found.iter().all(|known| known.name != refusal.name) {
            found.push(refusal);
        }
    }
    found
}

/// `5 is outside the valid range for parameter "x" (10 .. 20)`: 10, and that 5 is below it. The unit is the parameter's
/// own throughout. None where a bound is no whole number.
fn bounds(before: &str, after: &str) -> Option<(i64, bool)> {
    let given: f64 = before.split_whitespace().next()?.parse().ok()?;
    let (least, most) = after.trim().strip_prefix('(')?.strip_suffix(')')?.split_once(" .. ")?;
    let number = |text: &str| text.split_whitespace().next()?.parse::<i64>().ok();
    let (least, most) = (number(least)?, number(most)?);
    let is_too_low = given < least.to_string().parse::<f64>().ok()?;
    Some((if is_too_low { least } else { most }, is_too_low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_read() {
        let said = "LOG:  invalid value for parameter \"shared_buffers\": \"banana\" | LOG:  8 8kB is outside the valid \
                    range for parameter \"temp_buffers\" (100 .. 1073741823) | LOG:  70000 is outside the valid range \
                    for parameter \"port_x\" (1 kB .. 65535 kB) | LOG:  invalid value for parameter \"wal_level\": \"x\" \
                    | HINT:  Available values: minimal, replica, logical. | LOG:  unrecognized configuration parameter \
                    \"foo\" in file \"/x/check.conf\" line 3 | FATAL:  configuration file \"/x/check.conf\" contains errors";
        let found = parse(said);
        let reasons: Vec<(&str, &str)> =
            found.iter().map(|refusal| (refusal.name.as_str(), refusal.reason.as_str())).collect();
        assert_eq!(
            reasons[0],
            ("shared_buffers", "invalid value for parameter \"shared_buffers\": \"banana\"")
        );
        assert_eq!((found[1].nearest, found[1].is_too_low), (Some(100), true));
        assert_eq!((found[2].nearest, found[2].is_too_low), (Some(65535), false));
        assert!(reasons[3].1.ends_with("(Available values: minimal, replica, logical.)"), "{}", reasons[3].1);
        assert!(found[4].is_unknown && found.len() == 5);
        assert_eq!(parse("it said nothing"), []);
    }

    #[test]
    fn reserved_connections_must_fit() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let reserved = "superuser_reserved_connections";
        assert!(reserved_connections(&of(&[(reserved, "100")])).is_some());
        assert!(reserved_connections(&of(&[(reserved, "100"), ("max_connections", "101")])).is_none());
        assert!(reserved_connections(&of(&[("max_connections", "2")])).is_none(), "it becomes 100");
    }
}
