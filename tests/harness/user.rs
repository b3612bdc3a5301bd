//! Whom the started programs run as. PostgreSQL and pgherd refuse to run as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Users that exist without our doing, the better one first: Debian's PostgreSQL brings `postgres`.
const CANDIDATES: &[&str] = &["postgres", "nobody"];

/// An unprivileged user.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The user to become; none: this process is unprivileged already.
    pub(crate) fn to_become() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        for name in CANDIDATES {
            if let Some(user) = accounts.lines().find_map(|line| Self::parse(line, name)) {
                return Ok(Some(user));
            }
        }
        bail!("running as root, and there is no user {} to run PostgreSQL as", CANDIDATES.join(" or "))
    }

    fn parse(line: &str, wanted: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| *name == wanted)?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), uid, gid })
    }

    /// Lets the command run as this user; the standard library drops root's supplementary groups with it.
    pub(crate) fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or directory to this user.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("giving {} to {}", path.display(), self.name))
    }
}
