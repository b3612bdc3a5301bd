//! keepalived: a virtual address follows the primary, found by a script that asks with curl.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT, Plan};
use crate::harness::network::{Apart, apart};
use crate::harness::{tell, wait};
use crate::{programs, run};

/// The virtual address, in the network of the nodes.
const ADDRESS: &str = "10.213.0.100";

struct Keepalived(Child);

impl Drop for Keepalived {
    fn drop(&mut self) {
        // Its address must go with it, so it is asked to end first.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        drop(self.0.wait());
    }
}

fn configuration(index: usize, hosts: &[String], rest: u16, curl: &Path) -> Result<String> {
    let own = hosts.get(index).context("a host")?;
    let others: String =
        hosts.iter().filter(|host| *host != own).map(|host| format!("        {host}\n")).collect();
    Ok(format!(
        "global_defs {{
    script_user root
    enable_script_security
}}

vrrp_script primary {{
    script \"{} -s -f -o /dev/null --max-time 2 http://{own}:{rest}/primary\"
    interval 1
    timeout 3
    fall 2
    rise 1
}}

vrrp_instance batch {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority {}
    advert_int 1
    unicast_src_ip {own}
    unicast_peer {{
{others}    }}
    virtual_ipaddress {{
        {ADDRESS}/24
    }}
    track_script {{
        primary
    }}
}}
",
        curl.display(),
        100 + index
    ))
}

fn start(cluster: &Cluster, index: usize, hosts: &[String]) -> Result<Keepalived> {
    let node = cluster.node(index)?;
    let (program, curl) = (programs::installed("keepalived")?, programs::installed("curl")?);
    let path = cluster.directory().join(format!("keepalived-{}.conf", node.name));
    fs::write(&path, configuration(index, hosts, node.ports.rest, &curl)?)?;
    let log = fs::File::create(cluster.directory().join(format!("keepalived-{}.log", node.name)))?;
    let pid_of = |what: &str| cluster.directory().join(format!("keepalived-{}.{what}.pid", node.name));
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", node.namespace.as_ref().context("a namespace")?.display())).arg("--");
    command.arg(program).args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(&path);
    command.arg("--pid").arg(pid_of("main")).arg("--vrrp_pid").arg(pid_of("vrrp"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Keepalived(command.spawn().context("starting keepalived")?))
}

/// Whose interfaces have the virtual address.
async fn bearers(cluster: &Cluster) -> Result<Vec<usize>> {
    let ip = programs::installed("ip")?;
    let mut found = Vec::new();
    for (index, node) in cluster.data_nodes() {
        let namespace = node.namespace.as_ref().and_then(|path| path.file_name()).context("a namespace")?;
        let name = namespace.to_string_lossy();
        let said = programs::said(&ip, &["-n", &name, "-o", "addr", "show", "dev", "eth0"]).await?;
        ensure!(said.status == Some(0), "ip addr: {said:?}");
        if said.text.contains(&format!("{ADDRESS}/")) {
            found.push(index);
        }
    }
    Ok(found)
}

async fn follows(cluster: &Cluster, primary: usize) -> Result<()> {
    wait::until("the virtual address at the primary", HEAL_LIMIT, async || match bearers(cluster).await {
        Ok(found) if found == [primary] => Ok(()),
        other => Err(format!("{other:?}, not {primary}")),
    })
    .await
}

#[test]
fn a_virtual_address_follows_the_primary() {
    match apart("keepalived::a_virtual_address_follows_the_primary").expect("the test in its own namespaces")
    {
        Apart::Done => return,
        Apart::Here => {}
        Apart::Refused(why) => return tell(&format!("keepalived: not run, {why}")),
    }
    run(Plan::of(3).map(Plan::with_network), async |cluster| {
        cluster.start_all()?;
        let old = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let hosts: Vec<String> = cluster.data_nodes().map(|(_, node)| node.ports.host.to_string()).collect();
        let running: Result<Vec<Keepalived>> =
            (0..hosts.len()).map(|index| start(cluster, index, &hosts)).collect();
        let _running = running?;
        follows(cluster, old).await?;
        let new = (old + 1) % hosts.len();
        cluster.switchover(old, new).await?;
        follows(cluster, new).await?;
        cluster.node_mut(new)?.kill_everything()?;
        let next = cluster.wait_for_takeover(new, HEAL_LIMIT).await?;
        follows(cluster, next).await
    });
}
