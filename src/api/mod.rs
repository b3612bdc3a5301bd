//! The REST API, with Patroni's paths, status codes and documents.
//!
//! It owns the HTTP server and its thread. It promises an answer from the last published [`View`] and the clock,
//! without asking PostgreSQL or anybody else, for every safe method. The unsafe ones write an operator's intent into the
//! replicated state and wait until it has happened. It never decides and never touches PostgreSQL.
//!
//! Reading order: [`standing`] (what may be said of this node now), `health` (which path is 200 when), `status`, `cluster`
//! and `metrics` (the documents), `decisions` (what happened and why), `access` (who may change something), `wish` and
//! `intent` (switchover and failover), `local` (restart, reload, reinitialize), `failsafe`, `settings` and
//! `settings_history` (`/config`), `server` and `connections` (the limits), `listening` and `follow` (what a configuration
//! that is read again changes).

mod access;
mod auth;
mod body;
mod cluster;
mod connections;
mod decisions;
mod failsafe;
mod follow;
#[cfg(all(fuzzing, not(test)))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(crate) mod fuzzing;
mod health;
mod history;
mod intent;
mod listening;
mod local;
mod metrics;
mod operations;
mod query;
mod reply;
mod schedule;
mod server;
mod settings;
mod settings_history;
mod standing;
mod status;
#[cfg(all(fuzzing, not(test)))]
mod testing;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wish;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pgherd_raft::RenewerFacts;
use tokio::sync::watch;

use crate::agent::SlotBoard;
use crate::agent::operations::LocalActions;
use crate::agent::view::View;
use crate::config::ParameterCheck;
use crate::tls::ServerTls;

pub use access::{Allowlist, ApiSettings, Peer};
pub use auth::Credentials;
pub use auth::authorization;
pub use failsafe::{MemberClient, Promises};
pub use follow::{Followed, follow, to_members};
pub use intent::Intents;
pub use listening::{Listening, Mover};
pub use server::{ApiError, ApiServer, serve};
pub(crate) use settings::without_secrets;

use connections::InUse;
use query::Query;
use reply::Reply;
use standing::Standing;

/// The version of Patroni whose documents these are. Programs for Patroni read it to know what they may expect:
/// check_patroni, for example, counts a standby as healthy in the state `streaming` from 3.0.4 on.
pub const PATRONI_VERSION: &str = "4.1.5";
/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Who answers, as in `Server: pgherd/0.1.0`.
const SERVER_NAME: &str = concat!("pgherd/", env!("CARGO_PKG_VERSION"));
/// The same with `server_tokens: ProductOnly`.
const PRODUCT_NAME: &str = "pgherd";

/// What the API answers from. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The last published view.
    pub view: watch::Receiver<Arc<View>>,
    /// What the renewer knows at this moment: asked at every answer that claims the lease.
    pub renewer: Arc<dyn Fn() -> RenewerFacts + Send + Sync>,
    /// Has the postmaster ended, at this moment? The next view follows when the agent has looked at everything.
    pub has_ended: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Where operators' wishes are written.
    pub intents: Arc<dyn Intents>,
    /// Who stands back for a primary without a majority.
    pub promises: Arc<dyn Promises>,
    /// Positions of slots that come and go with failsafe's questions.
    pub slots: Arc<SlotBoard>,
    /// What is asked of this node alone.
    pub actions: Arc<dyn LocalActions>,
    /// Who knows with which parameters PostgreSQL would start.
    pub parameters: Arc<dyn ParameterCheck>,
    /// What the configuration says; it may change.
    pub settings: watch::Receiver<Arc<ApiSettings>>,
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
        let standing = Standing::new(view, (self.renewer)(), pgherd_raft::clock::now());
        if (self.has_ended)() { standing.with_ended_server() } else { standing }
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
    operations: operations::Operations,
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let settings = Arc::clone(&shared.api.settings.borrow());
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_safe && parts(request.uri().path()) == ("config", "") {
        settings::await_first(&shared.api).await;
    }
    let reply = match *request.method() {
        Method::GET | Method::HEAD => safe(&shared.api, &request),
        Method::OPTIONS => safe(&shared.api, &request).without_body(),
        _ => unsafe_method(shared, &settings, request).await,
    };
    let mut response = reply.into_response();
    let name = if settings.hides_version { PRODUCT_NAME } else { SERVER_NAME };
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(name));
    for (name, value) in &settings.headers {
        headers.insert(name.clone(), value.clone());
    }
    response
}

