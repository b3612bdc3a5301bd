//! The server's side: the certificate of the REST API, and what is asked of its clients.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use pgherd_raft::config::Secret;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::error::TlsError;
use super::files::{self, Named};
use super::verify::OfClients;
use super::{ByteStream, provider};
use crate::config::TlsFiles;

/// What a server wants of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// No certificate.
    #[default]
    None,
    /// A good one, or none.
    Optional,
    /// A good one.
    Required,
}

impl VerifyClient {
    /// The word of the configuration, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "none" => Some(Self::None),
            "optional" => Some(Self::Optional),
            "required" => Some(Self::Required),
            _ => None,
        }
    }
}

/// Did the client of this connection show a certificate that was accepted? An extension of every request that comes over
/// TLS while `verify_client` is `optional` or `required`; absent otherwise, when nobody asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertificate(pub bool);

/// A connection that can be read.
pub struct Accepted {
    /// Decrypted.
    pub stream: Box<dyn ByteStream>,
    /// See [`ClientCertificate`].
    pub client: Option<ClientCertificate>,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("client", &self.client).finish_non_exhaustive()
    }
}

/// What new connections get. Cheap to clone; all clones see a reload.
#[derive(Clone, Default)]
pub struct ServerTls {
    current: Arc<RwLock<Option<Current>>>,
}

#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    wants_certificate: bool,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("is_on", &self.is_on()).finish()
    }
}

impl ServerTls {
    /// Reads the files; without a `certfile` connections stay as they are.
    ///
    /// # Errors
    /// A file cannot be read or used, or the keys contradict each other.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(RwLock::new(read(files)?)) })
    }

    /// Reads the files again. Connections that are open stay; after an error the former certificate stays in force.
    ///
    /// # Errors
    /// The same as at first.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let fresh = read(files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Are connections encrypted?
    pub fn is_on(&self) -> bool {
        self.current().is_some()
    }

    fn current(&self) -> Option<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a new connection readable. The caller limits the time: the other side may say nothing for ever.
    ///
    /// # Errors
    /// The handshake failed: see [`super::explain`].
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let Some(current) = self.current() else {
            return Ok(Accepted { stream: Box::new(stream), client: None });
        };
        let stream = TlsAcceptor::from(current.config).accept(stream).await?;
        // The client's last word of the handshake needs no answer, so its receipt would be told 40 ms later; many clients
        // (Python's) hold their request back until then. When the system refuses, that is all.
        rustix::net::sockopt::set_tcp_quickack(stream.get_ref().0, true).ok();
        let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
        let client = current.wants_certificate.then_some(ClientCertificate(has_certificate));
        Ok(Accepted { stream: Box::new(stream), client })
    }
}

fn read(files: &TlsFiles) -> Result<Option<Current>, TlsError> {
    let Some(certfile) = &files.certfile else { return Ok(None) };
    let verify = match &files.verify_client {
        None => VerifyClient::None,
        Some(word) => VerifyClient::parse(word).ok_or_else(|| {
            TlsError::Settings("restapi.verify_client must be none, optional or required".to_owned())
        })?,
    };
    let certificate = Named { key: "restapi.certfile", path: certfile };
    let chain = files::certificates(certificate)?;
    let keyfile = match &files.keyfile {
        Some(path) => Named { key: "restapi.keyfile", path },
        None => certificate,
    };
    let password = files.keyfile_password.as_ref().map(Secret::expose);
    let key = files::private_key(keyfile, password, "restapi.keyfile_password")?;
    let provider = Arc::new(CryptoProvider {
        cipher_suites: cipher_suites(files.ciphers.as_deref()),
        ..rustls::crypto::ring::default_provider()
    });
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Settings(format!("restapi.ciphers: {source}")))?;
    let builder = match verify {
        VerifyClient::None => builder.with_no_client_auth(),
        VerifyClient::Optional | VerifyClient::Required => {
            builder.with_client_cert_verifier(of_clients(files.cafile.as_deref(), verify)?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Pair { path: certfile.clone(), reason: source.to_string() })?;
    // A resumed session would bring back a client certificate that is not accepted any more.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(Current { config: Arc::new(config), wants_certificate: verify != VerifyClient::None }))
}

fn of_clients(cafile: Option<&Path>, verify: VerifyClient) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = cafile else {
        return Err(TlsError::Settings(
            "restapi.verify_client needs restapi.cafile: the certificate of who signs the clients' certificates"
                .to_owned(),
        ));
    };
    let file = Named { key: "restapi.cafile", path };
    let pinned = files::certificates(file)?;
    let roots = files::roots(file, &pinned)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match verify {
        VerifyClient::Required => builder,
        VerifyClient::None | VerifyClient::Optional => builder.allow_unauthenticated(),
    };
    let chain = builder.build().map_err(|source| TlsError::Settings(format!("restapi.cafile: {source}")))?;
    Ok(Arc::new(OfClients { chain, pinned }))
}

