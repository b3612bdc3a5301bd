//! Makes a configuration: a sample, or one for a PostgreSQL that runs already.
//!
//! Promises: what is made can be read back; what only the operator knows stands out as something to be filled in. The environment's
//! variables are laid over it, as they are over a file.

mod document;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use pgherd_raft::config::Environment;

use crate::config::{self, to_yaml};
use crate::postgres::{InspectError, Secret, inspect, installed_major};
use document::{Document, owned};

/// A sample for this machine.
///
/// # Errors
/// PostgreSQL's programs are not found: their version decides what stands in it.
pub async fn sample(environment: &Environment) -> anyhow::Result<String> {
    let major = installed_major(None, &BTreeMap::new()).await?;
    finished(&Document::sample(major, &hostname(), own_address()), environment)
}

/// A configuration for the PostgreSQL which runs on this machine. `ask` gets the password from whoever sits there.
///
/// # Errors
/// It cannot be asked, or the role is no superuser.
pub async fn from_running(
    dsn: Option<&str>,
    environment: &Environment,
    ask: impl FnOnce() -> anyhow::Result<Option<String>>,
) -> anyhow::Result<String> {
    let variables: BTreeMap<String, String> = environment.clone();
    let found = match inspect(dsn, &variables, None, &owned()).await {
        Err(InspectError::PasswordNeeded(user)) => {
            let password = ask()?.ok_or(InspectError::PasswordNeeded(user))?;
            inspect(dsn, &variables, Some(&Secret::new(password)), &owned()).await?
        }
        other => other?,
    };
    finished(&Document::running(&found, &hostname(), own_address()), environment)
}

/// Lays the environment over the document and writes it with its comments.
fn finished(document: &Document, environment: &Environment) -> anyhow::Result<String> {
    let plain = to_yaml(&document.root);
    let tree = config::tree("the generated configuration", &plain, environment)
        .context("the environment cannot be laid over the generated configuration")?;
    let mut text = String::new();
    let root = tree.to_json();
    for (key, value) in root.as_object().into_iter().flatten() {
        for comment in document.comments_of(key) {
            text.push_str(&format!("# {comment}\n"));
        }
        text.push_str(&to_yaml(&serde_json::json!({ key: value })));
        text.push('\n');
    }
    Ok(text.trim_end().to_owned() + "\n")
}

/// Writes it for its owner alone, since it holds passwords; without a path to standard output.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: Option<&Path>, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let Some(path) = path else {
        return std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output");
    };
    let failed = || format!("cannot write {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)
}

/// Asks for the password at the terminal, without showing it; none: nobody sits there.
///
/// # Errors
/// The terminal cannot be used.
pub fn ask_password() -> std::io::Result<Option<String>> {
    use std::io::{BufRead as _, Write as _};
    let input = std::io::stdin();
    let Ok(before) = rustix::termios::tcgetattr(&input) else { return Ok(None) };
    let mut hidden = before.clone();
    hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
    let mut asks = std::io::stderr();
    asks.write_all(b"Please enter the user password:")?;
    rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Flush, &before)?;
    asks.write_all(b"\n")?;
    read?;
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The address from which this machine would reach others; nothing is sent.
fn own_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}
