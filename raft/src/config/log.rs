//! The section `log`, for daemon and witness alike.

use serde_json::Map;

use super::quantity::Unit;
use super::scalar::{not_a, shown_key};
use super::section::Section;
use crate::telemetry::{
    Attribute, DEFAULT_FILE_NUM, DEFAULT_FILE_SIZE, DEFAULT_QUEUE, DateFormat, Fields, InvalidFormat,
    LogFile, LogForm, LogLevel, LogSettings, Template,
};
use crate::yaml::{Node, Value};

/// Each waiting record costs memory.
const MAX_QUEUE: i64 = 1_000_000;
/// Rotating renames every one of them.
const MAX_FILES: i64 = 1_000;
/// A part of the program is named once.
const MAX_LOGGERS: usize = 1_000;

/// Reads the section. What is wrong is reported and stands for its default.
pub fn read_log(mut section: Section<'_>) -> LogSettings {
    let level = section.log_level("level").unwrap_or_default();
    let form = form(&mut section);
    let dateformat = dateformat(&mut section);
    let max_queue_size = section.integer("max_queue_size", Unit::None, 1..=MAX_QUEUE);
    let max_queue_size = max_queue_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(DEFAULT_QUEUE);
    let loggers = loggers(&mut section);
    let file = file(&mut section);
    let deduplicate_heartbeat_logs = section.boolean("deduplicate_heartbeat_logs").unwrap_or(false);
    traceback_level(&mut section);
    section.close();
    LogSettings { level, loggers, form, dateformat, max_queue_size, file, deduplicate_heartbeat_logs }
}

/// There are no tracebacks here: an error's causes stand on its line, whatever the level.
fn traceback_level(section: &mut Section<'_>) {
    if let Some(node) = section.get("traceback_level") {
        let level = node.scalar_text().and_then(|text| LogLevel::parse(&text));
        if !matches!(level, Some(LogLevel::Debug | LogLevel::Error)) {
            let (key, what) = (section.key("traceback_level"), not_a("DEBUG or ERROR", node));
            section.report.error(&key, &node.place, what, "write DEBUG or ERROR");
        }
    }
}

fn form(section: &mut Section<'_>) -> LogForm {
    let is_json = section.get("type").is_some_and(|node| match node.scalar_text().as_deref() {
        Some("json") => true,
        Some("plain") => false,
        Some(_) | None => {
            let (key, what) = (section.key("type"), not_a("a type of log", node));
            section.report.error(&key, &node.place, what, "write plain or json, in small letters");
            false
        }
    });
    let static_fields = section.section("static_fields");
    let mut fixed = Map::new();
    for entry in static_fields.entries() {
        fixed.insert(entry.key.clone(), entry.value.to_json());
    }
    let format = section.get("format");
    if !is_json {
        return LogForm::Plain(format.and_then(|node| template(section, node)).unwrap_or_default());
    }
    let fields = match format.map(|node| (&node.value, node)) {
        Some((Value::List(items), _)) => listed(section, items),
        Some((_, node)) => template(section, node).map(|template| Fields::of(&template)),
        None => None,
    };
    let fields = fields.unwrap_or_else(|| Fields::of(&Template::default()));
    LogForm::Json { fields, static_fields: fixed }
}

fn template(section: &Section<'_>, node: &Node) -> Option<Template> {
    let key = section.key("format");
    match &node.value {
        Value::Text(text) => {
            Template::parse(text).map_err(|error| wrong_format(section, "format", node, &error)).ok()
        }
        Value::List(_) => {
            let cure =
                "write type: json beside it, or a text such as '%(asctime)s %(levelname)s: %(message)s'";
            section.report.warning(&key, &node.place, "is a list, which only type: json has", cure);
            None
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Map(_) => {
            let cure = "write a text such as '%(asctime)s %(levelname)s: %(message)s'";
            section.report.error(&key, &node.place, not_a("a format", node), cure);
            None
        }
    }
}

fn wrong_format(section: &Section<'_>, key: &str, node: &Node, error: &InvalidFormat) {
    let cure = match error {
        InvalidFormat::Date(_) => "write a pattern such as '%Y-%m-%d %H:%M:%S'",
        InvalidFormat::Attribute(_) | InvalidFormat::Conversion(_) | InvalidFormat::Empty => {
            "write attributes of Python's log records such as '%(asctime)s %(levelname)s: %(message)s', and %% for a %"
        }
    };
    section.report.error(&section.key(key), &node.place, error.to_string(), cure);
}

/// Items are an attribute's name, or `{attribute: name}`.
fn listed(section: &Section<'_>, items: &[Node]) -> Option<Fields> {
    let mut fields = Vec::new();
    for item in items {
        let pairs: Vec<(String, Option<String>)> = match &item.value {
            Value::Map(map) => {
                let pairs = map.entries().iter();
                pairs.map(|entry| (entry.key.clone(), entry.value.scalar_text())).collect()
            }
            Value::Text(text) => vec![(text.clone(), Some(text.clone()))],
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) => Vec::new(),
        };
        let read = pairs.iter().map(|(attribute, name)| Some((Attribute::parse(attribute)?, name.clone()?)));
        match read.collect::<Option<Vec<_>>>() {
            Some(mut read) if !read.is_empty() => fields.append(&mut read),
            Some(_) | None => section.report.error(
                &section.key("format"),
                &item.place,
                "has an item which is no attribute of a log record",
                "write an attribute such as message, or {message: NAME}",
            ),
        }
    }
    (!fields.is_empty()).then_some(Fields(fields))
}