/// The suites of `ciphers`, a list in OpenSSL's words. Words for whole classes (`HIGH`, `!aNULL`) change nothing: only
/// suites which all of them allow are there. As with OpenSSL, those of TLS 1.3 cannot be taken out this way.
fn cipher_suites(words: Option<&str>) -> Vec<SupportedCipherSuite> {
    let all = rustls::crypto::ring::ALL_CIPHER_SUITES;
    let Some(words) = words else { return rustls::crypto::ring::DEFAULT_CIPHER_SUITES.to_vec() };
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    let mut unknown = Vec::new();
    for word in words.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        match all.iter().find(|suite| openssl_name(suite).eq_ignore_ascii_case(word)) {
            Some(suite) if chosen.contains(suite) => {}
            Some(suite) => chosen.push(*suite),
            None if word.starts_with(['!', '-', '+', '@']) => {}
            None => unknown.push(word),
        }
    }
    if !unknown.is_empty() {
        warn!(
            "restapi.ciphers: {} cannot be honoured and {}; only ECDHE suites with AES-GCM or ChaCha20 are offered",
            unknown.join(", "),
            if chosen.is_empty() { "all suites stay" } else { "the other names count" }
        );
    }
    if chosen.is_empty() {
        return rustls::crypto::ring::DEFAULT_CIPHER_SUITES.to_vec();
    }
    let of_tls13 = all.iter().filter(|suite| suite.tls13().is_some() && !chosen.contains(suite));
    let mut suites: Vec<SupportedCipherSuite> = of_tls13.copied().collect();
    suites.append(&mut chosen);
    suites
}

/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is OpenSSL's `ECDHE-RSA-AES128-GCM-SHA256`; those of TLS 1.3 have one name.
fn openssl_name(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    if name.starts_with("TLS13_") {
        return name.replacen("TLS13_", "TLS_", 1);
    }
    let name =
        name.trim_start_matches("TLS_").replace("_WITH_", "_").replace("_POLY1305_SHA256", "_POLY1305");
    name.replace("AES_", "AES").replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_by_the_names_of_openssl() {
        let names = |words: &str| -> Vec<String> {
            cipher_suites(Some(words)).iter().filter(|s| s.tls13().is_none()).map(openssl_name).collect()
        };
        let two = ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"];
        assert_eq!(names(&two.join(":")), two);
        assert_eq!(names("HIGH:!aNULL:ECDHE-ECDSA-AES128-GCM-SHA256"), ["ECDHE-ECDSA-AES128-GCM-SHA256"]);
        assert_eq!(names("HIGH:!aNULL").len(), 6);
        assert_eq!(names("TLS_AES_256_GCM_SHA384").len(), 0);
        assert_eq!(cipher_suites(Some("TLS_AES_256_GCM_SHA384")).len(), 3);
    }

    #[test]
    fn the_words_of_verify_client() {
        assert_eq!(VerifyClient::parse("Required"), Some(VerifyClient::Required));
        assert_eq!(VerifyClient::parse("sometimes"), None);
    }
}
