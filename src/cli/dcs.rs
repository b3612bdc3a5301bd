//! `dcs get`: a key of the agreed state, as programs read it from Patroni's store.
//!
//! What is agreed is asked of all peers' ports that are known; the first answer that a majority of the voters confirmed
//! counts. So it works while one voter of a majority can be reached, a witness as well. What members say only of themselves
//! is asked of their REST APIs.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use pgherd_raft::group::{ReadState, StateAnswer, ask_state};
use pgherd_raft::model::{ClusterState, MemberId, MemberKind};
use serde_json::Value;

use super::Failure;
use super::arguments::DcsGetArguments;
use super::client::Client;
use super::cluster::{self, rest_addr};
use super::config::Sources;
use super::keys::{self, Key};
use super::output::Output;

/// A voter tries for some seconds to find a majority.
const VOTER_PATIENCE: Duration = Duration::from_secs(5);
/// Other voters may still confirm that they hear nothing of the holder; they are waited for this long.
const SECOND_OPINION: Duration = Duration::from_millis(300);

/// Prints a value. There is none: status 1, without a word.
pub(super) async fn get(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &DcsGetArguments,
) -> Result<(), Failure> {
    let key = Key::named(&options.key);
    if key == Key::Other {
        return Err(Failure::Told);
    }
    let value = match read(sources, &options.scope, key == Key::Leader).await {
        Ok(agreed) => agreed.value(client, &key).await?,
        Err(why) if sources.partner_addrs.is_empty() => {
            rest_only(sources, client, &options.scope, &key, why).await?
        }
        Err(why) => return Err(Failure::Untold(why)),
    };
    match value {
        Some(value) => {
            output.say(&value);
            Ok(())
        }
        None => Err(Failure::Told),
    }
}

/// What a majority confirmed.
struct Agreed {
    state: ClusterState,
    quiet: Vec<(MemberId, u64)>,
}

/// Asks all peers' ports. `is_about_holder`: when the holder is not heard by one voter, others are asked, too.
async fn read<'a>(sources: &'a Sources, scope: &str, is_about_holder: bool) -> Result<Agreed, String> {
    let security = sources.peer_security().map_err(|why| format!("{why:#}"))?;
    let security = &security;
    let ask =
        |addr: &'a String| async move { (addr, ask_state(scope, addr, security, VOTER_PATIENCE).await) };
    let mut asked: FuturesUnordered<_> = sources.partner_addrs.iter().map(ask).collect();
    let mut refusals = Vec::new();
    let mut agreed: Option<Agreed> = None;
    loop {
        let next = match &agreed {
            None => asked.next().await,
            Some(_) => tokio::time::timeout(SECOND_OPINION, asked.next()).await.ok().flatten(),
        };
        match next {
            Some((_, Ok(StateAnswer::State(read)))) => {
                let ReadState { state, by, quiet_ms } = *read;
                let known = agreed.get_or_insert(Agreed { state, quiet: Vec::new() });
                known.quiet.push((by, quiet_ms));
                let wait_ms = known.state.lease.tenure.as_ref().map(|tenure| tenure.wait_ms);
                if !is_about_holder || wait_ms.is_none_or(|wait| quiet_ms < wait) {
                    break;
                }
            }
            Some((addr, Ok(StateAnswer::Unknown(why)))) => refusals.push(format!("{addr}: {why}")),
            Some((_, Err(why))) => refusals.push(why.to_string()),
            None => break,
        }
    }
    agreed.ok_or_else(|| {
        if refusals.is_empty() {
            return "no address of a voter is known: give raft.partner_addrs in the configuration (-c FILE)"
                .to_owned();
        }
        refusals.sort();
        format!("nobody can tell what {scope} has agreed on. Tried:\n  {}", refusals.join("\n  "))
    })
}

