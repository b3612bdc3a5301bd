//! The watchdog device behind the guard, with a fifo in its place: what comes out of it is what a device would be told.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use pgherd::guard::{Guard, WatchdogConfig};
use pgherd_raft::model::Epoch;
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::process::Signal;

use crate::machine::{Machine, TTL, now, signal_process, until};
use crate::run;

/// For leases of two seconds.
const TIMEOUT: Duration = Duration::from_secs(1);

struct Device {
    path: PathBuf,
    reader: File,
    said: String,
}

impl Device {
    fn make(machine: &Machine) -> Self {
        let path = machine.socket_dir().join("watchdog");
        mkfifoat(CWD, &path, Mode::RWXU).expect("a fifo");
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("fits");
        let reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).expect("a reader");
        Self { path, reader, said: String::new() }
    }

    fn config(&self) -> WatchdogConfig {
        WatchdogConfig {
            device: self.path.clone(),
            is_testing: true,
            is_required: true,
            safety_margin: Some(Duration::from_secs(5)),
        }
    }

    /// All that it was told so far.
    fn said(&mut self) -> &str {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.reader.read(&mut chunk) {
            self.said += &String::from_utf8_lossy(chunk.get(..count).unwrap_or_default());
        }
        &self.said
    }

    fn pings(&mut self) -> usize {
        let said = self.said().replace("Ctimeout=1\n", "");
        said.chars().filter(|said| *said == '1').count()
    }

    fn is_disarmed(&mut self) -> bool {
        self.said().ends_with('V')
    }

    /// For this long nothing is said.
    async fn is_silent_for(&mut self, time: Duration) {
        let (before, began) = (self.said().len(), now());
        until("time to pass", || now().since(began) >= time).await;
        assert_eq!(self.said().len(), before, "{}", self.said());
    }
}

async fn arm(guard: &Guard, epoch: u64, device: &Device) {
    let deadline = now().after(TTL * 9 / 10);
    let armed = guard.arm_watched(Epoch(epoch), deadline, TTL, Some(device.config())).await;
    assert_eq!(armed.expect("armed"), None);
}

async fn renewed_until(guard: &Guard, what: &str, mut claim: impl FnMut() -> bool) {
    until(what, || {
        guard.extend(Epoch(1), now().after(TTL * 9 / 10)).expect("extended");
        claim()
    })
    .await;
}

#[test]
fn it_is_pinged_while_renewed_and_disarmed_with_the_guard() {
    run("watchdogs::it_is_pinged_while_renewed_and_disarmed_with_the_guard", async |machine| {
        let mut device = Device::make(machine);
        let guard = machine.guard().await;
        arm(&guard, 1, &device).await;
        assert!(guard.is_watched() && guard.is_watched_by(Some(&device.config())));
        assert!(device.said().starts_with("Ctimeout=1\n1"), "{}", device.said());
        machine.start(&guard).await;
        let began = now();
        renewed_until(&guard, "pings through two leases", || {
            now().since(began) > TTL * 2 && device.pings() >= 20
        })
        .await;
        let pings = device.pings();
        println!("measured: {pings} pings in {:?}", now().since(began));
        guard.disarm().await.expect("disarmed");
        until("it is disarmed", || device.is_disarmed()).await;
        assert!(!guard.is_watched());
        device.is_silent_for(TIMEOUT).await;
        // Another deadline, another device.
        arm(&guard, 2, &device).await;
        assert!(device.said().contains("VCtimeout=1\n1"), "{}", device.said());
    });
}

/// Nobody but the machine's reset could end PostgreSQL then.
#[test]
fn a_stopped_guard_lets_it_fire() {
    run("watchdogs::a_stopped_guard_lets_it_fire", async |machine| {
        let mut device = Device::make(machine);
        let guard = machine.guard().await;
        arm(&guard, 1, &device).await;
        machine.start(&guard).await;
        renewed_until(&guard, "pings", || device.pings() >= 5).await;
        signal_process(u64::from(guard.pid()), Signal::STOP);
        device.said();
        device.is_silent_for(TIMEOUT * 2).await;
        assert!(!device.is_disarmed() && !machine.servers().is_empty());
        signal_process(u64::from(guard.pid()), Signal::CONT);
        machine.emptied().await;
    });
}

