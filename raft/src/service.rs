//! Tells the service manager how this process is: systemd's datagrams (sd_notify), where `NOTIFY_SOCKET` names a socket.
//!
//! Promises that nothing waits for the manager and nothing fails with it: a message that cannot be sent is not sent. Must
//! never be handed to children: PostgreSQL would speak for the daemon.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::clock;

/// Where the manager listens; it is this variable's value.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// What the manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It does its work: started, or reloaded.
    Ready,
    /// The configuration is read anew; [`Service::Ready`] follows.
    Reloading,
    /// It ends.
    Stopping,
}

impl Service {
    fn message(self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading => {
                format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic().as_micros())
            }
            Self::Stopping => "STOPPING=1".to_owned(),
        }
    }
}

/// Tells the manager, if there is one.
pub fn notify(service: Service) {
    let Some(socket) = std::env::var_os(NOTIFY_SOCKET).filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, &service.message()) {
        tracing::debug!("the service manager was not told {service:?}: {error}");
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    // A leading @ stands for the zero byte of an abstract name.
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some(_) | None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_at_paths_and_abstract_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        send(path.as_os_str(), &Service::Ready.message()).expect("sent");
        let name = format!("pgherd-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&abstract_address).expect("bound");
        send(OsStr::new(&format!("@{name}")), &Service::Reloading.message()).expect("sent");
        let received = |socket: &UnixDatagram| {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).expect("received");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(received(&by_path), "READY=1");
        let reloading = received(&by_name);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both lines");
        assert!(time.parse::<u64>().expect("a number") > 0);
        assert!(send(dir.path().join("nobody").as_os_str(), "READY=1").is_err());
    }
}
