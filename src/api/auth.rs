//! HTTP Basic with the name and password of `restapi.authentication`.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::reply::Reply;

/// A name and a password. Never shown.
#[derive(Clone)]
pub struct Credentials {
    pub(super) username: String,
    /// `Basic ` and the base64 text: what a request's header must be.
    expected: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// From name and password.
    pub fn new(username: &str, password: &str) -> Self {
        Self { username: username.to_owned(), expected: basic(username, password) }
    }

    fn matches(&self, given: &[u8]) -> bool {
        let expected = self.expected.as_bytes();
        // The scheme's case does not matter (RFC 9110, 11.1); the comparison does not stop at the first difference.
        let same_scheme = given.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Basic "));
        let (given, expected) = (given.get(6..).unwrap_or_default(), expected.get(6..).unwrap_or_default());
        let differing = given.iter().zip(expected).fold(0, |all, (a, b)| all | (a ^ b));
        same_scheme && given.len() == expected.len() && differing == 0
    }
}

/// The header `Authorization` of a request; none: they cannot be written into a header.
pub fn authorization(username: &str, password: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&basic(username, password)).ok()
}

/// The value of the `Authorization` header (RFC 7617).
pub(super) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{username}:{password}").as_bytes()))
}

/// Refuses with Patroni's codes and texts, and its realm, which clients may keep passwords for.
pub(super) fn check(credentials: Option<&Credentials>, headers: &HeaderMap) -> Result<(), Reply> {
    let Some(credentials) = credentials else { return Ok(()) };
    let refuse = |text: &str| {
        Reply::text(StatusCode::UNAUTHORIZED, text)
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Patroni\""))
    };
    let given = headers.get(header::AUTHORIZATION).ok_or_else(|| refuse("no auth header received"))?;
    if credentials.matches(given.as_bytes()) { Ok(()) } else { Err(refuse("not authenticated")) }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4_u32 {
            let six = usize::try_from(word >> (18 - 6 * i) & 63).unwrap_or(0);
            let is_padding = usize::try_from(i).is_ok_and(|i| i > chunk.len());
            let letter = ALPHABET.get(six).copied().unwrap_or(b'=');
            text.push(char::from(if is_padding { b'=' } else { letter }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn only_the_right_password_matches() {
        let credentials = Credentials::new("admin", "secret");
        assert!(credentials.matches(basic("admin", "secret").as_bytes()));
        assert!(credentials.matches(basic("admin", "secret").replace("Basic", "basic").as_bytes()));
        for wrong in
            [basic("admin", "secre"), basic("admin", "secret2"), "Bearer x".to_owned(), String::new()]
        {
            assert!(!credentials.matches(wrong.as_bytes()), "{wrong}");
        }
    }
}
