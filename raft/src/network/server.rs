//! The listener: reads envelopes, finds the cluster, hands the question over.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::envelope::{Answer, CALL_PATH, Envelope, MAX_MESSAGE_BYTES, PROTO};
use super::incoming::incoming;
use super::security::PeerSecurity;
use crate::group::StartError;
use crate::listener::listen;

/// Threads of the port: two, so that one long answer does not delay all others.
const THREADS: usize = 2;
/// Questions of one connection answered at once: a member asks some at a time, a witness serves many clusters.
const MAX_STREAMS: u32 = 256;
/// A node that got no time for some seconds finds questions which their askers have given up since. With hyper's 20 it
/// would answer by closing the connection, and be silent for longer.
const GIVEN_UP_QUESTIONS: usize = 1000;
/// The longest time in which a question may be answered; askers have shorter limits of their own.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How often a silent connection is tried, and how long the other side may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// How long open connections may take to end at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_millis(300);

/// A cluster's part on this node, as the listener sees it.
pub(crate) trait Handler: Send + Sync {
    /// Answers one question; the scope is the right one.
    fn handle(self: Arc<Self>, envelope: Envelope) -> BoxFuture<Answer, Status>;
}

type Routes = RwLock<BTreeMap<String, Arc<dyn Handler>>>;

/// The listener of the peers' port. It has threads of its own, on which the clusters which it serves do their
/// consensus: the rest of the process cannot delay it.
pub struct PeerServer {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: Mutex<JoinSet<()>>,
}

/// What the listener and the clusters have in common.
pub(crate) struct Shared {
    routes: Arc<Routes>,
    security: PeerSecurity,
    /// None only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// The threads of the peers' port.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.handle
    }

    /// How calls to others are secured: like the port itself.
    pub(crate) fn security(&self) -> PeerSecurity {
        self.security.clone()
    }

    /// From now on questions about this scope go to the handler, unless the scope is served already.
    pub(crate) fn add(&self, scope: &str, handler: Arc<dyn Handler>) -> Result<Route, StartError> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if routes.contains_key(scope) {
            return Err(StartError::ScopeInUse { scope: scope.to_owned() });
        }
        routes.insert(scope.to_owned(), handler);
        Ok(Route { scope: scope.to_owned(), routes: Arc::clone(&self.routes) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed within another runtime; all tasks were joined before.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for PeerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl PeerServer {
    /// Listens on `host:port`; a host of `*` is every address. Whoever reaches it may speak.
    pub async fn bind(addr: &str) -> Result<Self, StartError> {
        Self::bind_secured(addr, PeerSecurity::none()).await
    }

    /// The same for who is secured in the same way.
    pub async fn bind_secured(addr: &str, security: PeerSecurity) -> Result<Self, StartError> {
        let failed = |source: std::io::Error| {
            let addr = addr.to_owned();
            if source.kind() == std::io::ErrorKind::AddrInUse {
                StartError::PortInUse { addr }
            } else {
                StartError::Listen { addr, source }
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("peers")
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let routes = Arc::new(Routes::default());
        let shared = Arc::new(Shared {
            routes: Arc::clone(&routes),
            security: security.clone(),
            runtime: Some(runtime),
            handle,
        });
        let mut binding = JoinSet::new();
        let wanted = addr.to_owned();
        let bind = async move {
            let listener = listen(&wanted)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        binding.spawn_on(bind, shared.runtime());
        let listener = match binding.join_next().await {
            Some(Ok(bound)) => bound.map_err(failed)?,
            Some(Err(error)) => return Err(failed(std::io::Error::other(error))),
            None => return Err(failed(std::io::Error::other("the listener's task is gone"))),
        };
        let local_addr = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn_on(serve(listener, security, Listener { routes }, stop.clone()), shared.runtime());
        Ok(Self { local_addr, shared, stop, task: Mutex::new(task) })
    }

    /// Where it listens: the port is known even when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops listening and ends all connections.
    pub async fn shutdown(&self) {
        self.shared.routes.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.stop.cancel();
        let mut task = std::mem::take(&mut *self.task.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = tokio::time::timeout(DRAIN_LIMIT, async { while task.join_next().await.is_some() {} });
        if ended.await.is_err() {
            task.shutdown().await;
        }
    }

    /// What a cluster's part needs of the port.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One scope's entry; dropping it ends the service.
pub(crate) struct Route {
    scope: String,
    routes: Arc<Routes>,
}

impl Drop for Route {
    fn drop(&mut self) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).remove(&self.scope);
    }
}

async fn serve(listener: TcpListener, security: PeerSecurity, service: Listener, stop: CancellationToken) {
    let served = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(GIVEN_UP_QUESTIONS))
        .timeout(ANSWER_LIMIT)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming(listener, security), stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!("the peers' port ended: {error}");
    }
}

#[derive(Clone)]
struct Listener {
    routes: Arc<Routes>,
}

impl NamedService for Listener {
    const NAME: &'static str = "pgherd.Peers";
}

impl Service<http::Request<Body>> for Listener {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method { routes: Arc::clone(&self.routes) };
        Box::pin(async move {
            if request.uri().path() != CALL_PATH {
                return Ok(Status::unimplemented("pgherd's peers know one method only").into_http());
            }
            let codec: ProstCodec<Answer, Envelope> = ProstCodec::default();
            let mut grpc = tonic::server::Grpc::new(codec)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            Ok(grpc.unary(method, request).await)
        })
    }
}

struct Method {
    routes: Arc<Routes>,
}

impl UnaryService<Envelope> for Method {
    type Response = Answer;
    type Future = BoxFuture<Response<Answer>, Status>;

    fn call(&mut self, request: Request<Envelope>) -> Self::Future {
        let envelope = request.into_inner();
        let found = find(&self.routes, &envelope);
        Box::pin(async move {
            let answer = found?.handle(envelope).await?;
            Ok(Response::new(answer))
        })
    }
}

fn find(routes: &Routes, envelope: &Envelope) -> Result<Arc<dyn Handler>, Status> {
    if envelope.proto != PROTO {
        return Err(Status::failed_precondition(format!(
            "this member speaks version {PROTO} of the peers' protocol, the caller {}; run the same version of pgherd",
            envelope.proto
        )));
    }
    let routes = routes.read().unwrap_or_else(PoisonError::into_inner);
    routes
        .get(&envelope.scope)
        .map(Arc::clone)
        .ok_or_else(|| Status::not_found(format!("no cluster {:?} is served on this port", envelope.scope)))
}
