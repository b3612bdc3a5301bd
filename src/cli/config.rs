//! Where the tool finds its cluster: from a file in Patroni's format, the environment, and the command line.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use pgherd_raft::PeerSecurity;
use pgherd_raft::config::read_boolean;
use pgherd_raft::yaml::{Node, Value};

use crate::config::{self, Secret};
use crate::http_client;
use crate::tls::{Checks, ClientSettings};

/// Where members can be asked, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// `scope` of the configuration.
    pub(super) scope: Option<String>,
    /// `host:port` of REST APIs, in the order in which they were found.
    pub(super) restapi_addrs: Vec<String>,
    /// `host:port` of peers' ports, which know the members' REST addresses.
    pub(super) partner_addrs: Vec<String>,
    /// `raft.data_dir`: where a node keeps its part of the agreed state.
    pub(super) store: Option<PathBuf>,
    /// The file that was read, for messages.
    pub(super) file: Option<PathBuf>,
    username: Option<String>,
    password: Option<Secret>,
    raft_password: Option<Secret>,
    /// How `https` addresses are called.
    pub(super) tls: ClientSettings,
    /// Addresses without a scheme are `https`: there are certificates in the configuration.
    pub(super) is_tls_expected: bool,
}

impl Sources {
    /// Reads the named file, or the first of the default ones that exists.
    pub(super) fn read(named: Option<&Path>, addresses: Option<&str>) -> Result<Self> {
        let file = match named {
            Some(path) => Some(path.to_owned()),
            None => default_files().into_iter().find(|path| path.is_file()),
        };
        if let Some(path) = &file {
            readable(path).map_err(|source| {
                anyhow::anyhow!(
                    "Provided config file {} not existing or no read rights. Check the -c/--config-file parameter ({source})",
                    path.display()
                )
            })?;
        }
        let source = config::Source::new(file.as_deref(), config::process_environment());
        let mut sources = Self::of(&source.tree()?);
        sources.file = file;
        if let Some(addresses) = addresses {
            sources.restapi_addrs = given_addresses(addresses)?;
        }
        Ok(sources)
    }

    fn of(root: &Node) -> Self {
        let text = |path: &[&str]| at(root, path).and_then(Node::scalar_text).filter(|text| !text.is_empty());
        let mut restapi_addrs = list(at(root, &["ctl", "restapi_addrs"]));
        let own = text(&["restapi", "connect_address"]).or_else(|| text(&["restapi", "listen"]));
        restapi_addrs.extend(own.map(|address| connectable(&address)));
        let mut known = std::collections::BTreeSet::new();
        restapi_addrs.retain(|address| known.insert(address.clone()));
        let mut partner_addrs = list(at(root, &["raft", "partner_addrs"]));
        partner_addrs.extend(text(&["raft", "self_addr"]));
        let credential = |key: &str| {
            text(&["ctl", "authentication", key]).or_else(|| text(&["restapi", "authentication", key]))
        };
        Self {
            scope: text(&["scope"]),
            restapi_addrs,
            partner_addrs,
            store: text(&["raft", "data_dir"]).map(PathBuf::from),
            file: None,
            username: credential("username"),
            password: credential("password").map(Secret::new),
            raft_password: text(&["raft", "password"]).map(Secret::new),
            tls: tls(root),
            is_tls_expected: TLS_FILES.iter().any(|path| text(path).is_some()),
        }
    }

    /// Name and password for requests that change something.
    pub(super) fn credentials(&self) -> Option<(&str, &Secret)> {
        self.username.as_deref().zip(self.password.as_ref())
    }

    /// How peers' ports are called. Takes a quarter of a second when there is a password.
    pub(super) fn peer_security(&self) -> Result<PeerSecurity> {
        match &self.raft_password {
            Some(password) => Ok(PeerSecurity::from_password(password)?),
            None => Ok(PeerSecurity::none()),
        }
    }

    /// The cluster to act on.
    pub(super) fn scope_or(&self, named: Option<&str>) -> Result<String> {
        match named.or(self.scope.as_deref()) {
            Some(scope) => Ok(scope.to_owned()),
            None => {
                bail!("no cluster is named: give CLUSTER_NAME, or `scope` in the configuration (-c FILE)")
            }
        }
    }
}

/// A cluster whose configuration names one of these speaks TLS.
const TLS_FILES: [[&str; 2]; 4] =
    [["ctl", "cacert"], ["ctl", "certfile"], ["restapi", "cafile"], ["restapi", "certfile"]];

/// The section `ctl`, with `restapi.cafile` in the place of a missing `ctl.cacert`.
fn tls(root: &Node) -> ClientSettings {
    let text = |path: &[&str]| at(root, path).and_then(Node::scalar_text).filter(|text| !text.is_empty());
    let file = |section, key| text(&[section, key]).map(PathBuf::from);
    let is_insecure = at(root, &["ctl", "insecure"]).and_then(read_boolean).unwrap_or(false);
    let files = config::TlsFiles {
        certfile: file("ctl", "certfile"),
        keyfile: file("ctl", "keyfile"),
        keyfile_password: text(&["ctl", "keyfile_password"]).map(Secret::new),
        cafile: file("ctl", "cacert"),
        ..config::TlsFiles::default()
    };
    let checks = if is_insecure { Checks::Nothing } else { Checks::All };
    http_client::settings(&files, file("restapi", "cafile").as_ref(), checks)
}

