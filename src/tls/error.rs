//! What is wrong with certificates and keys, in words that name the cure.

#![expect(clippy::wildcard_enum_match_arm, reason = "what rustls may say besides is told in its own words")]

use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError};

use super::verify::is_ca_as_end_entity;

/// A configuration of TLS that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "cannot read {} ({key}): {source}; check the path, and that the user who runs pgherd may read it",
        .path.display()
    )]
    Read {
        /// The key of the configuration.
        key: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file has something else in it.
    #[error("{} ({key}) holds no {wanted}: {reason}; it must be PEM", .path.display())]
    Content {
        /// The key of the configuration.
        key: String,
        /// The file.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
        /// What was found.
        reason: String,
    },
    /// The key needs a password, or another one.
    #[error("cannot decrypt the key in {}: {reason}", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Why, and the cure.
        reason: String,
    },
    /// The certificate and the key are not a pair, or of a kind that is not supported.
    #[error("cannot use the certificate {} with its key: {reason}", .path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A key of the configuration is missing, or has a value that is none.
    #[error("{0}")]
    Settings(String),
}

/// Why a handshake failed: rustls' own words, with what they mean here where they are about certificates.
pub fn explain(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(cause) = cause else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                "the other side ended the TLS handshake: it may speak no TLS".to_owned()
            }
            _ => error.to_string(),
        };
    };
    let meaning = match cause {
        cause if is_ca_as_end_entity(cause) => {
            Some("the other side shows a CA's certificate, which is not among the configured ones")
        }
        rustls::Error::InvalidCertificate(wrong) => certificate(wrong),
        rustls::Error::InvalidMessage(_) => Some("the other side speaks no TLS"),
        rustls::Error::AlertReceived(alert) => told(*alert),
        _ => None,
    };
    match meaning {
        Some(meaning) => format!("{meaning} ({cause})"),
        None => cause.to_string(),
    }
}

fn certificate(wrong: &CertificateError) -> Option<&'static str> {
    match wrong {
        CertificateError::UnknownIssuer => Some("no configured CA signed the other side's certificate"),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("the other side's certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("the other side's certificate is not valid yet")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("the other side's certificate is for other names")
        }
        CertificateError::Revoked => Some("the other side's certificate was revoked"),
        _ => None,
    }
}

fn told(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
            Some("the other side wants a client certificate, or has no cipher in common")
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired => {
            Some("the other side does not accept this side's certificate")
        }
        _ => None,
    }
}
