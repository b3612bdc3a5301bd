//! The guard itself is killed, stopped, lost.

use std::time::Duration;

use pgherd::guard::Guard;
use pgherd::ha::{Fact, Process};
use pgherd_raft::model::Epoch;
use rustix::process::Signal;

use crate::machine::{TTL, is_alive, now, signal_process, until};
use crate::run;

#[test]
fn postgresql_dies_with_a_killed_guard_and_a_new_one_starts_over() {
    run("guards::postgresql_dies_with_a_killed_guard_and_a_new_one_starts_over", async |machine| {
        let guard = machine.guard().await;
        machine.start(&guard).await;
        let killed = now();
        signal_process(u64::from(guard.pid()), Signal::KILL);
        let mut news = guard.watch();
        news.wait_for(|news| !news.is_alive).await.expect("told");
        println!("measured: guard killed, the daemon knows after {:?}", now().since(killed));
        assert!(matches!(guard.process(), Fact::Unknown(_)) && matches!(guard.facts(), Fact::Unknown(_)));
        let next = machine.guard().await;
        assert_ne!(next.session(), guard.session());
        let stopped = next.stopped().await;
        assert_eq!(stopped.process, Process::Stopped);
        println!("measured: guard killed, nothing left after {:?}", now().since(killed));
        machine.emptied().await;
        machine.start(&next).await;
    });
}

#[test]
fn a_stopped_guard_is_stale_and_is_replaced() {
    run("guards::a_stopped_guard_is_stale_and_is_replaced", async |machine| {
        let guard = machine.guard().await;
        machine.start(&guard).await;
        signal_process(u64::from(guard.pid()), Signal::STOP);
        until("it is stale", || matches!(guard.process(), Fact::Unknown(_))).await;
        assert!(guard.deadline().heartbeat_age() > Guard::STALE_AFTER);
        guard.disarm().await.expect_err("no answer");
        let next = machine.guard().await;
        assert_ne!(next.session(), guard.session());
        assert!(!is_alive(u64::from(guard.pid())));
        next.stopped().await;
        machine.emptied().await;
    });
}

#[test]
fn a_thawed_guard_kills_at_once() {
    run("guards::a_thawed_guard_kills_at_once", async |machine| {
        let guard = machine.guard().await;
        machine.start(&guard).await;
        let deadline = now().after(TTL * 9 / 10);
        guard.arm(Epoch(1), deadline, TTL).await.expect("armed");
        signal_process(u64::from(guard.pid()), Signal::STOP);
        until("the deadline is long past", || now() > deadline.after(Duration::from_millis(300))).await;
        assert!(!machine.servers().is_empty());
        let thawed = now();
        signal_process(u64::from(guard.pid()), Signal::CONT);
        until("nothing is left", || machine.servers().is_empty()).await;
        let took = now().since(thawed);
        println!("measured: guard thawed after the deadline, nothing left after {took:?}");
        assert!(took < Duration::from_millis(500));
    });
}

/// Somebody empties /dev/shm: no daemon finds the guard any more, and a new guard must not live beside it.
#[test]
fn a_guard_without_its_page_is_ended_before_there_is_another() {
    run("guards::a_guard_without_its_page_is_ended_before_there_is_another", async |machine| {
        let guard = machine.guard().await;
        machine.start(&guard).await;
        machine.lose_page();
        let next = machine.guard().await;
        assert_ne!(next.session(), guard.session());
        assert!(!is_alive(u64::from(guard.pid())));
        next.stopped().await;
        machine.start(&next).await;
    });
}

#[test]
fn the_guard_gets_nothing_of_its_daemon() {
    run("guards::the_guard_gets_nothing_of_its_daemon", async |machine| {
        let inherited = std::fs::File::open("/proc/version").expect("a file");
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).expect("not closed by exec");
        let guard = machine.guard().await;
        let pid = guard.pid();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("environ");
        assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").flatten() {
            let target = std::fs::read_link(entry.path()).expect("a link");
            assert_ne!(target.to_string_lossy(), "/proc/version");
        }
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).expect("cwd").to_string_lossy(), "/");
        let warnings = guard.warnings();
        println!("warnings: {warnings:?}");
        machine.start(&guard).await;
        let postmaster = guard.status().await.expect("a status");
        let Process::Running { pid, .. } = postmaster.process else { panic!("{postmaster:?}") };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let policy = stat.rsplit(')').next().expect("fields").split_whitespace().nth(38).expect("policy");
        assert_eq!(policy, "0", "PostgreSQL runs with ordinary priority");
    });
}