fn safe(api: &ApiState, request: &Request) -> Reply {
    let bad = |why: String| Reply::text(StatusCode::BAD_REQUEST, why);
    let query = match Query::parse(request.uri().query().unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return bad(why),
    };
    let standing = api.standing();
    // What was agreed on shows at once, without waiting for the next observation.
    let group = Arc::clone(&api.intents.watch().borrow());
    let agreed = &group.state;
    let path = request.uri().path();
    match parts(path) {
        ("liveness", _) => Reply::status_only(standing.is_alive()),
        ("readiness", _) => health::is_ready(&standing, &query).map_or_else(bad, Reply::status_only),
        ("patroni", _) => Reply::json(StatusCode::OK, &status::document(&standing)),
        ("cluster", _) => Reply::json(StatusCode::OK, &cluster::document(&standing, agreed)),
        ("history", _) => history::list(agreed),
        ("config", "history") => settings_history::list(agreed),
        ("config", _) => settings::get(agreed),
        ("failsafe", _) => failsafe::get(&standing),
        ("decisions", _) => decisions::list(&standing, &query),
        ("what-if", _) => decisions::what_if(&standing, &query),
        ("metrics", _) => metrics::page(&standing),
        _ => match health::is_well(&standing, path, &query) {
            Ok(is_well) => {
                let code = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Reply::json(code, &status::document(&standing))
            }
            Err(why) => bad(why),
        },
    }
}

async fn unsafe_method(shared: Shared, settings: &ApiSettings, request: Request) -> Reply {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let Some(action) = Action::of(method.as_str(), parts(&path)) else {
        return Reply::text(StatusCode::NOT_IMPLEMENTED, format!("Unsupported method ('{method}')"));
    };
    let view = Arc::clone(&shared.api.view.borrow());
    let (head, body) = request.into_parts();
    let caller = match access::check(settings, &view.observation.cluster, &head).await {
        Ok(caller) => caller,
        Err(refusal) => return refusal,
    };
    let in_use = head.extensions.get::<InUse>().cloned();
    let request = Request::from_parts(head, body);
    match action {
        Action::Switchover => intent::post(shared, request, wish::Word::Switchover).await,
        Action::Failover => intent::post(shared, request, wish::Word::Failover).await,
        Action::CancelSwitchover => {
            in_use.inspect(InUse::begin);
            intent::cancel(shared).await
        }
        Action::Restart => local::restart(shared, request).await,
        Action::CancelRestart => local::cancel_restart(shared).await,
        Action::Reload => local::reload(shared, request).await,
        Action::Reinitialize => local::reinitialize(shared, request).await,
        Action::Failsafe => failsafe::post(shared, request).await,
        Action::Citus => {
            let text = "this cluster is not part of a Citus cluster";
            Reply::text(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Action::Patch => settings::change(shared, request, settings::Way::Patch, caller).await,
        Action::Put => settings::change(shared, request, settings::Way::Put, caller).await,
        Action::Rollback => settings_history::rollback(shared, request, caller).await,
    }
}

/// What an unsafe method is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Switchover,
    Failover,
    CancelSwitchover,
    Restart,
    CancelRestart,
    Reload,
    Reinitialize,
    Failsafe,
    /// Events of a Citus worker.
    Citus,
    Patch,
    Put,
    Rollback,
}

impl Action {
    fn of(method: &str, parts: (&str, &str)) -> Option<Self> {
        Some(match (method, parts) {
            ("POST", ("switchover", _)) => Self::Switchover,
            ("POST", ("failover", _)) => Self::Failover,
            ("DELETE", ("switchover", _)) => Self::CancelSwitchover,
            ("POST", ("restart", _)) => Self::Restart,
            ("DELETE", ("restart", _)) => Self::CancelRestart,
            ("POST", ("reload", _)) => Self::Reload,
            ("POST", ("reinitialize", _)) => Self::Reinitialize,
            ("POST", ("failsafe", _)) => Self::Failsafe,
            ("POST", ("citus" | "mpp", _)) => Self::Citus,
            ("PATCH", ("config", _)) => Self::Patch,
            ("PUT", ("config", _)) => Self::Put,
            ("POST", ("config", "rollback")) => Self::Rollback,
            _ => return None,
        })
    }
}

/// The first and the second part of a path; what is not there is empty.
fn parts(path: &str) -> (&str, &str) {
    let mut parts = path.trim_start_matches('/').split('/');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}
