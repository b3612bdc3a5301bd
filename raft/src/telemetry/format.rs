//! What a line looks like: Python's format strings with the attributes of its log records, and JSON with the same ones.
//!
//! Owns the reading of `format` and `dateformat` and the rendering of records. Promises that a record never breaks its
//! line's form: control characters in messages are written as `\xNN`, except for line ends and tabs in plain text.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Zoned;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::record::{Record, began};
use super::settings::{LogForm, LogSettings};

/// What a format says when nothing else is configured.
const DEFAULT_FORMAT: &str = "%(asctime)s %(levelname)s: %(message)s";
/// The widest column of a format.
const MAX_WIDTH: usize = 1000;

/// Why a format cannot be used; the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFormat {
    /// No attribute of a record.
    #[error("has %({0}), which is no attribute of a log record")]
    Attribute(String),
    /// Something behind `%` that is no conversion.
    #[error("has a % at character {0} that begins no conversion such as %(message)s")]
    Conversion(usize),
    /// `%(message)s` or another attribute is needed.
    #[error("names no attribute such as %(message)s")]
    Empty,
    /// `dateformat` is no strftime pattern.
    #[error("is no strftime pattern: {0}")]
    Date(String),
}

macro_rules! attributes {
    ($($name:ident = $text:literal,)*) => {
        /// An attribute of a record, by Python's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are Python's, described in its manual of logging")]
        pub enum Attribute { $($name,)* }

        impl Attribute {
            /// Reads Python's name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }

            /// Python's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

attributes! {
    Asctime = "asctime",
    Created = "created",
    Filename = "filename",
    FuncName = "funcName",
    Levelname = "levelname",
    Levelno = "levelno",
    Lineno = "lineno",
    Message = "message",
    Module = "module",
    Msecs = "msecs",
    Msg = "msg",
    Name = "name",
    Pathname = "pathname",
    Process = "process",
    ProcessName = "processName",
    RelativeCreated = "relativeCreated",
    Thread = "thread",
    ThreadName = "threadName",
    TaskName = "taskName",
}

/// A checked strftime pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormat(String);

impl DateFormat {
    /// Checks the pattern.
    ///
    /// # Errors
    /// It has a directive that does not exist.
    pub fn parse(text: &str) -> Result<Self, InvalidFormat> {
        jiff::fmt::strtime::format(text, &local(SystemTime::UNIX_EPOCH))
            .map_err(|error| InvalidFormat::Date(error.to_string()))?;
        Ok(Self(text.to_owned()))
    }
}

/// A format for text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field { attribute: Attribute, flags: Flags, conversion: char },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Flags {
    is_left: bool,
    has_zeros: bool,
    width: usize,
    precision: Option<usize>,
}

impl Default for Template {
    fn default() -> Self {
        Self::parse(DEFAULT_FORMAT).unwrap_or(Self(Vec::new()))
    }
}

impl Template {
    /// Reads a format such as `%(asctime)s %(levelname)-8s %(message)s`.
    ///
    /// # Errors
    /// See [`InvalidFormat`].
    pub fn parse(text: &str) -> Result<Self, InvalidFormat> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let at = |rest: &str| text.chars().count().saturating_sub(rest.chars().count()) + 1;
        while let Some((before, after)) = rest.split_once('%') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            if let Some(next) = after.strip_prefix('%') {
                pieces.push(Piece::Text("%".to_owned()));
                rest = next;
                continue;
            }
            let invalid = || InvalidFormat::Conversion(at(after).saturating_sub(1));
            let (name, spec) =
                after.strip_prefix('(').and_then(|inside| inside.split_once(')')).ok_or_else(invalid)?;
            let attribute =
                Attribute::parse(name).ok_or_else(|| InvalidFormat::Attribute(name.to_owned()))?;
            let (flags, conversion, next) = specification(spec).ok_or_else(invalid)?;
            pieces.push(Piece::Field { attribute, flags, conversion });
            rest = next;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let template = Self(pieces);
        if template.attributes().next().is_none() {
            return Err(InvalidFormat::Empty);
        }
        Ok(template)
    }

    /// What it shows, in order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field { attribute, .. } => Some(*attribute),
            Piece::Text(_) => None,
        })
    }

    fn render(&self, record: &Record, date: Option<&DateFormat>) -> String {
        let mut line = String::with_capacity(record.message.len() + 64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Field { attribute, flags, conversion } => {
                    let value = attribute_of(record, *attribute, date);
                    pad(&mut line, &converted(&value, *conversion, flags.precision), *flags);
                }
            }
        }
        line
    }
}

