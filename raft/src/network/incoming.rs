//! New connections of the peers' port: secured beside each other, and given on when they can be read.
//!
//! Promises: who says nothing, or the wrong thing, costs a place among [`MAX_BEGINNING`] for [`PATIENCE`] and delays nobody;
//! the operator is told who has no or another password, not more often than he can read.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::security::{COMPLAIN_EVERY, MAX_COMPLAINTS, PeerSecurity, of_listener};
use crate::clock;
use crate::lease::BootTime;

/// How long the beginning of a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that have just begun, at once: above what all members of many clusters open after a restart. The oldest makes
/// room.
const MAX_BEGINNING: usize = 256;
/// The pause after a failed `accept` (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that can be read.
#[derive(Debug)]
pub(super) enum PeerStream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl Connected for PeerStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Secured(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Secured(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Secured(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Secured(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secured(stream) => stream.is_write_vectored(),
        }
    }
}

/// All connections that can be read, as they come.
pub(super) fn incoming(
    listener: TcpListener,
    security: PeerSecurity,
) -> impl Stream<Item = io::Result<PeerStream>> {
    let beginnings = Beginnings {
        listener,
        config: security.server(),
        tasks: JoinSet::new(),
        open: VecDeque::new(),
        complaints: BTreeMap::new(),
    };
    stream::unfold(beginnings, |mut beginnings| async move {
        let stream = beginnings.next().await;
        Some((Ok(stream), beginnings))
    })
}

struct Beginnings {
    listener: TcpListener,
    config: Option<Arc<ServerConfig>>,
    tasks: JoinSet<Result<PeerStream, (SocketAddr, Option<String>)>>,
    /// Their tasks, the oldest first.
    open: VecDeque<AbortHandle>,
    /// When an address was last complained about.
    complaints: BTreeMap<IpAddr, BootTime>,
}

impl Beginnings {
    async fn next(&mut self) -> PeerStream {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => self.begin(stream, from),
                    Err(error) => {
                        tracing::warn!("the peers' port cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(begun) = self.tasks.join_next() => match begun {
                    Ok(Ok(stream)) => return stream,
                    Ok(Err((from, Some(why)))) => self.complain(from, &why),
                    // It said nothing, like a monitoring program that looks whether the port is open.
                    Ok(Err((_, None))) => {}
                    // It made room for others.
                    Err(_) => {}
                },
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, from: SocketAddr) {
        self.open.retain(|task| !task.is_finished());
        if self.open.len() >= MAX_BEGINNING
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
        }
        let config = self.config.clone();
        let task = self.tasks.spawn(async move {
            let begun = tokio::time::timeout(PATIENCE, Box::pin(secure(stream, config))).await;
            begun.unwrap_or(Err(None)).map_err(|why| (from, why))
        });
        self.open.push_back(task);
    }

    fn complain(&mut self, from: SocketAddr, why: &str) {
        let now = clock::now();
        self.complaints.retain(|_, at| now.since(*at) < COMPLAIN_EVERY);
        if self.complaints.len() >= MAX_COMPLAINTS || self.complaints.contains_key(&from.ip()) {
            return;
        }
        self.complaints.insert(from.ip(), now);
        tracing::warn!("a connection from {} to the peers' port was refused: {why}", from.ip());
    }
}

/// None: it ended or failed without having said anything wrong.
async fn secure(stream: TcpStream, config: Option<Arc<ServerConfig>>) -> Result<PeerStream, Option<String>> {
    // Without it answers come later, and that is all.
    stream.set_nodelay(true).ok();
    let mut first = [0];
    if stream.peek(&mut first).await.map_err(|_| None)? == 0 {
        return Err(None);
    }
    let is_tls = first == [TLS_HANDSHAKE];
    let refuse = |why: &str| Err(Some(format!("{why}; set the same on all members")));
    match config {
        None if is_tls => refuse("it has a raft.password and this member has none"),
        None => Ok(PeerStream::Plain(stream)),
        Some(_) if !is_tls => refuse("it does not encrypt, and this member has a raft.password"),
        Some(config) => match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => Ok(PeerStream::Secured(Box::new(stream))),
            Err(error) => of_listener(&error).map_or(Err(None), |why| refuse(&why)),
        },
    }
}
