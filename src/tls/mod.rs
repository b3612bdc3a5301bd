//! TLS for the REST API, for its clients, and for connections to PostgreSQL.
//!
//! Owns certificates, keys and who is believed. Promises: a certificate is checked for its period, its name (where the
//! caller wants that), the signatures of its chain, and that the other side holds its key; a configuration that cannot
//! work is refused when it is loaded, with the file and the cure. Must never show a key or its password.
//!
//! One deviation from rustls: a certificate that is itself one of the configured CA certificates, byte for byte, is
//! taken although it may be a CA's (see [`verify`]). Self-signed certificates made by `openssl req -x509` are such ones.
//!
//! The peers' port has its own way, without certificates: see `pgherd_raft::network`.

mod client;
mod error;
mod files;
mod server;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use tokio::io::{AsyncRead, AsyncWrite};

pub use client::{Checks, ClientSettings, ClientTls, Names, Trust};
pub use error::{TlsError, explain};
pub use files::end_point_digest;
pub use server::{Accepted, ClientCertificate, ServerTls, VerifyClient};

/// A connection, encrypted or not.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
