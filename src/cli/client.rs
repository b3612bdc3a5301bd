//! HTTP to members: short timeouts, bounded answers.
//!
//! An address is `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`. Without a scheme it is `https` when the
//! configuration has certificates; otherwise `http` is tried first, and `https` when a read gets no HTTP that way.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};

use crate::api::authorization;
use crate::config::Secret;
use crate::http_client::{HttpClient, HttpFailure};
use crate::tls::ClientSettings;

/// Members answer reads from memory.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// Longer than the longest time for which a member waits for the outcome of an operation at usual settings.
const OPERATION_PATIENCE: Duration = Duration::from_secs(120);
/// A restart ends with the shutdown checkpoint of a big database, or with a crash recovery.
const RESTART_PATIENCE: Duration = Duration::from_secs(24 * 3600);
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

impl Answer {
    /// A refusal for a sentence.
    pub(super) fn refusal(&self) -> String {
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("status code={}, ({}){reason}", self.status.as_u16(), self.body)
    }
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
    http: HttpClient,
    /// Addresses without a scheme are `https`.
    is_tls_expected: bool,
}

impl Client {
    /// Sends these credentials with every request.
    pub(super) fn new(
        credentials: Option<(&str, &Secret)>,
        tls: ClientSettings,
        is_tls_expected: bool,
    ) -> Self {
        let authorization =
            credentials.and_then(|(username, password)| authorization(username, password.expose()));
        Self { http: HttpClient::new(tls, authorization), is_tls_expected }
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

    /// Asks the member at `host:port` for a restart, and waits until PostgreSQL is up again.
    pub(super) async fn restart(&self, addr: &str, body: String) -> Result<Answer, NoAnswer> {
        self.request(addr, "/restart", Method::POST, body, RESTART_PATIENCE).await
    }

    /// Asks the member at `host:port` to withdraw something.
    pub(super) async fn delete(&self, addr: &str, path: &str) -> Result<Answer, NoAnswer> {
        self.request(addr, path, Method::DELETE, String::new(), OPERATION_PATIENCE).await
    }

    async fn request(
        &self,
        addr: &str,
        path: &str,
        method: Method,
        body: String,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        if addr.contains("://") {
            return self.exchange(addr, path, method, body, patience).await;
        }
        let scheme = if self.is_tls_expected { "https" } else { "http" };
        let is_read = method == Method::GET;
        let answer = self.exchange(&format!("{scheme}://{addr}"), path, method, body, patience).await;
        match answer {
            // Whoever speaks TLS only answers HTTP with something else.
            Err(NoAnswer::Lost(why)) if is_read && !self.is_tls_expected => {
                let secured = format!("https://{addr}");
                let again = self.exchange(&secured, path, Method::GET, String::new(), patience).await;
                again.map_err(|also| NoAnswer::Lost(format!("{why}; over TLS: {also}")))
            }
            other => other,
        }
    }

    async fn exchange(
        &self,
        base: &str,
        path: &str,
        method: Method,
        body: String,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(Bytes::from(body)))
            .map_err(|source| NoAnswer::Connect(format!("{base:?} is not HOST:PORT ({source})")))?;
        let exchange = Box::pin(self.http.send(request, MAX_ANSWER));
        let late = || NoAnswer::Lost(format!("none within {} s", patience.as_secs()));
        let answer = tokio::time::timeout(patience, exchange).await.map_err(|_| late())?;
        let answer = answer.map_err(|failure| match failure {
            HttpFailure::Url(why) | HttpFailure::Connect(why) => NoAnswer::Connect(why),
            HttpFailure::Tls(_) => NoAnswer::Connect(failure.to_string()),
            HttpFailure::Lost(why) => NoAnswer::Lost(why),
        })?;
        let reason = answer.headers.get("pgherd-reason").and_then(|value| value.to_str().ok());
        Ok(Answer {
            status: answer.status,
            reason: reason.map(str::to_owned),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        })
    }
}
