//! Free TCP ports on the loopback address.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Where something listens; a bare port is one of the loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: Ipv4Addr,
    pub(crate) port: u16,
}

impl From<u16> for Place {
    fn from(port: u16) -> Self {
        Self { host: Ipv4Addr::LOCALHOST, port }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Below the ports which the system gives to outgoing connections: those could take a port between its choice and
/// its use.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Can this port be listened on?
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A free port which this process has not handed out yet; other processes begin elsewhere.
pub(crate) fn free() -> Result<u16> {
    let begin = std::process::id().wrapping_mul(389);
    for _ in 0..COUNT {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset)?;
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free TCP port between {FIRST} and {}", FIRST + COUNT)
}

/// The wanted port when it is free, else another one.
pub(crate) fn preferably(wanted: u16) -> Result<u16> {
    if is_free(wanted) { Ok(wanted) } else { free() }
}
