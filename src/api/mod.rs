//! The REST API, with Patroni's paths, status codes and documents.
//!
//! It owns the HTTP server and its thread. It promises an answer from the last published [`View`] and the clock,
//! without asking PostgreSQL or anybody else, for every safe method. The unsafe ones write an operator's intent into the
//! replicated state and wait until it has happened. It never decides and never touches PostgreSQL.
//!
//! Reading order: [`standing`] (what may be said of this node now), `health` (which path is 200 when), `status` and
//! `cluster` (the documents), `decisions` (what happened and why), `failsafe`, `intent` (switchover and failover), `settings`
//! (`/config`), `server` (connections and their limits).

mod auth;
mod cluster;
mod decisions;
mod failsafe;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod intent;
mod metrics;
mod reply;
mod server;
mod settings;
mod standing;
mod status;
#[cfg(any(test, fuzzing))]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pgherd_raft::RenewerFacts;
use tokio::sync::watch;

use crate::agent::view::View;
use crate::tls::ServerTls;

pub use auth::Credentials;
pub use auth::authorization;
pub use failsafe::{MemberClient, Promises};
pub use intent::Intents;
pub use server::{ApiError, ApiServer, serve};

use reply::Reply;
use standing::Standing;

/// Who answers, as in `Server: pgherd/0.1.0`.
const SERVER_NAME: &str = concat!("pgherd/", env!("CARGO_PKG_VERSION"));

/// What the API answers from. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The last published view.
    pub view: watch::Receiver<Arc<View>>,
    /// What the renewer knows at this moment: asked at every answer that claims the lease.
    pub renewer: Arc<dyn Fn() -> RenewerFacts + Send + Sync>,
    /// Where operators' wishes are written.
    pub intents: Arc<dyn Intents>,
    /// Who stands back for a primary without a majority.
    pub promises: Arc<dyn Promises>,
    /// Name and password for unsafe methods; none: everybody may.
    pub credentials: Option<Credentials>,
    /// The certificate, when there is one.
    pub tls: ServerTls,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").finish_non_exhaustive()
    }
}

impl ApiState {
    fn standing(&self) -> Standing {
        let view = Arc::clone(&self.view.borrow());
        Standing::new(view, (self.renewer)(), pgherd_raft::clock::now())
    }
}

/// The routes. The first part of a path chooses the handler, as in Patroni: `/cluster/anything` is `/cluster`, and what
/// no handler claims is a health check.
fn router(state: Shared) -> Router {
    Router::new().fallback(answer).with_state(state)
}

/// The state of a running server.
#[derive(Clone, Debug)]
struct Shared {
    api: ApiState,
    operations: intent::Operations,
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let mut response = match *request.method() {
        Method::GET | Method::HEAD => safe(&shared.api, &request).into_response(),
        Method::OPTIONS => safe(&shared.api, &request).without_body().into_response(),
        _ => unsafe_method(shared, request).await.into_response(),
    };
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER_NAME));
    response
}

fn safe(api: &ApiState, request: &Request) -> Reply {
    let standing = api.standing();
    let query = request.uri().query().unwrap_or_default();
    let path = request.uri().path();
    match first_part(path) {
        "liveness" => Reply::status_only(StatusCode::OK, standing.is_alive()),
        "readiness" => Reply::status_only(StatusCode::OK, health::is_ready(&standing, query)),
        "patroni" => Reply::json(StatusCode::OK, &status::document(&standing)),
        "cluster" => Reply::json(StatusCode::OK, &cluster::document(&standing)),
        "config" => settings::get(&standing),
        "failsafe" => failsafe::get(&standing),
        "decisions" => decisions::list(&standing, query),
        "what-if" => decisions::what_if(&standing, query),
        "metrics" => metrics::page(&standing),
        _ => {
            let code = if health::is_well(&standing, path, query) {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            if *request.method() == Method::GET {
                Reply::json(code, &status::document(&standing))
            } else {
                Reply::code(code)
            }
        }
    }
}

async fn unsafe_method(shared: Shared, request: Request) -> Reply {
    let method = request.method().clone();
    let first = first_part(request.uri().path()).to_owned();
    let handled = matches!(
        (method.as_str(), first.as_str()),
        ("POST", "switchover" | "failover" | "failsafe")
            | ("DELETE", "switchover")
            | ("PATCH" | "PUT", "config")
    );
    if !handled {
        return Reply::text(StatusCode::NOT_IMPLEMENTED, format!("Unsupported method ('{method}')"));
    }
    if let Err(refusal) = auth::check(shared.api.credentials.as_ref(), request.headers()) {
        return refusal;
    }
    match (method.as_str(), first.as_str()) {
        ("POST", "switchover") => intent::post(shared, request, intent::Word::Switchover).await,
        ("POST", "failsafe") => failsafe::post(shared, request).await,
        ("POST", _) => intent::post(shared, request, intent::Word::Failover).await,
        ("PATCH", _) => settings::change(shared, request, settings::Way::Patch).await,
        ("PUT", _) => settings::change(shared, request, settings::Way::Put).await,
        _ => Reply::text(StatusCode::NOT_FOUND, "no switchover is scheduled"),
    }
}

fn first_part(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}
