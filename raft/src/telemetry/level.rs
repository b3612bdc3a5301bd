//! The levels of the log, with Python's names.

use std::fmt;

use tracing::{Level, Metadata};

/// The target which makes an error CRITICAL; see [`critical!`](crate::critical).
pub const CRITICAL_TARGET: &str = "critical";

/// Logs a line of level CRITICAL: this daemon cannot go on.
#[macro_export]
macro_rules! critical {
    ($($argument:tt)+) => {
        ::tracing::error!(target: "critical", $($argument)+)
    };
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

    /// Python's number.
    pub fn number(self) -> u32 {
        match self {
            Self::Debug => 10,
            Self::Info => 20,
            Self::Warning => 30,
            Self::Error => 40,
            Self::Critical => 50,
        }
    }

    /// Python's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    pub(super) fn of(metadata: &Metadata<'_>) -> Self {
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
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_pythons_names() {
        assert_eq!(LogLevel::parse("warn"), Some(LogLevel::Warning));
        assert_eq!(LogLevel::parse("FATAL"), Some(LogLevel::Critical));
        assert_eq!(LogLevel::parse("loud"), None);
        assert!(LogLevel::Debug < LogLevel::Critical);
        assert_eq!(format!("{:>9}|", LogLevel::Warning), "  WARNING|");
    }
}