/// `-08.3f` and what follows it.
fn specification(spec: &str) -> Option<(Flags, char, &str)> {
    let mut flags = Flags::default();
    let mut chars = spec.char_indices().peekable();
    while let Some((_, flag)) = chars.next_if(|(_, c)| matches!(c, '-' | '0' | ' ' | '+' | '#')) {
        flags.is_left |= flag == '-';
        flags.has_zeros |= flag == '0';
    }
    let number = |chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>| {
        let mut number = 0_usize;
        while let Some((_, digit)) = chars.next_if(|(_, c)| c.is_ascii_digit()) {
            let digit = usize::try_from(digit.to_digit(10)?).ok()?;
            number = number.saturating_mul(10).saturating_add(digit).min(MAX_WIDTH);
        }
        Some(number)
    };
    flags.width = number(&mut chars)?;
    if chars.next_if(|(_, c)| *c == '.').is_some() {
        flags.precision = Some(number(&mut chars)?);
    }
    let (at, conversion) = chars.next()?;
    let rest = spec.get(at + conversion.len_utf8()..)?;
    matches!(conversion, 's' | 'd' | 'i' | 'u' | 'f' | 'F' | 'r' | 'g').then_some((flags, conversion, rest))
}

fn converted(value: &Value, conversion: char, precision: Option<usize>) -> String {
    match (value, conversion) {
        (Value::Number(number), 'f' | 'F') => {
            format!("{:.*}", precision.unwrap_or(6), number.as_f64().unwrap_or_default())
        }
        (Value::Number(number), 'd' | 'i' | 'u') => number
            .as_u64()
            .map_or_else(|| format!("{:.0}", number.as_f64().unwrap_or_default().trunc()), |n| n.to_string()),
        (Value::String(text), _) => match precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.clone(),
        },
        (other, _) => other.to_string(),
    }
}

fn pad(line: &mut String, text: &str, flags: Flags) {
    let missing = flags.width.saturating_sub(text.chars().count());
    let fill = if flags.has_zeros && !flags.is_left { "0" } else { " " };
    if !flags.is_left {
        line.push_str(&fill.repeat(missing));
    }
    line.push_str(text);
    if flags.is_left {
        line.push_str(&fill.repeat(missing));
    }
}

/// What a JSON record has: attributes under names, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(pub Vec<(Attribute, String)>);

impl Fields {
    /// Those of a text format, under their own names.
    pub fn of(template: &Template) -> Self {
        let mut fields: Vec<(Attribute, String)> = Vec::new();
        for attribute in template.attributes() {
            if fields.iter().all(|(known, _)| *known != attribute) {
                fields.push((attribute, attribute.name().to_owned()));
            }
        }
        Self(fields)
    }
}

/// The line of a record, without its end.
pub(super) fn line(record: &Record, settings: &LogSettings) -> String {
    let date = settings.dateformat.as_ref();
    match &settings.form {
        LogForm::Plain(template) => without_control(template.render(record, date)),
        LogForm::Json { fields, static_fields } => {
            let own = fields
                .0
                .iter()
                .map(|(attribute, name)| (name.clone(), attribute_of(record, *attribute, date)));
            let fixed = static_fields.iter().map(|(name, value)| (name.clone(), value.clone()));
            json_object(own.chain(fixed).collect())
        }
    }
}

