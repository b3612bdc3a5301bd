//! A long action, and what happens to its guard meanwhile.

use std::sync::Arc;
use std::time::Duration;

use pgherd::agent::{GuardSlot, GuardedPostmaster};
use pgherd::guard::{Guard, StartRequest};
use pgherd::ha::Process;
use pgherd::postgres::{Postmaster, PostmasterCommand, PostmasterError};
use pgherd_raft::model::Epoch;
use rustix::process::Signal;

use crate::machine::{Machine, TTL, is_alive, now, running, signal_process, until};
use crate::run;

fn slot_of(guard: &Guard) -> Arc<GuardSlot> {
    let slot = Arc::new(GuardSlot::default());
    slot.set(Some(guard.clone()));
    slot
}

async fn start_writable(machine: &Machine, through: &GuardedPostmaster) -> Result<u32, PostmasterError> {
    let StartRequest { program, args, env, log_file, .. } = machine.start_request();
    through.start(PostmasterCommand { program, args, env, log_file, may_write: true }).await
}

/// The guard dies while a start is prepared, and its successor, which nobody armed, takes its place.
#[test]
fn a_start_decided_for_one_guard_is_refused_by_the_next() {
    run("jobs::a_start_decided_for_one_guard_is_refused_by_the_next", async |machine| {
        let guard = machine.guard().await;
        guard.arm(Epoch(1), now().after(TTL * 9 / 10), TTL).await.expect("armed");
        let slot = slot_of(&guard);
        let job = GuardedPostmaster::of_session(Arc::clone(&slot), guard.session());
        job.may_write().expect("armed");
        signal_process(u64::from(guard.pid()), Signal::KILL);
        let mut news = guard.watch();
        news.wait_for(|news| !news.is_alive).await.expect("told");
        job.may_write().expect_err("its guard is dead");

        let next = machine.guard().await;
        // The socket's place is the same: a late request of the dead guard's daemon reaches the next guard.
        let late = StartRequest { must_be_armed: true, ..machine.start_request() };
        let refused = guard.start(late).await.expect_err("meant for another life");
        assert!(refused.to_string().contains("another life"), "{refused}");
        slot.set(Some(next.clone()));
        job.may_write().expect_err("another guard");
        job.known().await.expect_err("another guard");
        start_writable(machine, &job).await.expect_err("another guard");
        // Also when the next one is armed: the action was not decided for it.
        next.arm(Epoch(2), now().after(TTL * 9 / 10), TTL).await.expect("armed");
        start_writable(machine, &job).await.expect_err("another guard");
        assert!(machine.servers().is_empty());

        let job = GuardedPostmaster::of_session(slot, next.session());
        start_writable(machine, &job).await.expect("decided for this guard");
    });
}

#[test]
fn a_guard_without_a_deadline_starts_nothing_that_may_write() {
    run("jobs::a_guard_without_a_deadline_starts_nothing_that_may_write", async |machine| {
        let guard = machine.guard().await;
        let writable = StartRequest { must_be_armed: true, ..machine.start_request() };
        let refused = guard.start(writable.clone()).await.expect_err("not armed");
        assert!(refused.to_string().contains("not armed"), "{refused}");
        let job = GuardedPostmaster::of_session(slot_of(&guard), guard.session());
        job.may_write().expect_err("not armed");
        // Armed once, but the preparation took longer than the lease.
        guard.arm(Epoch(1), now().after(TTL / 4), TTL).await.expect("armed");
        assert!(guard.is_armed());
        until("the deadline comes", || !guard.is_armed()).await;
        guard.start(writable.clone()).await.expect_err("not armed any more");
        assert!(machine.servers().is_empty());
        guard.kill_now().await.expect("killed");
        guard.arm(Epoch(2), now().after(TTL * 9 / 10), TTL).await.expect("armed");
        GuardedPostmaster::new(slot_of(&guard)).may_write().expect_err("decided for no guard");
        guard.start(writable).await.expect("armed");
        assert!(running(&guard).is_some());
    });
}

/// A busy machine gives the guard no time for more than a second, and the daemon attaches to it anew.
#[test]
fn an_action_outlasts_a_guard_that_gets_no_time() {
    run("jobs::an_action_outlasts_a_guard_that_gets_no_time", async |machine| {
        let guard = machine.guard().await;
        machine.start(&guard).await;
        let slot = slot_of(&guard);
        let job = GuardedPostmaster::of_session(Arc::clone(&slot), guard.session());
        let waiting = async { tokio::join!(job.stopped(), job.known()) };
        let meanwhile = async {
            signal_process(u64::from(guard.pid()), Signal::STOP);
            let is_stale =
                || guard.deadline().heartbeat_age() > Guard::STALE_AFTER + Duration::from_millis(300);
            until("it is stale", is_stale).await;
            let known_when_stale = job.known();
            tokio::pin!(known_when_stale);
            let early = tokio::time::timeout(Duration::from_millis(50), &mut known_when_stale).await;
            assert!(early.is_err(), "told by a stopped guard: {early:?}");
            signal_process(u64::from(guard.pid()), Signal::CONT);
            slot.set(None);
            let again = machine.guard().await;
            assert_eq!(again.session(), guard.session());
            slot.set(Some(again.clone()));
            let process = known_when_stale.await.expect("known again");
            assert!(matches!(process, Process::Running { .. }), "{process:?}");
            again.signal(pgherd::guard::PostmasterSignal::Fast).await.expect("signalled");
        };
        let ((stopped, known), ()) = tokio::join!(waiting, meanwhile);
        assert_eq!(stopped.expect("waited on"), "exit status 0");
        known.expect("known before");
        assert!(is_alive(u64::from(guard.pid())));
    });
}
