//! The client's side: what it believes, and who it says that it is.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pgherd_raft::config::Secret;
use rustls::ClientConfig;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::TlsError;
use super::files::{self, Named};
use super::provider;
use super::verify::{OfServers, Pinned};

/// What of a server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// Nothing: whoever answers is believed.
    Nothing,
    /// Who signed it, and its period.
    Chain,
    /// The same, and that it is for the name which was called.
    #[default]
    All,
}

/// Whose signature counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The CAs which the system trusts.
    #[default]
    System,
    /// Those of this file only.
    File(PathBuf),
}

/// How a client connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// What is checked.
    pub checks: Checks,
    /// Whose signature counts.
    pub trust: Trust,
    /// Revocation lists. With any, a certificate of a CA without a list is refused.
    pub revoked: Vec<PathBuf>,
    /// The own certificate, when servers want one.
    pub certfile: Option<PathBuf>,
    /// Its key; none: it is in the same file.
    pub keyfile: Option<PathBuf>,
    /// The key's password.
    pub keyfile_password: Option<Secret>,
    /// What is told to the server about the protocol within; usually nothing.
    pub protocol: Option<&'static str>,
    /// What the keys of the configuration are called in messages.
    pub names: Names,
}

/// What the keys of the configuration are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The own certificate.
    pub certfile: &'static str,
    /// Its key.
    pub keyfile: &'static str,
    /// The key's password.
    pub keyfile_password: &'static str,
    /// The CA certificates.
    pub trust: &'static str,
    /// The revocation lists.
    pub revoked: &'static str,
}

impl Names {
    /// Those of the section `ctl`.
    pub const CTL: Self = Self {
        certfile: "ctl.certfile",
        keyfile: "ctl.keyfile",
        keyfile_password: "ctl.keyfile_password",
        trust: "ctl.cacert",
        revoked: "",
    };
    /// Those of connections to PostgreSQL.
    pub const POSTGRES: Self = Self {
        certfile: "sslcert",
        keyfile: "sslkey",
        keyfile_password: "sslpassword",
        trust: "sslrootcert",
        revoked: "sslcrl",
    };
}

impl Default for Names {
    fn default() -> Self {
        Self::CTL
    }
}

/// A client, ready to connect. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read or used.
    pub fn load(settings: &ClientSettings) -> Result<Self, TlsError> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let (chain, pinned) = match settings.checks {
            Checks::Nothing => (None, Pinned::new()),
            Checks::Chain | Checks::All => {
                let (chain, pinned) = believed(settings)?;
                (Some(chain), pinned)
            }
        };
        let checks_name = settings.checks == Checks::All;
        let verifier = OfServers { chain, pinned, checks_name, algorithms };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Settings(source.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &settings.certfile {
            None => builder.with_no_client_auth(),
            Some(certfile) => {
                let certificate = Named { key: settings.names.certfile, path: certfile };
                let chain = files::certificates(certificate)?;
                let keyfile = match &settings.keyfile {
                    Some(path) => Named { key: settings.names.keyfile, path },
                    None => certificate,
                };
                let password = settings.keyfile_password.as_ref().map(Secret::expose);
                let key = files::private_key(keyfile, password, settings.names.keyfile_password)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|source| TlsError::Pair { path: certfile.clone(), reason: source.to_string() })?
            }
        };
        // A resumed session is not checked again: it could outlive a certificate that was replaced.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = settings.protocol.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { config: Arc::new(config) })
    }

    /// Encrypts a connection to `host`, a name or an address.
    ///
    /// # Errors
    /// The server is not believed, does not believe this client, or speaks no TLS: see [`super::explain`].
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
    ) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name of a host"))
        })?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

fn believed(settings: &ClientSettings) -> Result<(Arc<WebPkiServerVerifier>, Pinned), TlsError> {
    let path = match &settings.trust {
        Trust::File(path) => path.clone(),
        Trust::System => files::system_bundle()?,
    };
    let file = Named { key: settings.names.trust, path: &path };
    let certificates = files::certificates(file)?;
    let roots = files::roots(file, &certificates)?;
    let mut revoked = Vec::new();
    for path in &settings.revoked {
        revoked.extend(files::revocation_lists(Named { key: settings.names.revoked, path })?);
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .with_crls(revoked)
        .build()
        .map_err(|source| TlsError::Settings(format!("{}: {source}", settings.names.trust)))?;
    let pinned = match &settings.trust {
        Trust::File(_) => certificates,
        // Nobody's own certificate is among them.
        Trust::System => Pinned::new(),
    };
    Ok((chain, pinned))
}
