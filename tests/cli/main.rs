//! What `pgherdctl` prints, asks and answers, against members that say what the test tells them to.
//!
//! Expected texts are in `golden/`; `UPDATE_GOLDENFILES=1` writes them anew.

#![expect(clippy::expect_used, clippy::panic, reason = "a test program: a panic is how it fails")]

mod commands;
mod member;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use member::{FakeMember, refusing_address};

/// What a run of the tool gave.
struct Run {
    status: i32,
    out: String,
    err: String,
}

/// Runs the tool with a configuration of these REST addresses; `input` is typed at its prompts.
fn ctl(addresses: &[String], arguments: &[&str], input: &str) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ctl.yml");
    let text = format!("scope: demo\nctl:\n  restapi_addrs: [{}]\n", addresses.join(", "));
    std::fs::write(&file, text).expect("written");
    let mut command = tool();
    command.arg("-c").arg(&file).args(arguments);
    run(command, input)
}

/// The tool without anything of this process's environment that it would read.
fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherdctl"));
    command.env_clear().env("TZ", "UTC").env("HOME", "/nonexistent");
    command
}

fn run(mut command: Command, input: &str) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A tool which does not ask has ended before it is told.
    if stdin.write_all(input.as_bytes()).is_err() {
        assert!(!input.is_empty());
    }
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    Run {
        status: output.status.code().expect("a status"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn golden(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&path, text).expect("writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; UPDATE_GOLDENFILES=1 writes it anew", path.display());
}

/// How moments look.
const MOMENT: &str = "2026-11-20 17:08:52.31609";

/// A transcript without what differs from run to run: addresses and moments.
fn transcript(run: &Run, addresses: &[String]) -> String {
    let mut text = format!("{}{}[status {}]\n", run.out, run.err, run.status);
    for (number, address) in addresses.iter().enumerate() {
        text = text.replace(address.as_str(), &format!("ADDRESS{number}"));
    }
    text.lines()
        .map(|line| match line.find(" Successfully") {
            Some(end) => format!("{}MOMENT{}", &line[..end - MOMENT.len()], &line[end..]),
            None => line.to_owned(),
        })
        .map(|line| match line.split_once("(e.g. ") {
            Some((before, after)) => format!("{before}(e.g. TIME{}", &after[16..]),
            None => line,
        })
        .map(|line| line + "\n")
        .collect()
}

#[test]
fn help_texts() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_list", &["list", "--help"]),
        ("help_switchover", &["switchover", "--help"]),
        ("help_failover", &["failover", "--help"]),
        ("help_pause", &["pause", "--help"]),
        ("help_why", &["why", "--help"]),
        ("help_what_if", &["what-if", "--help"]),
        ("help_topology", &["topology", "--help"]),
        ("help_restart", &["restart", "--help"]),
        ("help_reload", &["reload", "--help"]),
        ("help_reinit", &["reinit", "--help"]),
        ("help_flush", &["flush", "--help"]),
        ("help_show_config", &["show-config", "--help"]),
        ("help_edit_config", &["edit-config", "--help"]),
        ("help_history", &["history", "--help"]),
        ("help_dsn", &["dsn", "--help"]),
        ("help_query", &["query", "--help"]),
        ("help_remove", &["remove", "--help"]),
        ("help_completions", &["completions", "--help"]),
        ("help_dcs_get", &["dcs", "get", "--help"]),
        ("help_version", &["version", "--help"]),
    ] {
        let mut command = tool();
        command.args(arguments);
        let run = run(command, "");
        assert_eq!((run.status, run.err.as_str()), (0, ""));
        golden(name, &run.out);
    }
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for arguments in [&["lst"][..], &["list", "--frmat", "json"], &["list", "-f", "xml"], &[]] {
        let mut command = tool();
        command.args(arguments);
        let run = run(command, "");
        assert_eq!((run.status, run.out.as_str()), (2, ""), "{}", run.err);
    }
}

#[test]
fn pause_and_resume() {
    let member = FakeMember::start("cluster.json");
    let addresses = [member.address()];
    let told = |arguments: &[&str]| transcript(&ctl(&addresses, arguments, ""), &addresses);
    assert_eq!(told(&["resume"]), "Error: Cluster is not paused\n[status 1]\n");
    assert_eq!(told(&["pause", "demo"]), "Success: cluster management is paused\n[status 0]\n");
    assert_eq!(told(&["pause"]), "Error: Cluster is already paused\n[status 1]\n");
    golden("resume_waited", &told(&["resume", "--wait"]));
    member.refuse_posts(503, "no majority");
    let failed = "Failed: pause cluster management status code=503, (no majority)\n[status 1]\n";
    assert_eq!(told(&["pause"]), failed);
    let asked = [
        "PATCH /config {\"pause\":true}",
        "PATCH /config {\"pause\":null}",
        "PATCH /config {\"pause\":true}",
    ];
    assert_eq!(member.posted(), asked);
}

