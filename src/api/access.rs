//! Who may use the unsafe methods, and what else of the configuration answers depend on.
//!
//! The rules are Patroni's, in its order: the allowlist, the client's certificate, the password. Unlike Patroni's they
//! hold for every unsafe path.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use futures_util::future::join_all;
use pgherd_raft::model::{ClusterState, MAX_MEMBERS};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tracing::warn;

use super::auth::{self, Credentials};
use super::reply::Reply;
use crate::config::{RestApi, ServerTokens};
use crate::tls::ClientCertificate;

/// How long the system's resolver may take for a member's host name.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(2);

/// What answers depend on besides the view. May change while the server runs.
#[derive(Clone, Debug, Default)]
pub struct ApiSettings {
    /// Name and password for unsafe methods; none: they are not asked for.
    pub credentials: Option<Credentials>,
    /// Who may use unsafe methods; none: everybody.
    pub allowlist: Option<Allowlist>,
    /// The members' hosts may use them, too.
    pub allowlist_include_members: bool,
    /// Added to every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The header `Server` in short.
    pub hides_version: bool,
}

/// Headers that belong to the connection or to the body: a configuration that sets them would break every answer.
const OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::DATE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl ApiSettings {
    /// What a configuration says; looks the allowlist's host names up. `is_encrypted`: the server speaks TLS.
    pub async fn of(config: &RestApi, is_encrypted: bool) -> Self {
        let (allowlist, troubles) = Allowlist::resolve(&config.allowlist).await;
        for trouble in troubles {
            warn!("{trouble}");
        }
        let encrypted = config.https_extra_headers.iter().filter(|_| is_encrypted);
        let headers = config.http_extra_headers.iter().chain(encrypted).filter_map(header_of);
        let basic = config.authentication.as_ref();
        Self {
            credentials: basic.map(|basic| Credentials::new(&basic.username, basic.password.expose())),
            allowlist: Some(allowlist).filter(|_| !config.allowlist.is_empty()),
            allowlist_include_members: config.allowlist_include_members,
            headers: headers.collect(),
            hides_version: config.server_tokens == ServerTokens::ProductOnly,
        }
    }
}

fn header_of((name, value): &(String, String)) -> Option<(HeaderName, HeaderValue)> {
    let header = name.parse().ok().filter(|name| !OURS.contains(name)).zip(value.parse().ok());
    if header.is_none() {
        warn!("restapi: the header {name} cannot be added to answers");
    }
    header
}

/// Who is at the other end of a connection; every request carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Networks; host names are looked up when the list is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowlist {
    networks: Vec<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Allowlist {
    /// From addresses, networks (`10.0.0.0/8`) and host names. What cannot be used admits nobody; the sentences say
    /// which entries those are.
    pub async fn resolve(entries: &[String]) -> (Self, Vec<String>) {
        let mut list = Self::default();
        let mut troubles = Vec::new();
        for entry in entries {
            match Network::parse(entry) {
                Some(network) => list.networks.push(network),
                None if entry.contains('/') => {
                    troubles.push(format!("restapi.allowlist: {entry:?} is no network, so it admits nobody"));
                }
                None => match addresses_of(entry).await {
                    Some(found) => list.networks.extend(found.into_iter().map(Network::of_host)),
                    None => troubles.push(format!(
                        "restapi.allowlist: the host {entry:?} cannot be found, so it admits nobody until the \
                         configuration is read again"
                    )),
                },
            }
        }
        (list, troubles)
    }

    fn admits(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let network = Self::of_host(address);
        let Some(prefix) = prefix else { return Some(network) };
        let prefix: u8 = prefix.trim().parse().ok()?;
        // The address may be written as an IPv6 one that stands for an IPv4 one.
        let mapped = if address.is_ipv6() && network.address.is_ipv4() { 96 } else { 0 };
        let prefix = prefix.checked_sub(mapped)?;
        (prefix <= network.prefix).then_some(Self { prefix, ..network })
    }

    fn of_host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let shift = |width: u8| u32::from(width.saturating_sub(self.prefix));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

async fn addresses_of(host: &str) -> Option<Vec<IpAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return Some(vec![address]);
    }
    let found = timeout(RESOLVER_PATIENCE, lookup_host((host, 0))).await.ok()?.ok()?;
    Some(found.map(|address| address.ip()).collect())
}

