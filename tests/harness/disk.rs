//! A disk of a node's own that can be stalled and filled: a file system on a loop device. Only root may make one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::user::User;

/// Enough for a small database system and its WAL.
const MEGABYTES: u64 = 400;
/// A stall ends by itself after so many seconds, whatever became of the test.
const LONGEST_STALL: &str = "90";

/// Mounted; dropped, it is thawed and goes away with its last user.
#[derive(Debug)]
pub(crate) struct Disk {
    mount: PathBuf,
    image: PathBuf,
    stall: Option<Child>,
}

impl Disk {
    /// Makes one and mounts it, or says why this machine does not let us.
    pub(crate) fn mount(at: &Path, user: Option<&User>) -> Result<Result<Self, String>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Err("only root may mount a disk of its own".to_owned()));
        }
        let image = at.with_extension("img");
        fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
        fs::File::create(&image)?.set_len(MEGABYTES << 20)?;
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            .and_then(|()| run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at)));
        if let Err(error) = made {
            return Ok(Err(format!("no loop device can be mounted here: {error:#}")));
        }
        let disk = Self { mount: at.to_owned(), image, stall: None };
        if let Some(user) = user {
            user.give(at)?;
        }
        Ok(Ok(disk))
    }

    /// From now on no write and no fsync returns. The thawing is left to a process of its own, which does it when this
    /// one goes away, too.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        let script = "fsfreeze -f \"$1\" && echo frozen && timeout \"$2\" cat >/dev/null; fsfreeze -u \"$1\"";
        let mut stall = Command::new("setsid")
            .args(["sh", "-c", script, "sh"])
            .arg(&self.mount)
            .arg(LONGEST_STALL)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("running fsfreeze")?;
        let mut line = String::new();
        BufReader::new(stall.stdout.take().context("no output")?).read_line(&mut line)?;
        self.stall = Some(stall);
        ensure!(line.trim() == "frozen", "the disk could not be frozen");
        Ok(())
    }

    /// Everything goes on.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        if let Some(mut stall) = self.stall.take() {
            drop(stall.stdin.take());
            stall.wait().context("waiting for the thaw")?;
        }
        Ok(())
    }

    /// Leaves not a block.
    pub(crate) fn fill(&self) -> Result<()> {
        let script = "for size in 4194304 65536 4096; do n=0; \
                      while fallocate -l $size \"$1/fill.$size.$n\" 2>/dev/null; do n=$((n+1)); done; done; sync -f \"$1\"";
        run(Command::new("sh").args(["-c", script, "sh"]).arg(&self.mount))
    }

    /// Gives back what `fill` took.
    pub(crate) fn make_room(&self) -> Result<()> {
        for entry in fs::read_dir(&self.mount)? {
            let path = entry?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("fill.")) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let thawed = self.thaw();
        // Its last users may still be at work: it goes when they do.
        let gone = run(Command::new("umount").arg("-l").arg(&self.mount));
        if let Err(error) = thawed.and(gone) {
            tracing::warn!("{} was left: {error:#}", self.mount.display());
        }
        fs::remove_file(&self.image).ok();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
