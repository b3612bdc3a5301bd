//! Who may speak on the peers' port: whoever has the password.
//!
//! ```text
//! password --scrypt--> seed --> one Ed25519 key for all members
//! TLS 1.3: both sides show their public key, and believe exactly the own one
//! ```
//!
//! There are no certificates, so nothing expires and nothing has to be renewed. An onlooker learns nothing of the password;
//! who connects sees the public key, and can try passwords on it at leisure: hence the slow way from one to the other.
//!
//! Owns the keys. Promises: with a password, nothing is read from or said to a peer that does not have it. Must never show
//! the password or what was derived from it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use crate::clock;
use crate::config::{Raft, Secret};
use crate::lease::BootTime;

/// The cost of trying a password: about 32 MiB, and a quarter of a second of one core. Every member must have the same.
const LOG_N: u8 = 15;
const R: u32 = 8;
const P: u32 = 3;
/// The same for all clusters: a witness serves many of them on one port, which has one key.
const SALT: &[u8] = b"pgherd peers' port, key of version 1";
/// What stands before the seed in the file format of Ed25519 keys (RFC 8410).
const ED25519_HEADER: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const SEED: usize = 32;
/// How often the same address is complained about, and how many are remembered for that.
pub(super) const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
pub(super) const MAX_COMPLAINTS: usize = 64;

/// How a member's peers' port and its calls to others are secured. Cheap to clone.
#[derive(Clone, Default)]
pub struct PeerSecurity(Option<Arc<Keys>>);

struct Keys {
    /// When an address was last complained about.
    complaints: Mutex<BTreeMap<String, BootTime>>,
    #[cfg(test)]
    public: CertificateDer<'static>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for PeerSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "PeerSecurity(password)" } else { "PeerSecurity(none)" })
    }
}

/// The password cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the key of the peers' port from raft.password: {0}")]
pub struct SecurityError(String);

impl PeerSecurity {
    /// Everybody who reaches the port may speak, and read.
    pub fn none() -> Self {
        Self(None)
    }

    /// What the configuration says. Takes about a quarter of a second when there is a password.
    ///
    /// # Errors
    /// No key can be made of it.
    pub fn of(raft: &Raft) -> Result<Self, SecurityError> {
        raft.password.as_ref().map_or(Ok(Self::none()), Self::from_password)
    }

    /// Only who has the same password may speak. Takes about a quarter of a second.
    ///
    /// # Errors
    /// No key can be made of it.
    pub fn from_password(password: &Secret) -> Result<Self, SecurityError> {
        let failed = |source: &dyn fmt::Display| SecurityError(source.to_string());
        let mut seed = [0; SEED];
        let params = scrypt::Params::new(LOG_N, R, P).map_err(|source| failed(&source))?;
        scrypt::scrypt(password.expose().as_bytes(), SALT, &params, &mut seed)
            .map_err(|source| failed(&source))?;
        let mut file = ED25519_HEADER.to_vec();
        file.extend_from_slice(&seed);
        seed.fill(0);
        let keys = Keys::new(PrivatePkcs8KeyDer::from(file)).map_err(|source| failed(&source))?;
        Ok(Self(Some(Arc::new(keys))))
    }

    /// For the acceptor; none: connections are taken as they are.
    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.0.as_ref().map(|keys| Arc::clone(&keys.server))
    }

    /// For calls; none: nothing is encrypted.
    pub(super) fn connector(&self) -> Option<Connector> {
        self.0.as_ref().map(|keys| Connector { keys: Arc::clone(keys) })
    }
}

impl Keys {
    fn new(key: PrivatePkcs8KeyDer<'static>) -> Result<Self, Error> {
        let provider = Arc::new(provider::default_provider());
        let signing = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(key))?;
        let public = signing.public_key().ok_or_else(|| Error::General("it has no public key".to_owned()))?;
        let public = CertificateDer::from(public.as_ref().to_vec());
        let verifier = Arc::new(SameKey {
            public: public.clone(),
            algorithms: provider.signature_verification_algorithms,
        });
        #[cfg(test)]
        let shown = public.clone();
        let certified = Arc::new(CertifiedKey::new(vec![public], signing));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&certified))));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self {
            complaints: Mutex::default(),
            #[cfg(test)]
            public: shown,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

impl Keys {
    /// Tells the operator; the members are called again and again.
    fn complain(&self, uri: &Uri, why: &str) {
        let now = clock::now();
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.retain(|_, at| now.since(*at) < COMPLAIN_EVERY);
        let addr = uri.authority().map(ToString::to_string).unwrap_or_default();
        if complaints.len() < MAX_COMPLAINTS && !complaints.contains_key(&addr) {
            tracing::warn!("cannot speak to the peers' port at {addr}: {why}");
            complaints.insert(addr, now);
        }
    }
}

/// Believes who shows the own public key; that it has the private one too is proven by its signature of the handshake.
/// The two directions sign different words, so nobody's signature can be sent back to him.
#[derive(Debug)]
struct SameKey {
    public: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SameKey {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        // A public key is no secret: the time which the comparison takes tells nothing.
        if *shown == self.public {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

impl ServerCertVerifier for SameKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for SameKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Opens encrypted connections for the transport.
#[derive(Clone)]
pub(super) struct Connector {
    keys: Arc<Keys>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let keys = Arc::clone(&self.keys);
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
            stream.set_nodelay(true)?;
            // It is not sent, and nobody looks at it: the key is what counts.
            let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
            match TlsConnector::from(Arc::clone(&keys.client)).connect(name, stream).await {
                Ok(stream) => Ok(TokioIo::new(stream)),
                Err(error) => {
                    let why = of_caller(&error);
                    keys.complain(&uri, &why);
                    Err(io::Error::new(error.kind(), why))
                }
            }
        })
    }
}

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

/// Why a call was not possible, for who called.
fn of_caller(error: &io::Error) -> String {
    const CURE: &str = "raft.password has to be the same on all members";
    match cause(error) {
        Some(Error::InvalidCertificate(_) | Error::AlertReceived(AlertDescription::AccessDenied)) => {
            format!("it has another raft.password; {CURE}")
        }
        Some(Error::InvalidMessage(_)) => format!("it has no raft.password, or is no peers' port; {CURE}"),
        Some(other) => format!("no encryption could be agreed on ({other}); {CURE}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("it does not take encrypted connections, it has no raft.password; {CURE}")
        }
        None => error.to_string(),
    }
}

/// Why a connection was not taken, for who listens; none: it only ended.
#[expect(clippy::wildcard_enum_match_arm, reason = "what rustls may say besides is told in its own words")]
pub(super) fn of_listener(error: &io::Error) -> Option<String> {
    match cause(error)? {
        Error::InvalidCertificate(_)
        | Error::AlertReceived(AlertDescription::AccessDenied | AlertDescription::BadCertificate) => {
            Some("it has another raft.password".to_owned())
        }
        other => Some(format!("it is no member with a raft.password ({other})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_gives_one_key_and_shows_nothing() {
        let key = |password: &str| {
            let security = PeerSecurity::from_password(&Secret::new(password)).expect("a key");
            assert_eq!(format!("{security:?}"), "PeerSecurity(password)");
            security.0.expect("keys").public.clone()
        };
        let of_a = key("a");
        assert_eq!(key("a"), of_a);
        assert_ne!(key("b"), of_a);
        // Members of different versions have to come to the same key.
        let digits: String = of_a.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            digits,
            "302a300506032b6570032100d7f81fe19c946a24864c0127482bfa3972fcf4d94a949be77b344946e09d0058"
        );
        assert!(PeerSecurity::none().server().is_none());
    }
}
