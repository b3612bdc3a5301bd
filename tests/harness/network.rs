//! A network for the nodes of a cluster: each has a network namespace of its own on a bridge, and packets are dropped
//! silently, by direction, where they arrive. Clients are in the namespace of this process and reach every node
//! whatever is cut between the nodes.
//!
//! It is built inside namespaces that belong to this process alone (see `apart`), so that nothing of it outlives it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::node::Node;

/// Who may log in.
pub(crate) const CLIENTS: &str = "10.213.0.0/24";
/// The address of the clients.
const HUB: &str = "10.213.0.254/24";
/// Says to the program that it has namespaces of its own.
const APART: &str = "PGHERD_TEST_APART";
/// A datagram to a neighbour takes less, its address resolution included.
const ARRIVES_WITHIN: Duration = Duration::from_millis(100);
/// One may be lost for other reasons.
const ATTEMPTS: usize = 3;

/// What is dropped at the receiver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Dropped {
    at: usize,
    from: usize,
    /// Only TCP of this kind, such as `dport 5432`.
    only: Option<(&'static str, u16)>,
}

/// The namespaces of a cluster.
#[derive(Debug)]
pub(crate) struct Network {
    count: usize,
    dropped: BTreeSet<Dropped>,
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("running {program} {}", arguments.join(" ")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

fn ip(line: &str) -> Result<()> {
    run("ip", &line.split_whitespace().collect::<Vec<_>>())
}

fn name(index: usize) -> String {
    format!("pgherd{}", index + 1)
}

fn address(index: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::new(10, 213, 0, u8::try_from(index + 1)?))
}

impl Network {
    /// Gives every node a namespace and an address.
    pub(crate) fn build(nodes: &mut [Node]) -> Result<Self> {
        ensure!(is_apart(), "this process has no namespaces of its own");
        ip("link set lo up")?;
        ip("link add name hub type bridge")?;
        ip("link set hub up")?;
        ip(&format!("addr add {HUB} dev hub"))?;
        for (index, node) in nodes.iter_mut().enumerate() {
            let (name, address) = (name(index), address(index)?);
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add name {name} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {name} master hub up"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
            // What is dropped has to be looked at before the local addresses.
            ip(&format!("-n {name} rule add pref 1000 lookup local"))?;
            ip(&format!("-n {name} rule del pref 0"))?;
            node.ports.host = address;
            node.namespace = Some(PathBuf::from(format!("/run/netns/{name}")));
        }
        Ok(Self { count: nodes.len(), dropped: BTreeSet::new() })
    }

    /// Nothing of what `from` sends reaches `to`.
    pub(crate) fn cut(&mut self, from: usize, to: usize) -> Result<()> {
        self.drop_at(Dropped { at: to, from, only: None })
    }

    /// Nothing of TCP connections to this port of `server` passes between it and `client`.
    pub(crate) fn cut_port(&mut self, client: usize, server: usize, port: u16) -> Result<()> {
        self.drop_at(Dropped { at: server, from: client, only: Some(("dport", port)) })?;
        self.drop_at(Dropped { at: client, from: server, only: Some(("sport", port)) })
    }

    fn drop_at(&mut self, what: Dropped) -> Result<()> {
        if self.dropped.contains(&what) {
            return Ok(());
        }
        rule("add", &what)?;
        self.dropped.insert(what);
        Ok(())
    }

    /// Sends a datagram from every node to every other one: exactly what is cut must be lost.
    pub(crate) async fn check(&self) -> Result<()> {
        for from in 0..self.count {
            for at in (0..self.count).filter(|at| *at != from) {
                let is_cut = self.dropped.contains(&Dropped { at, from, only: None });
                let passes = tokio::task::spawn_blocking(move || passes(from, at)).await??;
                ensure!(passes != is_cut, "from node {} to node {}: passes: {passes}", from + 1, at + 1);
            }
        }
        Ok(())
    }

