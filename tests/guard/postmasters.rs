//! The postmaster starts, stops, dies, is adopted.

use std::process::{Command, Stdio};
use std::time::Duration;

use pgherd::guard::{GuardError, PostmasterExit, PostmasterSignal};
use pgherd::ha::{Fact, Process};
use pgherd_raft::model::Epoch;
use rustix::process::Signal;

use crate::machine::{TTL, is_alive, now, signal_process, until};
use crate::run;

#[test]
fn its_end_is_told_at_once() {
    run("postmasters::its_end_is_told_at_once", async |machine| {
        let guard = machine.guard().await;
        assert_eq!(guard.process(), Fact::fresh(Process::Stopped));
        let pid = machine.start(&guard).await;
        assert_eq!(guard.process(), Fact::fresh(Process::Running { pid, is_child: true }));
        let again = guard.start(machine.start_request()).await;
        assert!(matches!(again, Err(GuardError::Refused { .. })), "{again:?}");
        let status = guard.status().await.expect("a status");
        assert!(status.pids.contains(&pid) && status.pids.len() > 3, "{status:?}");
        println!("measured: a look at all processes took {:?}", status.took);

        let sent = now();
        guard.signal(PostmasterSignal::Fast).await.expect("signalled");
        let news = guard.exited().await;
        println!("measured: fast shutdown, told after {:?}", now().since(sent));
        assert_eq!((news.exits, news.last_exit), (1, Some(PostmasterExit::Exited(0))));
        guard.stopped().await;
        assert!(machine.log().contains("database system is shut down"));

        let pid = machine.start(&guard).await;
        let sent = now();
        signal_process(u64::from(pid), Signal::KILL);
        let news = guard.exited().await;
        println!("measured: postmaster killed, told after {:?}", now().since(sent));
        assert_eq!((news.exits, news.last_exit), (2, Some(PostmasterExit::Signalled(9))));
        guard.stopped().await;
        println!("measured: postmaster killed, nothing left after {:?}", now().since(sent));
        machine.emptied().await;
        machine.start(&guard).await;
    });
}

#[test]
fn who_stopped_it_is_told() {
    run("postmasters::who_stopped_it_is_told", async |machine| {
        let guard = machine.guard().await;
        let stopped_by_others = || guard.facts().of_any_age().expect("facts").stopped_by_others;
        let ends = async |signal, other: bool| {
            let (pid, sent) = (machine.start(&guard).await, now());
            assert_eq!(stopped_by_others(), None, "one was started");
            match other {
                true => signal_process(u64::from(pid), signal),
                false => guard.signal(PostmasterSignal::Fast).await.expect("signalled"),
            }
            guard.stopped().await;
            stopped_by_others().inspect(|one| {
                assert!(one.is_certain && one.at >= sent && one.at <= now(), "{one:?}");
            })
        };
        assert_eq!(ends(Signal::INT, false).await, None, "the guard was told to stop it");
        // pg_ctl stop in its three modes, the last of which leaves a crashed data directory.
        for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
            assert!(ends(signal, true).await.is_some(), "{signal:?} of somebody else's");
        }
        assert_eq!(ends(Signal::KILL, true).await, None, "a crash");
        machine.emptied().await;
        machine.start(&guard).await;
        guard.kill_now().await.expect("killed");
        assert_eq!(stopped_by_others(), None, "killed by order");
        machine.start(&guard).await;
    });
}

/// Without its postmaster a backend notices nothing until it waits for its client: a loop inside a function commits on.
#[test]
#[expect(clippy::disallowed_methods, reason = "the client ends with its connection")]
fn orphans_in_a_loop_are_killed() {
    run("postmasters::orphans_in_a_loop_are_killed", async |machine| {
        let guard = machine.guard().await;
        let pid = machine.start(&guard).await;
        let client = machine.client().await;
        client.batch_execute("create table t (i bigint)").await.expect("a table");
        let looping = tokio::spawn(async move {
            let body = "do $$ begin loop insert into t values (2); commit; end loop; end $$";
            client.batch_execute(body).await.expect_err("killed");
        });
        let observer = machine.client().await;
        let mut rows = 0;
        while rows == 0_i64 {
            rows = observer.query_one("select count(*) from t", &[]).await.expect("a count").get(0);
        }
        let killed = now();
        signal_process(u64::from(pid), Signal::KILL);
        guard.stopped().await;
        let took = now().since(killed);
        println!("measured: postmaster killed with a backend in a loop, nothing left after {took:?}");
        machine.emptied().await;
        assert!(took < Duration::from_millis(500), "{took:?}");
        looping.await.expect("its client was told");
    });
}

