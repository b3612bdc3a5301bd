//! The programs that a cluster is made of: ours, PostgreSQL's, HAProxy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::user::User;

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Our binaries, readable for the unprivileged user.
    pub(crate) ours: PathBuf,
    /// PostgreSQL's binaries.
    pub(crate) postgresql: PathBuf,
    /// For example `postgres (PostgreSQL) 15.18`.
    pub(crate) postgresql_version: String,
}

const OURS: &[&str] = &["pgherd", "pgherdctl", "pgherd-witness"];

impl Tools {
    /// Finds everything; `directory` gets copies of our binaries when the user could not read the originals.
    pub(crate) fn find(directory: &Path, user: Option<&User>) -> Result<Self> {
        let postgresql = postgresql()?;
        let mut command = Command::new(postgresql.join("postgres"));
        let version = command.arg("--version").output().context("asking postgres for its version")?;
        let postgresql_version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let built = built()?;
        let ours = match user {
            None => built,
            // Root's build lies where nobody else may look.
            Some(_) => copies(&built, directory)?,
        };
        Ok(Self { ours, postgresql, postgresql_version })
    }
}

/// HAProxy's program; Debian's is outside the search path of ordinary users.
pub(crate) fn haproxy() -> Result<PathBuf> {
    in_path("haproxy")
        .or_else(|| Some(PathBuf::from("/usr/sbin/haproxy")).filter(|path| path.exists()))
        .context("there is no haproxy; install it: apt-get install haproxy (make test and make demo do it)")
}

/// Names the directory of PostgreSQL's programs to test with, in the place of what is found.
const BIN: &str = "TEST_PG_BIN";

/// What `TEST_PG_BIN` names, else the newest PostgreSQL of Debian's places, else the one in PATH.
fn postgresql() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(BIN).filter(|named| !named.is_empty()).map(PathBuf::from) {
        if !named.join("postgres").exists() {
            bail!("{BIN} is {}, where there is no postgres", named.display());
        }
        return Ok(named);
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    if let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") {
        for entry in entries.flatten() {
            let directory = entry.path().join("bin");
            if let (Ok(major), true) =
                (entry.file_name().to_string_lossy().parse(), directory.join("postgres").exists())
            {
                found.push((major, directory));
            }
        }
    }
    found.sort();
    if let Some((_, directory)) = found.pop() {
        return Ok(directory);
    }
    in_path("postgres").and_then(|program| program.parent().map(Path::to_owned)).context(
        "there is no PostgreSQL server; install one: apt-get install postgresql (make test and make demo do it)",
    )
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| candidate.exists())
}

/// The directory of our binaries: cargo puts test programs and examples one level below it.
fn built() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding the own program")?;
    let directory = me.parent().and_then(Path::parent).context("an odd place of the own program")?;
    for name in OURS {
        if !directory.join(name).exists() {
            bail!("{} is missing; build it: cargo build --workspace --bins", directory.join(name).display());
        }
    }
    Ok(directory.to_owned())
}

fn copies(built: &Path, directory: &Path) -> Result<PathBuf> {
    let copies = directory.join("bin");
    std::fs::create_dir_all(&copies).with_context(|| format!("creating {}", copies.display()))?;
    for name in OURS {
        std::fs::copy(built.join(name), copies.join(name)).with_context(|| format!("copying {name}"))?;
    }
    Ok(copies)
}
