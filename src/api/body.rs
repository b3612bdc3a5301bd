//! The body of a request: read within limits of size and time, and read as one JSON object.
//!
//! The type that the client gives it does not matter: Patroni's clients send none.

use std::fmt;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use tokio::time::timeout;

use super::connections::InUse;
use super::reply::{Reply, shown};

/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is too long is read on so far and thrown away: a connection that is closed with unread bytes takes the answer
/// with it.
const MAX_DISCARDED: usize = 1024 * 1024;
/// For how long.
const DISCARD_PATIENCE: Duration = Duration::from_secs(1);

/// The bytes of the body; none: the request has no body at all, not even an empty one. With the body the connection carries an
/// operation: who sends half of one has asked for nothing yet.
pub(super) async fn bytes(request: Request, limit: usize) -> Result<Option<Bytes>, Reply> {
    let (head, body) = request.into_parts();
    let bytes = received(&head, body, limit).await?;
    if let Some(in_use) = head.extensions.get::<InUse>() {
        in_use.begin();
    }
    Ok(bytes)
}

async fn received(head: &Parts, body: Body, limit: usize) -> Result<Option<Bytes>, Reply> {
    if !has_body(&head.headers) {
        return Ok(None);
    }
    if announced(&head.headers).is_some_and(|length| length > limit) {
        if !head.headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_long(limit));
    }
    match timeout(PATIENCE, collect(body, limit)).await {
        Ok(Collected::Whole(bytes)) => Ok(Some(bytes)),
        Ok(Collected::TooLong) => Err(too_long(limit)),
        Ok(Collected::Broken) => Err(Reply::text(StatusCode::BAD_REQUEST, "the body is incomplete")),
        Err(_) => Err(Reply::text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// One JSON object, which must be there.
pub(super) async fn object(request: Request, limit: usize) -> Result<Map<String, Value>, Reply> {
    match bytes(request, limit).await? {
        Some(bytes) => read_object(&bytes),
        None => Err(Reply::text(StatusCode::LENGTH_REQUIRED, "the length of the body is not given")),
    }
}

/// One JSON object; no body, or an empty one, is an empty object.
pub(super) async fn optional_object(request: Request, limit: usize) -> Result<Map<String, Value>, Reply> {
    match bytes(request, limit).await? {
        Some(bytes) if !bytes.is_empty() => read_object(&bytes),
        Some(_) | None => Ok(Map::new()),
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING)
}

/// A length that is no number never gets here.
fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_long(limit: usize) -> Reply {
    Reply::text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} bytes"))
}

enum Collected {
    Whole(Bytes),
    TooLong,
    Broken,
}

async fn collect(body: Body, limit: usize) -> Collected {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Collected::Whole(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Collected::TooLong,
        Err(_) => Collected::Broken,
    }
}

async fn discard(mut body: Body) {
    let all = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    if timeout(DISCARD_PATIENCE, all).await.is_err() {
        // Whoever sends so slowly may miss the answer.
    }
}

fn read_object(bytes: &[u8]) -> Result<Map<String, Value>, Reply> {
    let bad = |text: String| Reply::text(StatusCode::BAD_REQUEST, text);
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(fields))) => Ok(fields),
        Ok(Strict(_)) => Err(bad("the body is not a JSON object".to_owned())),
        Err(error) if bytes.is_empty() => Err(bad(format!("the body is empty: {error}"))),
        Err(error) => Err(bad(format!("the body is not JSON: {error}"))),
    }
}

/// A JSON value in which no object has a key twice: which of the two is meant cannot be told.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {} stands twice", shown(&key))));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_as_it_is() {
        let text = r#"{"a": [1, -2, 1.5, true, null, "x"], "b": {"c": {}}}"#;
        let read = read_object(text.as_bytes()).expect("an object");
        assert_eq!(Value::Object(read), json!({"a": [1, -2, 1.5, true, null, "x"], "b": {"c": {}}}));
    }

    #[test]
    fn what_is_no_object_or_ambiguous_is_refused() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        for (text, why) in [
            ("", "empty"),
            ("{", "not JSON"),
            ("[1]", "not a JSON object"),
            ("null", "not a JSON object"),
            ("{} {}", "not JSON"),
            (r#"{"ttl": 5, "ttl": 6}"#, "the key ttl stands twice"),
            (r#"{"a": {"b": 1, "b": 1}}"#, "the key b stands twice"),
            (r#"{"a": NaN}"#, "not JSON"),
            (deep.as_str(), "not JSON"),
        ] {
            let refusal = read_object(text.as_bytes()).expect_err(text);
            assert_eq!(refusal.code, StatusCode::BAD_REQUEST);
            assert!(refusal.body.contains(why), "{text}: {}", refusal.body);
        }
    }
}
