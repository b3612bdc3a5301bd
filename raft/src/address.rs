//! Addresses as a configuration writes them: `host:port`, with brackets around IPv6.
//!
//! Owns parsing and printing; never looks a name up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::model::PostgresAddr;

/// The longest host name (RFC 1035), which also bounds what an error may quote.
const MAX_HOST_LEN: usize = 253;

/// One host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// A TCP port, not 0.
    pub port: u16,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Nothing before the port.
    #[error("the host is missing")]
    NoHost,
    /// No `:port` at the end.
    #[error("the port is missing")]
    NoPort,
    /// Not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// Characters which no host name has.
    #[error("the host has characters which no host name or IP address has")]
    Host,
    /// A bracket without its other one, or brackets around something else than IPv6.
    #[error("brackets go around an IPv6 address and nothing else")]
    Brackets,
    /// An address to connect to must be one.
    #[error("an address that others connect to cannot be a wildcard")]
    Wildcard,
    /// More than one host where one is wanted.
    #[error("only one host is possible here")]
    SeveralHosts,
}

impl HostPort {
    /// Reads `host:port`; `default_port` stands in for a missing port.
    ///
    /// # Errors
    /// See [`InvalidAddress`].
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, InvalidAddress> {
        let ListenAddress { hosts, port } = ListenAddress::parse(text, default_port)?;
        let [host] = <[String; 1]>::try_from(hosts).map_err(|_| InvalidAddress::SeveralHosts)?;
        if is_wildcard(&host) {
            return Err(InvalidAddress::Wildcard);
        }
        Ok(Self { host, port })
    }

    /// Is this surely this machine? A name other than `localhost` is not known to be.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl FromStr for HostPort {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        Self::parse(text, None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host)?;
        write!(f, ":{}", self.port)
    }
}

impl From<HostPort> for PostgresAddr {
    fn from(HostPort { host, port }: HostPort) -> Self {
        Self { host, port }
    }
}

/// One or several hosts to listen on, with one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Host names, IP addresses without brackets, or `*`; never empty.
    pub hosts: Vec<String>,
    /// A TCP port, not 0.
    pub port: u16,
}

impl ListenAddress {
    /// Reads `host[,host...]:port`, where no host at all is `*`.
    ///
    /// # Errors
    /// See [`InvalidAddress`].
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidAddress::NoHost);
        }
        let (hosts, port) = split_port(text)?;
        let port = match (port, default_port) {
            (Some(port), _) => {
                // parse() alone would take "+5432".
                let digits = port.chars().all(|c| c.is_ascii_digit());
                port.parse().ok().filter(|port| digits && *port != 0).ok_or(InvalidAddress::Port)?
            }
            (None, Some(port)) => port,
            (None, None) => return Err(InvalidAddress::NoPort),
        };
        let hosts = match hosts.trim() {
            "" => vec!["*".to_owned()],
            hosts => hosts.split(',').map(|host| parse_host(host.trim())).collect::<Result<_, _>>()?,
        };
        Ok(Self { hosts, port })
    }

    /// Listens on every address of the machine.
    pub fn is_wildcard(&self) -> bool {
        self.hosts.iter().any(|host| is_wildcard(host))
    }

    /// The address at which this machine reaches it: the loopback one where it is listened on, else the first.
    pub fn local(&self) -> HostPort {
        let host = match self.hosts.first() {
            Some(first) if !self.is_wildcard() && !self.hosts.iter().any(|host| is_loopback(host)) => {
                first.clone()
            }
            Some(_) | None => self
                .hosts
                .iter()
                .find(|host| is_loopback(host))
                .cloned()
                .unwrap_or_else(|| "127.0.0.1".to_owned()),
        };
        HostPort { host, port: self.port }
    }

    /// The texts to listen on, one for each host; see [`crate::listener::listen`].
    pub fn sockets(&self) -> Vec<String> {
        let port = self.port;
        self.hosts.iter().map(|host| HostPort { host: host.clone(), port }.to_string()).collect()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.hosts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write_host(f, host)?;
        }
        write!(f, ":{}", self.port)
    }
}

