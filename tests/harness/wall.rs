//! A wall clock that steps, for the nodes of a cluster only: a preloaded library shifts CLOCK_REALTIME by what a file
//! says. The machine's clock is never set.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("wall.c");

/// The offset of a cluster's wall clock.
#[derive(Debug)]
pub(crate) struct Wall {
    offset: PathBuf,
    library: PathBuf,
}

impl Wall {
    /// Builds the library below this directory; the offset is zero.
    pub(crate) fn build(directory: &Path) -> Result<Self> {
        let (source, library) = (directory.join("wall.c"), directory.join("wall.so"));
        fs::write(&source, SOURCE).with_context(|| format!("writing {}", source.display()))?;
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .context("running cc, which Rust needs as well")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        let wall = Self { offset: directory.join("wall.offset"), library };
        fs::write(&wall.offset, 0_i64.to_ne_bytes())?;
        fs::set_permissions(&wall.offset, fs::Permissions::from_mode(0o644))?;
        Ok(wall)
    }

    /// What a daemon has to be started with.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), self.library.clone().into()),
            ("WALL_CLOCK_OFFSET".into(), self.offset.clone().into()),
        ]
    }

    /// From this moment on the wall clock of everybody who was started with it is off by so many seconds.
    pub(crate) fn step_to(&self, seconds: i64) -> Result<()> {
        // In place: the readers have it mapped.
        let mut file = fs::OpenOptions::new().write(true).open(&self.offset).context("opening the offset")?;
        file.write_all(&seconds.to_ne_bytes()).context("writing the offset")
    }
}
