//! A writing process is killed, or the power of its disk is cut, at random moments: no acknowledged record is lost,
//! and no record appears that was never begun.
//!
//! The writer is this test program itself, started again with a directory in its environment; it tells on stderr
//! what it begins and what was acknowledged. See `support::workload` for what is compared.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small, and some are to be cut")]
#![allow(clippy::print_stderr, reason = "the writer reports on stderr, and so does a test that cannot run")]

mod support;

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgherd_storage::{Opened, Options, Store};
use support::TestConfig;
use support::workload::{self, Model, Numbers, Progress};

const KILLS: u32 = 110;
const POWER_CUTS: u32 = 22;
/// Without fdatasync a cut loses something more often than not; so many in a row without a loss mean a blind test.
const CUTS_UNTIL_CAUGHT: u32 = 40;

const DIR: &str = "PGHERD_TEST_STORE_DIR";
const SEED: &str = "PGHERD_TEST_SEED";
const START: &str = "PGHERD_TEST_START";
const NO_SYNC: &str = "PGHERD_TEST_NO_FDATASYNC";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Not a test of its own: the writing process.
#[test]
fn writer_process() {
    let Some(dir) = env::var_os(DIR) else { return };
    let number = |name| env::var(name).unwrap().parse::<u64>().unwrap();
    let options =
        if env::var_os(NO_SYNC).is_some() { Options::without_fdatasync() } else { Options::default() };
    let mut model = Model::after(number(SEED), number(START));
    let mut store = match Store::<TestConfig>::open(Path::new(&dir), options).unwrap() {
        Opened::Fresh(store) | Opened::Known(store) => store,
        Opened::Amnesiac(amnesiac) => panic!("amnesiac: {}", amnesiac.reason()),
    };
    let mut pipe = std::io::stderr();
    pipe.write_all(b"\nopen\n").unwrap();
    let tell = |progress| {
        let line = match progress {
            Progress::Begun(operation) => format!("begun {operation}\n"),
            Progress::Acknowledged(operation) => format!("acknowledged {operation}\n"),
        };
        // The reader may be gone, then so is this process.
        drop(pipe.write_all(line.as_bytes()));
    };
    let ended = runtime().block_on(workload::run(&mut store, number(SEED), &mut model, u64::MAX, tell));
    eprintln!("ended: {ended:?}");
}

/// A running writer and what it told so far.
struct Writer {
    child: Child,
    told: BufReader<std::process::ChildStderr>,
    begun: u64,
    acknowledged: u64,
    output: String,
}

