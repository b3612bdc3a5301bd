//! The commands that act on members and settings.

use std::io::{BufReader, Read};
use std::process::Stdio;

use pgherd_raft::group::{GroupConfig, Phase, Timing};
use pgherd_raft::model::{Command, Revision};
use pgherd_raft::{Group, PeerServer};

use super::member::{FakeMember, refusing_address, text_of};
use super::{Run, ctl, golden, run, tool, transcript};

/// Runs a command against a member, and adds what the member was asked for.
fn told(member: &FakeMember, arguments: &[&str], input: &str) -> String {
    let addresses = [member.address()];
    let mut text = transcript(&ctl(&addresses, arguments, input), &addresses);
    for request in member.posted() {
        text.push_str(&format!("[asked {request}]\n"));
    }
    text
}

#[test]
fn topology_is_a_tree() {
    let member = FakeMember::start("cluster_cascade.json");
    golden("topology", &told(&member, &["topology"], ""));
    golden("topology_list", &told(&member, &["list", "demo"], ""));
}

const STATUS: &str = r#"{"state": "running", "pending_restart": true, "scheduled_restart": {"schedule": "2030-01-01T00:00:00+00:00"}}"#;

#[test]
fn restarts() {
    for (name, arguments, input) in [
        ("restart", &["restart", "demo", "node2", "node1"][..], "\ny\n\n"),
        ("restart_denied", &["restart", "demo"], "now\nn\n"),
        ("restart_forced", &["restart", "demo", "--force", "-r", "replica"], ""),
        ("restart_scheduled", &["restart", "demo", "node3"], "2999-01-01T00:00:00Z\ny\n16.1\n"),
        (
            "restart_pending",
            &["restart", "--pending", "--pg-version", "16.1", "--timeout", "30", "demo", "--force"],
            "",
        ),
        (
            "restart_rescheduled",
            &["restart", "demo", "node3", "--scheduled", "2999-01-01T00:00:00Z", "--force"],
            "",
        ),
        ("restart_unparsable", &["restart", "demo", "--scheduled", "some day", "--force"], ""),
    ] {
        let member = FakeMember::start("cluster_cascade.json");
        member.answer("POST /restart", 200, "restarted successfully");
        let schedule = r#"{"schedule":"2999-01-01T00:00:00+00:00"}"#;
        member.answer(&format!("POST /restart {schedule}"), 202, "Restart scheduled");
        let both = r#"{"postgres_version":"16.1","schedule":"2999-01-01T00:00:00+00:00"}"#;
        member.answer(&format!("POST /restart {both}"), 202, "Restart scheduled");
        member.answer("DELETE /restart", 200, "scheduled restart deleted");
        // All members are this one: what it says of itself holds for each.
        member.answer("GET /patroni", 200, STATUS);
        golden(name, &told(&member, arguments, input));
    }
}

#[test]
fn refused_restarts_are_status_1() {
    let member = FakeMember::start("cluster.json");
    member.answer("POST /restart", 503, "restart conditions are not satisfied");
    let run = ctl(&[member.address()], &["restart", "demo", "node2", "--force"], "");
    let failed =
        "Failed: restart for member node2, status code=503, (restart conditions are not satisfied)\n";
    assert_eq!((run.status, run.out.as_str()), (1, failed));
    member.answer("POST /restart", 409, "Another restart is already scheduled");
    let run = ctl(&[member.address()], &["restart", "demo", "node2", "--force"], "");
    assert_eq!(
        (run.status, run.out.as_str()),
        (1, "Failed: another restart is already scheduled on member node2\n")
    );
    let run = ctl(&[member.address()], &["restart", "demo", "node9", "--force"], "");
    assert_eq!((run.status, run.err.as_str()), (1, "Error: node9 is not a member of cluster\n"));
    let paused = FakeMember::start("cluster_full.json");
    let arguments = ["restart", "demo", "--scheduled", "2999-01-01T00:00:00Z", "--force"];
    let run = ctl(&[paused.address()], &arguments, "");
    assert_eq!((run.status, run.err.as_str()), (1, "Error: Can't schedule restart in the paused state\n"));
}

#[test]
fn a_switchover_is_scheduled() {
    let member = FakeMember::start("cluster.json");
    member.answer("POST /switchover", 202, "Switchover scheduled");
    let arguments = ["switchover", "--scheduled", "2999-01-01 10:00:00.123456+01:00", "--force"];
    let run = ctl(&[member.address()], &arguments, "");
    assert!(run.status == 0 && run.out.contains(" Switchover scheduled\n"), "{}{}", run.out, run.err);
    let asked = r#"POST /switchover {"candidate":null,"leader":"node1","scheduled_at":"2999-01-01T10:00:00.123456+01:00"}"#;
    assert_eq!(member.posted(), [asked]);
    let paused = FakeMember::start("cluster_full.json");
    let run = ctl(&[paused.address()], &arguments, "");
    assert_eq!(run.status, 1);
    assert_eq!(run.err, "Error: Can't schedule switchover in the paused state\n");
}

