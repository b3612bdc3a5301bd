//! HTTP to members: short timeouts, bounded answers.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::api::basic;
use crate::config::Secret;

/// A member that does not accept a connection in this time is down, or as good as down.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Members answer reads from memory.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// Longer than the longest time for which a member waits for the outcome of an operation at usual settings.
const OPERATION_PATIENCE: Duration = Duration::from_secs(120);
/// The most bytes of an answer: a `/cluster` of hundreds of members fits.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// Why, where the body is Patroni's text only.
    pub(super) reason: Option<String>,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// No connection: nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The request may have arrived.
    #[error("no answer: {0}")]
    Lost(String),
}

/// A client of REST APIs.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// Sends these credentials with every request.
    pub(super) fn new(credentials: Option<(&str, &Secret)>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_PATIENCE));
        connector.set_nodelay(true);
        let authorization = credentials.and_then(|(username, password)| {
            let mut value = HeaderValue::from_str(&basic(username, password.expose())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .build(connector);
        Self { http, authorization }
    }

    /// Reads a document of the member at `host:port`.
    pub(super) async fn get(&self, addr: &str, path: &str) -> Result<Answer, NoAnswer> {
        self.request(addr, path, Method::GET, String::new(), READ_PATIENCE).await
    }

    /// Asks the member at `host:port` to do something.
    pub(super) async fn post(&self, addr: &str, path: &str, body: String) -> Result<Answer, NoAnswer> {
        self.request(addr, path, Method::POST, body, OPERATION_PATIENCE).await
    }

    /// Asks the member at `host:port` to change a document.
    pub(super) async fn patch(&self, addr: &str, path: &str, body: String) -> Result<Answer, NoAnswer> {
        self.request(addr, path, Method::PATCH, body, OPERATION_PATIENCE).await
    }

    async fn request(
        &self,
        addr: &str,
        path: &str,
        method: Method,
        body: String,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{addr}{path}")
            .parse()
            .map_err(|source| NoAnswer::Connect(format!("{addr:?} is not HOST:PORT ({source})")))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let exchange = async {
            let response = self.http.request(request).await.map_err(|source| {
                let cause = innermost(&source);
                if source.is_connect() { NoAnswer::Connect(cause) } else { NoAnswer::Lost(cause) }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|source| NoAnswer::Lost(innermost(source.as_ref())))?.to_bytes();
            let reason = head.headers.get("pgherd-reason").and_then(|value| value.to_str().ok());
            Ok(Answer {
                status: head.status,
                body: String::from_utf8_lossy(&body).into_owned(),
                reason: reason.map(str::to_owned),
            })
        };
        let late = || NoAnswer::Lost(format!("none within {} s", patience.as_secs()));
        tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The cause at the end of the chain: "Connection refused" rather than "client error (Connect)".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
