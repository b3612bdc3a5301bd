//! The log: Patroni's line format on standard error, `2026-11-21 09:22:19,123 INFO: message`.
//!
//! Owns the format (local time, the level's name at byte 24) and the filter: the libraries below us speak only from
//! WARN on, unless the level is DEBUG. Must never be asked to print secrets: whoever logs keeps them out.

use std::fmt;
use std::io::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, filter};

use crate::clock;

/// The target which makes an error CRITICAL; see [`critical!`](crate::critical).
pub const CRITICAL_TARGET: &str = "critical";

/// Logs a line of level CRITICAL: this daemon cannot go on.
#[macro_export]
macro_rules! critical {
    ($($argument:tt)+) => {
        ::tracing::error!(target: "critical", $($argument)+)
    };
}

/// Says why the program ends. The log may not run yet, and a mistake in the configuration must be seen all the same.
pub fn report(program: &str, error: &dyn fmt::Display) {
    if tracing::dispatcher::has_been_set() {
        crate::critical!("{error:#}");
    } else {
        writeln!(io::stderr(), "{program}: {error:#}").ok();
    }
}

/// From which level on lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What an operator should look at.
    Warning,
    /// What failed.
    Error,
    /// Only what ends the daemon.
    Critical,
}

impl LogLevel {
    /// Python's names for a configuration, any case; `WARN` and `FATAL` are old names.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_uppercase().as_str() {
            "DEBUG" => Self::Debug,
            "INFO" => Self::Info,
            "WARNING" | "WARN" => Self::Warning,
            "ERROR" => Self::Error,
            "CRITICAL" | "FATAL" => Self::Critical,
            _ => return None,
        })
    }

    fn of(metadata: &Metadata<'_>) -> Self {
        match *metadata.level() {
            Level::ERROR if metadata.target() == CRITICAL_TARGET => Self::Critical,
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        })
    }
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// It has been set up before in this process.
    #[error("cannot start the log: another one was started before; start it once, in main")]
    Started(#[source] tracing_subscriber::util::TryInitError),
}

/// Writes the process' log to standard error from now on.
///
/// # Errors
/// The process has a log already.
pub fn start(level: LogLevel) -> Result<(), TelemetryError> {
    subscriber(level, io::stderr).try_init().map_err(TelemetryError::Started)
}

fn subscriber<W>(level: LogLevel, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines)
        .with_writer(writer)
        .with_filter(filter::filter_fn(move |metadata| passes(level, metadata)));
    tracing_subscriber::registry().with(lines)
}

/// Consensus libraries report each of their steps as news; an operator has no use for them. At DEBUG they may tell
/// their news, but never their own debug output: it would bury everything else.
fn passes(level: LogLevel, metadata: &Metadata<'_>) -> bool {
    let own = metadata.target() == CRITICAL_TARGET || metadata.target().starts_with("pgherd");
    // A member that is down costs the consensus library several warnings a heartbeat; the group says it once.
    let of_consensus = metadata.target().starts_with("openraft");
    let least = match (own, level) {
        (true, level) => level,
        (false, level) if of_consensus && level != LogLevel::Debug => LogLevel::Critical,
        (false, LogLevel::Debug) => LogLevel::Info,
        (false, level) => level.max(LogLevel::Warning),
    };
    LogLevel::of(metadata) >= least
}

/// The line format.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write_time(&mut writer)?;
        write!(writer, " {}: ", LogLevel::of(event.metadata()))?;
        let mut text = Text::default();
        event.record(&mut text);
        writer.write_str(&text.message)?;
        writer.write_str(&text.fields)?;
        writer.write_char('\n')
    }
}

/// Local time as Python's logging writes it: `2026-11-21 09:22:19,123`.
fn write_time(writer: &mut Writer<'_>) -> fmt::Result {
    let zoned = jiff::Timestamp::try_from(clock::wall())
        .map_err(|_| fmt::Error)?
        .to_zoned(jiff::tz::TimeZone::system());
    let (date, time) = (zoned.date(), zoned.time());
    write!(
        writer,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// The message, and the other fields as ` name=value` behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Kept {
        type Writer = Self;
        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    fn logged(level: LogLevel, act: impl FnOnce()) -> String {
        let kept = Kept::default();
        tracing::subscriber::with_default(subscriber(level, kept.clone()), act);
        let bytes = kept.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn lines_have_the_level_at_byte_24() {
        let text = logged(LogLevel::Info, || {
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
        assert_eq!(logged(LogLevel::Info, act).lines().count(), 1);
        assert_eq!(logged(LogLevel::Debug, act).lines().count(), 3);
        assert_eq!(logged(LogLevel::Error, act).lines().count(), 0);
    }

    #[test]
    fn levels_have_pythons_names() {
        assert_eq!(LogLevel::parse("warn"), Some(LogLevel::Warning));
        assert_eq!(LogLevel::parse("FATAL"), Some(LogLevel::Critical));
        assert_eq!(LogLevel::parse("loud"), None);
        assert!(LogLevel::Debug < LogLevel::Critical);
    }
}
