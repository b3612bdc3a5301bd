//! A cluster as its members describe it, and the way to it while some of them are down.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use pgherd_raft::group::ask_members;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Failure;
use super::client::{Client, NoAnswer};
use super::config::Sources;

/// After the first answer, others may still be better informed; they are waited for this long.
const SECOND_OPINION: Duration = Duration::from_millis(300);

/// Peers answer from memory, and are asked only when no REST API has given a good answer.
const PEER_PATIENCE: Duration = Duration::from_secs(1);

/// `/cluster`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Cluster {
    #[serde(default)]
    pub(super) members: Vec<Member>,
    #[serde(default)]
    pub(super) scope: String,
    #[serde(default)]
    pub(super) pause: bool,
    #[serde(default)]
    pub(super) scheduled_switchover: Option<ScheduledSwitchover>,
    #[serde(default)]
    pub(super) pgherd: Insight,
}

/// What pgherd adds to Patroni's document.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Insight {
    #[serde(default)]
    pub(super) system_identifier: Option<String>,
    #[serde(default)]
    pub(super) epoch: u64,
    /// The primary's lease is pinned by pause.
    #[serde(default)]
    pub(super) pinned: bool,
    #[serde(default)]
    pub(super) raft_leader: Option<String>,
    /// What an operator should know.
    #[serde(default)]
    pub(super) warnings: Vec<String>,
}

/// A planned switchover.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct ScheduledSwitchover {
    pub(super) at: String,
    #[serde(default)]
    pub(super) from: Option<String>,
    #[serde(default)]
    pub(super) to: Option<String>,
}

/// A row of `/cluster`. Positions and lags may be numbers or the word `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    #[serde(default)]
    pub(super) role: String,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) api_url: Option<String>,
    #[serde(default)]
    pub(super) host: Option<String>,
    #[serde(default)]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) timeline: Option<u64>,
    #[serde(default)]
    pub(super) receive_lag: Value,
    #[serde(default)]
    pub(super) receive_lsn: Value,
    #[serde(default)]
    pub(super) replay_lag: Value,
    #[serde(default)]
    pub(super) replay_lsn: Value,
    #[serde(default)]
    pub(super) pending_restart: bool,
    #[serde(default)]
    pub(super) pending_restart_reason: Map<String, Value>,
    #[serde(default)]
    pub(super) scheduled_restart: Option<Map<String, Value>>,
    #[serde(default)]
    pub(super) tags: Map<String, Value>,
}

impl Member {
    /// The one that holds the lease.
    pub(super) fn is_leader(&self) -> bool {
        matches!(self.role.as_str(), "leader" | "standby_leader")
    }

    /// May it be promoted, as far as its tags say?
    pub(super) fn may_be_promoted(&self) -> bool {
        let is_true = |value: &Value| match value {
            Value::Bool(value) => *value,
            Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
            Value::String(text) => matches!(text.to_lowercase().as_str(), "true" | "on" | "yes" | "1"),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match (self.tags.get("nofailover"), self.tags.get("failover_priority")) {
            (Some(nofailover), _) => !is_true(nofailover),
            (None, Some(Value::String(text))) => text.trim().parse::<i64>().map_or(true, |number| number > 0),
            (None, Some(priority)) => is_true(priority),
            (None, None) => true,
        }
    }

    /// Its REST API, as the client takes it.
    pub(super) fn rest_addr(&self) -> Option<&str> {
        rest_addr(self.api_url.as_deref()?)
    }
}

/// `host:port` of an `http` URL, `https://host:port` of the other kind.
pub(super) fn rest_addr(url: &str) -> Option<&str> {
    match url.strip_prefix("https://") {
        Some(rest) => url.get(..url.len() - rest.len() + rest.find('/').unwrap_or(rest.len())),
        None => url.strip_prefix("http://")?.split('/').next(),
    }
}

impl Cluster {
    /// The member that holds the lease.
    pub(super) fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.is_leader())
    }

    /// Where to ask for something that any member can do: the leader first, and at last those of the configuration.
    pub(super) fn rest_addrs(&self, sources: &Sources) -> Vec<String> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|member| !member.is_leader());
        let mut addresses: Vec<String> = Vec::new();
        let known = members.iter().filter_map(|member| member.rest_addr());
        for address in known.chain(sources.restapi_addrs.iter().map(String::as_str)) {
            if !addresses.iter().any(|other| other == address) {
                addresses.push(address.to_owned());
            }
        }
        addresses
    }

    /// How much the member that answered knows: a cut-off one knows no Raft leader and sees few members.
    fn insight(&self) -> (bool, u64, usize) {
        let seen = |member: &&Member| !matches!(member.state.as_str(), "unreachable" | "unknown");
        (self.pgherd.raft_leader.is_some(), self.pgherd.epoch, self.members.iter().filter(seen).count())
    }
}