#[test]
fn a_dead_primary_is_told_in_the_request() {
    let member = FakeMember::start("cluster.json");
    let addresses = [member.address()];
    let arguments = ["failover", "--candidate", "node2", "--primary-is-dead"];
    golden("failover_primary_is_dead", &transcript(&ctl(&addresses, &arguments, "y\n"), &addresses));
    assert_eq!(member.posted(), ["/failover {\"candidate\":\"node2\",\"primary_is_dead\":true}"]);
}

#[test]
fn list_in_all_formats() {
    let member = FakeMember::start("cluster.json");
    let addresses = [member.address()];
    for (name, arguments) in [
        ("list", &["list"][..]),
        ("list_extended", &["list", "demo", "-e"]),
        ("list.tsv", &["list", "-f", "tsv"]),
        ("list.json", &["list", "demo", "-f", "json"]),
        ("list.yaml", &["list", "-f", "yml"]),
    ] {
        let run = ctl(&addresses, arguments, "");
        assert_eq!((run.status, run.err.as_str()), (0, ""));
        golden(name, &run.out);
    }
    let run = ctl(&addresses, &["list", "-t"], "");
    let (time, table) = run.out.split_once('\n').expect("lines");
    assert_eq!(time.len(), "2026-11-20 17:08:52".len(), "{time}");
    assert!(table.starts_with("+ Cluster: demo ("));
}

#[test]
fn list_with_pending_restarts_and_schedules() {
    let member = FakeMember::start("cluster_full.json");
    let run = ctl(&[member.address()], &["list"], "");
    golden("list_full", &run.out);
    let run = ctl(&[member.address()], &["list", "-f", "json"], "");
    golden("list_full.json", &run.out);
}

#[test]
fn list_of_a_new_cluster() {
    let member = FakeMember::start("cluster_empty.json");
    let run = ctl(&[member.address()], &["list"], "");
    golden("list_empty", &run.out);
}

#[test]
fn members_that_are_down_do_not_matter() {
    let member = FakeMember::start("cluster.json");
    let mute = FakeMember::mute();
    let addresses = [refusing_address(), mute.address(), member.address()];
    let run = ctl(&addresses, &["list", "-f", "tsv"], "");
    assert_eq!(run.status, 0, "{}", run.err);
    assert_eq!(run.out.lines().count(), 4);
}

#[test]
fn the_best_informed_member_is_believed() {
    let cut_off = FakeMember::start("cluster_cut_off.json");
    let member = FakeMember::start("cluster.json");
    for addresses in [[cut_off.address(), member.address()], [member.address(), cut_off.address()]] {
        let run = ctl(&addresses, &["list", "-f", "tsv"], "");
        assert!(run.out.contains("node2\t127.0.0.1:5434\tReplica\tstreaming"), "{}", run.out);
    }
}

#[test]
fn when_nobody_answers_it_says_what_it_tried() {
    let other = FakeMember::start("cluster_other_scope.json");
    let addresses = [refusing_address(), other.address()];
    let run = ctl(&addresses, &["list"], "");
    golden("nobody", &transcript(&run, &addresses));
    let run = ctl(&[], &["list"], "");
    assert!(run.err.contains("give a node's configuration or one with ctl.restapi_addrs"), "{}", run.err);
    let mut command = tool();
    command.args(["-c", "/nonexistent/file.yml", "list"]);
    let run = self::run(command, "");
    let sentence = "Error: Provided config file /nonexistent/file.yml not existing or no read rights. \
                    Check the -c/--config-file parameter";
    assert!(run.status == 1 && run.err.starts_with(sentence), "{}", run.err);
    let mut command = tool();
    command.args(["-d", "etcd3://localhost:2379", "list", "demo"]);
    let run = self::run(command, "");
    assert!(run.status == 1 && run.err.contains("pgherd has no etcd3 store"), "{}", run.err);
}

#[test]
fn addresses_may_come_from_the_command_line_and_the_environment() {
    let member = FakeMember::start("cluster.json");
    let mut command = tool();
    command.args(["-d", &format!("http://{}", member.address()), "list", "demo", "-f", "tsv"]);
    assert_eq!(run(command, "").status, 0);
    let mut command = tool();
    command.env("DCS_URL", member.address()).env("PATRONI_SCOPE", "demo").args(["list", "-f", "tsv"]);
    assert_eq!(run(command, "").status, 0);
}

