//! The sections `restapi` and `ctl`.

use pgherd_raft::address::{HostPort, ListenAddress};
use pgherd_raft::config::{Section, Unit, not_a, shown_key};

use super::super::types::{BasicAuthentication, Ctl, RestApi, ServerTokens, TlsFiles};

/// Patroni's limit for the queue of connections that wait to be accepted.
const REQUEST_QUEUE: std::ops::RangeInclusive<i64> = 0..=4096;
/// An answer's head must stay small.
const MAX_HEADERS: usize = 64;

pub(super) fn restapi(mut section: Section<'_>) -> Option<RestApi> {
    let s = &mut section;
    let listen = match s.get("listen") {
        Some(_) => s.listen_at_one("listen"),
        None => Some(ListenAddress { hosts: vec!["127.0.0.1".to_owned()], port: 8008 }),
    };
    let connect_address = connect_address(s, listen.as_ref(), None);
    let authentication = basic_authentication(s.section("authentication")).or_else(|| old_authentication(s));
    let tls = TlsFiles {
        ciphers: s.text("ciphers"),
        verify_client: one_of(s, "verify_client", &["none", "optional", "required"]),
        ..tls_files(s, "cafile")
    };
    let allowlist = s.texts("allowlist").unwrap_or_default();
    let allowlist_include_members = s.boolean("allowlist_include_members").unwrap_or(false);
    let (http_extra_headers, https_extra_headers) =
        (headers(s.section("http_extra_headers")), headers(s.section("https_extra_headers")));
    let request_queue_size = s.integer("request_queue_size", Unit::None, REQUEST_QUEUE);
    let server_tokens = match one_of(s, "server_tokens", &["original", "minimal", "productonly"]).as_deref() {
        Some("productonly") => ServerTokens::ProductOnly,
        Some("minimal") => ServerTokens::Minimal,
        Some(_) | None => ServerTokens::Original,
    };
    s.meaningless(&["thread_pool_size"], "has no meaning in pgherd");
    section.close();
    Some(RestApi {
        listen: listen?,
        connect_address: connect_address?,
        authentication,
        tls,
        allowlist,
        allowlist_include_members,
        http_extra_headers,
        https_extra_headers,
        request_queue_size: request_queue_size.and_then(|size| u32::try_from(size).ok()),
        server_tokens,
    })
}

/// `restapi.auth: USER:PASSWORD` is how it was written before there was a section.
fn old_authentication(section: &mut Section<'_>) -> Option<BasicAuthentication> {
    let text = section.secret("auth")?;
    let Some((username, password)) = text.expose().split_once(':') else {
        let (key, place) = (section.key("auth"), section.value_place("auth"));
        section.report.error(&key, &place, "is not USER:PASSWORD", "write `authentication` with both");
        return None;
    };
    Some(BasicAuthentication {
        username: username.to_owned(),
        password: pgherd_raft::config::Secret::new(password),
    })
}

/// A word in any case; lower case comes back.
fn one_of(section: &mut Section<'_>, key: &str, words: &[&str]) -> Option<String> {
    let node = section.get(key)?;
    let text = node.scalar_text().unwrap_or_default().to_lowercase();
    // YAML reads a bare `off` or `no` as a boolean; Patroni takes false for `none`.
    if node.value == pgherd_raft::yaml::Value::Bool(false) && words.contains(&"none") {
        return Some("none".to_owned());
    }
    if words.contains(&text.as_str()) {
        return Some(text);
    }
    let list = words.join(", ");
    section.report.error(
        &section.key(key),
        &node.place,
        not_a(&format!("one of {list}"), node),
        format!("write one of {list}"),
    );
    None
}

/// Headers which can be sent as they are.
fn headers(section: Section<'_>) -> Vec<(String, String)> {
    let mut headers = section.free_scalars(&[]);
    if headers.len() > MAX_HEADERS {
        let what = format!("has {} headers, more than the limit of {MAX_HEADERS}", headers.len());
        section.report.error(&section.path, &section.place, what, "keep those which somebody reads");
    }
    headers.retain(|(name, value)| {
        let is_name = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
        let is_value = value.chars().all(|c| !c.is_control());
        if is_name && is_value {
            return true;
        }
        let (key, place) = (section.key(&shown_key(name)), section.key_place(name));
        let what = if is_name { "has a control character" } else { "is no name of a header" };
        section.report.error(&key, &place, what, "use letters, digits and -");
        false
    });
    headers
}

/// What the others are told; the listen address when nothing else is said and it is one that can be told.
pub(super) fn connect_address(
    section: &mut Section<'_>,
    listen: Option<&ListenAddress>,
    default_port: Option<u16>,
) -> Option<HostPort> {
    if section.get("connect_address").is_some() {
        return section.address("connect_address", default_port);
    }
    let listen = listen?;
    match listen.hosts.first() {
        Some(host) if !listen.is_wildcard() => Some(HostPort { host: host.clone(), port: listen.port }),
        Some(_) | None => {
            let cure = format!(
                "add `connect_address: HOST:{}`: `listen` is a wildcard, and others need an address to reach",
                listen.port
            );
            section.missing("connect_address", &cure);
            None
        }
    }
}

fn basic_authentication(mut section: Section<'_>) -> Option<BasicAuthentication> {
    let username = section.text("username");
    let password = section.secret("password");
    let authentication = match (username, password) {
        (Some(username), Some(password)) => Some(BasicAuthentication { username, password }),
        (None, None) => None,
        (Some(_), None) => {
            section.missing("password", "add it: both are needed, or the API would be open to everybody");
            None
        }
        (None, Some(_)) => {
            section.missing("username", "add it: both are needed, or the API would be open to everybody");
            None
        }
    };
    section.close();
    authentication
}

fn tls_files(section: &mut Section<'_>, ca_key: &str) -> TlsFiles {
    TlsFiles {
        certfile: section.path("certfile"),
        keyfile: section.path("keyfile"),
        keyfile_password: section.secret("keyfile_password"),
        cafile: section.path(ca_key),
        verify_client: None,
        ciphers: None,
    }
}

pub(super) fn ctl(mut section: Section<'_>) -> Ctl {
    let authentication = basic_authentication(section.section("authentication"));
    let insecure = section.boolean("insecure").unwrap_or(false);
    let tls = tls_files(&mut section, "cacert");
    // The operator's tool reads this one itself.
    section.texts("restapi_addrs");
    section.close();
    Ctl { authentication, insecure, tls }
}