#[test]
fn the_deadline_ends_postgresql_before_it_fires_and_it_is_disarmed() {
    run("watchdogs::the_deadline_ends_postgresql_before_it_fires_and_it_is_disarmed", async |machine| {
        let mut device = Device::make(machine);
        let guard = machine.guard().await;
        arm(&guard, 1, &device).await;
        machine.start(&guard).await;
        renewed_until(&guard, "pings", || device.pings() >= 5).await;
        let deadline = now().after(TTL * 9 / 10);
        guard.extend(Epoch(1), deadline).expect("the last extension");
        let (mut pings, mut last_ping) = (device.pings(), now());
        // The daemon lives, but wins no renewal.
        until("it is disarmed", || {
            guard.deadline().beat();
            if device.pings() > pings {
                (pings, last_ping) = (device.pings(), now());
            }
            device.is_disarmed()
        })
        .await;
        let disarmed = now();
        let is_killed = || guard.watch().borrow().last_kill.is_some_and(|kill| kill.finished.is_some());
        until("the kill is told", is_killed).await;
        let fires = last_ping.after(TIMEOUT);
        println!(
            "measured: disarmed {:?} after the deadline, it would have fired {:?} after",
            disarmed.since(deadline),
            fires.since(deadline)
        );
        assert!(fires <= deadline.after(Duration::from_millis(350)), "the last ping was too late");
        machine.emptied().await;
    });
}

#[test]
fn it_is_neither_pinged_nor_disarmed_for_a_daemon_that_hangs() {
    run("watchdogs::it_is_neither_pinged_nor_disarmed_for_a_daemon_that_hangs", async |machine| {
        let mut device = Device::make(machine);
        let daemon = machine.watched_daemon(TTL, &device.path);
        machine.client().await;
        until("pings", || device.pings() >= 10).await;
        daemon.signal(Signal::STOP);
        machine.emptied().await;
        device.said();
        device.is_silent_for(TIMEOUT * 2).await;
        assert!(!device.is_disarmed());
        // Somebody ends it, and its successor comes: the machine is still there in this test.
        daemon.signal(Signal::CONT);
        daemon.kill();
        let guard = machine.guard().await;
        until("the next daemon has it disarmed", || device.is_disarmed()).await;
        assert!(!guard.is_watched());
    });
}

#[test]
fn it_outlives_daemon_and_guard() {
    run("watchdogs::it_outlives_daemon_and_guard", async |machine| {
        let mut device = Device::make(machine);
        let first = machine.watched_daemon(TTL, &device.path);
        machine.client().await;
        until("pings", || device.pings() >= 5).await;
        first.kill();
        let guard = machine.guard().await;
        assert!(guard.is_watched(), "the guard keeps it");
        let pings = device.pings();
        renewed_until(&guard, "pings for the next daemon", || device.pings() >= pings + 5).await;
        signal_process(u64::from(guard.pid()), Signal::KILL);
        let next = machine.guard().await;
        assert_ne!(next.session(), guard.session());
        until("the next guard disarms it", || {
            next.deadline().beat();
            device.is_disarmed()
        })
        .await;
        machine.emptied().await;
    });
}

#[test]
fn without_a_device_the_guard_says_so_and_is_armed_all_the_same() {
    run("watchdogs::without_a_device_the_guard_says_so_and_is_armed_all_the_same", async |machine| {
        let guard = machine.guard().await;
        let config = WatchdogConfig {
            device: PathBuf::from("/dev/null"),
            is_testing: false,
            is_required: true,
            safety_margin: None,
        };
        let deadline = now().after(TTL * 9 / 10);
        let trouble = guard.arm_watched(Epoch(1), deadline, TTL, Some(config)).await.expect("armed");
        assert!(trouble.is_some_and(|why| why.contains("no watchdog device")));
        assert!(guard.has_watchdog_failed() && guard.is_armed());
    });
}
