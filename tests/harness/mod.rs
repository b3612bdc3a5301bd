//! Real clusters on this machine: nodes, witness, HAProxy, clients that write and remember what was acknowledged.
//!
//! Shared by the cluster tests, the demo and the bench. Everything runs on loopback addresses, below one directory, as
//! an unprivileged user, and is ended and removed when its owner is dropped.

#![allow(dead_code, reason = "each of its users needs another part")]

pub(crate) mod busy;
pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod deadlock;
pub(crate) mod disk;
pub(crate) mod haproxy;
pub(crate) mod ledger;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod ports;
pub(crate) mod probe;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod rest;
pub(crate) mod story;
pub(crate) mod tools;
pub(crate) mod user;
pub(crate) mod wait;
pub(crate) mod wall;
pub(crate) mod workload;

#[expect(clippy::print_stderr, reason = "what was measured or left out")]
pub(crate) fn tell(what: &str) {
    eprintln!("{what}");
}
