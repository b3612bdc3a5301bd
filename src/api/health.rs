//! Health checks: which path is 200 when. Patroni's paths; a keyword anywhere in the path chooses the check.

use pgherd_raft::model::TagValue;

use super::standing::{Standing, SyncRole};

/// The limit without `?lag=` on `/readiness` is `maximum_lag_on_failover`, on the others there is none.
const NO_LIMIT: u64 = u64::MAX;

/// Does the check which this path names hold?
pub(super) fn is_well(standing: &Standing, path: &str, query: &str) -> bool {
    let has = |word: &str| path.contains(word);
    let replica = || is_replica(standing, query);
    let in_role = |role: Option<SyncRole>| standing.own_sync_role() == role && replica();
    if has("standby_leader") || has("standby-leader") {
        false
    } else if has("leader") || has("master") || has("primary") || has("read-write") || path == "/" {
        standing.takes_clients()
    } else if has("replica") {
        replica()
    } else if has("read-only") && !has("sync") && !has("quorum") {
        (standing.takes_clients() && has_tags(standing, query)) || replica()
    } else if has("health") {
        standing.is_running() && has_tags(standing, query)
    } else {
        match path.trim_start_matches('/') {
            "sync" | "synchronous" => in_role(Some(SyncRole::Sync)),
            "quorum" => in_role(Some(SyncRole::Quorum)),
            "async" | "asynchronous" => in_role(None),
            "read-only-sync" | "read-only-synchronous" => {
                standing.takes_clients() || in_role(Some(SyncRole::Sync))
            }
            "read-only-quorum" => standing.takes_clients() || in_role(Some(SyncRole::Quorum)),
            _ => false,
        }
    }
}

/// `/readiness`: the primary, or a standby which streams and does not lie behind.
pub(super) fn is_ready(standing: &Standing, query: &str) -> bool {
    if standing.takes_clients() {
        return true;
    }
    let default = standing.view.observation.policy.maximum_lag_on_failover;
    let limit = parameter(query, "lag").and_then(|text| parse_size(&text)).unwrap_or(default);
    let Some(server) = standing.streaming_server() else { return false };
    let is_write = parameter(query, "mode").is_some_and(|mode| mode == "write");
    let reached = if is_write { server.position.lsn } else { server.replayed.unwrap_or_default() };
    standing.holder_position().is_some_and(|holder| holder.bytes_after(reached) <= limit)
}

/// A running standby which streams, does not refuse to be balanced to, does not lie behind more than asked for, and has
/// the tags asked for.
fn is_replica(standing: &Standing, query: &str) -> bool {
    let Some(server) = standing.streaming_server() else { return false };
    let limit = parameter(query, "lag").and_then(|text| parse_size(&text)).unwrap_or(NO_LIMIT);
    let newest = standing.holder_position().unwrap_or_default().max(server.position.lsn);
    let lag = newest.bytes_after(server.replayed.unwrap_or_default());
    !standing.view.member.tags.flag("noloadbalance") && lag <= limit && has_tags(standing, query)
}

/// Every `tag_NAME=VALUE` of the query is a tag of this node; values are compared as text.
fn has_tags(standing: &Standing, query: &str) -> bool {
    parameters(query).filter_map(|(key, value)| Some((key.strip_prefix("tag_")?.to_owned(), value))).all(
        |(name, wanted)| {
            standing.view.member.tags.get(&name).is_some_and(|value| match value {
                TagValue::Bool(value) => wanted.eq_ignore_ascii_case(&value.to_string()),
                TagValue::Integer(value) => wanted == value.to_string(),
                TagValue::Float(value) => wanted == value.to_string(),
                TagValue::Text(text) => wanted == *text,
            })
        },
    )
}

pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

pub(super) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(key), decoded(value))
    })
}

/// `application/x-www-form-urlencoded`; what is not well formed stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (first, tail.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes as PostgreSQL writes sizes: `16384`, `16kB`, `64MB`, `1GB`. None when it is none.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let (whole, fraction) = number.split_once('.')?;
    let fraction = fraction.get(..fraction.len().min(9))?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(factor)? / scale;
    whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_postgresql_writes_them() {
        let cases = [("16", 16), ("16kB", 16384), ("1MB", 1 << 20), ("0.5GB", 1 << 29), (" 2 B", 2)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "x", "1XB", "-1", "99999999999TB", "1.", "1.x"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("lag=1&tag_a=b%20c+d&bad=%zz", "tag_a").as_deref(), Some("b c d"));
        assert_eq!(parameter("bad=%zz%4", "bad").as_deref(), Some("%zz%4"));
    }
}