/// In the order of the pairs, whatever the map of the JSON library does; a later one of the same name replaces.
fn json_object(pairs: Vec<(String, Value)>) -> String {
    let mut text = String::from("{");
    let count = pairs.len();
    for (index, (name, value)) in pairs.iter().enumerate() {
        let is_replaced = pairs.iter().skip(index + 1).take(count).any(|(later, _)| later == name);
        if is_replaced {
            continue;
        }
        if text.len() > 1 {
            text.push_str(", ");
        }
        let written = write!(text, "{}: {value}", Value::String(name.clone()));
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    text.push('}');
    text
}

/// Line ends and tabs stay: a message may have several lines.
fn without_control(line: String) -> String {
    let is_bad = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !line.contains(is_bad) {
        return line;
    }
    let mut clean = String::with_capacity(line.len() + 8);
    for c in line.chars() {
        if is_bad(c) {
            let written = write!(clean, "\\x{:02x}", u32::from(c));
            debug_assert!(written.is_ok(), "a string takes everything");
        } else {
            clean.push(c);
        }
    }
    clean
}

fn attribute_of(record: &Record, attribute: Attribute, date: Option<&DateFormat>) -> Value {
    let seconds =
        |time: SystemTime, since: SystemTime| time.duration_since(since).unwrap_or_default().as_secs_f64();
    let filename = record.file.rsplit('/').next().unwrap_or_default();
    match attribute {
        Attribute::Asctime => asctime(record.at, date).into(),
        Attribute::Created => seconds(record.at, SystemTime::UNIX_EPOCH).into(),
        Attribute::Msecs => f64::from(local(record.at).millisecond()).into(),
        Attribute::RelativeCreated => (seconds(record.at, began()) * 1000.0).into(),
        Attribute::Filename => filename.into(),
        Attribute::Module => filename.trim_end_matches(".rs").into(),
        Attribute::FuncName => record.target.rsplit("::").next().unwrap_or_default().into(),
        Attribute::Levelname => record.level.name().into(),
        Attribute::Levelno => record.level.number().into(),
        Attribute::Lineno => record.line.into(),
        Attribute::Message | Attribute::Msg => record.message.as_str().into(),
        Attribute::Name => record.target.replace("::", ".").into(),
        Attribute::Pathname => record.file.into(),
        Attribute::Process => std::process::id().into(),
        Attribute::ProcessName => "MainProcess".into(),
        Attribute::Thread => Value::Null,
        Attribute::ThreadName => record.thread.as_str().into(),
        Attribute::TaskName => Value::Null,
    }
}

fn local(time: SystemTime) -> Zoned {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    timestamp.to_zoned(TimeZone::system())
}

/// Local time, without a pattern as Python's logging writes it: `2026-11-21 09:22:19,123`.
fn asctime(time: SystemTime, date: Option<&DateFormat>) -> String {
    let zoned = local(time);
    if let Some(DateFormat(pattern)) = date
        && let Ok(text) = jiff::fmt::strtime::format(pattern, &zoned)
    {
        return text;
    }
    let (date, time) = (zoned.date(), zoned.time());
    format!(
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

#[cfg(test)]
mod tests {
    use super::super::level::LogLevel;
    use serde_json::Map;

    use super::*;

    fn record(message: &str) -> Record {
        Record {
            file: "src/ha/decide.rs",
            line: 7,
            target: "pgherd::ha::decide",
            ..Record::own(LogLevel::Warning, message.to_owned())
        }
    }

    fn shown(format: &str, message: &str) -> String {
        Template::parse(format).expect(format).render(&record(message), None)
    }

    #[test]
    fn formats_are_pythons() {
        assert_eq!(shown("%(levelname)-9s|%(message)10.3s|%%", "abcdef"), "WARNING  |       abc|%");
        assert_eq!(
            shown("%(pathname)s:%(lineno)03d %(module)s %(name)s", ""),
            "src/ha/decide.rs:007 decide pgherd.ha.decide"
        );
        assert_eq!(shown("%(levelno)s %(funcName)s", ""), "30 decide");
        for (bad, why) in [
            ("%(mesage)s", "%(mesage)"),
            ("at 50%", "character 6"),
            ("%(message)", "character 1"),
            ("%(message)q", "character 1"),
            ("plain", "names no attribute"),
        ] {
            let error = Template::parse(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(DateFormat::parse("%Y-%m-%dT%H:%M:%S%z").is_ok());
        assert!(DateFormat::parse("%Q-%!").is_err());
    }

    #[test]
    fn a_record_stays_in_its_form() {
        let mut settings = LogSettings::default();
        let plain = line(&record("a\x1b[31m\u{7}b\nc"), &settings);
        assert!(plain.ends_with("WARNING: a\\x1b[31m\\x07b\nc"), "{plain:?}");
        let fields = vec![
            (Attribute::Message, "message".to_owned()),
            (Attribute::Levelname, "level".to_owned()),
            (Attribute::Asctime, "@timestamp".to_owned()),
            (Attribute::Lineno, "line".to_owned()),
        ];
        let mut static_fields = Map::new();
        static_fields.insert("app".to_owned(), "pg".into());
        settings.form = LogForm::Json { fields: Fields(fields), static_fields };
        settings.dateformat = Some(DateFormat::parse("%Y").expect("a pattern"));
        let year = asctime(crate::clock::wall(), settings.dateformat.as_ref());
        let json = line(&record("a\"\nb\x01"), &settings);
        assert_eq!(
            json,
            format!(
                r#"{{"message": "a\"\nb\u0001", "level": "WARNING", "@timestamp": "{year}", "line": 7, "app": "pg"}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON")["message"], "a\"\nb\x01");
    }
}
