//! Where the programs of others are, and how one is run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

/// How a missing program gets here.
const CURE: &str = "run: bash tests/setup/thirdparty.sh (make test does it)";
/// The longest that any of them may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A program of Debian's, which may be outside the search path of ordinary users.
pub(crate) fn installed(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.map(|place| place.join(name)).find(|program| program.exists());
    found.with_context(|| format!("there is no {name}; {CURE}"))
}

/// A program of the Python environment that the setup makes below cargo's target directory.
pub(crate) fn of_python(name: &str) -> Result<PathBuf> {
    let program = python()?.join("bin").join(name);
    if program.exists() { Ok(program) } else { anyhow::bail!("there is no {}; {CURE}", program.display()) }
}

/// What is installed in that environment.
pub(crate) fn python_packages() -> Result<PathBuf> {
    let library = python()?.join("lib");
    let entries = std::fs::read_dir(&library).with_context(|| format!("no {}; {CURE}", library.display()))?;
    let found = entries.flatten().map(|entry| entry.path().join("site-packages")).find(|path| path.exists());
    found.with_context(|| format!("nothing is installed in {}; {CURE}", library.display()))
}

fn python() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding the own program")?;
    let target = me.ancestors().nth(3).context("an odd place of the own program")?;
    Ok(target.join("tools/thirdparty-python"))
}

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) text: String,
}

/// Runs a program to its end.
pub(crate) async fn said(program: &Path, arguments: &[&str]) -> Result<Said> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output());
    let output = output.await.with_context(|| format!("{} does not end", program.display()))?;
    let output = output.with_context(|| format!("running {}", program.display()))?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok(Said { status: output.status.code(), text })
}
