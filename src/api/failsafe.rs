//! Failsafe mode over REST, where it does not depend on the peers' network: `GET /failsafe` (who may hold the lease) and
//! `POST /failsafe` (a primary without a majority asks a member to stand back), both sides of it.
//!
//! The body has Patroni's keys, and the question itself under `pgherd`. Without it nothing is promised. A promise is the
//! status 200 with a header that repeats what was promised: whoever answers 200 to everything promised nothing.

use std::fmt;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use pgherd_raft::Group;
use pgherd_raft::group::StoreFailed;
use pgherd_raft::lease::{FailsafeQuestion, FailsafeRefusal};
use pgherd_raft::model::{Lsn, Member, MemberKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::reply::Reply;
use super::standing::Standing;
use super::{Shared, body};
use crate::agent::{AskMember, SlotBoard};
use crate::http_client::HttpClient;

/// What was promised, as `MEMBER/EPOCH/INCARNATION/ROUND` in hexadecimal.
const PROMISED: HeaderName = HeaderName::from_static("pgherd-promise");
/// Patroni's: the position of the standby that stands back, in bytes.
const LSN: HeaderName = HeaderName::from_static("lsn");
/// The most bytes of a question: it has the positions of some slots.
const MAX_BODY: usize = 64 * 1024;

/// Who promises.
pub trait Promises: Send + Sync {
    /// Asks this node to stand back.
    fn promise(
        &self,
        question: FailsafeQuestion,
    ) -> BoxFuture<'_, Result<Result<(), FailsafeRefusal>, StoreFailed>>;
}

impl Promises for Group {
    fn promise(
        &self,
        question: FailsafeQuestion,
    ) -> BoxFuture<'_, Result<Result<(), FailsafeRefusal>, StoreFailed>> {
        Box::pin(async move { Self::promise(self, &question).await })
    }
}

/// `GET /failsafe`.
pub(super) fn get(standing: &Standing) -> Reply {
    let cluster = &standing.view.observation.cluster;
    let Some(list) = &cluster.failsafe else {
        return Reply::text(StatusCode::BAD_GATEWAY, "failsafe mode is off");
    };
    let mut members: Vec<&Member> = list.iter().filter_map(|id| cluster.members.get(id)).collect();
    members.sort_by_key(|member| &member.name);
    let row = |member: &Member| (member.name.to_string(), json!(patroni_url(member).unwrap_or_default()));
    let document: Map<String, Value> = members.into_iter().map(row).collect();
    Reply::json(StatusCode::OK, &document)
}

fn patroni_url(member: &Member) -> Option<String> {
    member.api_url.as_ref().map(|url| format!("{}/patroni", url.trim_end_matches('/')))
}

#[derive(Deserialize)]
struct Body {
    /// How far the primary's slots have come. What is no position is passed over: a promise does not depend on it.
    #[serde(default)]
    slots: Value,
    #[serde(default)]
    pgherd: Option<FailsafeQuestion>,
}

/// `POST /failsafe`.
pub(super) async fn post(shared: Shared, request: Request) -> Reply {
    let bad = |text: String| Reply::text(StatusCode::BAD_REQUEST, text);
    let body = match body::bytes(request, MAX_BODY).await {
        Ok(body) => body.unwrap_or_default(),
        Err(refusal) => return refusal,
    };
    let standing = shared.api.standing();
    if standing.view.observation.cluster.failsafe.is_none() {
        return Reply::text(StatusCode::BAD_GATEWAY, "failsafe mode is off");
    }
    if standing.is_primary() {
        return Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "Running as a leader");
    }
    let (question, slots) = match serde_json::from_slice(&body) {
        Ok(Body { pgherd: Some(question), slots }) => (question, slots),
        Ok(Body { pgherd: None, .. }) => {
            return bad("the body has no question under the key pgherd: nothing is promised".to_owned());
        }
        Err(source) => return bad(format!("not a question: {source}")),
    };
    match shared.api.promises.promise(question.clone()).await {
        Ok(Ok(())) => {
            let positions = slots.as_object().into_iter().flatten();
            let positions = positions.filter_map(|(name, lsn)| Some((name.clone(), lsn.as_u64()?)));
            shared.api.slots.tell(question.holder, positions);
            accepted(&standing, &question)
        }
        Ok(Err(refusal)) => Reply::text(StatusCode::PRECONDITION_FAILED, refusal.to_string()),
        Err(failed) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, failed.to_string()),
    }
}

fn accepted(standing: &Standing, question: &FailsafeQuestion) -> Reply {
    let reply = Reply::text(StatusCode::OK, "Accepted");
    let reply = match HeaderValue::from_str(&promised(question)) {
        Ok(value) => reply.with(PROMISED, value),
        Err(_) => reply,
    };
    match standing.server().map(|server| HeaderValue::from(server.position.lsn.0)) {
        Some(lsn) => reply.with(LSN, lsn),
        None => reply,
    }
}

fn promised(question: &FailsafeQuestion) -> String {
    let FailsafeQuestion { member, epoch, incarnation, round, .. } = question;
    format!("{member}/{:x}/{incarnation}/{round:x}", epoch.0)
}

/// The asking side.
#[derive(Clone)]
pub struct MemberClient {
    own: Member,
    client: watch::Receiver<HttpClient>,
    slots: Arc<SlotBoard>,
}

impl fmt::Debug for MemberClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemberClient")
    }
}

impl MemberClient {
    /// Asks as this member, with the client that is there when it asks, and tells the positions of its slots.
    pub fn new(own: Member, client: watch::Receiver<HttpClient>, slots: Arc<SlotBoard>) -> Self {
        Self { own, client, slots }
    }

    fn request(
        &self,
        member: &Member,
        question: &FailsafeQuestion,
    ) -> Result<axum::http::Request<Full<Bytes>>, String> {
        let url = member.api_url.as_ref().filter(|_| member.kind == MemberKind::Data);
        let url = url.ok_or_else(|| "it has no REST API".to_owned())?;
        let url = format!("{}/failsafe", url.trim_end_matches('/'));
        let conn_url =
            self.own.postgres.as_ref().map(|at| format!("postgres://{}:{}/postgres", at.host, at.port));
        let body = json!({
            "name": self.own.name,
            "conn_url": conn_url,
            "api_url": patroni_url(&self.own),
            "slots": self.slots.own(),
            "pgherd": question,
        });
        axum::http::Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|source| source.to_string())
    }
}

impl AskMember for MemberClient {
    /// Each question has a connection of its own: the thread that asks may be another one the next time.
    fn ask(&self, member: &Member, question: &FailsafeQuestion) -> BoxFuture<'static, Result<(), String>> {
        let request = self.request(member, question);
        let expected = promised(question);
        let client = self.client.borrow().clone();
        let (slots, slot) = (Arc::clone(&self.slots), member.name.slot_name());
        Box::pin(async move {
            let answer = client.send(request?, MAX_BODY).await.map_err(|failure| failure.to_string())?;
            let repeated = answer.headers.get(&PROMISED).and_then(|value| value.to_str().ok());
            if answer.status == StatusCode::OK && repeated == Some(expected.as_str()) {
                let lsn = answer.headers.get(&LSN).and_then(|value| value.to_str().ok()?.parse().ok());
                lsn.into_iter().for_each(|lsn| slots.answered(slot.clone(), Lsn(lsn)));
                return Ok(());
            }
            let said = String::from_utf8_lossy(&answer.body);
            Err(format!("status {}: {said}", answer.status.as_u16()))
        })
    }
}
