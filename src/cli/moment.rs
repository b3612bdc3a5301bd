//! Moments that operators name, and how moments are printed.

use std::time::Duration;

use jiff::civil::Time;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::Failure;
use super::output::Output;

/// As patronictl prints moments: local time with five digits of the second.
pub(super) const MOMENT: &str = "%Y-%m-%d %H:%M:%S%.5f";
/// The same without the fraction.
pub(super) const SECOND: &str = "%Y-%m-%d %H:%M:%S";

/// This machine's time in its zone.
pub(super) fn local_time(format: &str) -> String {
    time_in(format, Duration::ZERO)
}

fn time_in(format: &str, ahead: Duration) -> String {
    let time = Timestamp::try_from(pgherd_raft::clock::wall() + ahead).unwrap_or_default();
    time.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// Asks when something should happen; the moment as ISO 8601 with its zone, none: now.
pub(super) fn ask(
    output: &mut Output,
    named: Option<&str>,
    is_forced: bool,
    subject: &str,
    example_end: &str,
) -> Result<Option<String>, Failure> {
    let when = match named {
        Some(when) => when.to_owned(),
        None if is_forced => return Ok(None),
        None => {
            let example = time_in("%Y-%m-%dT%H:%M", Duration::from_secs(3600));
            let question = format!("When should the {subject} take place (e.g. {example}{example_end}) ");
            output.ask(&question, Some("now"))?
        }
    };
    if when.trim().eq_ignore_ascii_case("now") {
        return Ok(None);
    }
    let moment = read(&when).ok_or_else(|| {
        Failure::because(format!(
            "Unable to parse scheduled timestamp ({when}). It should be in an unambiguous format, e.g. ISO 8601"
        ))
    })?;
    Ok(Some(iso(&moment)))
}

/// A date, a time, or both; without a zone it is this machine's.
fn read(text: &str) -> Option<Zoned> {
    let text = text.trim();
    let universal = text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" GMT"));
    let text = universal.map_or_else(|| text.to_owned(), |time| format!("{time}Z"));
    // A blank before the zone, as PostgreSQL's and date's output have.
    let text = text.replace(" +", "+").replace(" -", "-");
    if let Ok(pieces) = Pieces::parse(&text) {
        let time = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
        let zoned = match pieces.to_numeric_offset() {
            Some(offset) => at_offset(offset.to_timestamp(time).ok()?, offset),
            None => time.to_zoned(TimeZone::system()).ok()?,
        };
        return Some(zoned);
    }
    let time: Time = text.parse().ok().filter(|_| text.contains(':'))?;
    let today = Timestamp::try_from(pgherd_raft::clock::wall()).ok()?.to_zoned(TimeZone::system()).date();
    today.to_datetime(time).to_zoned(TimeZone::system()).ok()
}

fn at_offset(moment: Timestamp, offset: Offset) -> Zoned {
    moment.to_zoned(TimeZone::fixed(offset))
}

fn iso(moment: &Zoned) -> String {
    let format =
        if moment.subsec_nanosecond() == 0 { "%Y-%m-%dT%H:%M:%S%:z" } else { "%Y-%m-%dT%H:%M:%S%.6f%:z" };
    moment.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_with_a_zone_keep_it() {
        for (text, expected) in [
            ("2026-01-01 10:00:00.123456+00:00", "2026-01-01T10:00:00.123456+00:00"),
            ("2026-01-01T10:00+01:00", "2026-01-01T10:00:00+01:00"),
            ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00+00:00"),
            ("2026-01-01 10:00:00 UTC", "2026-01-01T10:00:00+00:00"),
            ("2026-01-01 10:00:00 -0500", "2026-01-01T10:00:00-05:00"),
        ] {
            assert_eq!(read(text).map(|moment| iso(&moment)).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn moments_without_a_zone_are_local() {
        let zoned = read("2026-07-01T10:00").expect("a moment");
        assert_eq!(zoned.offset(), TimeZone::system().to_offset(zoned.timestamp()));
        assert!(read("18:30").is_some() && read("2026-07-01").is_some());
    }

    #[test]
    fn other_words_are_no_moments() {
        for text in ["tomorrow", "", "2026-13-01T00:00", "12/11/10", "10"] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
