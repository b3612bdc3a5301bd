//! Handshakes between this module's own sides, with certificates of every kind.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{Secret, TlsFiles};

/// Files of one test.
struct Files {
    dir: TempDir,
}

/// A certificate's file and its key's.
#[derive(Clone)]
struct Pair {
    certfile: PathBuf,
    keyfile: PathBuf,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("writable");
        path
    }

    fn pair(&self, name: &str, certificate: &rcgen::Certificate, key: &KeyPair) -> Pair {
        Pair {
            certfile: self.write(&format!("{name}.crt"), &certificate.pem()),
            keyfile: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    /// What `openssl req -x509` makes: a CA's certificate, signed by itself.
    fn self_signed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        self.pair(name, &certificate, &key)
    }

    fn ca(&self, name: &str) -> (CertifiedIssuer<'static, KeyPair>, PathBuf) {
        let mut params = params(name);
        params.subject_alt_names.clear();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let path = self.write(&format!("{name}.crt"), &ca.pem());
        (ca, path)
    }

    fn signed(&self, name: &str, ca: &CertifiedIssuer<'static, KeyPair>) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(name).signed_by(&key, ca).expect("a certificate");
        self.pair(name, &certificate, &key)
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.subject_alt_names.push(SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn server(pair: &Pair, verify_client: &str, cafile: Option<&PathBuf>) -> ServerTls {
    ServerTls::load(&TlsFiles {
        certfile: Some(pair.certfile.clone()),
        keyfile: Some(pair.keyfile.clone()),
        cafile: cafile.cloned(),
        verify_client: Some(verify_client.to_owned()),
        ..TlsFiles::default()
    })
    .expect("a server")
}

fn client(checks: Checks, cafile: &Path, own: Option<&Pair>) -> ClientTls {
    ClientTls::load(&ClientSettings {
        checks,
        trust: Trust::File(cafile.to_owned()),
        certfile: own.map(|own| own.certfile.clone()),
        keyfile: own.map(|own| own.keyfile.clone()),
        ..ClientSettings::default()
    })
    .expect("a client")
}

/// Says a word to the other side and back; what the server found out about the client, or both sides' complaints.
async fn talk(
    server: &ServerTls,
    client: &ClientTls,
    name: &str,
) -> Result<Option<ClientCertificate>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let addr = listener.local_addr().expect("an address");
    let serving = async {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut accepted =
            server.accept(stream).await.map_err(|error| format!("server: {}", explain(&error)))?;
        let mut word = [0; 4];
        accepted.stream.read_exact(&mut word).await.map_err(|error| format!("server: {error}"))?;
        accepted.stream.write_all(&word).await.expect("writes");
        accepted.stream.shutdown().await.expect("ends");
        Ok(accepted.client)
    };
    let calling = async {
        let stream = TcpStream::connect(addr).await.expect("connects");
        let complain = |error: &std::io::Error| format!("client: {}", explain(error));
        let mut stream = client.connect(stream, name).await.map_err(|error| complain(&error))?;
        stream.write_all(b"word").await.map_err(|error| complain(&error))?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.map_err(|error| complain(&error))?;
        assert_eq!(&word, b"word");
        Ok(())
    };
    let (served, called): (Result<_, String>, Result<(), String>) = tokio::join!(serving, calling);
    match (served, called) {
        (Ok(client), Ok(())) => Ok(client),
        (served, called) => Err([served.err(), called.err()].map(Option::unwrap_or_default).join("\n")),
    }
}

#[tokio::test]
async fn a_signed_certificate_is_believed_for_its_names() {
    let files = Files::new();
    let (ca, cafile) = files.ca("ca");
    let server = server(&files.signed("server", &ca), "none", None);
    let careful = client(Checks::All, &cafile, None);
    assert_eq!(talk(&server, &careful, "localhost").await, Ok(None));
    assert_eq!(talk(&server, &careful, "127.0.0.1").await, Ok(None));
    let refused = talk(&server, &careful, "127.0.0.2").await.expect_err("another name");
    assert!(refused.contains("client: the other side's certificate is for other names"), "{refused}");
    assert_eq!(talk(&server, &client(Checks::Chain, &cafile, None), "127.0.0.2").await, Ok(None));
}

#[tokio::test]
async fn another_ca_is_not_believed_unless_nothing_is_checked() {
    let files = Files::new();
    let (ca, _) = files.ca("ca");
    let (_, other) = files.ca("other");
    let server = server(&files.signed("server", &ca), "none", None);
    for checks in [Checks::All, Checks::Chain] {
        let refused = talk(&server, &client(checks, &other, None), "localhost").await.expect_err("unknown");
        assert!(refused.contains("client: no configured CA signed"), "{refused}");
    }
    assert_eq!(talk(&server, &client(Checks::Nothing, &other, None), "localhost").await, Ok(None));
}

#[tokio::test]
async fn one_certificate_may_do_it_all() {
    let files = Files::new();
    let all = files.self_signed("all", |_| ());
    let server = server(&all, "required", Some(&all.certfile));
    for (checks, name) in
        [(Checks::All, "127.0.0.1"), (Checks::All, "localhost"), (Checks::Chain, "elsewhere")]
    {
        let known = client(checks, &all.certfile, Some(&all));
        assert_eq!(talk(&server, &known, name).await, Ok(Some(ClientCertificate(true))), "{checks:?} {name}");
    }
    let refused = talk(&server, &client(Checks::All, &all.certfile, Some(&all)), "elsewhere").await;
    assert!(refused.is_err_and(|why| why.contains("is for other names")));
}

#[tokio::test]
async fn a_ca_certificate_that_is_not_configured_is_no_end_entity() {
    let files = Files::new();
    let all = files.self_signed("all", |_| ());
    let alike = files.self_signed("all", |_| ());
    let own = files.self_signed("own", |_| ());
    let known = client(Checks::Chain, &own.certfile, Some(&all));
    assert!(talk(&server(&alike, "none", None), &known, "localhost").await.is_err());
    let stranger = client(Checks::Nothing, &own.certfile, Some(&own));
    let refused = talk(&server(&alike, "optional", Some(&alike.certfile)), &stranger, "localhost").await;
    assert!(refused.as_ref().is_err_and(|why| why.contains("server: ")), "{refused:?}");
}

#[tokio::test]
async fn a_configured_ca_certificate_has_to_be_within_its_period() {
    let files = Files::new();
    let old = files.self_signed("old", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = files.self_signed("early", |params| params.not_before = date_time_ymd(2090, 1, 1));
    for (pair, words) in [(&old, "has expired"), (&early, "is not valid yet")] {
        let known = client(Checks::Chain, &pair.certfile, None);
        let refused = talk(&server(pair, "none", None), &known, "localhost").await.expect_err("not now");
        assert!(refused.contains(words), "{refused}");
        let insecure = client(Checks::Nothing, &pair.certfile, Some(pair));
        let server = server(pair, "required", Some(&pair.certfile));
        let refused = talk(&server, &insecure, "localhost").await.expect_err("not now");
        assert!(refused.contains("server: ") && refused.contains(words), "{refused}");
    }
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    let files = Files::new();
    let (ca, cafile) = files.ca("ca");
    let (other, _) = files.ca("other");
    let pair = files.signed("server", &ca);
    let nobody = client(Checks::All, &cafile, None);
    let known = client(Checks::All, &cafile, Some(&files.signed("client", &ca)));
    let stranger = client(Checks::All, &cafile, Some(&files.signed("stranger", &other)));
    for (verify, of_nobody, of_known, of_stranger) in [
        ("none", Ok(None), Ok(None), Ok(None)),
        ("optional", Ok(Some(false)), Ok(Some(true)), Err(())),
        ("required", Err(()), Ok(Some(true)), Err(())),
    ] {
        let server = server(&pair, verify, Some(&cafile));
        for (client, expected) in [(&nobody, of_nobody), (&known, of_known), (&stranger, of_stranger)] {
            let said = talk(&server, client, "localhost").await;
            let found = said.clone().map(|found| found.map(|found| found.0)).map_err(|_| ());
            assert_eq!(found, expected, "{verify}: {said:?}");
        }
    }
}

#[tokio::test]
async fn a_reload_changes_the_certificate_and_an_error_does_not() {
    let files = Files::new();
    let (first, second) = (files.self_signed("first", |_| ()), files.self_signed("second", |_| ()));
    let plain = ServerTls::load(&TlsFiles::default()).expect("nothing to load");
    assert!(!plain.is_on());
    let tls = server(&first, "none", None);
    let of_first = client(Checks::All, &first.certfile, None);
    let of_second = client(Checks::All, &second.certfile, None);
    assert!(talk(&tls, &of_first, "localhost").await.is_ok());
    let fresh = TlsFiles {
        certfile: Some(second.certfile.clone()),
        keyfile: Some(second.keyfile),
        ..TlsFiles::default()
    };
    let wrong = TlsFiles { keyfile: Some(first.keyfile), ..fresh.clone() };
    let refused = tls.reload(&wrong).expect_err("no pair").to_string();
    assert!(refused.starts_with("cannot use the certificate"), "{refused}");
    assert!(talk(&tls, &of_first, "localhost").await.is_ok());
    tls.clone().reload(&fresh).expect("a pair");
    assert!(talk(&tls, &of_first, "localhost").await.is_err());
    assert!(talk(&tls, &of_second, "localhost").await.is_ok());
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_told_apart() {
    let files = Files::new();
    let pair = files.self_signed("all", |_| ());
    let plain = ServerTls::default();
    let said = talk(&plain, &client(Checks::All, &pair.certfile, None), "localhost").await;
    assert!(said.as_ref().is_err_and(|why| why.contains("speak no TLS")), "{said:?}");
}

/// Made by `openssl genpkey -algorithm ED25519 -aes256 -pass pass:secret`.
const LOCKED_KEY: &str = include_str!("testdata/locked.key");

#[test]
fn an_encrypted_key_needs_its_password() {
    let files = Files::new();
    let keyfile = files.write("locked.key", LOCKED_KEY);
    let certfile = files.write("locked.crt", include_str!("testdata/locked.crt"));
    let load = |password: Option<&str>| {
        ServerTls::load(&TlsFiles {
            certfile: Some(certfile.clone()),
            keyfile: Some(keyfile.clone()),
            keyfile_password: password.map(Secret::new),
            ..TlsFiles::default()
        })
    };
    assert!(load(Some("secret")).expect("the right password").is_on());
    let wrong = load(Some("guess-7c3")).expect_err("a wrong one").to_string();
    assert!(wrong.contains("restapi.keyfile_password") && !wrong.contains("guess-7c3"), "{wrong}");
    let none = load(None).expect_err("none").to_string();
    assert!(none.contains("set restapi.keyfile_password"), "{none}");
}

#[test]
fn what_cannot_work_is_told_with_file_and_cure() {
    let files = Files::new();
    let pair = files.self_signed("all", |_| ());
    let empty = files.write("empty.crt", "nothing here\n");
    let of = |certfile: &PathBuf, verify: &str| {
        ServerTls::load(&TlsFiles {
            certfile: Some(certfile.clone()),
            keyfile: Some(pair.keyfile.clone()),
            verify_client: Some(verify.to_owned()),
            ..TlsFiles::default()
        })
        .expect_err("wrong")
        .to_string()
    };
    assert!(of(&files.dir.path().join("missing"), "none").contains("check the path"));
    assert!(of(&empty, "none").contains("holds no certificate"));
    assert!(of(&pair.certfile, "required").contains("needs restapi.cafile"));
    assert!(of(&pair.certfile, "perhaps").contains("none, optional or required"));
}

#[test]
fn the_digest_for_channel_binding() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let certificate = params("x").self_signed(&key).expect("a certificate");
    let digest = end_point_digest(certificate.der()).expect("a known signature");
    assert_eq!(digest, ring::digest::digest(&ring::digest::SHA384, certificate.der()).as_ref());
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let certificate = params("x").self_signed(&key).expect("a certificate");
    assert_eq!(end_point_digest(certificate.der()), None);
    assert_eq!(end_point_digest(&[0x30, 0x84, 0xff]), None);
}
