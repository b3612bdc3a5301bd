//! Calls to other members: one connection an address, opened when first needed, kept and repaired by the transport.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::envelope::{Answer, CALL_PATH, Envelope, Kind, MAX_MESSAGE_BYTES, PROTO, decode, encode};
use super::security::PeerSecurity;
use crate::group::Marks;
use crate::model::{GroupId, MemberId};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a silent connection is tried, and how long the other side may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));
/// Connections kept at once: more addresses than a cluster has members, so that changed addresses find room.
const MAX_CHANNELS: usize = 128;

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) addr: String,
    /// Who is expected there; none: whoever listens.
    pub(crate) id: Option<MemberId>,
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailure {
    /// It did not leave this node.
    #[error("cannot connect: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("{0}")]
    Lost(String),
    /// Somebody listens there who does not serve this cluster.
    #[error("{0}")]
    OtherScope(String),
    /// It arrived and was not carried out.
    #[error("{0}")]
    Refused(String),
}

/// The connections of one owner.
#[derive(Debug)]
pub(crate) struct Peers {
    scope: String,
    marks: Arc<Marks>,
    channels: Mutex<BTreeMap<String, Channel>>,
    security: PeerSecurity,
    /// Where the connections live, whoever calls.
    runtime: Handle,
}

impl Peers {
    pub(crate) fn new(scope: &str, marks: Arc<Marks>, security: PeerSecurity, runtime: &Handle) -> Self {
        let (scope, runtime) = (scope.to_owned(), runtime.clone());
        Self { scope, marks, channels: Mutex::default(), security, runtime }
    }

    /// Asks and waits for the answer, `limit` at most.
    pub(crate) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        target: &Target,
        group: Option<GroupId>,
        kind: Kind,
        question: &Q,
        limit: Duration,
    ) -> Result<A, CallFailure> {
        let refused = |status: Status| CallFailure::Refused(status.message().to_owned());
        let payload = encode(question).map_err(refused)?;
        let answer = self.call_bytes(target, group, kind, payload, limit).await?;
        decode(&answer).map_err(refused)
    }

    /// The same with payloads that are no JSON.
    pub(crate) async fn call_bytes(
        &self,
        target: &Target,
        group: Option<GroupId>,
        kind: Kind,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallFailure> {
        if self.marks.is_put_back() {
            return Err(CallFailure::NotSent("this node's store was put back from an older copy".to_owned()));
        }
        let envelope = Envelope {
            proto: PROTO,
            scope: self.scope.clone(),
            group: group.map_or(0, |group| group.0),
            from: self.marks.id().0,
            to: target.id.map_or(0, |id| id.0),
            kind: kind.number(),
            payload,
            mark: self.marks.mark(),
            remembered: target.id.and_then(|id| self.marks.seen(id)),
        };
        match tokio::time::timeout(limit, self.send(&target.addr, envelope, limit)).await {
            Ok(answer) => self.judge(answer?),
            Err(_) => Err(CallFailure::Lost(format!("no answer within {limit:?}"))),
        }
    }

    /// Both sides' stores are compared with what is remembered of them before an answer counts.
    fn judge(&self, answer: Answer) -> Result<Bytes, CallFailure> {
        let from = MemberId(answer.from);
        self.marks.told(from, answer.remembered.as_ref());
        if self.marks.is_put_back() {
            return Err(CallFailure::Refused("this node's store was put back from an older copy".to_owned()));
        }
        if !self.marks.hear(from, answer.mark.as_ref()) {
            return Err(CallFailure::Refused(format!(
                "member {from} answers with a store that is older than what was heard of it"
            )));
        }
        if answer.refused.is_empty() { Ok(answer.payload) } else { Err(CallFailure::Refused(answer.refused)) }
    }

    async fn send(&self, addr: &str, envelope: Envelope, limit: Duration) -> Result<Answer, CallFailure> {
        let mut grpc = Grpc::new(self.channel(addr)?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(|error| CallFailure::NotSent(error.to_string()))?;
        let mut request = Request::new(envelope);
        request.set_timeout(limit);
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(CALL_PATH);
        let codec: ProstCodec<Envelope, Answer> = ProstCodec::default();
        match grpc.unary(request, path, codec).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(classify(&status)),
        }
    }

    fn channel(&self, addr: &str) -> Result<Channel, CallFailure> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(addr) {
            return Ok(channel.clone());
        }
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))
            .map_err(|error| CallFailure::NotSent(format!("{addr} is not host:port ({error})")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true);
        let _within = self.runtime.enter();
        let channel = match self.security.connector() {
            Some(connector) => endpoint.connect_with_connector_lazy(connector),
            None => endpoint.connect_lazy(),
        };
        channels.insert(addr.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn classify(status: &Status) -> CallFailure {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return CallFailure::NotSent(error.to_string());
        }
        cause = error.source();
    }
    match status.code() {
        Code::NotFound => CallFailure::OtherScope(status.message().to_owned()),
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
            CallFailure::Refused(status.message().to_owned())
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => CallFailure::Lost(status.message().to_owned()),
    }
}
