//! An answer before it becomes HTTP.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Says why, where the body is Patroni's text to the byte.
const REASON: HeaderName = HeaderName::from_static("pgherd-reason");
/// The longest reason: clients limit the length of a header.
const MAX_REASON: usize = 2048;
/// So many characters of what a client sent are repeated to it.
const MAX_SHOWN: usize = 60;

/// A status, a body, and a few headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: StatusCode,
    pub(super) body: String,
    content_type: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// Only a status.
    pub(super) fn code(code: StatusCode) -> Self {
        Self { code, body: String::new(), content_type: None, headers: Vec::new() }
    }

    /// 200 when it holds, else 503; no body.
    pub(super) fn status_only(holds: bool) -> Self {
        Self::code(if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
    }

    /// A JSON document.
    pub(super) fn json(code: StatusCode, document: &impl Serialize) -> Self {
        match serde_json::to_string(document) {
            Ok(body) => Self { code, body, content_type: Some("application/json"), headers: Vec::new() },
            Err(source) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot answer: {source}")),
        }
    }

    /// A sentence. Its type is the one that Patroni sends, although none of Patroni's texts holds markup; a text which
    /// might be taken for markup (it repeats what a client sent, for example) has the type that it is.
    pub(super) fn text(code: StatusCode, text: impl Into<String>) -> Self {
        let body = text.into();
        let plain = body.contains(['<', '>', '&']);
        let content_type = if plain { "text/plain; charset=utf-8" } else { "text/html" };
        Self { code, body, content_type: Some(content_type), headers: Vec::new() }
    }

    /// A page of another type.
    pub(super) fn page(code: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { code, body, content_type: Some(content_type), headers: Vec::new() }
    }

    /// With a reason beside the text.
    pub(super) fn because(self, why: &str) -> Self {
        let printable = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
        let line: String = why.chars().take(MAX_REASON).map(printable).collect();
        match HeaderValue::from_str(&line) {
            Ok(value) => self.with(REASON, value),
            Err(_) => self,
        }
    }

    /// The reason beside the text; empty: there is none.
    #[cfg(test)]
    pub(super) fn reason(&self) -> &str {
        let reason = self.headers.iter().find(|(name, _)| *name == REASON);
        reason.and_then(|(_, value)| value.to_str().ok()).unwrap_or_default()
    }

    /// With one more header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same status without a body.
    pub(super) fn without_body(self) -> Self {
        Self::code(self.code)
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.code;
        if let Some(content_type) = self.content_type {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        response.headers_mut().extend(self.headers);
        response
    }
}

/// What a client sent, to be repeated in a sentence: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_harmless() {
        assert_eq!(shown("a\u{0}\n\"b"), "a??\"b");
        assert_eq!(shown(&"x".repeat(70)).chars().count(), 61);
        let of = |text: &str| Reply::text(StatusCode::BAD_REQUEST, text).content_type;
        assert_eq!(of("Switchover failed"), Some("text/html"));
        assert_eq!(of("limit=<script>"), Some("text/plain; charset=utf-8"));
    }
}