fn dateformat(section: &mut Section<'_>) -> Option<DateFormat> {
    let node = section.get("dateformat")?;
    match &node.value {
        Value::Text(text) if text.is_empty() => None,
        Value::Text(text) => {
            DateFormat::parse(text).map_err(|error| wrong_format(section, "dateformat", node, &error)).ok()
        }
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => {
            let (key, what) = (section.key("dateformat"), not_a("a pattern for the time", node));
            section.report.error(&key, &node.place, what, "write a pattern such as '%Y-%m-%d %H:%M:%S'");
            None
        }
    }
}

fn loggers(section: &mut Section<'_>) -> Vec<(String, LogLevel)> {
    let loggers = section.section("loggers");
    let mut found = Vec::new();
    for entry in loggers.entries().iter().take(MAX_LOGGERS) {
        match entry.value.scalar_text().and_then(|text| LogLevel::parse(&text)) {
            Some(level) => found.push((entry.key.clone(), level)),
            None => loggers.report.error(
                &loggers.key(&shown_key(&entry.key)),
                &entry.value.place,
                not_a("a log level", &entry.value),
                "write DEBUG, INFO, WARNING, ERROR or CRITICAL",
            ),
        }
    }
    found
}

fn file(section: &mut Section<'_>) -> Option<LogFile> {
    let dir = section.path("dir");
    let mode = section.integer("mode", Unit::None, 0..=0o777);
    let file_num = section.integer("file_num", Unit::None, 0..=MAX_FILES);
    let file_size = section.integer("file_size", Unit::None, 0..=i64::MAX);
    Some(LogFile {
        dir: dir?,
        mode: mode.and_then(|mode| u32::try_from(mode).ok()),
        file_num: file_num.and_then(|number| u32::try_from(number).ok()).unwrap_or(DEFAULT_FILE_NUM),
        file_size: file_size.and_then(|size| u64::try_from(size).ok()).unwrap_or(DEFAULT_FILE_SIZE),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Report, Severity};
    use super::*;

    fn read(text: &str) -> (LogSettings, Vec<String>) {
        let report = Report::default();
        let document = crate::yaml::load(text).expect("YAML");
        let settings = read_log(Section::top(&document.root, "log", &report));
        let problems = report.into_problems().into_iter();
        let shown = |p: super::super::Problem| {
            format!("{}{} {}", if p.severity == Severity::Error { "" } else { "warning: " }, p.key, p.what)
        };
        (settings, problems.map(shown).collect())
    }

    #[test]
    fn nothing_is_patronis_default() {
        let (settings, problems) = read("{}");
        assert_eq!((settings, problems.len()), (LogSettings::default(), 0));
    }

    #[test]
    fn everything_is_read() {
        let (settings, problems) = read(
            "type: json\nlevel: debug\ntraceback_level: DEBUG\nformat: [message, {levelname: level}]\n\
             dateformat: '%H:%M'\nstatic_fields: {app: pg, node: 1}\nmax_queue_size: 10\ndir: /var/log/x\n\
             mode: 0640\nfile_num: 2\nfile_size: 1000\nloggers: {patroni.ha: WARN}\ndeduplicate_heartbeat_logs: on\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let fields =
            vec![(Attribute::Message, "message".to_owned()), (Attribute::Levelname, "level".to_owned())];
        let LogForm::Json { fields: read, static_fields } = &settings.form else { panic!("{settings:?}") };
        assert_eq!(read.0, fields);
        assert_eq!(static_fields["node"], 1);
        assert_eq!(settings.loggers, [("patroni.ha".to_owned(), LogLevel::Warning)]);
        let file = settings.file.expect("a file");
        assert_eq!((file.mode, file.file_num, file.file_size), (Some(0o640), 2, 1000));
        assert!(settings.deduplicate_heartbeat_logs && settings.max_queue_size == 10);
    }

    #[test]
    fn mistakes_are_told_with_their_key() {
        let (_, problems) = read(
            "type: JSON\ntraceback_level: INFO\nformat: '%(mesage)s'\ndateformat: 5\nmax_queue_size: 0\nmode: 1000\n\
             loggers: {a: loud}\n",
        );
        for key in [
            "log.type",
            "log.traceback_level",
            "log.format",
            "log.dateformat",
            "log.max_queue_size",
            "log.mode",
            "log.loggers.a",
        ] {
            assert!(problems.iter().any(|p| p.starts_with(&format!("{key} "))), "{key}: {problems:?}");
        }
        let (settings, problems) = read("format: [message]\n");
        assert_eq!(settings.form, LogForm::Plain(Template::default()));
        assert!(problems[0].starts_with("warning: log.format"), "{problems:?}");
    }
}
