//! The daemon as a service: what systemd is told, what the unit files say, where the log goes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::harness::cluster::{BRING_UP_LIMIT, HEAL_LIMIT, Plan};
use crate::harness::{tell, wait};
use crate::run;

/// Longer than any start of a single node takes.
const MESSAGE_LIMIT: Duration = Duration::from_secs(60);

fn next_message(socket: &UnixDatagram) -> Result<String> {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).context("waiting for a message to the service manager")?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

#[test]
fn the_service_manager_is_told_when_the_daemon_is_ready_and_when_it_stops() {
    run(Plan::of(1), async |cluster| {
        let path = cluster.directory().join("notify");
        let socket = UnixDatagram::bind(&path).context("binding the socket")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(MESSAGE_LIMIT))?;
        cluster.node_mut(0)?.environment.push(("NOTIFY_SOCKET".into(), path.into()));
        cluster.start_all()?;
        ensure!(next_message(&socket)? == "READY=1");
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        cluster.node_mut(0)?.stop().await?;
        // PostgreSQL knows such messages, too, and must not speak for the daemon.
        let mut last = Vec::new();
        socket.set_nonblocking(true)?;
        while let Ok(message) = next_message(&socket) {
            last.push(message);
        }
        ensure!(!last.is_empty() && last.iter().all(|message| message == "STOPPING=1"), "{last:?}");
        Ok(())
    });
}

#[test]
fn the_unit_files_are_what_systemd_understands() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    for name in ["pgherd.service", "pgherd-witness.service"] {
        let text = std::fs::read_to_string(units.join(name)).expect("the unit file");
        assert!(text.contains("Type=notify"), "{name}");
        let output = Command::new("systemd-analyze").arg("verify").arg(units.join(name)).output();
        let Ok(output) = output else {
            tell(&format!("systemd-analyze of {name}: not run, there is no systemd here"));
            continue;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        // The programs and their manuals are not installed where tests run.
        let is_expected =
            |line: &str| line.contains("is not executable") || line.contains("man ") || line.contains("(1)'");
        let complaints: Vec<&str> =
            said.lines().filter(|line| line.contains(name) && !is_expected(line)).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn the_log_goes_where_the_section_says() {
    run(Plan::of(1), async |cluster| {
        let node = cluster.node(0)?;
        let log = node.directory.join("patroni.log");
        let section = format!(
            "log:\n  type: json\n  format: [message, {{levelname: level}}, name]\n  static_fields: {{app: pg}}\n  \
             dir: {}\n  mode: 0640\n  file_size: 2000\n  file_num: 2\n",
            node.directory.display()
        );
        node.write_config(&format!("{}{section}", node.read_config()?))?;
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let old = log.with_extension("log.1");
        wait::until("a rotated log", HEAL_LIMIT, async || {
            if old.exists() { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await?;
        for line in std::fs::read_to_string(&old)?.lines() {
            let record: serde_json::Value = serde_json::from_str(line).context("a record in JSON")?;
            let is_whole = ["message", "level", "name"].iter().all(|key| record[key].is_string());
            ensure!(is_whole && record["app"] == "pg", "{line}");
        }
        ensure!(std::fs::metadata(&log)?.permissions().mode() & 0o777 == 0o640);
        let node = cluster.node(0)?;
        ensure!(node.log().is_empty(), "lines beside the file: {}", node.log());
        Ok(())
    });
}

#[test]
fn a_log_that_cannot_be_written_ends_the_start_with_its_own_status() {
    run(Plan::of(1), async |cluster| {
        let node = cluster.node(0)?;
        node.write_config(&format!("{}log: {{dir: /nonexistent/logs}}\n", node.read_config()?))?;
        cluster.start_node(0)?;
        let status = cluster.node_mut(0)?.wait_for_end(HEAL_LIMIT).await?;
        ensure!(status.code() == Some(5), "{status}");
        let said = cluster.node(0)?.log();
        ensure!(said.contains("/nonexistent/logs/patroni.log") && said.contains("log.dir"), "{said}");
        Ok(())
    });
}

/// Standard error is a pipe that nobody reads: the log is lost, and nothing else.
#[test]
fn nobody_waits_for_a_log_that_is_not_read() {
    run(Plan::of(1), async |cluster| {
        let (reader, writer) = std::io::pipe().context("a pipe")?;
        fill(&writer)?;
        let node = cluster.node(0)?;
        node.write_config(&format!("{}log: {{level: DEBUG, max_queue_size: 10}}\n", node.read_config()?))?;
        cluster.node_mut(0)?.standard_error = Some(writer.into());
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        wait::until("the shutdown", HEAL_LIMIT, async || {
            cluster
                .node(0)
                .map_err(|error| error.to_string())?
                .signal_daemon(Signal::TERM)
                .map_err(|e| e.to_string())
        })
        .await?;
        let status = cluster.node_mut(0)?.wait_for_end(HEAL_LIMIT).await?;
        ensure!(status.success(), "{status}");
        drop(reader);
        Ok(())
    });
}

/// Writes until not a byte more goes in.
fn fill(mut writer: &std::io::PipeWriter) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(writer)?;
    rustix::fs::fcntl_setfl(writer, flags | rustix::fs::OFlags::NONBLOCK)?;
    for size in [4096, 1] {
        while std::io::Write::write(&mut writer, &vec![b'x'; size]).is_ok() {}
    }
    rustix::fs::fcntl_setfl(writer, flags)?;
    Ok(())
}