impl Agreed {
    async fn value(&self, client: &Client, key: &Key) -> Result<Option<String>, Failure> {
        let state = &self.state;
        let json = |value: Option<Value>| value.map(|value| value.to_string());
        Ok(match key {
            Key::Leader => keys::leader(state, &self.quiet),
            Key::Initialize => keys::initialize(state),
            Key::Config => json(keys::config(state)),
            Key::Sync => json(keys::sync(state)),
            Key::Failsafe => json(keys::failsafe(state)),
            Key::Failover => json(keys::failover(state)),
            Key::Other => None,
            Key::Member(name) => json(self.member(client, name).await),
            Key::Status => {
                let Some(holder) = state.lease.holder() else { return Ok(None) };
                let Some(leader) = self.ask(client, holder, "/patroni").await else {
                    let name = state.name_of(holder);
                    return Err(Failure::Untold(format!(
                        "the REST API of the leader, {name}, does not answer"
                    )));
                };
                Some(keys::status(&leader).to_string())
            }
            Key::History => Some(self.anybody(client, "/history").await?.to_string()),
        })
    }

    /// A member as it says itself, or as the others see it.
    async fn member(&self, client: &Client, name: &str) -> Option<Value> {
        let (id, _) = self.state.member_named(name)?;
        let status = self.ask(client, id, "/patroni").await;
        let word = match status {
            Some(_) => String::new(),
            // The daemon of a paused primary may be stopped: its PostgreSQL goes on.
            None if self.state.leaving.contains(&id) && self.state.lease.holder() != Some(id) => {
                "stopped".to_owned()
            }
            None => self.seen_by_others(client, name).await.unwrap_or_else(|| "unreachable".to_owned()),
        };
        keys::member(&self.state, name, status.as_ref(), &word)
    }

    /// The word for a member's state of anybody who sees it.
    async fn seen_by_others(&self, client: &Client, name: &str) -> Option<String> {
        let others = self.state.members.iter().filter(|(_, member)| member.name.as_str() != name);
        for (id, _) in others {
            let Some(document) = self.ask(client, *id, "/cluster").await else { continue };
            let cluster: cluster::Cluster = serde_json::from_value(document).ok()?;
            if let Some(member) = cluster.members.into_iter().find(|member| member.name == name) {
                return Some(member.state);
            }
        }
        None
    }

    async fn anybody(&self, client: &Client, path: &str) -> Result<Value, Failure> {
        let mut members: Vec<MemberId> = self.state.members.keys().copied().collect();
        members.sort_by_key(|id| self.state.lease.holder() != Some(*id));
        for id in members {
            if let Some(document) = self.ask(client, id, path).await {
                return Ok(document);
            }
        }
        Err(Failure::Untold("no member's REST API answers".to_owned()))
    }

    /// A document of a member's REST API; of another member at the same address it is nothing.
    async fn ask(&self, client: &Client, id: MemberId, path: &str) -> Option<Value> {
        let member = self.state.members.get(&id).filter(|member| member.kind == MemberKind::Data)?;
        let answer = client.get(rest_addr(member.api_url.as_deref()?)?, path).await.ok()?;
        let document: Value =
            serde_json::from_str(&answer.body).ok().filter(|_| answer.status.is_success())?;
        let name = document.pointer("/patroni/name").and_then(Value::as_str);
        name.is_none_or(|name| name == member.name.as_str()).then_some(document)
    }
}

/// Without any peers' port: as far as one member's view goes that knows a Raft leader.
async fn rest_only(
    sources: &Sources,
    client: &Client,
    scope: &str,
    key: &Key,
    why: String,
) -> Result<Option<String>, Failure> {
    let untold = |failure: Failure| match failure {
        Failure::Error(error) => Failure::Untold(format!("{error:#}")),
        Failure::Told | Failure::Aborted | Failure::Usage(_) | Failure::Untold(_) => failure,
    };
    let cluster = cluster::find(sources, client, scope).await.map_err(untold)?;
    if cluster.pgherd.raft_leader.is_none() {
        return Err(Failure::Untold("the members that answer have no majority".to_owned()));
    }
    Ok(match key {
        Key::Leader => cluster.leader().map(|leader| leader.name.clone()),
        Key::Initialize => cluster.pgherd.system_identifier,
        Key::Config => Some(cluster::ask_any(client, &cluster, "/config").await.map_err(untold)?.to_string()),
        Key::History => {
            Some(cluster::ask_any(client, &cluster, "/history").await.map_err(untold)?.to_string())
        }
        Key::Sync | Key::Failover | Key::Failsafe | Key::Status | Key::Member(_) | Key::Other => {
            return Err(Failure::Untold(why));
        }
    })
}