/// A caller who was let in, as the history of the settings names it: the user, or the address.
pub(super) async fn check(
    settings: &ApiSettings,
    cluster: &ClusterState,
    head: &Parts,
) -> Result<String, Reply> {
    let peer = head.extensions.get::<Peer>().map(|Peer(peer)| peer.ip().to_canonical());
    check_address(settings, cluster, peer).await?;
    // Where nobody asks for certificates the extension is missing.
    if head.extensions.get::<ClientCertificate>() == Some(&ClientCertificate(false)) {
        return Err(Reply::text(StatusCode::FORBIDDEN, "client certificate required"));
    }
    auth::check(settings.credentials.as_ref(), &head.headers)?;
    Ok(match &settings.credentials {
        Some(credentials) => credentials.username.clone(),
        None => peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string()),
    })
}

async fn check_address(
    settings: &ApiSettings,
    cluster: &ClusterState,
    peer: Option<IpAddr>,
) -> Result<(), Reply> {
    if settings.allowlist.is_none() && !settings.allowlist_include_members {
        return Ok(());
    }
    let denied = || Reply::text(StatusCode::FORBIDDEN, "Access is denied");
    let peer = peer.ok_or_else(denied)?;
    if settings.allowlist.as_ref().is_some_and(|list| list.admits(peer)) {
        return Ok(());
    }
    if settings.allowlist_include_members && is_a_member(cluster, peer).await {
        return Ok(());
    }
    Err(denied())
}

/// Names are looked up at every call: a member may have moved.
async fn is_a_member(cluster: &ClusterState, peer: IpAddr) -> bool {
    let urls = cluster.members.values().filter_map(|member| member.api_url.as_deref());
    let hosts: Vec<String> = urls.filter_map(host_of).take(MAX_MEMBERS).collect();
    let found = join_all(hosts.iter().map(|host| addresses_of(host))).await;
    found.into_iter().flatten().flatten().any(|address| address.to_canonical() == peer)
}

