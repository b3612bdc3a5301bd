//! Listening sockets, for the peers' port and the REST API alike.
//!
//! Promises: `*` is every address of the machine, IPv4 and IPv6, whatever the system's default for IPv6 sockets
//! (`net.ipv6.bindv6only`) is, and IPv4 alone where there is no IPv6.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen as start, socket_with, sockopt};

/// Connections that wait to be accepted; as the standard library has it.
const BACKLOG: i32 = 4096;

/// Listens on `HOST:PORT`; `*:PORT` and `:PORT` mean every address.
///
/// # Errors
/// The address cannot be found, is another machine's, or is in use.
pub fn listen(addr: &str) -> io::Result<TcpListener> {
    match addr.strip_prefix('*').unwrap_or(addr).strip_prefix(':').map(str::parse) {
        Some(Ok(port)) => everywhere(port),
        Some(Err(_)) | None => TcpListener::bind(addr),
    }
}

fn everywhere(port: u16) -> io::Result<TcpListener> {
    match both_families(port) {
        Ok(listener) => Ok(listener),
        Err(errno @ (Errno::ADDRINUSE | Errno::ACCESS)) => Err(errno.into()),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
    }
}

fn both_families(port: u16) -> Result<TcpListener, Errno> {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    start(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn every_address_is_ipv4_and_ipv6() {
        let listener = listen("*:0").expect("listens");
        let port = listener.local_addr().expect("an address").port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("IPv4");
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("IPv6");
        }
        for taken in [format!("*:{port}"), format!(":{port}"), format!("127.0.0.1:{port}")] {
            let error = listen(&taken).expect_err("in use");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{taken}");
        }
    }

    #[test]
    fn one_address_is_only_that_one() {
        let listener = listen("127.0.0.1:0").expect("listens");
        let port = listener.local_addr().expect("an address").port();
        assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).is_err());
        assert!(listen("*").is_err());
        assert!(listen("*:70000").is_err());
    }
}
