use std::cell::RefCell;
use std::rc::Rc;

use super::*;

const TTL: Duration = Duration::from_secs(5);
const SECOND: Nanos = 1_000_000_000;
const MS: Nanos = 1_000_000;

/// What a device was told, and how it answers.
#[derive(Debug, Default)]
struct Told {
    words: Vec<String>,
    pings: Vec<()>,
    opened: usize,
    takes: Option<u32>,
    is_broken: bool,
}

#[derive(Debug)]
struct Fake(Rc<RefCell<Told>>);

impl Device for Fake {
    fn describe(&self) -> String {
        "fake".to_owned()
    }

    fn set_timeout(&mut self, seconds: u32) -> io::Result<u32> {
        let mut told = self.0.borrow_mut();
        told.words.push(format!("timeout {seconds}"));
        Ok(told.takes.unwrap_or(seconds))
    }

    fn ping(&mut self) -> io::Result<()> {
        let mut told = self.0.borrow_mut();
        if told.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        told.pings.push(());
        Ok(())
    }

    fn can_disarm(&self) -> bool {
        true
    }

    fn disarm(self: Box<Self>) -> io::Result<()> {
        self.0.borrow_mut().words.push("disarmed".to_owned());
        Ok(())
    }
}

struct Stage {
    told: Rc<RefCell<Told>>,
    watchdog: Watchdog,
    directory: tempfile::TempDir,
}

fn stage() -> Stage {
    let directory = tempfile::tempdir().expect("temporary directory");
    let told = Rc::new(RefCell::new(Told::default()));
    let watchdog = another(&told, &directory);
    Stage { told, watchdog, directory }
}

fn another(told: &Rc<RefCell<Told>>, directory: &tempfile::TempDir) -> Watchdog {
    let opened = Rc::clone(told);
    Watchdog::with(
        directory.path().join("note"),
        Box::new(move |_| {
            opened.borrow_mut().opened += 1;
            Ok(Box::new(Fake(Rc::clone(&opened))))
        }),
    )
}

fn config(is_required: bool) -> WatchdogConfig {
    let safety_margin = Some(Duration::from_secs(5));
    WatchdogConfig { device: PathBuf::from("/dev/fake"), is_testing: false, is_required, safety_margin }
}

impl Stage {
    fn pings(&self) -> usize {
        self.told.borrow().pings.len()
    }

    fn words(&self) -> Vec<String> {
        self.told.borrow().words.clone()
    }

    fn warnings(&mut self) -> Vec<String> {
        let notes = self.watchdog.take_notes();
        notes.into_iter().filter(|note| note.is_warning).map(|note| note.text).collect()
    }
}

#[test]
fn the_timeout_leaves_room_for_the_safety_margin_and_for_renewals() {
    let seconds = Duration::from_secs;
    for (ttl, margin, expected) in [
        (30, Some(5), 25),
        (20, Some(5), 15),
        (21, Some(5), 16),
        (30, None, 15),
        // A half of the ttl at most; a part of a second is a whole one.
        (5, Some(5), 3),
        (2, Some(5), 1),
        (3, Some(5), 2),
        (10, Some(3600), 5),
        // Pings must be possible between renewals.
        (30, Some(0), 27),
        (5, Some(0), 3),
        (2, Some(0), 1),
        (3600, Some(0), 3594),
    ] {
        assert_eq!(timeout(seconds(ttl), margin.map(seconds)), expected, "ttl {ttl}, margin {margin:?}");
    }
    for ttl in 2..=3600 {
        let ttl = seconds(ttl);
        let timeout = seconds(u64::from(timeout(ttl, Some(Duration::ZERO))));
        let last_ping_after_renewal = (ttl + LATE).checked_sub(margin(ttl) + timeout).expect("ahead");
        assert!(last_ping_after_renewal >= renewal_interval(ttl) * 2, "{ttl:?}");
    }
}

#[test]
fn it_is_pinged_so_that_it_fires_shortly_after_the_deadline() {
    let mut stage = stage();
    assert_eq!(stage.watchdog.arm(Some(&config(true)), TTL), None);
    assert_eq!(stage.watchdog.state(), WatchdogState::Active);
    assert_eq!(stage.words(), ["timeout 3"]);
    let deadline = 100 * SECOND;
    let (mut now, mut last) = (95 * SECOND, 0);
    let at_first = stage.pings();
    let mut count = at_first;
    while now < deadline {
        stage.watchdog.step(Some(deadline), false, true, now);
        if stage.pings() > count {
            (last, count) = (now, stage.pings());
        }
        now += 100 * MS;
    }
    assert!(count - at_first > 20, "{count}");
    let fires = last + 3 * SECOND;
    assert!(fires > deadline + 100 * MS && fires <= deadline + 250 * MS, "{fires}");
    // A guard that wakes up more often does not ping more often.
    stage.watchdog.step(Some(200 * SECOND), false, true, 150 * SECOND);
    stage.watchdog.step(Some(200 * SECOND), false, true, 150 * SECOND + MS);
    assert_eq!(stage.pings(), count + 1);
}

#[test]
fn for_a_daemon_without_life_it_fires_before_the_deadline() {
    let mut stage = stage();
    stage.watchdog.arm(Some(&config(true)), TTL);
    let (deadline, pings) = (100 * SECOND, stage.pings());
    let last = deadline - 3 * SECOND - 500 * MS;
    stage.watchdog.step(Some(deadline), false, false, last + MS);
    assert_eq!(stage.pings(), pings, "no more");
    stage.watchdog.step(Some(deadline), false, true, last + MS);
    assert_eq!(stage.pings(), pings + 1, "its daemon lives");
    stage.watchdog.step(Some(deadline + 200 * MS), false, false, last + 200 * MS);
    assert_eq!(stage.pings(), pings + 2, "a daemon that may come back in time");
}

