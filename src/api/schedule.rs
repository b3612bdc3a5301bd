//! Times at which something is to happen.

use axum::http::StatusCode;
use jiff::{Timestamp, civil};
use pgherd_raft::clock;

use super::reply::Reply;

/// A time that is ahead, in milliseconds since 1970. `action` is the word for a refusal, whose texts are Patroni's.
pub(super) fn parse(text: &str, action: &str) -> Result<i64, Reply> {
    match text.trim().parse::<Timestamp>() {
        Ok(time) if time.as_millisecond() <= now_ms() => {
            let text = format!("Cannot schedule {action} in the past");
            Err(Reply::text(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
        Ok(time) => Ok(time.as_millisecond()),
        Err(_) if is_without_zone(text.trim()) => {
            let text = format!("Timezone information is mandatory for the scheduled {action}");
            Err(Reply::text(StatusCode::BAD_REQUEST, text))
        }
        Err(_) => Err(unreadable()),
    }
}

/// It is no time at all.
pub(super) fn unreadable() -> Reply {
    let text = "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
    Reply::text(StatusCode::UNPROCESSABLE_ENTITY, text)
}

fn is_without_zone(text: &str) -> bool {
    text.parse::<civil::DateTime>().is_ok() || text.parse::<civil::Time>().is_ok()
}

fn now_ms() -> i64 {
    Timestamp::try_from(clock::wall()).map_or(i64::MAX, Timestamp::as_millisecond)
}

/// As Patroni's documents have it: `2026-11-20T17:02:10.500000+00:00`, without a fraction when there is none.
pub(super) fn iso8601(at_ms: i64) -> String {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    let format = if at_ms % 1000 == 0 { "%Y-%m-%dT%H:%M:%S+00:00" } else { "%Y-%m-%dT%H:%M:%S%.6f+00:00" };
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone() {
        for (text, at_ms) in [
            ("2999-01-01T00:00:00Z", 32_472_144_000_000),
            ("2999-01-01 00:00:00+00:00", 32_472_144_000_000),
            ("2999-01-01 01:00:00.123456+01:00", 32_472_144_000_123),
            ("2999-01-01T02:00+02", 32_472_144_000_000),
        ] {
            assert_eq!(parse(text, "restart"), Ok(at_ms), "{text}");
        }
        for (text, code, words) in [
            ("2999-01-01T00:00", 400, "Timezone information is mandatory for the scheduled restart"),
            ("2999-01-01", 400, "Timezone information is mandatory for the scheduled restart"),
            ("10:30", 400, "Timezone information is mandatory for the scheduled restart"),
            ("2020-01-01T00:00:00Z", 422, "Cannot schedule restart in the past"),
            ("soon", 422, "Unable to parse"),
            ("", 422, "Unable to parse"),
            ("2999-13-01T00:00:00Z", 422, "Unable to parse"),
        ] {
            let refusal = parse(text, "restart").expect_err(text);
            assert_eq!(refusal.code.as_u16(), code, "{text}");
            assert!(refusal.body.starts_with(words), "{text}: {}", refusal.body);
        }
    }

    #[test]
    fn times_are_written_as_patroni_does() {
        assert_eq!(iso8601(32_472_144_000_000), "2999-01-01T00:00:00+00:00");
        assert_eq!(iso8601(32_472_144_000_123), "2999-01-01T00:00:00.123000+00:00");
    }
}
