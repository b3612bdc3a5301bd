//! An answer before it becomes HTTP.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Says why, where the body is Patroni's text to the byte.
const REASON: HeaderName = HeaderName::from_static("pgherd-reason");

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

    /// This status when it holds, else 503; no body.
    pub(super) fn status_only(code: StatusCode, holds: bool) -> Self {
        Self::code(if holds { code } else { StatusCode::SERVICE_UNAVAILABLE })
    }

    /// A JSON document.
    pub(super) fn json(code: StatusCode, document: &impl Serialize) -> Self {
        match serde_json::to_string(document) {
            Ok(body) => Self { code, body, content_type: Some("application/json"), headers: Vec::new() },
            Err(source) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot answer: {source}")),
        }
    }

    /// A sentence. Its type is the one that Patroni sends, although the text holds no markup.
    pub(super) fn text(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, body: text.into(), content_type: Some("text/html"), headers: Vec::new() }
    }

    /// A page of another type.
    pub(super) fn page(code: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { code, body, content_type: Some(content_type), headers: Vec::new() }
    }

    /// With a reason beside the text.
    pub(super) fn because(self, why: &str) -> Self {
        let line: String = why.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
        match HeaderValue::from_str(&line) {
            Ok(value) => self.with(REASON, value),
            Err(_) => self,
        }
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
