//! Several nodes with one scope, and questions about them as a whole.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;

use super::network::Network;
use super::node::{Common, Kind, Node, PASSWORD, Ports, SUPERUSER};
use super::ports::Place;
use super::proxy::Links;
use super::tools::Tools;
use super::user::User;
use super::{ports, rest, wait};

/// Enough for initdb and two base backups on two busy cores with an unoptimised build.
pub(crate) const BRING_UP_LIMIT: Duration = Duration::from_secs(90);
/// Enough for the default ttl, an election, a promotion, and a rewind or a new clone.
pub(crate) const HEAL_LIMIT: Duration = Duration::from_secs(90);
/// A command of pgherdctl, which waits for its success itself.
const CTL_LIMIT: Duration = Duration::from_secs(60);

/// What a cluster shall look like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scope: String,
    /// Names and ports of the data nodes.
    pub(crate) nodes: Vec<(String, Ports)>,
    /// `witness`, `witness2`…
    pub(crate) witnesses: usize,
    /// In seconds.
    pub(crate) ttl: u32,
    /// A proxy in front of every peers' port, for faults of the network.
    pub(crate) has_links: bool,
    /// Each node in a network namespace of its own; this process must be in one that it may change.
    pub(crate) has_network: bool,
    /// More lines of `bootstrap.dcs`, such as `synchronous_mode: quorum`.
    pub(crate) settings: Vec<String>,
}

impl Plan {
    /// `node1`…, all ports chosen by the system.
    pub(crate) fn of(count: usize) -> Result<Self> {
        let nodes = (1..=count)
            .map(|number| Ok((format!("node{number}"), Ports::any()?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            scope: "batch".to_owned(),
            nodes,
            witnesses: 0,
            ttl: 5,
            has_links: false,
            has_network: false,
            settings: Vec::new(),
        })
    }

    pub(crate) fn with_witness(self) -> Self {
        self.with_witnesses(1)
    }

    pub(crate) fn with_witnesses(mut self, count: usize) -> Self {
        self.witnesses = count;
        self
    }

    pub(crate) fn with_links(mut self) -> Self {
        self.has_links = true;
        self
    }

    pub(crate) fn with_network(mut self) -> Self {
        self.has_network = true;
        self
    }

    pub(crate) fn with_ttl(mut self, ttl: u32) -> Self {
        self.ttl = ttl;
        self
    }

    pub(crate) fn with_settings(mut self, lines: &[&str]) -> Self {
        self.settings = lines.iter().map(|line| (*line).to_owned()).collect();
        self
    }
}

/// A running cluster; dropped, it is killed and its directory removed.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Data nodes, then the witnesses. Dropped before the directory.
    pub(crate) nodes: Vec<Node>,
    pub(crate) tools: Tools,
    pub(crate) user: Option<User>,
    pub(crate) common: Common,
    links: Option<Links>,
    network: Option<Network>,
    directory: TempDir,
}

/// A row of `/cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) state: String,
    pub(crate) timeline: String,
    pub(crate) lag: String,
}

impl Cluster {
    /// Writes everything to disk; nothing is started.
    pub(crate) fn prepare(plan: &Plan) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("pgherd-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .context("making a directory for the cluster")?;
        let user = User::to_become()?;
        let tools = Tools::find(directory.path(), user.as_ref())?;
        let mut nodes = Vec::new();
        for (name, ports) in &plan.nodes {
            let mut ports = *ports;
            if plan.has_links {
                ports.raft_bind = ports::free()?;
            }
            nodes.push(Node::new(name, Kind::Data, ports, directory.path(), user.as_ref())?);
        }
        for number in 1..=plan.witnesses {
            let name = if number == 1 { "witness".to_owned() } else { format!("witness{number}") };
            let mut ports = Ports::any()?;
            if plan.has_links {
                ports.raft_bind = ports::free()?;
            }
            nodes.push(Node::new(&name, Kind::Witness, ports, directory.path(), user.as_ref())?);
        }
        let network = if plan.has_network { Some(Network::build(&mut nodes)?) } else { None };
        let common = Common {
            scope: plan.scope.clone(),
            raft_addrs: nodes.iter().map(Node::raft_addr).collect(),
            ttl: plan.ttl,
            bin_dir: tools.postgresql.clone(),
            settings: plan.settings.clone(),
        };
        for node in &nodes {
            node.configure(&common)?;
        }
        let cluster = Self { nodes, tools, user, common, links: None, network, directory };
        cluster.write_ctl_config()?;
        Ok(cluster)
    }

    /// Prepares, starts all, and waits until the cluster is whole.
    pub(crate) async fn start(plan: &Plan) -> Result<Self> {
        let mut cluster = Self::prepare(plan)?;
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        Ok(cluster)
    }

