//! The HTTP server: its own thread and runtime, so that nothing else of the daemon can delay a health check.
//!
//! A slow or half-open client costs a place among the connections and nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::connections::{Connections, InUse};
use super::listening::{Listening, Mover, Order};
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

/// So many connections are accepted in one go; then what those said is read. Fewer than [`super::connections`] keeps places for.
const AT_ONCE: usize = 32;

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
    /// Neither at a new address nor any more at the old one.
    #[error("{refused}; and the old address is lost, so that the REST API is not reachable: {lost}")]
    Nowhere {
        /// Why not at the new one.
        refused: Box<Self>,
        /// Why not at the old one.
        lost: Box<Self>,
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
    mover: Option<Mover>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Where it listens: the port is known even when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Who can have it listen elsewhere; there is one.
    pub fn take_mover(&mut self) -> Option<Mover> {
        self.mover.take()
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

/// Listens and answers until the result is dropped.
pub fn serve(at: impl Into<Listening>, state: ApiState) -> Result<ApiServer, ApiError> {
    let at = at.into();
    let listeners = at.begin()?;
    let failed = |source| ApiError::Listen { addr: at.addr.clone(), source };
    let first = listeners.first().ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
    let local_addr = first.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ApiError::Thread { source })?;
    let (stop, stopped) = oneshot::channel();
    let (mover, orders) = Mover::new(at);
    let thread = std::thread::Builder::new()
        .name("pgherd-api".to_owned())
        .spawn(move || runtime.block_on(accept(listeners, orders, state, stopped)))
        .map_err(|source| ApiError::Thread { source })?;
    Ok(ApiServer { local_addr, mover: Some(mover), stop: Some(stop), thread: Some(thread) })
}

async fn accept(
    listeners: Vec<std::net::TcpListener>,
    mut orders: mpsc::Receiver<Order>,
    state: ApiState,
    mut stopped: oneshot::Receiver<()>,
) {
    let operations = Operations::default();
    let tls = state.tls.clone();
    let router = router(Shared { api: state, operations: operations.clone() });
    let mut connections = Connections::default();
    let mut listeners = awaited(listeners);
    let outdated = watch::Sender::new(());
    let mut in_one_go = 0;
    loop {
        if in_one_go >= AT_ONCE {
            in_one_go = 0;
            tokio::task::yield_now().await;
        }
        let accepted = tokio::select! {
            accepted = next(&listeners) => accepted,
            Some(order) = orders.recv() => {
                obey(order, &mut listeners, &outdated);
                continue;
            }
            _ended = &mut stopped => break,
        };
        in_one_go += 1;
        match accepted {
            Ok((stream, peer)) => connections.add(|in_use| {
                let outdated = outdated.subscribe();
                converse(stream, peer, tls.clone(), router.clone(), in_use, outdated)
            }),
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

fn awaited(listeners: Vec<std::net::TcpListener>) -> Vec<TcpListener> {
    let awaited = listeners.into_iter().map(TcpListener::from_std);
    let told = awaited.inspect(|listener| {
        if let Err(source) = listener {
            warn!("the REST API cannot accept connections at one of its addresses: {source}");
        }
    });
    told.flatten().collect()
}

/// The next connection, at any of the addresses.
async fn next(listeners: &[TcpListener]) -> std::io::Result<(TcpStream, SocketAddr)> {
    std::future::poll_fn(|context| {
        let ready = listeners.iter().map(|listener| listener.poll_accept(context)).find(Poll::is_ready);
        ready.unwrap_or(Poll::Pending)
    })
    .await
}

fn obey(order: Order, listeners: &mut Vec<TcpListener>, outdated: &watch::Sender<()>) {
    match order {
        Order::Accept(others) => {
            *listeners = awaited(others);
            outdated.send_replace(());
        }
        Order::LetGo(gone) => {
            listeners.clear();
            // Whoever asked may have gone away.
            gone.send(()).ok();
        }
        Order::Queue(queue) => {
            for listener in listeners {
                if let Err(source) = pgherd_raft::listener::set_queue(listener, queue) {
                    warn!("restapi.request_queue_size does not take effect: {source}");
                }
            }
        }
        Order::EndConnections => {
            outdated.send_replace(());
        }
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    tls: ServerTls,
    router: Router,
    in_use: InUse,
    mut outdated: watch::Receiver<()>,
) {
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
    let (asking, changes) = (in_use.clone(), outdated.clone());
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        asking.asked();
        request.extensions_mut().insert(Peer(peer));
        if let Some(client) = client {
            request.extensions_mut().insert(client);
        }
        request.extensions_mut().insert(asking.clone());
        let (answer, changes, asked) = (answers.call(request), changes.clone(), asking.clone());
        async move {
            let mut response = answer.await?;
            asked.answered();
            if changes.has_changed().unwrap_or(true) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_PATIENCE)
            .max_buf_size(MAX_HEAD)
            .half_close(true)
            .serve_connection(TokioIo::new(accepted.stream), service)
    );
    let mut says_nothing = pin!(async {
        tokio::time::sleep(FIRST_PATIENCE).await;
        if in_use.has_asked() {
            std::future::pending::<()>().await;
        }
    });
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(source) = ended {
                    debug!("a connection to the REST API ended: {source}");
                }
                return;
            }
            () = &mut says_nothing => return debug!("a connection to the REST API asked nothing"),
            Ok(()) = outdated.changed(), if !is_ending => {
                is_ending = true;
                // Who has asked nothing yet may be about to, and shall not go without an answer: it is the last one.
                if in_use.has_asked() {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