    /// Everything passes again.
    pub(crate) fn heal(&mut self) -> Result<()> {
        while let Some(what) = self.dropped.pop_first() {
            rule("del", &what)?;
        }
        Ok(())
    }
}

fn rule(verb: &str, what: &Dropped) -> Result<()> {
    let only = what.only.map(|(which, port)| format!("ipproto tcp {which} {port}")).unwrap_or_default();
    let from = address(what.from)?;
    ip(&format!("-n {} rule {verb} pref 100 from {from} iif eth0 {only} blackhole", name(what.at)))
}

/// A socket of a node's own: a thread is moved into its namespace for that.
fn socket(index: usize) -> Result<UdpSocket> {
    let bind = move || -> Result<UdpSocket> {
        let namespace = File::open(format!("/run/netns/{}", name(index)))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(UdpSocket::bind((address(index)?, 0))?)
    };
    std::thread::spawn(bind).join().map_err(|_| anyhow!("the thread of node {}", index + 1))?
}

/// Does a datagram arrive?
fn passes(from: usize, to: usize) -> Result<bool> {
    let (sender, receiver) = (socket(from)?, socket(to)?);
    receiver.set_read_timeout(Some(ARRIVES_WITHIN))?;
    let place = receiver.local_addr()?;
    for _ in 0..ATTEMPTS {
        sender.send_to(b"?", place)?;
        match receiver.recv(&mut [0]) {
            Ok(_) => return Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Has this process namespaces of its own?
pub(crate) fn is_apart() -> bool {
    std::env::var_os(APART).is_some()
}

/// What makes namespaces that end with the process, whatever ends it: killing the first process of a process
/// namespace kills all. `/run` is empty in there, so that names of namespaces stay there, too.
const UNSHARE: &[&str] =
    &["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"];
const ENTER: &str = "mount -t tmpfs tmpfs /run && \"$@\"; exit $?";

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(["--", "sh", "-c", ENTER, "sh"]);
    command
}

/// May this machine's namespaces be used? If not, why.
fn trial() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may make network namespaces".to_owned());
    }
    let script = "ip link add name hub type bridge && ip netns add trial && \
                  ip link add name one type veth peer name eth0 netns trial && \
                  ip -n trial rule add pref 100 from 10.213.0.1 iif eth0 ipproto tcp dport 1 blackhole";
    let output = unshare().args(["sh", "-c", script]).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("network namespaces: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// How a test goes on that needs a network.
#[derive(Debug)]
pub(crate) enum Apart {
    /// Here: this process has namespaces of its own.
    Here,
    /// It was run, by a process of its own.
    Done,
    /// There can be no namespaces here; the reason.
    Refused(String),
}

/// This program again, in namespaces of its own.
fn again(arguments: &[&str]) -> Result<Command> {
    let me = std::env::current_exe().context("finding the own program")?;
    let mut command = unshare();
    command.arg(me).args(arguments).env(APART, "1");
    Ok(command)
}

/// Runs this program again with these arguments in namespaces of its own, unless this is that run. What it prints comes
/// out as it is printed.
pub(crate) fn program_apart(arguments: &[&str]) -> Result<Apart> {
    if is_apart() {
        return Ok(Apart::Here);
    }
    if let Err(why) = trial() {
        return Ok(Apart::Refused(why));
    }
    let status = again(arguments)?.status().context("running unshare")?;
    ensure!(status.success(), "in namespaces of its own: {status}");
    Ok(Apart::Done)
}

/// Runs the test of this name again in namespaces of its own, unless this is that run.
pub(crate) fn apart(test: &str) -> Result<Apart> {
    if is_apart() {
        return Ok(Apart::Here);
    }
    if let Err(why) = trial() {
        return Ok(Apart::Refused(why));
    }
    let output = again(&[test, "--exact", "--nocapture"])?.output().context("running unshare")?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "in namespaces of its own: {}\n{said}", output.status);
    ensure!(said.contains("1 passed"), "no test is called {test}:\n{said}");
    for line in said.lines().filter(|line| !line.trim().is_empty()) {
        super::tell(&format!("| {line}"));
    }
    Ok(Apart::Done)
}
