//! Answers to the other members' questions.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::raft::AppendEntriesResponse;
use serde::Serialize;
use tonic::Status;
use tonic::codegen::BoxFuture;

use super::admission::{self, JoinRequest};
use super::node::Node;
use super::recall::Recalled;
use super::{directory, founder, propose};
use crate::clock;
use crate::founding::PromiseRequest;
use crate::lease::{CloseRequest, Renewal};
use crate::model::{Command, MemberId};
use crate::network::{Answer, Envelope, Handler, Kind, SnapshotMessage, decode, encode};
use crate::types::Snapshot;

/// How long a forwarded proposal or read may take here; the asker's own limit is usually shorter.
const FORWARDED_LIMIT: Duration = propose::LIMIT;
/// How long a question waits for the end of this node's own questions at its start: those take some milliseconds.
const TRUST_LIMIT: Duration = Duration::from_millis(200);
/// How often another group's messages are complained about.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

impl Handler for Node {
    fn handle(self: Arc<Self>, envelope: Envelope) -> BoxFuture<Answer, Status> {
        Box::pin(async move {
            let Some(kind) = Kind::parse(envelope.kind) else {
                return Err(Status::unimplemented(format!("unknown kind of message {}", envelope.kind)));
            };
            admit(&self, kind, &envelope)?;
            let from = MemberId(envelope.from);
            let (payload, refused) = if is_believed(&self, kind, &envelope) {
                takes_part(&self, kind).await?;
                (answer(&self, kind, &envelope).await?, String::new())
            } else {
                let sentence = "the asker's store is older than what was heard of it";
                (bytes::Bytes::new(), sentence.to_owned())
            };
            // The mark last: it has every write which the answer speaks of.
            let (remembered, mark) = (self.marks.seen(from), self.marks.mark());
            Ok(Answer { payload, from: self.id.0, mark, remembered, refused })
        })
    }
}

/// Compares both sides' stores with what is remembered of them. Whoever asks what is remembered gets its answer.
fn is_believed(node: &Node, kind: Kind, envelope: &Envelope) -> bool {
    let from = MemberId(envelope.from);
    node.marks.told(from, envelope.remembered.as_ref());
    node.marks.hear(from, envelope.mark.as_ref()) || kind == Kind::Recall
}

/// What a promise could be broken by waits until this node's store is known to be the one that made it.
async fn takes_part(node: &Node, kind: Kind) -> Result<(), Status> {
    let waits = match kind {
        Kind::Append
        | Kind::Vote
        | Kind::PreVote
        | Kind::Snapshot
        | Kind::TransferLeader
        | Kind::Renew
        | Kind::Close
        | Kind::Quiet
        | Kind::Propose
        | Kind::Read
        | Kind::State => !node.marks.is_trusted_within(TRUST_LIMIT).await,
        Kind::Report
        | Kind::Probe
        | Kind::Promise
        | Kind::Join
        | Kind::Members
        | Kind::Invite
        | Kind::Wish => node.marks.is_put_back(),
        Kind::Recall => false,
    };
    if waits {
        return Err(Status::failed_precondition(
            "this member takes no part before the others have said that they know its store",
        ));
    }
    Ok(())
}

/// Is the message meant for this member of this group?
fn admit(node: &Node, kind: Kind, envelope: &Envelope) -> Result<(), Status> {
    let scope = &envelope.scope;
    if envelope.to != 0 && envelope.to != node.id.0 {
        let (me, asked) = (node.id, MemberId(envelope.to));
        return Err(Status::failed_precondition(format!(
            "member {me} listens here, not member {asked} of the cluster {scope}"
        )));
    }
    let own = node.identity.group().map_or(0, |group| group.0);
    let strangers_may = matches!(
        kind,
        Kind::Probe | Kind::Promise | Kind::Join | Kind::Members | Kind::Invite | Kind::Wish | Kind::State
    );
    if strangers_may && (own == 0 || envelope.group == 0) || own == envelope.group && own != 0 {
        return Ok(());
    }
    if own == 0 {
        return Err(Status::failed_precondition(format!(
            "this member does not belong to a group of the cluster {scope} yet"
        )));
    }
    complain(node, envelope);
    Err(Status::failed_precondition(format!(
        "this member belongs to another group of the cluster {scope} ({own:016x}, not {:016x}): two clusters have the same scope; give one of them another scope",
        envelope.group
    )))
}

