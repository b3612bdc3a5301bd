//! Encryption of sessions: libpq's words (`sslmode` and the like) for the driver.
//!
//! As in libpq: `require` with a root certificate checks who signed the server's; `prefer` goes on without encryption when
//! the server refuses it, `allow` begins without; files in `~/.postgresql` are used when nothing else is named. The own
//! connections know no GSSAPI: `gssencmode` is for PostgreSQL's programs only.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use pgherd_raft::config::Secret;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::tls;

use super::settings::Credentials;
use crate::tls::{ByteStream, Checks, ClientSettings, ClientTls, Names, Trust, end_point_digest, explain};

/// One way to connect.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    Plain,
    Encrypted(Encryption),
}

/// How a connection is encrypted.
#[derive(Clone, Debug)]
pub(super) struct Encryption {
    pub(super) tls: ClientTls,
    mode: SslMode,
    negotiation: SslNegotiation,
}

/// The way to connect, and another one for when the first fails because of the encryption.
pub(super) type Ways = (Attempt, Option<Attempt>);

/// The ways to connect over TCP. Reads files.
///
/// # Errors
/// The options contradict each other, or a file cannot be used: with the cure.
pub(super) fn ways(credentials: &Credentials, home: Option<&Path>) -> Result<Ways, String> {
    let option =
        |name: &str| credentials.options.get(name).map(String::as_str).filter(|text| !text.is_empty());
    if option("gssencmode") == Some("require") {
        return Err(
            "gssencmode=require is not supported for pgherd's own connections; use prefer, or TLS".to_owned()
        );
    }
    let root = option("sslrootcert");
    let mode = match (option("sslmode"), root) {
        // libpq: the system's certificates are for anybody, so the name has to fit.
        (None, Some("system")) => "verify-full",
        (Some(mode), Some("system")) if mode != "verify-full" => {
            return Err(format!("sslrootcert=system needs sslmode=verify-full, not {mode}"));
        }
        (mode, _) => mode.unwrap_or("prefer"),
    };
    let encrypted = |ssl_mode| -> Result<Attempt, String> {
        Ok(Attempt::Encrypted(Encryption {
            tls: load(&credentials.options, credentials.sslpassword.as_ref(), mode, home)?,
            mode: ssl_mode,
            negotiation: match option("sslnegotiation") {
                Some("direct") => SslNegotiation::Direct,
                Some(_) | None => SslNegotiation::Postgres,
            },
        }))
    };
    if option("sslnegotiation") == Some("direct") && matches!(mode, "disable" | "allow" | "prefer") {
        return Err(format!("sslnegotiation=direct needs sslmode=require or more, not {mode}"));
    }
    Ok(match mode {
        "disable" => NOT_ENCRYPTED,
        "allow" => (Attempt::Plain, Some(encrypted(SslMode::Require)?)),
        "prefer" => (encrypted(SslMode::Prefer)?, Some(Attempt::Plain)),
        "require" | "verify-ca" | "verify-full" => (encrypted(SslMode::Require)?, None),
        other => {
            return Err(format!(
                "sslmode={other} is none of disable, allow, prefer, require, verify-ca and verify-full"
            ));
        }
    })
}

/// The way through a socket, where libpq never encrypts.
pub(super) const NOT_ENCRYPTED: Ways = (Attempt::Plain, None);

