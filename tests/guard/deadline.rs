//! The deadline comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgherd::guard::{ExtendError, Guard};
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::Epoch;
use rustix::process::Signal;

use crate::machine::{Machine, TTL, now, signal_process, until};
use crate::run;

/// The margin of the lease has this much for it.
const SILENCING: Duration = Duration::from_millis(500);

/// SIGQUIT goes out so long before the deadline.
const EARLY: Duration = Duration::from_millis(300);

/// How often the measured scenarios are repeated.
fn repetitions() -> u64 {
    std::env::var("PGHERD_GUARD_TEST_N").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

#[test]
fn busy_writers_are_silent() {
    run("deadline::busy_writers_are_silent", async |machine| {
        let guard = machine.guard().await;
        for round in 1..=repetitions() {
            let kill = one_deadline(machine, &guard, round, async |_| {}).await;
            assert!(kill.last_ack < kill.deadline, "SIGQUIT comes early enough for all of them");
        }
    });
}

/// A stopped postmaster hears no SIGQUIT, and its backends go on to the end: only SIGKILL is left, for each of them.
#[test]
fn backends_of_a_stopped_postmaster_are_silent() {
    run("deadline::backends_of_a_stopped_postmaster_are_silent", async |machine| {
        let guard = machine.guard().await;
        for round in 1..=repetitions() {
            let kill = one_deadline(machine, &guard, round, async |postmaster| {
                signal_process(u64::from(postmaster), Signal::STOP);
            })
            .await;
            assert!(kill.last_ack > kill.deadline - Duration::from_millis(250), "they wrote to the end");
        }
    });
}

struct Seen {
    deadline: Duration,
    last_ack: Duration,
}

#[expect(clippy::disallowed_methods, reason = "writers end with their connections")]
async fn one_deadline(machine: &Machine, guard: &Guard, round: u64, disturb: impl AsyncFnOnce(u32)) -> Seen {
    let postmaster = machine.start(guard).await;
    let first = machine.client().await;
    first.batch_execute("create table if not exists t (i bigint)").await.expect("a table");
    let epoch = Epoch(round);
    let (last_ack, acks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for _ in 0..23 {
        clients.push(machine.client().await);
    }
    guard.arm(epoch, now().after(TTL * 9 / 10), TTL).await.expect("armed");
    for client in clients.split_off(3) {
        let (last_ack, acks) = (Arc::clone(&last_ack), Arc::clone(&acks));
        tokio::spawn(async move {
            while client.execute("insert into t values (1)", &[]).await.is_ok() {
                last_ack.fetch_max(u64::try_from(now().0.as_micros()).expect("fits"), Ordering::SeqCst);
                acks.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for client in clients {
        tokio::spawn(async move {
            let body = "do $$ begin loop insert into t values (2); commit; end loop; end $$";
            client.batch_execute(body).await.expect_err("killed");
        });
    }
    let deadline = extended_for_a_while(guard, epoch).await;
    disturb(postmaster).await;
    until("the kill is over", || {
        guard.watch().borrow().last_kill.is_some_and(|kill| kill.count == round && kill.finished.is_some())
    })
    .await;
    machine.emptied().await;
    let kill = guard.watch().borrow().last_kill.expect("a kill");
    assert_eq!(kill.deadline, Some(deadline));
    let finished = kill.finished.expect("finished");
    let last_ack = Duration::from_micros(last_ack.load(Ordering::SeqCst));
    let acks = acks.load(Ordering::SeqCst);
    let milliseconds = |to: Duration| (to.as_secs_f64() - deadline.0.as_secs_f64()) * 1000.0;
    println!(
        "measured: {acks} acknowledgements, the last {:+.1} ms from the deadline, SIGQUIT {:+.2} ms, nothing left {:+.1} ms",
        milliseconds(last_ack),
        milliseconds(kill.began.0),
        milliseconds(finished.0),
    );
    assert!(acks > 0, "the writers wrote");
    assert!(last_ack < deadline.0 + SILENCING, "an acknowledgement too late");
    assert!(finished < deadline.after(SILENCING), "a process too long");
    assert!(kill.began.after(EARLY) >= deadline, "it waited for the deadline");
    assert_eq!(
        guard.extend(epoch, now().after(TTL / 2)),
        Err(ExtendError::NotArmed),
        "only arming helps now"
    );
    Seen { deadline: deadline.0, last_ack }
}

/// A few extensions, then none; the last deadline.
async fn extended_for_a_while(guard: &Guard, epoch: Epoch) -> BootTime {
    let mut deadline = now();
    for _ in 0..5 {
        deadline = now().after(TTL * 9 / 10);
        guard.extend(epoch, deadline).expect("extended");
        tokio::time::sleep(TTL / 20).await;
    }
    deadline
}

#[test]
fn a_deadline_beyond_the_ttl_is_refused() {
    run("deadline::a_deadline_beyond_the_ttl_is_refused", async |machine| {
        let guard = machine.guard().await;
        assert_eq!(guard.extend(Epoch(1), now().after(TTL)), Err(ExtendError::NotArmed));
        for deadline in [now(), now().after(TTL * 2)] {
            guard.arm(Epoch(1), deadline, TTL).await.expect_err("past, or too far");
        }
        guard.arm(Epoch(1), now().after(TTL * 9 / 10), TTL).await.expect("armed");
        assert_eq!(guard.extend(Epoch(1), now().after(TTL * 2)), Err(ExtendError::TooFar));
        assert_eq!(guard.extend(Epoch(2), now().after(TTL)), Err(ExtendError::NotArmed));
        guard.disarm().await.expect("disarmed");
        assert_eq!(guard.extend(Epoch(1), now().after(TTL)), Err(ExtendError::NotArmed));
    });
}