/// Two groups under one scope: said loudly, and not with every message.
fn complain(node: &Node, envelope: &Envelope) {
    let now = clock::now();
    let mut last = node.complained.lock().unwrap_or_else(PoisonError::into_inner);
    if last.0.is_zero() || now.since(*last) > COMPLAINT_INTERVAL {
        *last = now;
        tracing::error!(
            "member {} of another group ({:016x}) under the same scope {} sends messages to this one; give one of the two clusters another scope",
            MemberId(envelope.from),
            envelope.group,
            envelope.scope
        );
    }
}

async fn answer(node: &Arc<Node>, kind: Kind, envelope: &Envelope) -> Result<bytes::Bytes, Status> {
    let payload = &envelope.payload;
    let fatal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let raft = &node.raft;
    match kind {
        Kind::Append => {
            let appended = raft.append_entries(decode(payload)?).await.map_err(|error| fatal(&error))?;
            if !matches!(appended, AppendEntriesResponse::HigherVote(_)) {
                node.hear();
            }
            reply(Ok(appended))
        }
        Kind::Vote => reply(raft.vote(decode(payload)?).await.map_err(|error| fatal(&error))),
        Kind::PreVote => reply(raft.pre_vote(decode(payload)?).await.map_err(|error| fatal(&error))),
        Kind::TransferLeader => {
            reply(raft.handle_transfer_leader(decode(payload)?).await.map_err(|error| fatal(&error)))
        }
        Kind::Snapshot => {
            let SnapshotMessage { vote, meta, document } = decode(payload)?;
            let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: document }).await;
            reply(installed.map_err(|error| fatal(&error)))
        }
        Kind::Renew => {
            let request: Renewal = decode(payload)?;
            reply(node.voter.renew(&request).await.map_err(|error| store_failed(node, &error)))
        }
        Kind::Close => {
            let request: CloseRequest = decode(payload)?;
            reply(node.voter.close(&request).await.map_err(|error| store_failed(node, &error)))
        }
        Kind::Quiet => {
            let quiet = node.voter.quiet_for(clock::now());
            reply(Ok(u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX)))
        }
        Kind::Propose => {
            let command: Command = decode(payload)?;
            reply(Ok(Box::pin(propose::propose_here(node, command, FORWARDED_LIMIT)).await))
        }
        Kind::Read => reply(Ok(Box::pin(propose::read_here(node, FORWARDED_LIMIT)).await)),
        Kind::Report => {
            node.reports.keep(MemberId(envelope.from), payload, &node.other_data_members());
            Ok(node.reports.own())
        }
        Kind::Probe => reply(founder::status(node).await),
        Kind::Promise => {
            let request: PromiseRequest = decode(payload)?;
            reply(founder::promise(node, &request).await)
        }
        Kind::Invite => {
            founder::invite(node, decode(payload)?).await;
            reply(Ok(()))
        }
        Kind::Wish => {
            founder::wish(node, &decode(payload)?).await;
            reply(Ok(()))
        }
        Kind::Recall => reply(Ok(Recalled::by(node))),
        Kind::Members => reply(Ok(directory::members(node))),
        Kind::State => reply(Ok(Box::pin(directory::state(node)).await)),
        Kind::Join => {
            let request: JoinRequest = decode(payload)?;
            reply(Ok(Box::pin(admission::admit(node, &request)).await))
        }
    }
}

fn reply<T: Serialize>(answer: Result<T, Status>) -> Result<bytes::Bytes, Status> {
    encode(&answer?)
}

fn store_failed(node: &Node, error: &std::io::Error) -> Status {
    node.fail(format!("cannot write this voter's floor to the store: {error}"));
    Status::internal("this voter's store failed")
}