#[test]
fn it_is_disarmed_when_nothing_may_be_written_any_more_and_the_daemon_lives() {
    let mut stage = stage();
    stage.watchdog.arm(Some(&config(true)), TTL);
    // The deadline has come; SIGKILL was sent and a process waits for its disk.
    let pings = stage.pings();
    stage.watchdog.step(Some(100 * SECOND), false, true, 100 * SECOND);
    assert_eq!(stage.pings(), pings);
    stage.watchdog.step(Some(100 * SECOND), true, true, 100 * SECOND);
    assert_eq!(stage.pings(), pings + 1);
    stage.watchdog.step(Some(100 * SECOND), true, false, 101 * SECOND);
    assert_eq!(stage.pings(), pings + 1, "not on behalf of a daemon that hangs");
    stage.watchdog.step(None, false, true, 102 * SECOND);
    assert_eq!(stage.words(), ["timeout 3", "disarmed"]);
    assert_eq!(stage.watchdog.state(), WatchdogState::Off);
    assert_eq!(stage.warnings(), [""; 0]);
}

#[test]
fn it_is_left_alone_when_the_daemon_hangs_and_disarmed_when_it_comes_back() {
    let mut stage = stage();
    stage.watchdog.arm(Some(&config(true)), TTL);
    let pings = stage.pings();
    for second in 100..110 {
        stage.watchdog.step(None, false, false, second * SECOND);
    }
    assert_eq!((stage.pings(), stage.words()), (pings, vec!["timeout 3".to_owned()]));
    assert_eq!(stage.warnings().len(), 1, "told once");
    stage.watchdog.step(None, false, true, 110 * SECOND);
    assert_eq!(stage.words(), ["timeout 3", "disarmed"]);
}

#[test]
fn another_ttl_is_another_timeout_of_the_same_device() {
    let mut stage = stage();
    stage.watchdog.arm(Some(&config(true)), TTL);
    stage.watchdog.arm(Some(&config(true)), TTL);
    stage.watchdog.arm(Some(&config(true)), Duration::from_secs(30));
    assert_eq!(stage.words(), ["timeout 3", "timeout 25"]);
    let other = WatchdogConfig { device: PathBuf::from("/dev/other"), ..config(true) };
    stage.watchdog.arm(Some(&other), Duration::from_secs(30));
    assert_eq!(stage.words()[2..], ["disarmed", "timeout 25"]);
    stage.watchdog.arm(None, Duration::from_secs(30));
    assert_eq!(stage.words()[4..], ["disarmed"]);
    assert_eq!(stage.told.borrow().opened, 2);
}

#[test]
fn a_device_with_too_long_a_timeout_of_its_own_is_refused_where_one_is_required() {
    let mut stage = stage();
    stage.told.borrow_mut().takes = Some(60);
    let why = stage.watchdog.arm(Some(&config(true)), TTL).expect("trouble");
    assert_eq!(why, "Watchdog timeout 60 seconds does not ensure safe termination within 5 seconds");
    assert_eq!(stage.words(), ["timeout 3", "disarmed"]);
    assert_eq!(stage.watchdog.state(), WatchdogState::Failed);
    assert_eq!(stage.warnings().len(), 1);
    assert_eq!(stage.watchdog.arm(Some(&config(false)), TTL), None);
    assert_eq!(stage.watchdog.state(), WatchdogState::Active);
    assert_eq!(stage.warnings(), [why]);
    // One that cannot count as long as wanted is pinged often enough anyway.
    let mut stage = self::stage();
    stage.told.borrow_mut().takes = Some(1);
    assert_eq!(stage.watchdog.arm(Some(&config(true)), TTL), None);
    let pings = stage.pings();
    stage.watchdog.step(Some(100 * SECOND), false, true, 99 * SECOND);
    assert_eq!(stage.pings(), pings + 1);
}

#[test]
fn a_device_that_breaks_is_told_of_once() {
    let mut stage = stage();
    stage.watchdog.arm(Some(&config(true)), TTL);
    stage.told.borrow_mut().is_broken = true;
    stage.watchdog.step(Some(100 * SECOND), false, true, 90 * SECOND);
    stage.watchdog.step(Some(100 * SECOND), false, true, 91 * SECOND);
    assert_eq!(stage.watchdog.state(), WatchdogState::Failed);
    assert_eq!(stage.warnings().len(), 1);
    let why = stage.watchdog.arm(Some(&config(true)), TTL);
    assert!(why.is_some());
    stage.told.borrow_mut().is_broken = false;
    assert_eq!(stage.watchdog.arm(Some(&config(true)), TTL), None);
    assert_eq!(stage.watchdog.state(), WatchdogState::Active);
}

#[test]
fn the_next_guard_takes_over_what_a_killed_one_left_counting() {
    let mut stage = stage();
    stage.watchdog.arm(Some(&config(true)), TTL);
    let mut next = another(&stage.told, &stage.directory);
    next.take_over(Some(TTL));
    assert_eq!(next.state(), WatchdogState::Active);
    next.step(None, false, true, SECOND);
    assert_eq!(stage.words(), ["timeout 3", "disarmed"]);
    let mut last = another(&stage.told, &stage.directory);
    last.take_over(Some(TTL));
    assert_eq!(last.state(), WatchdogState::Off, "the note went with the device");
}