#[test]
fn switchover_dialogues() {
    for (name, arguments, input) in [
        ("switchover", &["switchover"][..], "\nnode2\n\ny\n"),
        ("switchover_denied", &["switchover"], "\n\nnow\n\n"),
        ("switchover_wrong_leader", &["switchover"], "node2\n"),
        ("switchover_aborted", &["switchover"], "\n"),
        ("switchover_scheduled", &["switchover"], "\n\n2999-01-01T00:00Z\ny\n"),
        ("switchover_bad_candidate", &["switchover", "--leader", "node1"], "node9\n"),
        ("switchover_to_itself", &["switchover", "demo", "--candidate", "node1", "--force"], ""),
        ("switchover_forced", &["switchover", "demo", "--force"], ""),
        ("switchover_primary", &["switchover", "--primary", "node1", "--candidate", "node3", "--force"], ""),
        ("failover", &["failover"], "node2\ny\n"),
        ("failover_nobody", &["failover"], "\n"),
        ("failover_forced_nobody", &["failover", "--force"], ""),
    ] {
        let member = FakeMember::start("cluster.json");
        let addresses = [member.address()];
        let run = ctl(&addresses, arguments, input);
        let mut text = transcript(&run, &addresses);
        for request in member.posted() {
            text.push_str(&format!("[asked {request}]\n"));
        }
        golden(name, &text);
    }
}

#[test]
fn a_refused_switchover_is_status_1() {
    let member = FakeMember::start("cluster.json");
    member.refuse_posts(412, "switchover is not possible: no good candidates have been found");
    let addresses = [member.address()];
    let run = ctl(&addresses, &["switchover", "--force"], "");
    golden("switchover_refused", &transcript(&run, &addresses));
}

#[test]
fn the_next_member_is_asked_only_when_nothing_was_sent() {
    // The member that the document names as the leader refuses connections.
    let member = FakeMember::start("cluster_leader_down.json");
    let run = ctl(&[member.address()], &["failover", "--candidate", "node2", "--force"], "");
    assert_eq!(run.status, 0, "{}{}", run.out, run.err);
    assert_eq!(member.posted(), ["/failover {\"candidate\":\"node2\"}"]);
    let member = FakeMember::start("cluster.json");
    member.drop_posts();
    let run = ctl(&[member.address()], &["switchover", "--force"], "");
    assert_eq!(run.status, 1);
    assert!(
        run.err.contains("the answer was lost") && run.err.contains("before asking again"),
        "{}",
        run.err
    );
    assert_eq!(member.posted().len(), 1);
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let member = FakeMember::start("cluster.json");
    let mut command = tool();
    command.env("PATRONI_CTL_USERNAME", "admin").env("PATRONI_CTL_PASSWORD", "secret").args([
        "-d",
        &member.address(),
        "switchover",
        "demo",
        "--force",
    ]);
    let run = run(command, "");
    assert_eq!(run.status, 0, "{}", run.err);
    assert_eq!(member.authorization().as_deref(), Some("Basic YWRtaW46c2VjcmV0"));
    assert!(!run.out.contains("secret") && !run.err.contains("secret"));
}

#[test]
fn versions() {
    let mut command = tool();
    command.arg("version");
    let own = format!("pgherdctl version {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(command, "").out, own);
    let member = FakeMember::start("cluster.json");
    let run = ctl(&[member.address()], &["version", "demo", "node1"], "");
    assert_eq!(run.out, format!("{own}\nnode1: pgherd 0.1.0 PostgreSQL 15.18\n"));
}

#[test]
fn why_tells_a_story() {
    // The member that the document names as the leader is down: another one tells the same.
    let member = FakeMember::start("cluster_leader_down.json");
    let addresses = [member.address()];
    for (name, arguments) in [
        ("why", &["why"][..]),
        ("why_range", &["why", "demo", "--since", "2026-11-20 17:02:00", "-n", "2"]),
        ("why.yaml", &["why", "-o", "yml"]),
        ("what_if", &["what-if", "node1"]),
        ("what_if.yaml", &["what-if", "node1", "demo", "--output", "yaml"]),
    ] {
        let run = ctl(&addresses, arguments, "");
        assert_eq!((run.status, run.err.as_str()), (0, ""), "{name}");
        golden(name, &run.out);
    }
    let paths = [
        "/decisions",
        "/decisions?since=2026-11-20T17%3A02%3A00Z&limit=2",
        "/decisions",
        "/what-if?member=node1",
    ];
    assert_eq!(member.asked().get(..4).expect("asked"), paths);
    for command in [&["why", "-o", "json"][..], &["what-if", "node1", "--format", "json"]] {
        let run = ctl(&addresses, command, "");
        let told: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
        assert!(run.status == 0 && (told.is_array() || told.is_object()), "{}", run.out);
    }
}

#[test]
fn why_refuses_what_it_cannot_tell() {
    let member = FakeMember::start("cluster.json");
    let addresses = [member.address()];
    let run = ctl(&addresses, &["why", "--since", "yesterday"], "");
    assert!(run.status == 1 && run.err.contains("\"yesterday\" is no time"), "{}", run.err);
    let run = ctl(&addresses, &["what-if", "nobody"], "");
    assert!(run.status == 1 && run.err.contains("nobody is not a member"), "{}", run.err);
}