/// Asks all known members at once and takes the best informed answer. When that is not good, the peers' ports are asked
/// for more members.
pub(super) async fn find(sources: &Sources, client: &Client, scope: &str) -> Result<Cluster, Failure> {
    if sources.restapi_addrs.is_empty() && sources.partner_addrs.is_empty() {
        return Err(Failure::because(nowhere_to_ask(sources)));
    }
    let mut search = Search { client, scope, best: None, refusals: Vec::new() };
    search.ask(&sources.restapi_addrs).await;
    if search.best.as_ref().is_none_or(|best| best.pgherd.raft_leader.is_none()) {
        let more = search.ask_peers(sources).await?;
        let new: Vec<String> =
            more.into_iter().filter(|addr| !sources.restapi_addrs.contains(addr)).collect();
        search.ask(&new).await;
    }
    search.refusals.sort();
    search.best.ok_or_else(|| {
        let tried = search.refusals.join("\n  ");
        Failure::because(format!(
            "no member of {scope} answers. Tried:\n  {tried}\nName another member's REST address with -d HOST:PORT, or all of \
             them in ctl.restapi_addrs"
        ))
    })
}

/// A document of any member: the primary is asked first, since it knows most, and then the others.
pub(super) async fn ask_any(client: &Client, cluster: &Cluster, path: &str) -> Result<Value, Failure> {
    let mut members: Vec<&Member> = cluster.members.iter().collect();
    members.sort_by_key(|member| (!member.is_leader(), member.state == "unreachable"));
    let mut refusals = Vec::new();
    for member in members {
        let Some(addr) = member.rest_addr() else { continue };
        let why = match client.get(addr, path).await {
            Ok(answer) if answer.status.is_success() => match serde_json::from_str(&answer.body) {
                Ok(document) => return Ok(document),
                Err(source) => format!("no document ({source})"),
            },
            Ok(answer) if answer.status.is_client_error() => return Err(Failure::because(answer.body)),
            Ok(answer) => format!("it answered {}", answer.status),
            Err(why) => why.to_string(),
        };
        refusals.push(format!("{} ({addr}): {why}", member.name));
    }
    let tried = refusals.join("\n  ");
    Err(Failure::because(format!("no member answers. Tried:\n  {tried}")))
}

/// What was heard so far.
struct Search<'a> {
    client: &'a Client,
    scope: &'a str,
    best: Option<Cluster>,
    refusals: Vec<String>,
}

impl Search<'_> {
    /// Asks REST APIs.
    async fn ask(&mut self, addresses: &[String]) {
        let (client, scope) = (self.client, self.scope);
        let mut asked: FuturesUnordered<_> =
            addresses.iter().map(|addr| async move { (addr, read(client, addr, scope).await) }).collect();
        loop {
            let next = match &self.best {
                None => asked.next().await,
                Some(_) => tokio::time::timeout(SECOND_OPINION, asked.next()).await.ok().flatten(),
            };
            match next {
                Some((_, Ok(cluster))) => {
                    if self.best.as_ref().is_none_or(|known| known.insight() < cluster.insight()) {
                        self.best = Some(cluster);
                    }
                }
                Some((addr, Err(why))) => self.refusals.push(format!("{addr}: {why}")),
                None => return,
            }
        }
    }

    /// Asks peers' ports for the REST addresses of the members.
    async fn ask_peers(&mut self, sources: &Sources) -> Result<BTreeSet<String>, Failure> {
        let addresses = &sources.partner_addrs;
        if addresses.is_empty() {
            return Ok(BTreeSet::new());
        }
        let scope = self.scope;
        let security = &sources.peer_security()?;
        let mut asked: FuturesUnordered<_> = addresses
            .iter()
            .map(|addr| async move { (addr, ask_members(scope, addr, security, PEER_PATIENCE).await) })
            .collect();
        let mut found = BTreeSet::new();
        while let Some((addr, answer)) = asked.next().await {
            match answer {
                Ok(members) => found.extend(
                    members
                        .iter()
                        .filter_map(|member| rest_addr(member.api_url.as_deref()?).map(str::to_owned)),
                ),
                Err(why) => self.refusals.push(format!("{addr} (peers' port): {why}")),
            }
        }
        Ok(found)
    }
}

async fn read(client: &Client, addr: &str, scope: &str) -> Result<Cluster, String> {
    let answer = client.get(addr, "/cluster").await.map_err(|error: NoAnswer| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("GET /cluster answered {}", answer.status));
    }
    let cluster: Cluster = serde_json::from_str(&answer.body)
        .map_err(|source| format!("GET /cluster answered no cluster document ({source})"))?;
    if cluster.scope != scope {
        return Err(format!("it belongs to the cluster {}", cluster.scope));
    }
    Ok(cluster)
}

fn nowhere_to_ask(sources: &Sources) -> String {
    let file = match &sources.file {
        Some(path) => format!("{} names no address of a member", path.display()),
        None => "there is no configuration".to_owned(),
    };
    format!(
        "{file}: give a node's configuration or one with ctl.restapi_addrs (-c FILE), or -d HOST:PORT of a member's REST API"
    )
}