/// Is this surely an address of this machine only?
pub fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn is_wildcard(host: &str) -> bool {
    host == "*" || host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

fn write_host(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

/// Hosts and port text. `::1` alone is a host; `::1:5432` is the host `::1` with a port, as Patroni reads it.
fn split_port(text: &str) -> Result<(&str, Option<&str>), InvalidAddress> {
    if text.ends_with(']') {
        return Ok((text, None));
    }
    let Some((hosts, port)) = text.rsplit_once(':') else { return Ok((text, None)) };
    if port.contains(']') {
        return Err(InvalidAddress::Brackets);
    }
    let last = hosts.rsplit(',').next().unwrap_or(hosts);
    let is_bare_ipv6 = |host: &str| host.contains(':') && !host.starts_with('[');
    if is_bare_ipv6(last) && last.parse::<Ipv6Addr>().is_err() {
        let whole = text.rsplit(',').next().unwrap_or(text);
        if whole.parse::<Ipv6Addr>().is_ok() {
            return Ok((text, None));
        }
    }
    Ok((hosts, Some(port)))
}

fn parse_host(host: &str) -> Result<String, InvalidAddress> {
    if host.is_empty() {
        return Err(InvalidAddress::NoHost);
    }
    let inner = match (host.strip_prefix('['), host.ends_with(']')) {
        (Some(rest), true) => {
            let inner = rest.trim_end_matches(']');
            if inner.parse::<Ipv6Addr>().is_err() {
                return Err(InvalidAddress::Brackets);
            }
            inner
        }
        (None, false) => host,
        (Some(_), false) | (None, true) => return Err(InvalidAddress::Brackets),
    };
    let is_ipv6 = inner.parse::<Ipv6Addr>().is_ok();
    let is_name = inner.len() <= MAX_HOST_LEN
        && inner.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if inner == "*" || is_ipv6 || is_name { Ok(inner.to_owned()) } else { Err(InvalidAddress::Host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<String, InvalidAddress> {
        HostPort::parse(text, None).map(|address| format!("{} {}", address.host, address.port))
    }

    #[test]
    fn one_host_and_a_port() {
        assert_eq!(one("127.0.0.1:5432").as_deref(), Ok("127.0.0.1 5432"));
        assert_eq!(one(" pg-1.example.org:1 ").as_deref(), Ok("pg-1.example.org 1"));
        assert_eq!(one("[::1]:5432").as_deref(), Ok("::1 5432"));
        assert_eq!(one("::1:5432").as_deref(), Ok("::1 5432"));
        assert_eq!(one("127.0.0.1"), Err(InvalidAddress::NoPort));
        assert_eq!(one("[::1]"), Err(InvalidAddress::NoPort));
        assert_eq!(one("::1"), Err(InvalidAddress::NoPort));
        assert_eq!(one("fe80::7"), Err(InvalidAddress::NoPort));
        assert_eq!(one("a:0"), Err(InvalidAddress::Port));
        assert_eq!(one("a:65536"), Err(InvalidAddress::Port));
        assert_eq!(one("a:+1"), Err(InvalidAddress::Port));
        assert_eq!(one("a:"), Err(InvalidAddress::Port));
        assert_eq!(one("a b:1"), Err(InvalidAddress::Host));
        assert_eq!(one("[a]:1"), Err(InvalidAddress::Brackets));
        assert_eq!(one("[::1:1"), Err(InvalidAddress::Brackets));
        assert_eq!(one("a,b:1"), Err(InvalidAddress::SeveralHosts));
        assert_eq!(one("*:1"), Err(InvalidAddress::Wildcard));
        assert_eq!(one("0.0.0.0:1"), Err(InvalidAddress::Wildcard));
        assert_eq!(one("[::]:1"), Err(InvalidAddress::Wildcard));
        assert_eq!(one(""), Err(InvalidAddress::NoHost));
        assert_eq!(HostPort::parse("h", Some(5432)).map(|a| a.to_string()).as_deref(), Ok("h:5432"));
        assert_eq!("[::1]:7".parse::<HostPort>().map(|a| a.to_string()).as_deref(), Ok("[::1]:7"));
    }

    #[test]
    fn several_hosts_to_listen_on() {
        let listen = |text: &str| ListenAddress::parse(text, Some(5432)).expect(text);
        assert_eq!(listen("*:6000").hosts, ["*"]);
        assert_eq!(listen(":6000").hosts, ["*"]);
        assert_eq!(listen("*").port, 5432);
        assert_eq!(listen("127.0.0.1, [::1],10.0.0.1:6000").hosts, ["127.0.0.1", "::1", "10.0.0.1"]);
        assert_eq!(listen("127.0.0.1,[::1]:6000").to_string(), "127.0.0.1,[::1]:6000");
        assert!(ListenAddress::parse("a,,b:1", None).is_err());
        assert!(listen("10.0.0.1,0.0.0.0").is_wildcard());
        assert_eq!(listen("*:6000").sockets(), ["*:6000"]);
        assert_eq!(listen("10.0.0.1,127.0.0.1").local().to_string(), "127.0.0.1:5432");
        assert_eq!(listen("10.0.0.1,10.0.0.2").local().to_string(), "10.0.0.1:5432");
        assert_eq!(listen("*").local().to_string(), "127.0.0.1:5432");
    }

    #[test]
    fn loopback_is_known_not_guessed() {
        for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "pg1", "::2", "localhost.example.org", "128.0.0.1", "*"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
