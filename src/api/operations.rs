//! Operations that somebody asked for, and that go on without them.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::info;

use super::reply::Reply;

/// So many at a time; a switchover or a restart excludes another, so most of these would only wait to be refused.
const MAX_OPERATIONS: usize = 64;

/// Operations go on when the client who asked for them is gone; they end with the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Operations {
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Operations {
    pub(super) async fn run(&self, operation: impl Future<Output = Reply> + Send + 'static) -> Reply {
        let (tell, answer) = oneshot::channel();
        {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            if tasks.len() >= MAX_OPERATIONS {
                let text = "too many operations are in progress: ask again later";
                return Reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
            }
            tasks.spawn(async move {
                let reply = operation.await;
                if let Err(unheard) = tell.send(reply) {
                    info!("nobody waits any more for this answer to an operator: {}", unheard.body);
                }
            });
        }
        let ended = "the daemon ends: the outcome is not known";
        answer.await.unwrap_or_else(|_| Reply::text(StatusCode::SERVICE_UNAVAILABLE, ended))
    }

    /// Ends all.
    pub(super) async fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}
