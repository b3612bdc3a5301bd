//! The section `raft`.

use std::path::PathBuf;

use super::scalar::read_address;
use super::secret::Secret;
use super::section::Section;
use crate::address::{HostPort, ListenAddress, is_loopback};

/// The section `raft`.
#[derive(Clone, Debug, PartialEq)]
pub struct Raft {
    /// Where the other members reach this one; none: it takes part without a vote, on a port which the system chooses.
    pub self_addr: Option<HostPort>,
    /// Where the peers' port is opened; default `self_addr`.
    pub bind_addr: Option<ListenAddress>,
    /// Where the group's store is.
    pub data_dir: PathBuf,
    /// Other members to find the group by.
    pub partner_addrs: Vec<HostPort>,
    /// Who has it may speak on the peers' port, and nobody else.
    pub password: Option<Secret>,
    /// The operator knows that without a password the peers' port is open to whoever reaches it.
    pub insecure: bool,
}

/// A group of more members is not sensible, and each partner costs a connection.
const MAX_PARTNERS: usize = 64;

/// Fewer characters can be guessed, even where each guess takes a quarter of a second.
const GOOD_PASSWORD: usize = 16;

/// Reads the section; `default_store` is where the store is when `data_dir` does not say so.
/// None when something is missing or wrong; a missing store alone is not reported, since its default follows from
/// another key.
pub fn read_raft(mut section: Section<'_>, default_store: Option<PathBuf>) -> Option<Raft> {
    let was_present = section.is_present();
    let self_addr = section.address("self_addr", None);
    let bind_addr = match section.get("bind_addr") {
        Some(_) => section.listen_at_one("bind_addr"),
        None => self_addr
            .as_ref()
            .map(|HostPort { host, port }| ListenAddress { hosts: vec![host.clone()], port: *port }),
    };
    let partner_addrs = partners(&mut section);
    let store = match section.get("data_dir") {
        Some(_) => section.path("data_dir"),
        None => default_store,
    };
    let insecure = section.boolean("insecure").unwrap_or(false);
    let password = section.secret("password");
    let password = password.filter(|password| check_password(&section, password));
    section.meaningless(
        &[
            "min_timeout",
            "max_timeout",
            "connection_timeout",
            "append_entries_period",
            "connection_retry_time",
            "leader_fallback_timeout",
        ],
        "has no meaning in pgherd: these times follow from ttl",
    );
    let has_self = section.get("self_addr").is_some();
    if !was_present {
        section.missing("self_addr", "add `raft: {self_addr: HOST:PORT, partner_addrs: [HOST:PORT, ...]}`");
    } else if !has_self && partner_addrs.is_empty() {
        section.missing(
            "self_addr",
            "add it, or `partner_addrs`: without both there is no group to found or join",
        );
    }
    if !insecure && section.get("password").is_none() {
        refuse_open_network(&mut section, self_addr.as_ref(), bind_addr.as_ref(), &partner_addrs);
    }
    section.close();
    Some(Raft { self_addr, bind_addr, data_dir: store?, partner_addrs, password, insecure })
}

fn partners(section: &mut Section<'_>) -> Vec<HostPort> {
    let Some(nodes) = section.list("partner_addrs") else { return Vec::new() };
    let path = section.key("partner_addrs");
    let place = section.value_place("partner_addrs");
    if nodes.len() > MAX_PARTNERS {
        let what = format!("has {} addresses, more than the limit of {MAX_PARTNERS}", nodes.len());
        section.report.error(&path, &place, what, "name some members: the others are found through them");
    }
    let mut found: Vec<HostPort> = Vec::new();
    for (index, node) in nodes.iter().enumerate().take(MAX_PARTNERS) {
        let Some(address) = read_address(section.report, &format!("{path}[{index}]"), node, None) else {
            continue;
        };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Whoever connects can try passwords at leisure; false: it is none.
fn check_password(section: &Section<'_>, password: &Secret) -> bool {
    let (key, place) = (section.key("password"), section.value_place("password"));
    let length = password.expose().chars().count();
    let cure =
        "write a random one, for example the output of `openssl rand -hex 24`, and the same on all members";
    if length == 0 {
        section.report.error(&key, &place, "is empty", cure);
    } else if length < GOOD_PASSWORD {
        let what = "is short: whoever reaches the peers' port can find it out by trying";
        section.report.warning(&key, &place, what, cure);
    }
    length > 0
}

/// Without a password whoever reaches the port can vote and grant the lease.
fn refuse_open_network(
    section: &mut Section<'_>,
    self_addr: Option<&HostPort>,
    bind_addr: Option<&ListenAddress>,
    partners: &[HostPort],
) {
    let open_bind =
        bind_addr.is_some_and(|bind| bind.is_wildcard() || bind.hosts.iter().any(|host| !is_loopback(host)));
    let key = if self_addr.is_some_and(|address| !address.is_loopback()) {
        "self_addr"
    } else if open_bind {
        "bind_addr"
    } else if partners.iter().any(|address| !address.is_loopback()) {
        "partner_addrs"
    } else {
        return;
    };
    let place = section.value_place(key);
    section.report.error(
        &section.key(key),
        &place,
        "is not a loopback address, and there is no `raft.password`: whoever reaches the peers' port can take part \
         in the group and decide who is primary",
        "add the same `password` below `raft` on all members, or `insecure: true` if only the cluster's nodes can reach \
         this network",
    );
}
