//! The log: Patroni's line format on standard error, `2026-11-21 09:22:19,123 INFO: message`, or what the section `log`
//! says.
//!
//! ```text
//! whoever logs -> Rules (level) -> Record -> Queue (bounded) -> one thread -> line -> Sink
//! ```
//!
//! Owns the form (without a `format` of one's own: local time, the level's name at byte 24) and the filter: the
//! libraries below us speak only from WARN on, unless the level is DEBUG. Promises that logging waits for no disk and
//! no reader. Must never be asked to print secrets: whoever logs keeps them out.

mod format;
mod level;
mod queue;
mod record;
mod rules;
mod settings;
mod sink;

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use format::{Attribute, DateFormat, Fields, InvalidFormat, Template};
pub use level::{CRITICAL_TARGET, LogLevel};
pub use queue::Counters;
pub use settings::{DEFAULT_FILE_NUM, DEFAULT_FILE_SIZE, DEFAULT_QUEUE, LogFile, LogForm, LogSettings};

use queue::Queue;
use record::Record;
use rules::Rules;
use sink::{Rotating, Sink, StandardError};

/// How long the end of the process waits for its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The process' log.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    queue: Queue,
    rules: reload::Handle<Rules, Registry>,
    file_name: &'static str,
}

/// Says why the program ends. The log may not run yet, and a mistake in the configuration must be seen all the same.
pub fn report(program: &str, error: &dyn fmt::Display) {
    if LOG.get().is_some() {
        crate::critical!("{error:#}");
    } else {
        writeln!(io::stderr(), "{program}: {error:#}").ok();
    }
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// It has been set up before in this process.
    #[error("cannot start the log: another one was started before; start it once, in main")]
    Started,
    /// Its thread cannot be started.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[source] io::Error),
    /// The file cannot be opened.
    #[error(
        "cannot write the log file {path}: {source}; let log.dir name a directory which exists and is writable for this user, or remove it"
    )]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes the process' log as the settings say from now on; in `log.dir` it is the file `file_name`.
///
/// # Errors
/// The process has a log already, or its file cannot be opened.
pub fn start(settings: &LogSettings, file_name: &'static str) -> Result<(), TelemetryError> {
    record::began();
    let sink = sink_of(settings, file_name)?;
    let queue = Queue::start(settings.clone(), sink).map_err(TelemetryError::Thread)?;
    let (rules, handle) = reload::Layer::new(Rules::new(settings));
    let lines = Lines { queue: queue.clone() }.with_filter(rules);
    let subscriber = tracing_subscriber::registry().with(lines);
    subscriber.try_init().map_err(|_| TelemetryError::Started)?;
    let log = Log { queue, rules: handle, file_name };
    LOG.set(log).map_err(|_| TelemetryError::Started)
}

/// Writes the log as these settings say from now on. Nothing changes when their file cannot be opened.
///
/// # Errors
/// The file cannot be opened.
pub fn change(settings: &LogSettings) -> Result<(), TelemetryError> {
    let Some(log) = LOG.get() else { return Ok(()) };
    let sink = sink_of(settings, log.file_name)?;
    log.queue.change(settings.clone(), Some(sink));
    // It fails only when the log has ended.
    log.rules.reload(Rules::new(settings)).ok();
    Ok(())
}

/// How many records wait, and how many were lost.
pub fn counters() -> Counters {
    LOG.get().map(|log| log.queue.counters()).unwrap_or_default()
}

/// Waits until everything is written, but not for long: for the end of the process.
pub fn finish() {
    if let Some(log) = LOG.get() {
        log.queue.drain(LAST_LINES);
    }
}

fn sink_of(settings: &LogSettings, file_name: &str) -> Result<Box<dyn Sink>, TelemetryError> {
    let Some(file) = &settings.file else { return Ok(Box::new(StandardError)) };
    match Rotating::open(file, file_name) {
        Ok(sink) => Ok(Box::new(sink)),
        Err(source) => Err(TelemetryError::File { path: file.dir.join(file_name), source }),
    }
}

/// Hands every record that passes the rules to the queue.
struct Lines {
    queue: Queue,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.queue.push(Record::of(event));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<String>>);

    impl Sink for Kept {
        fn write(&mut self, line: &str) -> io::Result<()> {
            let mut kept = self.0.lock().expect("not poisoned");
            kept.push_str(line);
            kept.push('\n');
            Ok(())
        }
    }

    fn logged(settings: LogSettings, act: impl FnOnce()) -> String {
        let kept = Kept::default();
        let queue = Queue::start(settings.clone(), Box::new(kept.clone())).expect("a thread");
        let lines = Lines { queue: queue.clone() }.with_filter(Rules::new(&settings));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), act);
        queue.drain(Duration::from_secs(10));
        queue.end();
        kept.0.lock().expect("not poisoned").clone()
    }

    #[test]
    fn lines_have_the_level_at_byte_24() {
        let text = logged(LogSettings::default(), || {
            tracing::info!("no action. I am ({})", "pg-1");
            tracing::warn!(lag = 5, "behind");
            tracing::error!("gone");
            crate::critical!("cannot go on");
            tracing::debug!("not shown");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        for (line, tail) in lines.iter().zip([
            "INFO: no action. I am (pg-1)",
            "WARNING: behind lag=5",
            "ERROR: gone",
            "CRITICAL: cannot go on",
        ]) {
            assert_eq!(&line[24..], tail);
            let shape: String =
                line[..24].chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
            assert_eq!(shape, "9999-99-99 99:99:99,999 ");
        }
    }

    #[test]
    fn libraries_are_silent_below_warn() {
        let act = || {
            tracing::info!(target: "openraft::core", "news");
            tracing::debug!(target: "openraft::core", "noise");
            tracing::warn!(target: "h2", "trouble");
            tracing::debug!("own");
        };
        let lines = |level| logged(LogSettings::of_level(level), act).lines().count();
        assert_eq!(lines(LogLevel::Info), 1);
        assert_eq!(lines(LogLevel::Debug), 3);
        assert_eq!(lines(LogLevel::Error), 0);
        let loggers = vec![("h2".to_owned(), LogLevel::Critical), ("openraft".to_owned(), LogLevel::Debug)];
        let text = logged(LogSettings { loggers, ..LogSettings::default() }, act);
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