impl Writer {
    fn start(dir: &Path, seed: u64, from: u64, sync: bool) -> Writer {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["writer_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir)
            .env(SEED, seed.to_string())
            .env(START, from.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if !sync {
            command.env(NO_SYNC, "1");
        }
        let mut child = command.spawn().unwrap();
        let told = BufReader::new(child.stderr.take().unwrap());
        Writer { child, told, begun: from, acknowledged: from, output: String::new() }
    }

    /// Reads one line; `false` at the end.
    fn hear(&mut self) -> bool {
        let mut line = String::new();
        if self.told.read_line(&mut line).unwrap() == 0 {
            return false;
        }
        match line.trim_end().split_once(' ') {
            // A line cut in two by the kill is a number cut short, which is only less.
            Some(("begun", number)) => self.begun = self.begun.max(number.parse().unwrap_or(0)),
            Some(("acknowledged", number)) if line.ends_with('\n') => {
                self.acknowledged = self.acknowledged.max(number.parse().unwrap());
            }
            _ => self.output.push_str(&line),
        }
        true
    }

    /// Follows the writer for a random while, ended by `strike` and then by a kill.
    fn strike(mut self, numbers: &mut Numbers, strike: impl FnOnce()) -> Writer {
        if numbers.below(4) > 0 {
            for _ in 0..numbers.below(400) {
                if !self.hear() {
                    break;
                }
            }
        }
        // The random moment itself: within an operation, or within opening the store.
        std::thread::sleep(Duration::from_micros(numbers.below(20_000)));
        strike();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while self.hear() {}
        // A begun line may be lost in the writer: then it began at most this many more.
        self.begun += 1;
        self
    }
}

/// Opens the store after a crash: the state found, or why there is none.
fn recover(dir: &Path, seed: u64, from: &Model, writer: &Writer) -> Result<Model, String> {
    let mut store = match Store::<TestConfig>::open(dir, Options::default()) {
        Ok(Opened::Known(store)) => store,
        Ok(Opened::Fresh(store)) if writer.acknowledged == 0 => store,
        Ok(Opened::Fresh(_)) => return Err("the store came back empty".to_owned()),
        Ok(Opened::Amnesiac(amnesiac)) => return Err(format!("amnesiac: {}", amnesiac.reason())),
        Err(error) => return Err(format!("not opened: {error}")),
    };
    runtime().block_on(async {
        let found = Model::of(&mut store).await;
        store.close().await.map_err(|error| error.to_string())?;
        found.find(seed, from, writer.acknowledged, writer.begun).ok_or_else(|| {
            format!(
                "no state between {} acknowledged and {} begun operations matches: {}",
                writer.acknowledged,
                writer.begun,
                found.summary()
            )
        })
    })
}

/// Says something that the test harness must not swallow.
fn report(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u64::from_ne_bytes(bytes)
}

#[test]
fn a_killed_writer_loses_nothing() {
    let seed = random_seed();
    let mut numbers = Numbers::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scope");
    let mut model = Model::default();
    for kill in 0..KILLS {
        let writer = Writer::start(&path, seed, model.operation, true).strike(&mut numbers, || ());
        model = recover(&path, seed, &model, &writer)
            .unwrap_or_else(|loss| panic!("seed {seed}, kill {kill}: {loss}\n{}", writer.output));
    }
    assert!(model.operation > u64::from(KILLS), "the writer hardly wrote: {}", model.summary());
    report(&format!("{KILLS} kills, {} operations, none lost", model.operation));
}

#[test]
fn a_power_cut_loses_nothing() {
    let Some(mut disk) = Disk::make() else { return };
    let seed = random_seed();
    let mut numbers = Numbers::new(seed);
    let path = disk.mount.join("data/scope");
    let mut model = Model::default();
    for cut in 0..POWER_CUTS {
        let writer =
            Writer::start(&path, seed, model.operation, true).strike(&mut numbers, || disk.cut_power());
        disk.restore_power();
        model = recover(&path, seed, &model, &writer)
            .unwrap_or_else(|loss| panic!("seed {seed}, cut {cut}: {loss}\n{}", writer.output));
    }
    assert!(model.operation > u64::from(POWER_CUTS), "the writer hardly wrote: {}", model.summary());
    report(&format!("{POWER_CUTS} power cuts, {} operations, none lost", model.operation));
}

#[test]
fn a_power_cut_without_fdatasync_is_caught() {
    let Some(mut disk) = Disk::make() else { return };
    let seed = random_seed();
    let mut numbers = Numbers::new(seed);
    let path = disk.mount.join("data/scope");
    let mut model = Model::default();
    for cut in 1..=CUTS_UNTIL_CAUGHT {
        let writer =
            Writer::start(&path, seed, model.operation, false).strike(&mut numbers, || disk.cut_power());
        disk.restore_power();
        match recover(&path, seed, &model, &writer) {
            Ok(found) => model = found,
            Err(loss) => {
                report(&format!("cut {cut} without fdatasync: {loss}"));
                return;
            }
        }
    }
    panic!("{CUTS_UNTIL_CAUGHT} power cuts without fdatasync lost nothing: this test is blind");
}

#[test]
fn a_store_whose_disk_fails_takes_nothing_more() {
    let Some(mut disk) = Disk::make() else { return };
    let store = support::open(&disk.mount.join("data/scope"));
    runtime().block_on(async {
        store.set_floor(1).await.unwrap();
        let mut failed = store.failed();
        assert!(failed.borrow_and_update().is_none());
        disk.cut_power();
        store.set_floor(2).await.unwrap_err();
        failed.changed().await.unwrap();
        let reason = failed.borrow().clone().unwrap().to_string();
        assert!(reason.contains("check permissions, free space and the disk"), "{reason}");
        assert_eq!(store.floor(), 1, "a floor that is not on disk counts");
        store.set_note("note", b"late").await.unwrap_err();
    });
}

/// An ext4 file system of its own whose power can be cut: nothing that was not forced to disk survives.
struct Disk {
    _dir: tempfile::TempDir,
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes one, or says why that is impossible here.
    fn make() -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk { image: dir.path().join("image"), mount: dir.path().join("mount"), _dir: dir };
        File::create(&disk.image).unwrap().set_len(64 * 1024 * 1024).unwrap();
        std::fs::create_dir(&disk.mount).unwrap();
        let made = run("mkfs.ext4", &["-q".as_ref(), disk.image.as_os_str()]).and_then(|()| disk.attach());
        match made {
            Ok(()) => {
                std::fs::create_dir(disk.mount.join("data")).unwrap();
                rustix::fs::syncfs(File::open(&disk.mount).unwrap()).unwrap();
                Some(disk)
            }
            Err(reason) => {
                report(&format!("power cuts: not run, a loop mount needs root and mkfs.ext4 ({reason})"));
                None
            }
        }
    }

    fn attach(&self) -> Result<(), String> {
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image.as_os_str(), self.mount.as_os_str()])
    }

    /// From here on every write fails, and what waits in memory is gone.
    fn cut_power(&mut self) {
        let root = File::open(&self.mount).unwrap();
        shut_down(&root).unwrap();
    }

    /// Mounts it again, as after a restart.
    fn restore_power(&mut self) {
        run("umount", &[self.mount.as_os_str()]).unwrap();
        self.attach().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(run("umount", &["-l".as_ref(), self.mount.as_os_str()]));
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
fn shut_down(root: &File) -> rustix::io::Result<()> {
    const NO_LOG_FLUSH: u32 = 2;
    const SHUT_DOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
    #[expect(unsafe_code, reason = "there is no safe call for it; the kernel reads one u32 and writes none")]
    unsafe {
        rustix::ioctl::ioctl(root, rustix::ioctl::Setter::<SHUT_DOWN, u32>::new(NO_LOG_FLUSH))
    }
}
