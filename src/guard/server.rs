//! The guard's socket: one line of JSON a request, one line an answer; the daemon in charge keeps its connection.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;

use super::clock::{Nanos, nanos};
use super::message::{Answer, Envelope, Push};
use super::procfs;

/// Connections at a time; a daemon needs two.
const MAX_CONNECTIONS: usize = 16;
/// The longest request: a start with a large environment.
const MAX_REQUEST: usize = 1 << 20;
/// A connection must have made its request within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that has not made its request yet.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    received: Vec<u8>,
    since: Nanos,
    /// The process at the other end.
    pub(super) peer: u32,
}

/// The daemon in charge.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) stream: UnixStream,
    pub(super) peer: u32,
    pub(super) attachment: u64,
}

/// What came of reading from a connection.
pub(super) enum Received {
    /// Not all yet.
    Nothing,
    /// A request.
    Request(Box<Envelope>),
    /// Nothing more will come, or nonsense did.
    Closed,
}

/// Takes what waits at the listener. Only this user and root may ask.
pub(super) fn accept(listener: &UnixListener, connections: &mut Vec<Connection>, now: Nanos) {
    connections.retain(|one| now.saturating_sub(one.since) < nanos(REQUEST_TIMEOUT));
    let me = rustix::process::geteuid();
    while let Ok((stream, _)) = listener.accept() {
        let peer = socket_peercred(&stream).ok().filter(|peer| peer.uid == me || peer.uid.is_root());
        let Some(peer) = peer else { continue };
        if connections.len() >= MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
            continue;
        }
        let peer = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or_default();
        connections.push(Connection { stream, received: Vec::new(), since: now, peer });
    }
}

impl Connection {
    /// Reads what is there.
    pub(super) fn receive(&mut self) -> Received {
        let mut chunk = [0_u8; 16384];
        loop {
            let len = match self.stream.read(&mut chunk) {
                Ok(0) => return Received::Closed,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
                Err(_) => return Received::Closed,
            };
            self.received.extend(chunk.get(..len).unwrap_or_default());
            if self.received.len() > MAX_REQUEST {
                return Received::Closed;
            }
            if self.received.last() == Some(&b'\n') {
                return match serde_json::from_slice(&self.received) {
                    Ok(envelope) => Received::Request(Box::new(envelope)),
                    Err(_) => Received::Closed,
                };
            }
        }
    }

    /// Answers; a peer that does not read gets nothing.
    pub(super) fn answer(&mut self, answer: &Answer) {
        send(&mut self.stream, answer);
    }
}

impl Attached {
    /// Tells the daemon; if it reads too slowly it misses this, and wakes for what waits already.
    pub(super) fn push(&mut self, push: &Push) {
        send(&mut self.stream, push);
    }

    /// Reads the end of the connection. True: it has ended.
    pub(super) fn has_left(&mut self) -> bool {
        let mut chunk = [0_u8; 256];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Does the daemon's process live? Its connection may not have been read to its end yet.
    pub(super) fn is_alive(&self) -> bool {
        procfs::stat(self.peer).is_some_and(|stat| stat.is_alive())
    }
}

/// Never waits: messages are far smaller than a socket's buffer.
fn send(stream: &mut UnixStream, message: &impl serde::Serialize) {
    let Ok(mut line) = serde_json::to_vec(message) else { return };
    line.push(b'\n');
    // A broken or full connection shows itself at the other end.
    stream.write_all(&line).ok();
}
