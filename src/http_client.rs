//! HTTP to members of the cluster: one exchange a connection, plain or TLS as the URL says.
//!
//! Used by the daemon for the members' APIs and by the operator's tool. It promises that an answer is bounded and that
//! a connection opens within its limit; the caller limits the time of the whole exchange.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::{Ctl, RestApi, TlsFiles};
use crate::tls::{ByteStream, Checks, ClientSettings, ClientTls, Names, TlsError, Trust, explain};

/// A member that does not accept a connection in this time is down, or as good as down.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// The handshake of TLS has some more: the other side computes.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpFailure {
    /// Nobody can be called this way: nothing was sent.
    #[error("{0}")]
    Url(String),
    /// No connection: nothing was sent.
    #[error("{0}")]
    Connect(String),
    /// A connection, but no encryption: nothing was sent.
    #[error("no TLS connection: {0}")]
    Tls(String),
    /// The request may have arrived.
    #[error("{0}")]
    Lost(String),
}

/// A client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    settings: Arc<ClientSettings>,
    /// Loaded when the first `https` address is called: whoever needs no certificates shall not stumble over them.
    tls: Arc<OnceLock<Result<ClientTls, String>>>,
    authorization: Option<HeaderValue>,
}

impl HttpClient {
    /// Connects this way where an address is `https`, and sends this value of `Authorization` with each request.
    pub fn new(settings: ClientSettings, authorization: Option<HeaderValue>) -> Self {
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { settings: Arc::new(settings), tls: Arc::default(), authorization }
    }

    /// Reads the certificates now.
    ///
    /// # Errors
    /// One of them cannot be read or used.
    pub fn load(&self) -> Result<(), TlsError> {
        let tls = ClientTls::load(&self.settings)?;
        // Somebody else was faster with the same files.
        self.tls.set(Ok(tls)).ok();
        Ok(())
    }

    fn tls(&self) -> Result<&ClientTls, HttpFailure> {
        let load = || ClientTls::load(&self.settings).map_err(|source| source.to_string());
        self.tls.get_or_init(load).as_ref().map_err(|why| HttpFailure::Tls(why.clone()))
    }

    /// Sends a request whose URI is absolute and waits for the answer, of at most `max_answer` bytes.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        max_answer: usize,
    ) -> Result<HttpAnswer, HttpFailure> {
        let target = Target::of(request.uri())?;
        let headers = request.headers_mut();
        headers.insert(HOST, target.authority.clone());
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        *request.uri_mut() = target.path.clone();
        let stream = self.connect(&target).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|source| lost(&source))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|source| lost(&source))?;
            collect(response, max_answer).await
        };
        // The connection is driven until the answer is there; its own end shows as the end of the answer.
        let driven = async {
            connection.await.ok();
            std::future::pending().await
        };
        tokio::select! {
            answer = exchange => answer,
            never = driven => never,
        }
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn ByteStream>, HttpFailure> {
        let tls = if target.is_tls { Some(self.tls()?) } else { None };
        let connecting = TcpStream::connect((target.host.as_str(), target.port));
        let late = |patience: Duration| format!("no connection within {} s", patience.as_secs());
        let stream = tokio::time::timeout(CONNECT_PATIENCE, connecting)
            .await
            .map_err(|_| HttpFailure::Connect(late(CONNECT_PATIENCE)))?
            .map_err(|source| HttpFailure::Connect(source.to_string()))?;
        // Without it answers come later, and that is all.
        stream.set_nodelay(true).ok();
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let securing = Box::pin(tls.connect(stream, &target.host));
        let stream = tokio::time::timeout(HANDSHAKE_PATIENCE, securing)
            .await
            .map_err(|_| HttpFailure::Tls(late(HANDSHAKE_PATIENCE)))?
            .map_err(|source| HttpFailure::Tls(explain(&source)))?;
        Ok(Box::new(stream))
    }
}

struct Target {
    is_tls: bool,
    host: String,
    port: u16,
    authority: HeaderValue,
    path: Uri,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, HttpFailure> {
        let wrong = |what: &str| HttpFailure::Url(format!("{uri} {what}"));
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(wrong("is no http:// or https:// address")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            is_tls,
            host,
            port,
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("names no host"))?,
            path: path.parse().map_err(|_| wrong("has no path"))?,
        })
    }
}

async fn collect(response: Response<Incoming>, max_answer: usize) -> Result<HttpAnswer, HttpFailure> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, max_answer).collect().await;
    let body = body.map_err(|source| HttpFailure::Lost(innermost(source.as_ref())))?.to_bytes();
    Ok(HttpAnswer { status: head.status, headers: head.headers, body })
}

fn lost(error: &hyper::Error) -> HttpFailure {
    HttpFailure::Lost(innermost(error))
}

/// The cause at the end of the chain: "Connection refused" rather than "client error (Connect)".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// How the daemon calls other members, as Patroni does it: without an own certificate whoever answers is believed, with
/// one its CA must have signed the other's, for whatever name.
pub fn member_settings(ctl: &Ctl, restapi: &RestApi) -> ClientSettings {
    let checks = if ctl.tls.certfile.is_some() { Checks::Chain } else { Checks::Nothing };
    settings(&ctl.tls, restapi.tls.cafile.as_ref(), checks)
}

/// The client of `ctl`'s files, with `restapi.cafile` where `ctl.cacert` is missing.
pub fn settings(ctl: &TlsFiles, cafile: Option<&PathBuf>, checks: Checks) -> ClientSettings {
    ClientSettings {
        checks,
        trust: ctl.cafile.as_ref().or(cafile).map_or(Trust::System, |path| Trust::File(path.clone())),
        certfile: ctl.certfile.clone(),
        keyfile: ctl.keyfile.clone(),
        keyfile_password: ctl.keyfile_password.clone(),
        names: Names::CTL,
        ..ClientSettings::default()
    }
}
