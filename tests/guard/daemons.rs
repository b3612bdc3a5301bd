//! The daemon is killed, stopped, restarted, doubled.

use std::path::PathBuf;
use std::time::Duration;

use pgherd::guard::{Guard, GuardError, StartRequest, WatchdogConfig};
use pgherd::ha::{Fact, Process};
use pgherd_raft::model::{Epoch, Session};
use rustix::process::Signal;

use crate::machine::{TTL, is_alive, now, running, until};
use crate::{run, stage};

/// The body of the process which holds the guard in other tests.
#[test]
#[ignore = "the body of another process"]
fn body() {
    let variable = |name: &str| std::env::var(format!("PGHERD_GUARD_TEST_{name}")).expect(name);
    let ttl = Duration::from_millis(variable("TTL_MS").parse().expect("milliseconds"));
    let start: StartRequest = serde_json::from_str(&variable("START")).expect("JSON");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let guard = Guard::ensure(&PathBuf::from(variable("DATA")), &stage::pgherd()).await.expect("a guard");
        let postmaster = match running(&guard) {
            Some(pid) => pid,
            None => guard.start(start).await.expect("started"),
        };
        let device = PathBuf::from(variable("WATCHDOG"));
        let watchdog = (!device.as_os_str().is_empty()).then_some(WatchdogConfig {
            device,
            is_testing: true,
            is_required: true,
            safety_margin: None,
        });
        let deadline = now().after(ttl * 9 / 10);
        guard.arm_watched(Epoch(1), deadline, ttl, watchdog).await.expect("armed");
        println!("\nheld {} {} {postmaster}", guard.session().0, guard.pid());
        while guard.extend(Epoch(1), now().after(ttl * 9 / 10)).is_ok() {
            tokio::time::sleep(ttl / 20).await;
        }
        // To be killed: nothing but its death ends a daemon in these tests.
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_stopped_daemon_cannot_keep_postgresql_alive() {
    run("daemons::a_stopped_daemon_cannot_keep_postgresql_alive", async |machine| {
        let daemon = machine.daemon(TTL);
        let client = machine.client().await;
        client.batch_execute("select pg_sleep(1.5 * 2)").await.expect("the daemon renews beyond one ttl");
        daemon.signal(Signal::STOP);
        let stopped = now();
        until("nothing is left", || machine.servers().is_empty()).await;
        let took = now().since(stopped);
        println!("measured: daemon stopped, ttl {TTL:?}, nothing left after {took:?}");
        assert!(took < TTL + Duration::from_millis(500), "{took:?}");
        daemon.signal(Signal::CONT);
        daemon.kill();
    });
}

#[test]
fn a_killed_daemon_leaves_postgresql_to_its_successor() {
    run("daemons::a_killed_daemon_leaves_postgresql_to_its_successor", async |machine| {
        let first = machine.daemon(TTL);
        let client = machine.client().await;
        client.batch_execute("create table t (i bigint)").await.expect("a table");
        let (session, guard, postmaster) = (first.session, first.guard, first.postmaster);
        first.kill();
        let second = machine.daemon(TTL);
        assert_eq!((second.session, second.guard, second.postmaster), (session, guard, postmaster));
        // Longer than the lease of the first one.
        let began = now();
        while now().since(began) < TTL * 3 / 2 {
            client.execute("insert into t values (1)", &[]).await.expect("the client notices nothing");
        }
        second.kill();
    });
}

#[test]
fn nothing_outlives_a_killed_daemon_for_long() {
    run("daemons::nothing_outlives_a_killed_daemon_for_long", async |machine| {
        let daemon = machine.daemon(TTL);
        machine.client().await;
        let guard = daemon.guard;
        let killed = now();
        daemon.kill();
        until("nothing is left", || machine.servers().is_empty()).await;
        let took = now().since(killed);
        println!("measured: daemon killed, ttl {TTL:?}, nothing left after {took:?}");
        assert!(took < TTL + Duration::from_millis(500), "{took:?}");
        until("the guard ends by itself", || !is_alive(guard)).await;
    });
}

#[test]
fn daemon_and_guard_killed_together_take_postgresql_with_them() {
    run("daemons::daemon_and_guard_killed_together_take_postgresql_with_them", async |machine| {
        let daemon = machine.daemon(TTL);
        machine.client().await;
        let guard = daemon.guard;
        let killed = now();
        daemon.kill();
        crate::machine::signal_process(guard, Signal::KILL);
        until("nothing is left", || machine.servers().is_empty()).await;
        println!("measured: daemon and guard killed, nothing left after {:?}", now().since(killed));
    });
}

#[test]
fn a_disarmed_guard_keeps_postgresql_without_a_daemon() {
    run("daemons::a_disarmed_guard_keeps_postgresql_without_a_daemon", async |machine| {
        let first = machine.guard().await;
        let pid = machine.start(&first).await;
        let session = first.session();
        first.arm(Epoch(1), now().after(TTL * 9 / 10), TTL).await.expect("armed");
        first.disarm().await.expect("disarmed");
        drop(first);
        let client = machine.client().await;
        client.batch_execute("select pg_sleep(3)").await.expect("longer than any deadline or patience");
        let second = machine.guard().await;
        assert_eq!(second.session(), session);
        assert_eq!(second.process(), Fact::fresh(Process::Running { pid, is_child: true }));
    });
}

#[test]
fn a_second_daemon_is_refused_while_the_first_lives() {
    run("daemons::a_second_daemon_is_refused_while_the_first_lives", async |machine| {
        let daemon = machine.daemon(TTL);
        let refused = Guard::ensure(&machine.data_dir(), &stage::pgherd()).await;
        assert!(matches!(refused, Err(GuardError::Refused { .. })), "{refused:?}");
        // Stopped is not dead.
        daemon.signal(Signal::STOP);
        let refused = Guard::ensure(&machine.data_dir(), &stage::pgherd()).await;
        assert!(matches!(refused, Err(GuardError::Refused { .. })), "{refused:?}");
        let session = daemon.session;
        daemon.signal(Signal::CONT);
        daemon.kill();
        let guard = machine.guard().await;
        assert_eq!(guard.session(), Session(session));
        // A later handle of the same process voids the earlier one.
        let again = machine.guard().await;
        until("the first handle knows", || !guard.is_alive()).await;
        assert!(again.is_alive());
        guard.disarm().await.expect_err("not in charge");
    });
}
