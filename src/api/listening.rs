//! Where the server listens, which a configuration that is read again may change while it runs.
//!
//! Promises: a new address is listened on before the old one is let go; when that cannot be, the old one stays and the
//! reason is told. Who is connected gets the answer that was asked for, and then the connection ends, so that nobody goes
//! on talking to an address, or without an encryption, that is not in force any more.

use std::net::TcpListener;

use pgherd_raft::listener;
use tokio::sync::{mpsc, oneshot};

use super::server::ApiError;
use crate::config::RestApi;

/// Orders which wait for the server's thread; there is one who gives them, and he waits for none.
const MAX_ORDERS: usize = 4;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// `HOST:PORT`; a host of `*` or none means all addresses.
    pub addr: String,
    /// So many connections may wait to be accepted (`request_queue_size`).
    pub queue: u32,
}

impl Listening {
    /// What a configuration says.
    pub fn of(config: &RestApi) -> Self {
        let queue = config.request_queue_size.unwrap_or(listener::QUEUE);
        Self { addr: config.listen.to_string(), queue }
    }

    pub(super) fn begin(&self) -> Result<Vec<TcpListener>, ApiError> {
        let failed = |source: std::io::Error| {
            let addr = self.addr.clone();
            if source.kind() == std::io::ErrorKind::AddrInUse {
                ApiError::PortInUse { addr }
            } else {
                ApiError::Listen { addr, source }
            }
        };
        let listeners = listener::listen_on_all(&self.addr, self.queue).map_err(failed)?;
        for listener in &listeners {
            listener.set_nonblocking(true).map_err(failed)?;
        }
        Ok(listeners)
    }

    /// A name may have to be looked up.
    async fn begin_beside(&self) -> Result<Vec<TcpListener>, ApiError> {
        let wanted = self.clone();
        let begun = tokio::task::spawn_blocking(move || wanted.begin()).await;
        begun.unwrap_or_else(|broken| {
            let addr = self.addr.clone();
            Err(ApiError::Listen { addr, source: std::io::Error::other(broken) })
        })
    }

    fn port(&self) -> Option<&str> {
        self.addr.rsplit_once(':').map(|(_, port)| port)
    }
}

impl From<&str> for Listening {
    fn from(addr: &str) -> Self {
        Self { addr: addr.to_owned(), queue: listener::QUEUE }
    }
}

/// What the server's thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Accept here and nowhere else; end the open connections after their answers.
    Accept(Vec<TcpListener>),
    /// Accept nowhere, and say when that is so.
    LetGo(oneshot::Sender<()>),
    /// Let so many connections wait.
    Queue(u32),
    /// End the open connections after their answers.
    EndConnections,
}

/// Moves a running server.
#[derive(Debug)]
pub struct Mover {
    /// None: it was lost, and could not be had again.
    present: Option<Listening>,
    orders: mpsc::Sender<Order>,
}

impl Mover {
    pub(super) fn new(present: Listening) -> (Self, mpsc::Receiver<Order>) {
        let (orders, obeyed) = mpsc::channel(MAX_ORDERS);
        (Self { present: Some(present), orders }, obeyed)
    }

    /// Has the server listen there. The answer is whether the address is another one than before.
    ///
    /// # Errors
    /// It cannot listen there. It goes on where it was, unless the error is [`ApiError::Nowhere`].
    pub async fn listen(&mut self, wanted: &Listening) -> Result<bool, ApiError> {
        match &self.present {
            Some(present) if present == wanted => return Ok(false),
            Some(present) if present.addr == wanted.addr => {
                self.order(Order::Queue(wanted.queue)).await;
                self.present = Some(wanted.clone());
                return Ok(false);
            }
            Some(_) | None => {}
        }
        let listeners = match wanted.begin_beside().await {
            Err(ApiError::PortInUse { .. }) if self.may_be_in_its_own_way(wanted) => {
                self.change_over(wanted).await?
            }
            begun => begun?,
        };
        self.order(Order::Accept(listeners)).await;
        self.present = Some(wanted.clone());
        Ok(true)
    }

    /// Has the server end all connections, each after the answer that it is busy with.
    pub async fn end_connections(&self) {
        self.order(Order::EndConnections).await;
    }

    /// All addresses and one of them cannot be listened on at a time.
    fn may_be_in_its_own_way(&self, wanted: &Listening) -> bool {
        self.present.as_ref().is_some_and(|present| present.port() == wanted.port())
    }

    async fn change_over(&mut self, wanted: &Listening) -> Result<Vec<TcpListener>, ApiError> {
        let (gone, is_gone) = oneshot::channel();
        self.order(Order::LetGo(gone)).await;
        // An error means that the server has ended.
        is_gone.await.ok();
        let refused = match wanted.begin_beside().await {
            Ok(listeners) => return Ok(listeners),
            Err(refused) => refused,
        };
        let Some(present) = self.present.take() else { return Err(refused) };
        match present.begin_beside().await {
            Ok(listeners) => {
                self.order(Order::Accept(listeners)).await;
                self.present = Some(present);
                Err(refused)
            }
            Err(lost) => Err(ApiError::Nowhere { refused: Box::new(refused), lost: Box::new(lost) }),
        }
    }

    async fn order(&self, order: Order) {
        // Without a server nobody listens, whatever is ordered.
        self.orders.send(order).await.ok();
    }
}