    pub(crate) fn start_all(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            self.start_node(index)?;
        }
        Ok(())
    }

    pub(crate) fn start_node(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        node.start(&self.tools, self.user.as_ref())?;
        if let (Some(links), Some(pid)) = (&self.links, node.daemon_pid()) {
            links.know(index, pid);
        }
        Ok(())
    }

    /// Puts the proxies of a plan with links in place; before the first start.
    pub(crate) async fn start_links(&mut self) -> Result<()> {
        let ports: Vec<_> = self.nodes.iter().map(|node| (node.ports.raft, node.ports.raft_bind)).collect();
        self.links = Some(Links::start(&ports).await?);
        Ok(())
    }

    /// The network between the daemons.
    pub(crate) fn links(&self) -> Result<&Links> {
        self.links.as_ref().context("a plan without links")
    }

    /// Nothing of what `from` sends reaches `to`; the other direction is left as it is. Without namespaces this holds
    /// for the peers' ports only.
    pub(crate) fn cut(&mut self, from: usize, to: usize) -> Result<()> {
        match (&mut self.network, &self.links) {
            (Some(network), _) => network.cut(from, to),
            (None, Some(links)) => {
                links.cut(from, to);
                Ok(())
            }
            (None, None) => bail!("a plan without network and links"),
        }
    }

    /// The networks of this cluster's nodes, which are namespaces.
    pub(crate) fn network(&mut self) -> Result<&mut Network> {
        self.network.as_mut().context("a plan without a network")
    }

    /// Everything that was cut works again.
    pub(crate) fn heal(&mut self) -> Result<()> {
        if let Some(links) = &self.links {
            links.heal();
        }
        self.network.as_mut().map_or(Ok(()), Network::heal)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn node(&self, index: usize) -> Result<&Node> {
        self.nodes.get(index).context("no such node")
    }

    pub(crate) fn node_mut(&mut self, index: usize) -> Result<&mut Node> {
        self.nodes.get_mut(index).context("no such node")
    }

    pub(crate) fn data_nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.kind == Kind::Data)
    }

    /// A node of this cluster which is not part of the plan, with its own name or a stolen one.
    pub(crate) fn extra_node(&mut self, directory: &str, name: &str) -> Result<usize> {
        let mut node =
            Node::new(directory, Kind::Data, Ports::any()?, self.directory.path(), self.user.as_ref())?;
        name.clone_into(&mut node.name);
        node.configure(&self.common)?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The node which answers 200 on `/primary`; more than one is an error that nobody waits for.
    pub(crate) async fn primary(&self) -> Result<Option<usize>> {
        let mut found = None;
        for (index, node) in self.data_nodes() {
            if node.health("/primary").await == Some(200)
                && let Some(other) = found.replace(index)
            {
                // A takeover between the two questions looks the same: only a second look tells.
                let other: &Node = self.node(other)?;
                if other.health("/primary").await == Some(200) && node.health("/primary").await == Some(200) {
                    bail!("{} and {} both answer 200 on /primary", other.name, node.name);
                }
            }
        }
        Ok(found)
    }

    pub(crate) async fn wait_for_primary(&self, limit: Duration) -> Result<usize> {
        wait::until("a primary", limit, async || match self.primary().await {
            Ok(Some(index)) => Ok(Ok(index)),
            Ok(None) => Err("no node answers 200 on /primary".to_owned()),
            Err(error) => Ok(Err(error)),
        })
        .await?
    }

    /// Another primary than this one, which is not asked: it may be too sick to answer.
    pub(crate) async fn wait_for_takeover(&self, old: usize, limit: Duration) -> Result<usize> {
        wait::until("another primary", limit, async || {
            for (index, node) in self.data_nodes().filter(|(index, _)| *index != old) {
                if node.health("/primary").await == Some(200) {
                    return Ok(index);
                }
            }
            Err("none of the others answers 200 on /primary".to_owned())
        })
        .await
    }

    /// Whole, and the commits of the primary wait for so many standbys and for nobody else.
    pub(crate) async fn wait_until_synchronous(&self, standbys: usize, limit: Duration) -> Result<usize> {
        wait::until("a whole and synchronous cluster", limit, async || {
            let primary = self.look().await?;
            let document = self.document_of(primary).await.map_err(|error| error.to_string())?;
            let sets = document.pointer("/pgherd/synchronous_sets").and_then(serde_json::Value::as_u64);
            let rows = Self::rows_in(&document);
            let found = rows.iter().filter(|row| row.role.ends_with("_standby")).count();
            if found == standbys && sets.is_some_and(|sets| sets <= 1) {
                Ok(primary)
            } else {
                Err(format!("{found} synchronous standbys, {sets:?} sets in force"))
            }
        })
        .await
    }

    /// One primary, all other started data nodes streaming from it, and everybody in the member table.
    pub(crate) async fn wait_until_whole(&self, limit: Duration) -> Result<usize> {
        wait::until("a whole cluster", limit, async || match self.ended_daemon() {
            Some(name) => Ok(Err(anyhow::anyhow!("the daemon of {name} has ended"))),
            None => self.look().await.map(Ok),
        })
        .await?
    }

    /// A node whose daemon was started and has ended by itself: nobody waits for it.
    fn ended_daemon(&self) -> Option<&str> {
        let is_zombie = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
        };
        let ended = self.nodes.iter().find(|node| node.daemon_pid().is_some_and(is_zombie));
        ended.map(|node| node.name.as_str())
    }

    async fn look(&self) -> Result<usize, String> {
        let primary = self.primary().await.map_err(|error| error.to_string())?;
        let Some(primary) = primary else { return Err(format!("no primary; {}", self.rows_text().await)) };
        for (index, node) in self.data_nodes() {
            if index != primary && node.health("/replica").await != Some(200) {
                return Err(format!("{} is no streaming standby; {}", node.name, self.rows_text().await));
            }
        }
        // A request is judged by what the primary knows.
        let rows = self.rows_of(primary).await.map_err(|error| error.to_string())?;
        let timelines: Vec<&str> = rows.iter().map(|row| row.timeline.as_str()).collect();
        let is_one = timelines.windows(2).all(|pair| pair.first() == pair.last());
        let running = rows.iter().all(|row| matches!(row.state.as_str(), "running" | "streaming"));
        if !is_one || !running || rows.len() != self.data_nodes().count() {
            return Err(self.rows_text().await);
        }
        Ok(primary)
    }

    /// The member table as the first node that answers shows it.
    pub(crate) async fn rows(&self) -> Result<Vec<Row>> {
        for (index, _) in self.data_nodes() {
            if let Ok(rows) = self.rows_of(index).await {
                return Ok(rows);
            }
        }
        bail!("no node answers")
    }

    async fn rows_of(&self, index: usize) -> Result<Vec<Row>> {
        Ok(Self::rows_in(&self.document_of(index).await?))
    }

    async fn document_of(&self, index: usize) -> Result<serde_json::Value> {
        rest::get(self.node(index)?.ports.rest_at(), "/cluster").await?.json()
    }

    fn rows_in(document: &serde_json::Value) -> Vec<Row> {
        let members = document.get("members").and_then(|list| list.as_array()).cloned();
        members.unwrap_or_default().iter().map(Row::parse).collect()
    }

    async fn rows_text(&self) -> String {
        match self.rows().await {
            Ok(rows) => rows
                .iter()
                .map(|row| format!("{} {} {} TL {}", row.name, row.role, row.state, row.timeline))
                .collect::<Vec<_>>()
                .join(", "),
            Err(error) => error.to_string(),
        }
    }

    /// What every daemon said last.
    pub(crate) fn logs(&self, lines: usize) -> String {
        self.nodes
            .iter()
            .map(|node| {
                format!("--- {} ({})\n{}\n", node.name, node.log_path().display(), node.log_tail(lines))
            })
            .collect()
    }

    /// Keeps the directory for somebody to read.
    pub(crate) fn keep_files(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }

    /// A clean stop of all, standbys first.
    pub(crate) async fn stop_all(&mut self) -> Result<()> {
        let primary = self.primary().await.ok().flatten();
        for index in (0..self.nodes.len()).filter(|index| Some(*index) != primary).chain(primary) {
            let node = self.node_mut(index)?;
            if node.is_daemon_running() {
                node.stop().await?;
            }
        }
        Ok(())
    }

    pub(crate) fn ctl_config_path(&self) -> PathBuf {
        self.directory.path().join("pgherdctl.yml")
    }

    fn write_ctl_config(&self) -> Result<()> {
        let apis: String =
            self.data_nodes().map(|(_, node)| format!("  - {}\n", node.ports.rest_at())).collect();
        let rafts: String = self.nodes.iter().map(|node| format!("  - {}\n", node.raft_addr())).collect();
        let text = format!(
            "scope: {}\nctl:\n  restapi_addrs:\n{apis}raft:\n  partner_addrs:\n{rafts}",
            self.common.scope
        );
        fs::write(self.ctl_config_path(), text).context("writing pgherdctl's configuration")
    }

    /// Runs pgherdctl; its output when it succeeds.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.tools.ours.join("pgherdctl"));
        command.arg("-c").arg(self.ctl_config_path()).args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(CTL_LIMIT, command.output())
            .await
            .with_context(|| format!("pgherdctl {} did not end", arguments.join(" ")))??;
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("pgherdctl {}: {}: {text}", arguments.join(" "), output.status);
        }
        Ok(text)
    }

    pub(crate) async fn switchover(&self, from: usize, to: usize) -> Result<String> {
        let (from, to) = (&self.node(from)?.name, &self.node(to)?.name);
        self.ctl(&["switchover", &self.common.scope, "--leader", from, "--candidate", to, "--force"]).await
    }

    /// How a client reaches a port of this cluster.
    pub(crate) fn client(at: Place) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(at.host.to_string())
            .port(at.port)
            .user(SUPERUSER)
            .password(PASSWORD)
            .dbname("postgres")
            .application_name("writer");
        config
    }
}

impl Row {
    fn parse(member: &serde_json::Value) -> Self {
        let text = |key: &str| match member.get(key) {
            None => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        Self {
            name: text("name"),
            role: text("role"),
            state: text("state"),
            timeline: text("timeline"),
            lag: text("lag"),
        }
    }
}
