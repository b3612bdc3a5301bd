//! What happens to PostgreSQL.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgherd::guard::{Guard, GuardError, PostmasterExit, PostmasterSignal, StartRequest};
use pgherd::ha::{Fact, Process};
use pgherd_raft::model::Epoch;
use rustix::process::Signal;

use crate::machine::{Machine, now, signal_process, until};
use crate::{run, stage};

const TTL: Duration = Duration::from_secs(2);

fn running(guard: &Guard) -> Option<u32> {
    if let Fact::Known { value: Process::Running { pid, .. }, .. } = guard.process() {
        Some(pid)
    } else {
        None
    }
}

/// The body of the process which holds the guard in other tests.
#[test]
#[ignore = "the body of another process"]
fn daemon() {
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
        guard.arm(Epoch(1), now().after(ttl * 9 / 10), ttl).await.expect("armed");
        println!("held {} {} {postmaster}", guard.session().0, guard.pid());
        loop {
            guard.extend(Epoch(1), now().after(ttl * 9 / 10)).expect("extended");
            tokio::time::sleep(ttl / 20).await;
        }
    });
}

#[test]
fn postgresql_starts_stops_and_its_end_is_told_at_once() {
    run("scenarios::postgresql_starts_stops_and_its_end_is_told_at_once", async |machine| {
        let guard = machine.guard().await;
        assert_eq!(guard.process(), Fact::fresh(Process::Stopped));
        let pid = machine.start(&guard).await;
        assert_eq!(guard.process(), Fact::fresh(Process::Running { pid, is_child: true }));
        let again = guard.start(machine.start_request()).await;
        assert!(matches!(again, Err(GuardError::Refused { .. })), "{again:?}");
        let status = guard.status().await.expect("a status");
        assert!(status.pids.contains(&pid) && status.pids.len() > 3, "{status:?}");
        println!("a look at all processes took {:?}; warnings: {:?}", status.took, status.warnings);

        let sent = now();
        guard.signal(PostmasterSignal::Fast).await.expect("signalled");
        let news = guard.exited().await;
        println!("fast shutdown: told after {:?}", now().since(sent));
        assert_eq!((news.exits, news.last_exit), (1, Some(PostmasterExit::Exited(0))));
        until("stopped", || guard.process() == Fact::fresh(Process::Stopped)).await;
        assert!(machine.log().contains("database system is shut down"));

        let pid = machine.start(&guard).await;
        let sent = now();
        signal_process(u64::from(pid), Signal::KILL);
        let news = guard.exited().await;
        println!("killed: told after {:?}", now().since(sent));
        assert!(news.is_alive && news.process != Process::Stopped || news.exits == 2, "{news:?}");
        until("stopped", || guard.process() == Fact::fresh(Process::Stopped)).await;
        println!("killed: nothing left after {:?}", now().since(sent));
        assert_eq!(machine.servers(), Vec::<u32>::new());
        assert_eq!(guard.watch().borrow().last_exit, Some(PostmasterExit::Signalled(9)));
        machine.start(&guard).await;
    });
}

#[test]
fn at_the_deadline_nothing_is_left_and_nothing_is_acknowledged() {
    run("scenarios::at_the_deadline_nothing_is_left_and_nothing_is_acknowledged", async |machine| {
        let guard = machine.guard().await;
        let repetitions = std::env::var("PGHERD_GUARD_TEST_N").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
        for round in 1..=repetitions {
            one_deadline(machine, &guard, round).await;
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "writers end with their connections")]
async fn one_deadline(machine: &Machine, guard: &Guard, round: u64) {
    machine.start(guard).await;
    let first = machine.client().await;
    first.batch_execute("create table if not exists t (i bigint)").await.expect("a table");
    let epoch = Epoch(round);
    let deadline = now().after(TTL * 9 / 10);
    guard.arm(epoch, deadline, TTL).await.expect("armed");
    let last_ack = Arc::new(AtomicU64::new(0));
    let acks = Arc::new(AtomicU64::new(0));
    for _ in 0..20 {
        let client = machine.client().await;
        let (last_ack, acks) = (Arc::clone(&last_ack), Arc::clone(&acks));
        tokio::spawn(async move {
            while client.execute("insert into t values (1)", &[]).await.is_ok() {
                last_ack.fetch_max(u64::try_from(now().0.as_micros()).expect("fits"), Ordering::SeqCst);
                acks.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for _ in 0..3 {
        let client = machine.client().await;
        tokio::spawn(async move {
            let body = "do $$ begin loop insert into t values (2); commit; end loop; end $$";
            client.batch_execute(body).await.expect_err("killed");
        });
    }
    let deadline = guard_extended(guard, epoch).await;
    until("the kill is over", || {
        guard.watch().borrow().last_kill.is_some_and(|kill| kill.count == round && kill.finished.is_some())
    })
    .await;
    assert_eq!(machine.servers(), Vec::<u32>::new());
    let kill = guard.watch().borrow().last_kill.expect("a kill");
    assert_eq!(kill.deadline, Some(deadline));
    let finished = kill.finished.expect("finished");
    let last = Duration::from_micros(last_ack.load(Ordering::SeqCst));
    let milliseconds = |to: Duration| (to.as_secs_f64() - deadline.0.as_secs_f64()) * 1000.0;
    println!(
        "deadline {round}: {} acks, last ack {:+.1} ms, kill began {:+.2} ms, nothing left {:+.1} ms",
        acks.load(Ordering::SeqCst),
        milliseconds(last),
        milliseconds(kill.began.0),
        milliseconds(finished.0),
    );
    assert!(acks.load(Ordering::SeqCst) > 0, "the writers wrote");
    assert!(last < deadline.0 + Duration::from_millis(500), "an acknowledgement too late");
    assert!(finished < deadline.after(Duration::from_millis(500)), "a process too long");
    assert!(kill.began >= deadline, "it waited for the deadline");
    let refused = guard.extend(epoch, now().after(TTL / 2));
    assert!(refused.is_err(), "only arming helps after a kill");
}

/// A few extensions, then none.
async fn guard_extended(guard: &Guard, epoch: Epoch) -> pgherd_raft::lease::BootTime {
    let mut deadline = now();
    for _ in 0..5 {
        deadline = now().after(TTL * 9 / 10);
        guard.extend(epoch, deadline).expect("extended");
        tokio::time::sleep(TTL / 20).await;
    }
    deadline
}