#[test]
fn an_asynchronous_candidate_needs_one_more_yes() {
    let member = FakeMember::start("cluster.json");
    member.answer("GET /config", 200, r#"{"synchronous_mode": true}"#);
    let run = ctl(&[member.address()], &["failover", "--candidate", "node2"], "n\n");
    assert!(run.out.contains("Are you sure you want to failover to the asynchronous node node2? [y/N]: "));
    assert_eq!((run.status, run.err.as_str()), (1, "Error: Aborting failover\n"));
    assert!(member.posted().is_empty());
}

#[test]
fn reloads() {
    let member = FakeMember::start("cluster.json");
    member.answer("POST /reload", 202, "reload scheduled");
    member.answer("GET /config", 200, r#"{"loop_wait": 7}"#);
    golden("reload", &told(&member, &["reload", "demo", "node1", "node3"], "y\n"));
    member.answer("POST /reload", 200, "nothing changed");
    let run = ctl(&[member.address()], &["reload", "demo", "node2", "--force"], "");
    assert_eq!((run.status, run.out.as_str()), (0, "No changes to apply on member node2\n"));
    member.answer("POST /reload", 500, "ttl: no number");
    let run = ctl(&[member.address()], &["reload", "demo", "node2", "--force"], "");
    let failed = "Failed: reload for member node2, status code=500, (ttl: no number)\n";
    assert_eq!((run.status, run.out.as_str()), (1, failed));
}

#[test]
fn reinits() {
    let began = |member: &FakeMember| member.answer("POST /reinitialize", 200, "reinitialize started");
    let member = FakeMember::start("cluster.json");
    began(&member);
    let arguments = ["reinit", "demo", "node2", "--force", "--from-leader", "--wait"];
    golden("reinit_waited", &told(&member, &arguments, ""));
    let member = FakeMember::start("cluster.json");
    began(&member);
    golden("reinit", &told(&member, &["reinit", "demo"], "node3\ny\n"));
    let member = FakeMember::start("cluster.json");
    began(&member);
    let gently = r#"POST /reinitialize {"force":false,"from_leader":false}"#;
    member.answer(gently, 503, "restart already in progress");
    golden("reinit_busy", &told(&member, &["reinit", "demo", "node3"], "y\ny\n"));
    let member = FakeMember::start("cluster.json");
    member.answer("POST /reinitialize", 503, "I am the leader, can not reinitialize");
    golden("reinit_leader", &told(&member, &["reinit", "demo", "node1", "--force"], ""));
    let run = ctl(&[member.address()], &["reinit", "demo", "--force"], "");
    assert!(run.status == 1 && run.err.contains("name the members to reinitialize"), "{}", run.err);
}

#[test]
fn flushes() {
    let member = FakeMember::start("cluster_cascade.json");
    member.answer("DELETE /restart", 200, "scheduled restart deleted");
    member.answer("DELETE /switchover", 200, "scheduled switchover deleted");
    member.answer("GET /patroni", 200, STATUS);
    golden("flush_restart", &told(&member, &["flush", "demo", "restart"], "y\n"));
    let run = ctl(&[member.address()], &["flush", "demo", "switchover"], "");
    assert_eq!((run.status, run.out.as_str()), (0, "Success: scheduled switchover deleted\n"));
    member.answer("DELETE /switchover", 401, "no auth header received");
    let run = ctl(&[member.address()], &["flush", "demo", "switchover", "--force"], "");
    assert_eq!(run.status, 1);
    assert!(run.out.starts_with("Failed: member=node1, status_code=401, (no auth header received)\n"));
    let member = FakeMember::start("cluster.json");
    let run = ctl(&[member.address()], &["flush", "demo", "switchover"], "");
    assert_eq!((run.status, run.out.as_str()), (0, "No pending scheduled switchover\n"));
    let run = ctl(&[member.address()], &["flush", "demo", "failover"], "");
    assert!(run.status == 2 && run.err.contains("restart or switchover"), "{}", run.err);
}

#[test]
fn ctrl_c_at_a_prompt_is_an_end_of_the_tool_s_own() {
    let member = FakeMember::start("cluster.json");
    let mut command = tool();
    command.args(["-d", &member.address(), "switchover", "demo"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut shown = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    // The prompt has no line of its own.
    while !shown.ends_with("Primary [node1]: ") {
        let mut byte = [0];
        out.read_exact(&mut byte).expect("a prompt");
        shown.push(char::from(byte[0]));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    let output = child.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b"\nAborted!\n"[..]));
    assert_eq!(member.posted(), [""; 0]);
}

#[test]
fn patronictl_s_group_is_taken_anywhere() {
    let member = FakeMember::start("cluster.json");
    for arguments in [&["list", "--group", "0", "-f", "tsv"][..], &["--group", "0", "list", "-f", "tsv"]] {
        let run = ctl(&[member.address()], arguments, "");
        assert!(run.status == 0 && run.out.lines().count() == 4, "{}", run.out);
        assert_eq!(run.err, "Warning: --group 0 has no effect: there are no Citus groups\n");
    }
}

#[test]
fn the_configuration_may_be_a_directory_or_a_variable() {
    let member = FakeMember::start("cluster.json");
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!("ctl: {{restapi_addrs: ['{}']}}\n", member.address());
    std::fs::write(directory.path().join("1.yml"), format!("{text}scope: other\n")).expect("written");
    std::fs::write(directory.path().join("2.yml"), "scope: demo\n").expect("written");
    let mut command = tool();
    command.arg("-c").arg(directory.path()).args(["list", "-f", "tsv"]);
    assert_eq!(run(command, "").status, 0);
    let mut command = tool();
    command.env("PATRONI_CONFIGURATION", format!("{text}scope: demo\n")).args(["list", "-f", "tsv"]);
    assert_eq!(run(command, "").status, 0);
    std::fs::write(directory.path().join("2.yml"), "- demo\n").expect("written");
    let mut command = tool();
    command.arg("-c").arg(directory.path()).arg("list");
    let run = run(command, "");
    assert!(run.status == 1 && run.err.contains("2.yml"), "{}", run.err);
}

const SETTINGS: &str = r#"{"ttl":30,"loop_wait":2,"postgresql":{"parameters":{"b.c":"on","a":1},"pg_hba":["host all all 0.0.0.0/0 md5"]}}"#;

fn with_settings() -> FakeMember {
    let member = FakeMember::start("cluster.json");
    member.answer("GET /config", 200, SETTINGS);
    member.answer("PATCH /config", 200, "{}");
    member
}

#[test]
fn settings_are_shown() {
    let member = with_settings();
    golden("show_config", &told(&member, &["show-config"], ""));
    member.answer("GET /config/history", 200, &text_of("config_history.json"));
    golden("show_config_history", &told(&member, &["show-config", "demo", "--history"], ""));
}

#[test]
fn settings_are_edited() {
    for (name, arguments, input) in [
        ("edit_config_forced", &["edit-config", "demo", "-s", "ttl=20", "--force"][..], ""),
        ("edit_config_pg", &["edit-config", "-p", "b.d=6", "-p", "a=null", "--force", "demo"], ""),
        ("edit_config_denied", &["edit-config", "-s", "ttl=20"], "n\n"),
        ("edit_config_agreed", &["edit-config", "-q", "-s", "pause=true"], "y\n"),
        ("edit_config_same", &["edit-config", "-s", "ttl=30"], ""),
        ("edit_config_applied", &["edit-config", "--apply", "-", "--force"], "ttl: 20\nloop_wait: null\n"),
        ("edit_config_replaced", &["edit-config", "--replace", "-", "--force"], "ttl: 20\n"),
        ("edit_config_not_forced", &["edit-config", "--replace", "-"], "ttl: 20\n"),
        ("edit_config_invalid", &["edit-config", "-s", "ttl"], ""),
        ("edit_config_no_map", &["edit-config", "--apply", "-", "--force"], "- ttl\n"),
    ] {
        let member = with_settings();
        golden(name, &told(&member, arguments, input));
    }
    let member = with_settings();
    member.answer("PATCH /config", 400, "ttl: not a number");
    let run = ctl(&[member.address()], &["edit-config", "-q", "-s", "ttl=x", "--force"], "");
    assert_eq!(
        (run.status, run.out.as_str()),
        (1, "Failed: edit-config, status code=400, (ttl: not a number)\n")
    );
    member.answer("PATCH /config", 409, "again and again");
    let run = ctl(&[member.address()], &["edit-config", "-q", "-s", "ttl=x", "--force"], "");
    assert_eq!(run.err, "Error: Config modification aborted due to concurrent changes\n");
}

/// Runs the tool with an editor that is a script.
fn edited(member: &FakeMember, script: &str) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("editor");
    std::fs::write(&file, script).expect("written");
    let mut command = tool();
    command.env("EDITOR", format!("/bin/sh {}", file.display())).env("PATH", "/usr/bin:/bin");
    command.args(["-d", &member.address(), "edit-config", "demo", "--force"]);
    run(command, "")
}

#[test]
fn settings_are_edited_in_an_editor() {
    let member = with_settings();
    let run = edited(&member, "sed -i 's/ttl: 30/ttl: 31/' \"$1\"");
    assert!(run.status == 0 && run.out.contains("+ttl: 31\n"), "{}{}", run.out, run.err);
    assert_eq!(member.posted(), [r#"PATCH /config {"ttl":31}"#]);
    let run = edited(&member, "exit 3");
    assert_eq!((run.status, run.err.as_str()), (1, "Error: Editor exited with return code 3\n"));
    let run = edited(&member, "true");
    assert_eq!((run.status, run.out.as_str()), (0, "Not changed\n"));
    let mut command = tool();
    command.args(["-d", &member.address(), "edit-config", "demo"]);
    let run = self::run(command, "");
    let none = "Error: EDITOR environment variable is not set. editor or vi are not available\n";
    assert_eq!((run.status, run.err.as_str()), (1, none));
}

#[test]
fn settings_go_back_to_an_earlier_revision() {
    for (name, arguments, input) in [
        ("rollback", &["edit-config", "demo", "--rollback"][..], "y\n"),
        ("rollback_named", &["edit-config", "--rollback", "1", "--force"], ""),
        ("rollback_unknown", &["edit-config", "--rollback=9"], ""),
    ] {
        let member = FakeMember::start("cluster.json");
        member.answer("GET /config", 200, r#"{"ttl":30,"loop_wait":2}"#);
        member.answer("GET /config/history", 200, &text_of("config_history.json"));
        member.answer("POST /config/rollback", 200, "{}");
        golden(name, &told(&member, arguments, input));
    }
}

#[test]
fn history_in_all_formats() {
    let member = FakeMember::start("cluster.json");
    member.answer("GET /history", 200, &text_of("history.json"));
    for (name, arguments) in [
        ("history", &["history"][..]),
        ("history.tsv", &["history", "demo", "-f", "tsv"]),
        ("history.json", &["history", "-f", "json", "demo"]),
        ("history.yaml", &["history", "-f", "yml"]),
    ] {
        let run = ctl(&[member.address()], arguments, "");
        assert_eq!((run.status, run.err.as_str()), (0, ""));
        golden(name, &run.out);
    }
}

#[test]
fn where_a_member_is() {
    let member = FakeMember::start("cluster.json");
    let dsn = |arguments: &[&str]| {
        let run = ctl(&[member.address()], &[&["dsn"], arguments].concat(), "");
        (run.status, [run.out, run.err].concat())
    };
    assert_eq!(dsn(&[]), (0, "host=127.0.0.1 port=5433\n".to_owned()));
    assert_eq!(dsn(&["demo", "-r", "replica"]), (0, "host=127.0.0.1 port=5434\n".to_owned()));
    assert_eq!(dsn(&["-m", "node3"]), (0, "host=127.0.0.1 port=5435\n".to_owned()));
    assert_eq!(dsn(&["-m", "node9"]), (1, "Error: Can not find a suitable member\n".to_owned()));
    let both = "Error: --role and --member are mutually exclusive options\n";
    assert_eq!(dsn(&["-m", "node1", "-r", "leader"]), (1, both.to_owned()));
}

#[test]
fn queries_that_cannot_be_made() {
    let member = FakeMember::start("cluster_leader_down.json");
    let addresses = [member.address()];
    for (arguments, expected) in [
        (
            &["query", "-c", "SELECT 1", "-f", "x"][..],
            "Error: --file and --command are mutually exclusive options\n",
        ),
        (&["query"], "Error: You need to specify either --command or --file\n"),
        (
            &["query", "-c", "SELECT 1", "-r", "leader", "-m", "x"],
            "Error: --role and --member are mutually exclusive options\n",
        ),
    ] {
        let run = ctl(&addresses, arguments, "");
        assert_eq!((run.status, run.err.as_str()), (1, expected));
    }
    for (arguments, expected) in [
        (&["query", "-c", "SELECT 1", "-m", "node9"][..], "No connection to member node9 is available"),
        (
            &["query", "-c", "SELECT 1", "-r", "standby-leader"],
            "No connection to role standby-leader is available",
        ),
    ] {
        let run = ctl(&addresses, arguments, "");
        let (time, text) = run.out.trim_end().split_once('\t').expect("two columns");
        assert_eq!((run.status, time.len(), text), (1, "2026-11-20 17:08:52".len(), expected));
    }
}

#[test]
fn removing_asks_three_times() {
    let member = FakeMember::start("cluster.json");
    for (name, input) in [
        ("remove_other_name", "other\n"),
        ("remove_unaware", "demo\nyes\n"),
        ("remove_other_leader", "demo\nYes I am aware\nnode2\n"),
        ("remove_running", "demo\nYes I am aware\nnode1\n"),
    ] {
        golden(name, &told(&member, &["remove", "demo"], input));
    }
    let run = ctl(&[refusing_address()], &["remove", "demo"], "demo\nYes I am aware\n");
    assert!(run.status == 1 && run.err.contains("raft.data_dir"), "{}", run.err);
}

#[test]
fn completions_and_manual_pages() {
    for (shell, word) in
        [("bash", "_pgherdctl()"), ("zsh", "#compdef pgherdctl"), ("fish", "complete -c pgherdctl")]
    {
        let mut command = tool();
        command.args(["completions", shell]);
        let run = run(command, "");
        assert!(run.status == 0 && run.out.contains(word), "{}", run.out);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = tool();
    command.arg("man").arg(directory.path());
    assert_eq!(run(command, "").status, 0);
    for page in ["pgherdctl.1", "pgherdctl-list.1", "pgherdctl-dcs-get.1"] {
        let text = std::fs::read_to_string(directory.path().join(page)).expect("a page");
        assert!(text.contains(".SH NAME"), "{text}");
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.arg("--man");
    let page = run(command, "");
    assert!(page.status == 0 && page.out.contains("SIGHUP"), "{}", page.out);
}

/// Runs `dcs get` with these peers' ports.
fn key(partners: &[String], key: &str) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ctl.yml");
    let text = format!("scope: demo\nraft:\n  partner_addrs: [{}]\n", partners.join(", "));
    std::fs::write(&file, text).expect("written");
    let mut command = tool();
    command.arg("-c").arg(&file).args(["dcs", "get", "demo", key]);
    run(command, "")
}

#[test]
fn keys_that_nobody_can_tell_are_status_3() {
    let run = key(&[refusing_address()], "leader");
    assert_eq!((run.status, run.out.as_str()), (3, ""));
    assert!(run.err.contains("nobody can tell what demo has agreed on"), "{}", run.err);
    assert_eq!(key(&[refusing_address()], "nothing").status, 1);
}

#[test]
fn keys_are_read_from_any_voter() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let rest = FakeMember::start("cluster.json");
    rest.answer("GET /patroni", 200, r#"{"state": "running", "role": "primary", "xlog": {"location": 77}}"#);
    let (server, group) = runtime.block_on(async {
        let server = PeerServer::bind("127.0.0.1:0").await.expect("listens");
        let addr = server.local_addr().to_string();
        let member = serde_json::json!({
            "name": "node1", "kind": "data", "raft_addr": addr, "api_url": format!("http://{}", rest.address()),
            "postgres": {"host": "127.0.0.1", "port": 5433}, "tags": [],
        });
        let config = GroupConfig {
            scope: "demo".to_owned(),
            member: serde_json::from_value(member).expect("a member"),
            partner_addrs: Vec::new(),
            system_identifier: None,
            data_dir: directory.path().to_owned(),
            timing: Timing::default(),
        };
        let group = Group::start(&server, config).await.expect("started");
        group.watch().wait_for(|view| view.phase == Phase::Member).await.expect("a member");
        let document = r#"{"ttl": 5}"#.to_owned();
        let by = "a test".to_owned();
        group.propose(Command::SetSettings { expected: Revision(0), document, by, at_ms: 0 }).await;
        (server, group)
    });
    let partners = [refusing_address(), server.local_addr().to_string()];
    let read = |name: &str| {
        let run = key(&partners, name);
        (run.status, run.out.trim_end().to_owned())
    };
    assert_eq!(read("config"), (0, r#"{"ttl": 5}"#.replace(": ", ":")));
    for absent in ["leader", "initialize", "sync", "failsafe", "failover", "members/node9"] {
        assert_eq!(read(absent), (1, String::new()), "{absent}");
    }
    let (status, told) = read("members/node1");
    assert!(status == 0 && told.contains(r#""state":"running","role":"primary""#), "{told}");
    rest.answer("GET /patroni", 503, "");
    rest.answer("GET /cluster", 503, "");
    let (status, told) = read("members/node1");
    assert!(status == 0 && told.contains(r#""state":"unreachable","role":"replica""#), "{told}");
    runtime.block_on(async {
        group.shutdown().await;
        server.shutdown().await;
    });
}