/// A file, or a directory of them.
fn readable(path: &Path) -> std::io::Result<()> {
    if path.is_dir() { std::fs::read_dir(path).map(drop) } else { std::fs::File::open(path).map(drop) }
}

fn default_files() -> Vec<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let names = ["pgherd/pgherdctl.yaml", "patroni/patronictl.yaml"];
    base.map(|base| names.iter().map(|name| base.join(name)).collect()).unwrap_or_default()
}

fn at<'a>(node: &'a Node, path: &[&str]) -> Option<&'a Node> {
    let Some((first, rest)) = path.split_first() else { return Some(node) };
    match &node.value {
        Value::Map(map) => at(map.get(first)?, rest),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_) => None,
    }
}

/// A list, or a text with commas.
fn list(node: Option<&Node>) -> Vec<String> {
    let Some(node) = node else { return Vec::new() };
    let texts: Vec<String> = match &node.value {
        Value::List(items) => items.iter().filter_map(Node::scalar_text).collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Map(_) => node.scalar_text().into_iter().collect(),
    };
    texts.iter().flat_map(|text| split(text)).collect()
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// What patronictl's `-d` may name.
const OTHER_STORES: [&str; 5] = ["etcd", "etcd3", "consul", "zookeeper", "exhibitor"];

/// `-d`: patronictl's option for another store's address. Here a member's REST address stands in its place.
fn given_addresses(text: &str) -> Result<Vec<String>> {
    let addresses = split(text).into_iter().map(|part| match part.split_once("://") {
        None => Ok(part),
        Some(("http", rest)) => Ok(rest.trim_end_matches('/').to_owned()),
        Some(("https", _)) => Ok(part.trim_end_matches('/').to_owned()),
        Some((scheme, _)) if !OTHER_STORES.contains(&scheme) => bail!("Unknown dcs scheme: {scheme}"),
        Some((scheme, _)) => bail!(
            "{part}: pgherd has no {scheme} store; give REST addresses of members, for example -d 10.0.0.1:8008"
        ),
    });
    addresses.collect()
}

/// An address to listen on as one to connect to: all addresses include this machine's own.
fn connectable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("" | "*" | "0.0.0.0" | "::" | "[::]", port)) => format!("127.0.0.1:{port}"),
        Some(_) => address.to_owned(),
        None => format!("{address}:8008"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Sources {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Sources::of(&config::tree("test.yml", text, &environment).expect("readable"))
    }

    #[test]
    fn a_nodes_own_file_is_enough() {
        let sources = read(
            "scope: demo\nname: node1\nrestapi: {listen: '*:8008', authentication: {username: a, password: b}}\n\
             raft: {self_addr: 10.0.0.1:2380, partner_addrs: [10.0.0.2:2380, '10.0.0.3:2380']}\n",
            &[],
        );
        assert_eq!(sources.scope.as_deref(), Some("demo"));
        assert_eq!(sources.restapi_addrs, ["127.0.0.1:8008"]);
        assert_eq!(sources.partner_addrs, ["10.0.0.2:2380", "10.0.0.3:2380", "10.0.0.1:2380"]);
        assert_eq!(sources.credentials().map(|(name, word)| (name, word.expose())), Some(("a", "b")));
    }

    #[test]
    fn the_tools_own_section_and_the_environment_come_first() {
        let sources = read(
            "scope: demo\nctl: {restapi_addrs: 'a:1, b:2', authentication: {username: c, password: d}}\n\
             restapi: {connect_address: b:2, authentication: {username: a, password: b}}\n",
            &[("PATRONI_SCOPE", "other"), ("PATRONI_CTL_PASSWORD", "e")],
        );
        assert_eq!(sources.scope.as_deref(), Some("other"));
        assert_eq!(sources.restapi_addrs, ["a:1", "b:2"]);
        assert_eq!(sources.credentials().map(|(name, word)| (name, word.expose())), Some(("c", "e")));
        assert!(!format!("{sources:?}").contains("\"e\""));
    }

    #[test]
    fn other_stores_are_refused_with_the_cure() {
        let refusal = given_addresses("etcd3://host:2379").expect_err("no store").to_string();
        assert!(refusal.contains("give REST addresses"), "{refusal}");
        let unknown = given_addresses("redis://host:1").expect_err("no store").to_string();
        assert_eq!(unknown, "Unknown dcs scheme: redis");
        assert_eq!(given_addresses("http://a:1/, b:2").expect("addresses"), ["a:1", "b:2"]);
    }
}
