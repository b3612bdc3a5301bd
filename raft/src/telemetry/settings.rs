//! What the section `log` says.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::format::{DateFormat, Fields, Template};
use super::level::LogLevel;

/// Records which wait to be written, at most, when nothing is said.
pub const DEFAULT_QUEUE: usize = 1000;
/// Rotated files that are kept when nothing is said.
pub const DEFAULT_FILE_NUM: u32 = 4;
/// The size in bytes at which a file is rotated when nothing is said.
pub const DEFAULT_FILE_SIZE: u64 = 25_000_000;

/// The section `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// From which level on lines are written. Default INFO.
    pub level: LogLevel,
    /// Levels of parts of the program by their names, the longest name that fits counts.
    pub loggers: Vec<(String, LogLevel)>,
    /// What a line looks like.
    pub form: LogForm,
    /// How the time is written; none: as Python does it, `2026-11-21 09:22:19,123`.
    pub dateformat: Option<DateFormat>,
    /// More records than these wait for nobody: they are lost and counted. Default 1000.
    pub max_queue_size: usize,
    /// The file; none: standard error.
    pub file: Option<LogFile>,
    /// A heartbeat line equal to the one before it is left out.
    pub deduplicate_heartbeat_logs: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            loggers: Vec::new(),
            form: LogForm::Plain(Template::default()),
            dateformat: None,
            max_queue_size: DEFAULT_QUEUE,
            file: None,
            deduplicate_heartbeat_logs: false,
        }
    }
}

impl LogSettings {
    /// Everything as by default, from this level on.
    pub fn of_level(level: LogLevel) -> Self {
        Self { level, ..Self::default() }
    }
}

/// A line's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// Text.
    Plain(Template),
    /// A JSON object.
    Json {
        /// What of the record, under which names.
        fields: Fields,
        /// The same in each record, behind the others.
        static_fields: Map<String, Value>,
    },
}

/// A log file with its rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its directory, which exists.
    pub dir: PathBuf,
    /// Its permissions; none: as the umask says.
    pub mode: Option<u32>,
    /// Rotated files `NAME.1`, `NAME.2`, ... that are kept; zero: it is never rotated.
    pub file_num: u32,
    /// The size in bytes at which it is rotated; zero: never.
    pub file_size: u64,
}
