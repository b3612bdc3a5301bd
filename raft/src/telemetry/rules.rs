//! Which records are written: the level, and the levels of parts.
//!
//! A part's name is a module path with dots. Patroni's names of its parts stand for ours.

use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use super::level::{CRITICAL_TARGET, LogLevel};
use super::settings::LogSettings;

/// Names of Patroni's parts, and what does their work here. The longest prefix counts.
const PARTS: &[(&str, &[&str])] = &[
    ("patroni.postgresql", &["pgherd::postgres"]),
    ("patroni.postmaster", &["pgherd::postgres", "pgherd::guard"]),
    ("patroni.api", &["pgherd::api"]),
    ("patroni.config", &["pgherd::config"]),
    ("patroni.dcs", &["pgherd_raft"]),
    ("patroni.ha", &["pgherd::agent", "pgherd::ha"]),
    ("patroni.watchdog", &["pgherd::guard"]),
    ("patroni", &["pgherd"]),
    ("pysyncobj", &["openraft"]),
    ("urllib3", &["hyper"]),
];

/// The filter of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    level: LogLevel,
    /// Module paths and their levels.
    parts: Vec<(String, LogLevel)>,
}

impl Rules {
    pub(super) fn new(settings: &LogSettings) -> Self {
        let parts = settings
            .loggers
            .iter()
            .flat_map(|(name, level)| modules(name).into_iter().map(|module| (module, *level)));
        Self { level: settings.level, parts: parts.collect() }
    }

    /// The level of the longest named part to which this module belongs.
    fn named(&self, target: &str) -> Option<LogLevel> {
        let belongs = |module: &str| {
            target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let fits = self.parts.iter().filter(|(module, _)| belongs(module));
        fits.max_by_key(|(module, _)| module.len()).map(|(_, level)| *level)
    }

    /// Consensus libraries report each of their steps as news; an operator has no use for them. At DEBUG they may tell
    /// their news, but never their own debug output: it would bury everything else. Unless a part is named.
    pub(super) fn pass(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let level = LogLevel::of(metadata);
        if let Some(least) = self.named(target) {
            return level >= least;
        }
        let own = target == CRITICAL_TARGET || target.starts_with("pgherd");
        // A member that is down costs the consensus library several warnings a heartbeat; the group says it once.
        let of_consensus = target.starts_with("openraft");
        let least = match (own, self.level) {
            (true, level) => level,
            (false, level) if of_consensus && level != LogLevel::Debug => LogLevel::Critical,
            (false, LogLevel::Debug) => LogLevel::Info,
            (false, level) => level.max(LogLevel::Warning),
        };
        level >= least
    }
}

/// The module paths which a configured name stands for.
fn modules(name: &str) -> Vec<String> {
    let below = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('.')).then_some(())
    };
    match PARTS.iter().find(|(prefix, _)| below(prefix).is_some()) {
        Some((_, modules)) => modules.iter().map(|module| (*module).to_owned()).collect(),
        None => vec![name.replace('.', "::")],
    }
}

impl<S: Subscriber> Filter<S> for Rules {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.pass(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.pass(metadata) { Interest::always() } else { Interest::never() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patronis_names_stand_for_ours() {
        assert_eq!(modules("patroni.postgresql.callback_executor"), ["pgherd::postgres"]);
        assert_eq!(modules("patroni"), ["pgherd"]);
        assert_eq!(modules("patronix"), ["patronix"]);
        assert_eq!(modules("pgherd.agent"), ["pgherd::agent"]);
        let rules = Rules {
            level: LogLevel::Info,
            parts: vec![
                ("pgherd".to_owned(), LogLevel::Error),
                ("pgherd::agent".to_owned(), LogLevel::Debug),
            ],
        };
        assert_eq!(rules.named("pgherd::agent::act"), Some(LogLevel::Debug));
        assert_eq!(rules.named("pgherd::agents"), Some(LogLevel::Error));
        assert_eq!(rules.named("pgherd_raft"), None);
    }
}