/// The zombie of an adopted postmaster belongs to its parent, here this test, which does not reap it: it counts as gone.
#[test]
fn a_running_one_is_adopted_and_its_zombie_counts_as_gone() {
    run("postmasters::a_running_one_is_adopted_and_its_zombie_counts_as_gone", async |machine| {
        let request = machine.start_request();
        let mut adopted = Command::new(&request.program)
            .args(&request.args)
            .stderr(Stdio::null())
            .spawn()
            .expect("a postmaster");
        machine.client().await;
        let guard = machine.guard().await;
        let pid = adopted.id();
        assert_eq!(guard.adopt().await.expect("adopted"), Some(pid));
        assert_eq!(guard.process(), Fact::fresh(Process::Running { pid, is_child: false }));
        guard.arm(Epoch(1), now().after(TTL * 9 / 10), TTL).await.expect("armed");

        // The guard dies: an adopted one has no death signal. The next guard keeps the deadline.
        signal_process(u64::from(guard.pid()), Signal::KILL);
        guard.watch().wait_for(|news| !news.is_alive).await.expect("told");
        assert!(is_alive(u64::from(pid)));
        let next = machine.guard().await;
        assert_eq!(next.process(), Fact::fresh(Process::Running { pid, is_child: false }));
        let armed = now();
        let news = next.exited().await;
        assert!(now().since(armed) < TTL, "the old deadline came");
        assert_eq!(news.last_exit, Some(PostmasterExit::NotKnown));
        next.stopped().await;
        machine.emptied().await;
        machine.start(&next).await;
        adopted.wait().expect("reaped");
    });
}

#[test]
fn one_started_by_hand_is_noticed() {
    run("postmasters::one_started_by_hand_is_noticed", async |machine| {
        let guard = machine.guard().await;
        let request = machine.start_request();
        let mut by_hand = Command::new(&request.program)
            .args(&request.args)
            .stderr(Stdio::null())
            .spawn()
            .expect("a postmaster");
        let pid = by_hand.id();
        let mut news = guard.watch();
        let is_adopted = |process: &Process| *process == Process::Running { pid, is_child: false };
        news.wait_for(|news| is_adopted(&news.process)).await.expect("noticed");
        guard.signal(PostmasterSignal::Immediate).await.expect("signalled");
        guard.stopped().await;
        by_hand.wait().expect("reaped");
    });
}

#[test]
fn one_that_cannot_start_says_so() {
    run("postmasters::one_that_cannot_start_says_so", async |machine| {
        let guard = machine.guard().await;
        let mut request = machine.start_request();
        request.program = "/nonexistent/postgres".into();
        let refused = guard.start(request).await.expect_err("no program").to_string();
        assert!(refused.contains("/nonexistent/postgres"), "{refused}");
        let mut request = machine.start_request();
        request.args.extend(["-c".to_owned(), "no_such_setting_at_all=1".to_owned()]);
        if guard.start(request).await.is_ok() {
            let news = guard.exited().await;
            assert_eq!(news.last_exit, Some(PostmasterExit::Exited(1)));
        }
        guard.stopped().await;
        assert!(machine.log().contains("no_such_setting_at_all"));
        machine.start(&guard).await;
    });
}

/// The operator's shell in the data directory is no server, and pg_rewind's standalone server is not to be killed.
#[test]
fn others_in_the_data_directory_are_left_alone() {
    run("postmasters::others_in_the_data_directory_are_left_alone", async |machine| {
        let guard = machine.guard().await;
        let mut shell =
            Command::new("sleep").arg("600").current_dir(machine.data_dir()).spawn().expect("sleep");
        machine.start(&guard).await;
        guard.kill_now().await.expect("killed");
        assert!(is_alive(u64::from(shell.id())));

        let mut standalone = Command::new(machine.start_request().program)
            .args(["--single", "-D"])
            .arg(machine.data_dir())
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a standalone server");
        until("it works in the data directory", || machine.servers().contains(&standalone.id())).await;
        let refused = guard.start(machine.start_request()).await.expect_err("two servers").to_string();
        assert!(refused.contains(&standalone.id().to_string()), "{refused}");
        assert_eq!(guard.adopt().await.expect("a look"), None);
        // Longer than the guard's idle round.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(is_alive(u64::from(standalone.id())));
        assert_eq!(guard.process(), Fact::fresh(Process::Stopped));
        drop(standalone.stdin.take());
        standalone.wait().expect("ended");
        machine.start(&guard).await;
        shell.kill().expect("killed");
        shell.wait().expect("reaped");
    });
}

/// Without postmaster.pid it is a postmaster all the same: "stopped" would be a lie.
#[test]
fn one_without_its_pid_file_is_adopted() {
    run("postmasters::one_without_its_pid_file_is_adopted", async |machine| {
        let request = machine.start_request();
        let mut by_hand = Command::new(&request.program)
            .args(&request.args)
            .stderr(Stdio::null())
            .spawn()
            .expect("a postmaster");
        machine.client().await;
        std::fs::remove_file(machine.data_dir().join("postmaster.pid")).expect("removed");
        let guard = machine.guard().await;
        let pid = by_hand.id();
        assert_eq!(guard.process(), Fact::fresh(Process::Running { pid, is_child: false }));
        guard.kill_now().await.expect("killed");
        machine.emptied().await;
        by_hand.wait().expect("reaped");
    });
}