fn host_of(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.host().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::config::Config;

    fn admits(entry: &str, address: &str) -> bool {
        let network = Network::parse(entry).expect(entry);
        network.contains(address.parse().expect(address))
    }

    #[test]
    fn networks_contain_their_addresses() {
        for (entry, address) in [
            ("10.1.2.3", "10.1.2.3"),
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.1.2.3/31", "10.1.2.2"),
            ("0.0.0.0/0", "1.2.3.4"),
            ("127.0.0.1", "::ffff:127.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9"),
            ("::1", "::1"),
            ("fd00::/8", "fdff::1"),
            ("::/0", "fe80::1"),
        ] {
            assert!(admits(entry, address), "{entry} {address}");
        }
        for (entry, address) in [
            ("10.1.2.3", "10.1.2.4"),
            ("10.0.0.0/8", "11.0.0.0"),
            ("fd00::/8", "fe00::1"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "127.0.0.1"),
        ] {
            assert!(!admits(entry, address), "{entry} {address}");
        }
        for bad in
            ["10.0.0.0/33", "::/129", "10.0.0.0/x", "10.0.0/8", "host", "10.0.0.0/-1", "::ffff:1.2.3.4/95"]
        {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_configuration_becomes_settings() {
        let text = "scope: demo\nname: pg-1\nraft: {self_addr: '127.0.0.1:2222'}\nrestapi:\n  listen: 127.0.0.1:8008\n  \
                    authentication: {username: admin, password: secret}\n  allowlist: [10.0.0.0/8]\n  \
                    http_extra_headers: {X-Frame-Options: DENY, Content-Length: 5}\n  \
                    https_extra_headers: {Strict-Transport-Security: max-age=1}\n  server_tokens: ProductOnly\n\
                    postgresql:\n  listen: 127.0.0.1:5432\n  data_dir: /srv/pg\n  \
                    authentication: {replication: {username: replicator}}\n";
        let read = Config::from_text("node.yml", text, &crate::config::Environment::new());
        let (config, _) = read.expect("a configuration");
        let settings = ApiSettings::of(&config.restapi, false).await;
        let names: Vec<&str> = settings.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-frame-options"], "without TLS no header of HTTPS, and none of the body's");
        assert!(settings.credentials.is_some() && settings.hides_version);
        let encrypted = ApiSettings::of(&config.restapi, true).await;
        assert_eq!(encrypted.headers.len(), 2);
        assert!(settings.allowlist.is_some_and(|list| list.admits("10.1.1.1".parse().expect("an address"))));
    }

    #[tokio::test]
    async fn what_cannot_be_found_admits_nobody() {
        let entries = ["localhost", "no such host", "1.2.3.0/99"].map(str::to_owned);
        let (list, troubles) = Allowlist::resolve(&entries).await;
        assert!(list.admits("127.0.0.1".parse().expect("an address")));
        assert!(!list.admits("1.2.3.4".parse().expect("an address")));
        assert_eq!(troubles.len(), 2, "{troubles:?}");
    }

    fn nobody() -> Parts {
        axum::http::Request::new(()).into_parts().0
    }

    fn request(from: &str, extend: impl FnOnce(&mut Parts)) -> Parts {
        let mut head = nobody();
        head.extensions.insert(Peer(SocketAddr::new(from.parse().expect("an address"), 4711)));
        extend(&mut head);
        head
    }

    async fn asked(settings: &ApiSettings, request: &Parts) -> Result<String, (u16, String)> {
        let refused = |reply: Reply| (reply.code.as_u16(), reply.body);
        check(settings, &testing::cluster(), request).await.map_err(refused)
    }

    #[tokio::test]
    async fn the_rules_hold_in_patronis_order() {
        let (list, _) = Allowlist::resolve(&["10.0.0.0/8".to_owned()]).await;
        let settings = ApiSettings {
            credentials: Some(Credentials::new("admin", "secret")),
            allowlist: Some(list),
            ..ApiSettings::default()
        };
        let basic: HeaderValue = auth::basic("admin", "secret").parse().expect("a header");
        let denied = |code, text: &str| Err((code, text.to_owned()));
        let say = async |from: &str, certificate: Option<bool>, password: bool| {
            let request = request(from, |request| {
                if let Some(shown) = certificate {
                    request.extensions.insert(ClientCertificate(shown));
                }
                if password {
                    request.headers.insert("authorization", basic.clone());
                }
            });
            asked(&settings, &request).await
        };
        assert_eq!(say("127.0.0.1", Some(true), true).await, denied(403, "Access is denied"));
        assert_eq!(say("10.1.1.1", Some(false), true).await, denied(403, "client certificate required"));
        assert_eq!(say("10.1.1.1", Some(false), false).await, denied(403, "client certificate required"));
        assert_eq!(say("10.1.1.1", Some(true), false).await, denied(401, "no auth header received"));
        assert_eq!(say("10.1.1.1", None, true).await, Ok("admin".to_owned()), "nobody asks for one");
        assert_eq!(say("::ffff:10.1.1.1", Some(true), true).await, Ok("admin".to_owned()));
    }

    #[tokio::test]
    async fn members_may_be_let_in() {
        let only_members = ApiSettings { allowlist_include_members: true, ..ApiSettings::default() };
        assert_eq!(
            asked(&only_members, &request("127.0.0.1", |_| {})).await,
            Ok("127.0.0.1".to_owned()),
            "the members' REST addresses are 127.0.0.1"
        );
        assert!(asked(&only_members, &request("10.1.1.1", |_| {})).await.is_err());
        assert!(asked(&only_members, &nobody()).await.is_err(), "nobody knows who asks");
        let open = ApiSettings::default();
        assert_eq!(asked(&open, &nobody()).await, Ok("unknown".to_owned()));
    }
}
