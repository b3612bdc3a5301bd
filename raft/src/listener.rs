//! Listening sockets, for the peers' port and the REST API alike.
//!
//! Promises: `*` is every address of the machine, IPv4 and IPv6, whatever the system's default for IPv6 sockets
//! (`net.ipv6.bindv6only`) is, and IPv4 alone where there is no IPv6.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen as start, socket_with, sockopt};

/// Connections that wait to be accepted, unless something else is said; as the standard library has it.
pub const QUEUE: u32 = 4096;

/// Listens on `HOST:PORT`; `*:PORT` and `:PORT` mean every address.
///
/// # Errors
/// The address cannot be found, is another machine's, or is in use.
pub fn listen(addr: &str) -> io::Result<TcpListener> {
    match wildcard_port(addr) {
        Some(port) => everywhere(port, QUEUE),
        None => TcpListener::bind(addr),
    }
}

/// The same on every address that the host has, so that a name with an IPv4 and an IPv6 address is reached by both; at most
/// `queue` connections wait to be accepted. The system may have a lower limit (`net.core.somaxconn`).
///
/// # Errors
/// None of the addresses can be listened on, or one of them is in use.
pub fn listen_on_all(addr: &str, queue: u32) -> io::Result<Vec<TcpListener>> {
    if let Some(port) = wildcard_port(addr) {
        return everywhere(port, queue).map(|listener| vec![listener]);
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in addr.to_socket_addrs()? {
        // The system chooses a port for one address only.
        if !addresses.contains(&address) && (addresses.is_empty() || address.port() != 0) {
            addresses.push(address);
        }
    }
    let mut listeners = Vec::new();
    let mut refusal = None;
    for address in addresses {
        match one(address, queue) {
            Ok(listener) => listeners.push(listener),
            Err(errno @ (Errno::ADDRINUSE | Errno::ACCESS)) => return Err(errno.into()),
            Err(errno) => refusal = refusal.or(Some(errno)),
        }
    }
    match refusal {
        Some(errno) if listeners.is_empty() => Err(errno.into()),
        Some(_) | None => Ok(listeners),
    }
}

/// Lets another number of connections wait at a socket that listens.
///
/// # Errors
/// The socket does not listen.
pub fn set_queue(socket: impl AsFd, queue: u32) -> io::Result<()> {
    Ok(start(socket, backlog(queue))?)
}

fn wildcard_port(addr: &str) -> Option<u16> {
    addr.strip_prefix('*').unwrap_or(addr).strip_prefix(':')?.parse().ok()
}

fn backlog(queue: u32) -> i32 {
    i32::try_from(queue).unwrap_or(i32::MAX)
}

fn everywhere(port: u16, queue: u32) -> io::Result<TcpListener> {
    match both_families(port, queue) {
        Ok(listener) => Ok(listener),
        Err(errno @ (Errno::ADDRINUSE | Errno::ACCESS)) => Err(errno.into()),
        Err(_) => Ok(one(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), queue)?),
    }
}

fn both_families(port: u16, queue: u32) -> Result<TcpListener, Errno> {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    begin(socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), queue)
}

fn one(address: SocketAddr, queue: u32) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    begin(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?, address, queue)
}

fn begin(socket: OwnedFd, address: SocketAddr, queue: u32) -> Result<TcpListener, Errno> {
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    start(&socket, backlog(queue))?;
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
    fn every_address_of_a_name_is_listened_on() {
        let port = listen("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let addr = format!("localhost:{port}");
        let listeners = listen_on_all(&addr, 3).expect("listens");
        for address in addr.to_socket_addrs().expect("a name") {
            let is_there = listeners.iter().any(|one| one.local_addr().is_ok_and(|own| own == address));
            assert!(is_there || TcpListener::bind((address.ip(), 0)).is_err(), "{address}");
        }
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("IPv4");
        let taken = listen_on_all(&addr, 3).expect_err("in use");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        for listener in &listeners {
            set_queue(listener, 5).expect("it listens");
        }
        assert_eq!(listen_on_all("*:0", 1).expect("listens").len(), 1);
        assert!(listen_on_all("203.0.113.7:0", 1).is_err(), "another machine's address");
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