fn load(
    options: &BTreeMap<String, String>,
    sslpassword: Option<&super::Secret>,
    mode: &str,
    home: Option<&Path>,
) -> Result<ClientTls, String> {
    let usual = |name: &str| home.map(|home| home.join(".postgresql").join(name));
    let named = |option: &str, name: &str| {
        let given = options.get(option).filter(|text| !text.is_empty()).map(PathBuf::from);
        given.or_else(|| usual(name))
    };
    let present = |option: &str, name: &str| named(option, name).filter(|path| path.exists());
    let is_verified = matches!(mode, "verify-ca" | "verify-full");
    let root = named("sslrootcert", "root.crt");
    let trust = match &root {
        Some(path) if path == Path::new("system") => Some(Trust::System),
        Some(path) if path.exists() || is_verified => Some(Trust::File(path.clone())),
        Some(_) => None,
        None if is_verified => return Err(format!("sslmode={mode} needs sslrootcert")),
        None => None,
    };
    let checks = match (&trust, mode) {
        (None, _) => Checks::Nothing,
        (Some(_), "verify-full") => Checks::All,
        (Some(_), _) => Checks::Chain,
    };
    let certfile = present("sslcert", "postgresql.crt");
    let mut revoked: Vec<PathBuf> = present("sslcrl", "root.crl").into_iter().collect();
    if let Some(directory) = options.get("sslcrldir").filter(|text| !text.is_empty()) {
        revoked.extend(files_of(Path::new(directory))?);
    }
    let settings = ClientSettings {
        checks,
        trust: trust.unwrap_or_default(),
        revoked,
        keyfile: certfile.as_ref().and_then(|_| named("sslkey", "postgresql.key")),
        certfile,
        keyfile_password: sslpassword.map(|word| Secret::new(word.expose())),
        // What servers from 17 on expect, and others do not look at.
        protocol: Some("postgresql"),
        names: Names::POSTGRES,
    };
    ClientTls::load(&settings).map_err(|error| error.to_string())
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |source: io::Error| format!("cannot read {} (sslcrldir): {source}", directory.display());
    let entries: Result<Vec<_>, _> = std::fs::read_dir(directory).map_err(failed)?.collect();
    let mut files: Vec<PathBuf> = entries.map_err(failed)?.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// What of the options is the driver's own.
pub(super) fn configure(config: &mut Config, credentials: &Credentials) {
    config.channel_binding(match credentials.options.get("channel_binding").map(String::as_str) {
        Some("disable") => ChannelBinding::Disable,
        Some("require") => ChannelBinding::Require,
        Some(_) | None => ChannelBinding::Prefer,
    });
}

impl Encryption {
    pub(super) fn configure(&self, config: &mut Config) {
        config.ssl_mode(self.mode).ssl_negotiation(self.negotiation);
    }
}

/// May another way of connecting have more success? As in libpq: when the server let nobody in this way, or there was no
/// agreement about encryption.
pub(super) fn is_about_encryption(error: &tokio_postgres::Error) -> bool {
    if let Some(said) = error.as_db_error() {
        return said.code() == &tokio_postgres::error::SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
    }
    std::error::Error::source(error).is_some_and(|source| source.is::<HandshakeFailed>())
}

/// No encryption.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct HandshakeFailed(String);

/// Encrypts for one host.
#[derive(Clone, Debug)]
pub(super) struct ToHost {
    tls: ClientTls,
    host: String,
}

/// Encrypts for any host.
#[derive(Clone, Debug)]
pub(super) struct ToAnyHost(pub(super) ClientTls);

impl<S: ByteStream + 'static> tls::MakeTlsConnect<S> for ToAnyHost {
    type Stream = Encrypted;
    type TlsConnect = ToHost;
    type Error = HandshakeFailed;

    fn make_tls_connect(&mut self, host: &str) -> Result<ToHost, HandshakeFailed> {
        Ok(ToHost { tls: self.0.clone(), host: host.to_owned() })
    }
}

impl<S: ByteStream + 'static> tls::TlsConnect<S> for ToHost {
    type Stream = Encrypted;
    type Error = HandshakeFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted, HandshakeFailed>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let stream = self.tls.connect(stream, &self.host).await;
            let stream = stream.map_err(|error| HandshakeFailed(explain(&error)))?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let binding = certificate.and_then(|certificate| end_point_digest(certificate));
            Ok(Encrypted { stream: Box::new(stream), binding })
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted {
    stream: Box<dyn ByteStream>,
    binding: Option<Vec<u8>>,
}

impl tls::TlsStream for Encrypted {
    fn channel_binding(&self) -> tls::ChannelBinding {
        match &self.binding {
            Some(digest) => tls::ChannelBinding::tls_server_end_point(digest.clone()),
            None => tls::ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[(&str, &str)]) -> Credentials {
        let mut credentials = Credentials::new("postgres", None);
        credentials.options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        credentials
    }

    fn ways(options: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let (first, second) = super::ways(&with(options), None)?;
        let name = |way: &Attempt| match way {
            Attempt::Plain => "plain".to_owned(),
            Attempt::Encrypted(encryption) => format!("{:?}", encryption.mode),
        };
        Ok([Some(first), second].iter().flatten().map(name).collect())
    }

    #[test]
    fn each_mode_has_its_ways() {
        let mode = |mode| ways(&[("sslmode", mode)]).expect("a mode");
        assert_eq!(mode("disable"), ["plain"]);
        assert_eq!(mode("allow"), ["plain", "Require"]);
        assert_eq!(mode("prefer"), ["Prefer", "plain"]);
        assert_eq!(ways(&[]).expect("the default"), mode("prefer"));
        assert_eq!(mode("require"), ["Require"]);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |options: &[(&str, &str)]| ways(options).expect_err("refused");
        assert!(refused(&[("sslmode", "verify-ca")]).contains("needs sslrootcert"));
        assert!(refused(&[("sslmode", "always")]).contains("none of disable"));
        assert!(refused(&[("sslrootcert", "system"), ("sslmode", "require")]).contains("verify-full"));
        assert!(refused(&[("sslnegotiation", "direct")]).contains("require or more"));
        assert!(refused(&[("gssencmode", "require")]).contains("not supported"));
        let missing = refused(&[("sslmode", "verify-full"), ("sslrootcert", "/missing/root.crt")]);
        assert!(missing.contains("/missing/root.crt (sslrootcert)"), "{missing}");
        assert!(ways(&[("sslmode", "require"), ("sslrootcert", "/missing/root.crt")]).is_ok());
    }
}
