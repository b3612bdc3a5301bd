//! Certificates, keys and revocation lists from PEM files.

use std::path::{Path, PathBuf};

use ring::digest;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::error::TlsError;

/// The most bytes of a file: the largest bundles of CA certificates have some hundred kilobytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;
const LOCKED: &str = "ENCRYPTED PRIVATE KEY";
/// How OpenSSL marks its older form of encrypted keys, which is weak.
const LOCKED_OLD: &str = "Proc-Type: 4,ENCRYPTED";
/// Where distributions keep the CA certificates that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A file, and the key of the configuration that names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) key: &'a str,
    pub(super) path: &'a Path,
}

impl Named<'_> {
    pub(super) fn read(self) -> Result<Vec<u8>, TlsError> {
        let failed = |source| TlsError::Read { key: self.key.to_owned(), path: self.path.to_owned(), source };
        let size = std::fs::metadata(self.path).map_err(failed)?.len();
        if size > MAX_FILE {
            return Err(self.content("PEM", format!("it has {size} bytes, more than {MAX_FILE}")));
        }
        std::fs::read(self.path).map_err(failed)
    }

    fn content(self, wanted: &'static str, reason: String) -> TlsError {
        TlsError::Content { key: self.key.to_owned(), path: self.path.to_owned(), wanted, reason }
    }

    fn locked(self, reason: impl Into<String>) -> TlsError {
        TlsError::Locked { path: self.path.to_owned(), reason: reason.into() }
    }
}

/// All certificates of a file, in its order.
pub(super) fn certificates(file: Named<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = file.read()?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(file.content("certificate", "none was found".to_owned())),
        Ok(found) => Ok(found),
        Err(source) => Err(file.content("certificate", source.to_string())),
    }
}

/// All revocation lists of a file.
pub(super) fn revocation_lists(
    file: Named<'_>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let text = file.read()?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(file.content("revocation list", "none was found".to_owned())),
        Ok(found) => Ok(found),
        Err(source) => Err(file.content("revocation list", source.to_string())),
    }
}

/// The key of a file, decrypted. `password_key` is the key of the configuration which gives the password.
pub(super) fn private_key(
    file: Named<'_>,
    password: Option<&str>,
    password_key: &str,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = file.read()?;
    if contains(&text, LOCKED) {
        return unlock(file, &text, password, password_key);
    }
    if contains(&text, LOCKED_OLD) {
        return Err(file.locked(
            "it is in OpenSSL's old form; write it anew with `openssl pkcs8 -topk8 -in OLD -out NEW`",
        ));
    }
    if !contains(&text, "-----BEGIN") {
        // The drivers of PostgreSQL take DER as well.
        return PrivateKeyDer::try_from(text)
            .map_err(|reason| file.content("private key", reason.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| file.content("private key", source.to_string()))
}

fn contains(text: &[u8], words: &str) -> bool {
    text.windows(words.len()).any(|window| window == words.as_bytes())
}

fn unlock(
    file: Named<'_>,
    text: &[u8],
    password: Option<&str>,
    password_key: &str,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let Some(password) = password else {
        return Err(file.locked(format!("it needs a password: set {password_key}")));
    };
    let text = std::str::from_utf8(text).map_err(|source| file.content("private key", source.to_string()))?;
    // What is below the label is the same base64 for both kinds, and only one of them is known to the reader.
    let from = text.find(&format!("-----BEGIN {LOCKED}")).and_then(|at| text.get(at..)).unwrap_or(text);
    let der = PrivatePkcs8KeyDer::from_pem_slice(from.replace(LOCKED, "PRIVATE KEY").as_bytes())
        .map_err(|source| file.content("private key", source.to_string()))?;
    let locked = pkcs8::EncryptedPrivateKeyInfoRef::try_from(der.secret_pkcs8_der())
        .map_err(|source| file.content("private key", source.to_string()))?;
    let key = locked.decrypt(password).map_err(|source| {
        file.locked(format!(
            "{source}; check {password_key}, or write the key anew with `openssl pkcs8 -topk8 -in OLD -out NEW`"
        ))
    })?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec())))
}

/// The certificates as something to believe in. One which the library cannot read is left out, unless none is left.
pub(super) fn roots(
    file: Named<'_>,
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut last = None;
    for certificate in certificates {
        if let Err(source) = roots.add(certificate.clone()) {
            last = Some(source);
        }
    }
    match last {
        Some(source) if roots.is_empty() => Err(file.content("CA certificate", source.to_string())),
        Some(_) | None => Ok(roots),
    }
}

/// The CA certificates which this system trusts: `SSL_CERT_FILE`, or the distribution's bundle.
pub(super) fn system_bundle() -> Result<PathBuf, TlsError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundles = SYSTEM_BUNDLES.iter().map(PathBuf::from);
    named.into_iter().chain(bundles).find(|path| path.is_file()).ok_or_else(|| {
        TlsError::Settings(
            "this system has no CA certificates; install the package ca-certificates, or name the CA's file"
                .to_owned(),
        )
    })
}

/// The channel binding `tls-server-end-point` of a certificate (RFC 5929): its digest by the hash of its own signature,
/// SHA-256 in the place of weaker ones. None: the signature has no hash of its own, or one that is not known.
pub fn end_point_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, ... }, signature }
    let (_, whole, _) = element(certificate)?;
    let (_, _, behind_tbs) = element(whole)?;
    let (_, algorithm, _) = element(behind_tbs)?;
    let (tag, oid, _) = element(algorithm)?;
    if tag != 0x06 {
        return None;
    }
    // The last arc tells the hash: 1.2.840.113549.1.1.x is RSA, 1.2.840.10045.4.3.x ECDSA.
    let hash = match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13] => &digest::SHA512,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => {
            &digest::SHA256
        }
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// Tag, content and what follows, of the first DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}
