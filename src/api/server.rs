//! The HTTP server: its own thread and runtime, so that nothing else of the daemon can delay a health check.
//!
//! A slow or half-open client costs a place among the connections and nothing else.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pgherd_raft::listener;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::connections::{Connections, InUse};
use super::operations::Operations;
use super::{ApiState, Peer, Shared, router};
use crate::tls::{ServerTls, explain};

/// For the handshake of TLS, and from there to the end of the first request's head.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// From the end of an answer to the end of the next request's head: longer than the usual pause between two checks or
/// scrapes, since a connection that is closed just when the next one begins looks like a failed check.
const NEXT_PATIENCE: Duration = Duration::from_secs(75);
/// The most bytes of a request's head; hyper's least is 8 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// The pause after a failed `accept` (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {addr} for the REST API: the address is in use; stop the program which uses it or set another restapi.listen"
    )]
    PortInUse {
        /// As configured.
        addr: String,
    },
    /// Any other reason why it cannot listen.
    #[error("cannot listen on {addr} for the REST API: {source}; check restapi.listen")]
    Listen {
        /// As configured.
        addr: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the thread of the REST API: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
}

/// The running server. Ends when it is dropped.
#[derive(Debug)]
pub struct ApiServer {
    local_addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Where it listens: the port is known even when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops listening, ends all connections, and waits for the thread.
    pub fn shutdown(self) {}
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread of the REST API panicked");
        }
    }
}

/// Listens on `host:port` and answers until the result is dropped. A host of `*` or none means all addresses.
pub fn serve(addr: &str, state: ApiState) -> Result<ApiServer, ApiError> {
    let listener = listen(addr)?;
    let failed = |source| ApiError::Listen { addr: addr.to_owned(), source };
    let local_addr = listener.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ApiError::Thread { source })?;
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(failed)?
    };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("pgherd-api".to_owned())
        .spawn(move || runtime.block_on(accept(listener, state, stopped)))
        .map_err(|source| ApiError::Thread { source })?;
    Ok(ApiServer { local_addr, stop: Some(stop), thread: Some(thread) })
}

fn listen(addr: &str) -> Result<TcpListener, ApiError> {
    let failed = |source: std::io::Error| {
        let addr = addr.to_owned();
        if source.kind() == std::io::ErrorKind::AddrInUse {
            ApiError::PortInUse { addr }
        } else {
            ApiError::Listen { addr, source }
        }
    };
    let listener = listener::listen(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

async fn accept(listener: tokio::net::TcpListener, state: ApiState, mut stopped: oneshot::Receiver<()>) {
    let operations = Operations::default();
    let tls = state.tls.clone();
    let router = router(Shared { api: state, operations: operations.clone() });
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ended = &mut stopped => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.add(|in_use| converse(stream, peer, tls.clone(), router.clone(), in_use));
            }
            Err(source) => {
                warn!("the REST API cannot accept a connection: {source}");
                connections.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    operations.end().await;
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, peer: SocketAddr, tls: ServerTls, router: Router, in_use: InUse) {
    if let Err(source) = stream.set_nodelay(true) {
        debug!("cannot set TCP_NODELAY: {source}");
    }
    let accepted = match tokio::time::timeout(FIRST_PATIENCE, Box::pin(tls.accept(stream))).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(source)) => return debug!("a connection to the REST API was refused: {}", explain(&source)),
        Err(_) => return debug!("a connection to the REST API began no TLS within {FIRST_PATIENCE:?}"),
    };
    let client = accepted.client;
    let answers = TowerToHyperService::new(router);
    let asking = in_use.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        asking.asked();
        request.extensions_mut().insert(Peer(peer));
        if let Some(client) = client {
            request.extensions_mut().insert(client);
        }
        request.extensions_mut().insert(asking.clone());
        answers.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(accepted.stream), service);
    let says_nothing = async {
        tokio::time::sleep(FIRST_PATIENCE).await;
        if in_use.has_asked() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = connection => {
            if let Err(source) = ended {
                debug!("a connection to the REST API ended: {source}");
            }
        }
        () = says_nothing => debug!("a connection to the REST API asked nothing"),
    }
}
