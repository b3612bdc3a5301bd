//! Running a test again as a user who may run PostgreSQL.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, Weak};

/// Where the programs are which the test uses, for the run as another user.
const STAGE: &str = "PGHERD_GUARD_TEST_STAGE";

/// Debian's PostgreSQL brings `postgres`.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

struct Stage {
    directory: tempfile::TempDir,
    uid: u32,
    gid: u32,
}

/// Runs the test as another user; `None`: this process may run PostgreSQL itself.
pub(crate) fn as_other_user(test: &str) -> Option<ExitStatus> {
    // Removed with the last test that runs; a static value would stay for ever.
    static STAGED: Mutex<Weak<Stage>> = Mutex::new(Weak::new());
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let stage = {
        let mut staged = STAGED.lock().expect("no test panics in here");
        staged.upgrade().unwrap_or_else(|| {
            let stage = Arc::new(prepare());
            *staged = Arc::downgrade(&stage);
            stage
        })
    };
    let directory = stage.directory.path();
    let status = Command::new(directory.join("test"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(STAGE, directory)
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(stage.uid)
        .gid(stage.gid)
        .status();
    Some(status.expect("the test as another user"))
}

fn prepare() -> Stage {
    let accounts = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let ids = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let (uid, gid) = CANDIDATES.iter().find_map(|name| ids(name)).expect("a user who may run PostgreSQL");
    let directory = tempfile::Builder::new().prefix("pgherd-guard-").tempdir_in("/tmp").expect("a directory");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let test = std::env::current_exe().expect("the own program");
    for (from, to) in [(test.as_path(), "test"), (Path::new(env!("CARGO_BIN_EXE_pgherd")), "pgherd")] {
        let to = directory.path().join(to);
        std::fs::copy(from, &to).expect("copied");
        chown(&to, Some(uid), Some(gid)).expect("chown");
    }
    Stage { directory, uid, gid }
}

/// The program with the hidden subcommand.
pub(crate) fn pgherd() -> PathBuf {
    match std::env::var_os(STAGE) {
        Some(directory) => PathBuf::from(directory).join("pgherd"),
        None => PathBuf::from(env!("CARGO_BIN_EXE_pgherd")),
    }
}
