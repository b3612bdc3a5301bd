//! One record of the log, before it is written.

use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

use tracing::Event;
use tracing::field::{Field, Visit};

use super::level::{CRITICAL_TARGET, LogLevel};
use crate::clock;

/// The longest message in bytes: what a program prints may be repeated in it.
const MAX_MESSAGE: usize = 64 * 1024;

/// What is known of an event.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at: SystemTime,
    pub(super) level: LogLevel,
    /// The module path, `::` between its parts.
    pub(super) target: &'static str,
    /// The source file.
    pub(super) file: &'static str,
    pub(super) line: u32,
    pub(super) thread: String,
    pub(super) message: String,
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        text.message.push_str(&text.fields);
        if text.message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE).rev().find(|end| text.message.is_char_boundary(*end));
            text.message.truncate(end.unwrap_or_default());
            text.message.push_str("...");
        }
        let module = metadata.module_path().filter(|_| metadata.target() == CRITICAL_TARGET);
        Self {
            at: clock::wall(),
            level: LogLevel::of(metadata),
            target: module.unwrap_or_else(|| metadata.target()),
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            thread: std::thread::current().name().unwrap_or("MainThread").to_owned(),
            message: text.message,
        }
    }

    /// A record of the log about itself.
    pub(super) fn own(level: LogLevel, message: String) -> Self {
        let target = module_path!();
        Self {
            at: clock::wall(),
            level,
            target,
            file: file!(),
            line: line!(),
            thread: "log".to_owned(),
            message,
        }
    }

    /// Says only that nothing has happened since the last one.
    pub(super) fn is_heartbeat(&self) -> bool {
        let message = self.message.strip_prefix("PAUSE: ").unwrap_or(&self.message);
        message.starts_with("no action. ")
    }
}

/// When this process began to log, for Python's `relativeCreated`.
pub(super) fn began() -> SystemTime {
    static BEGAN: OnceLock<SystemTime> = OnceLock::new();
    *BEGAN.get_or_init(clock::wall)
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
