//! Runs the operator's callbacks and hooks: commands for what happens to PostgreSQL.
//!
//! They get the daemon's working directory, standard output and standard error, and its environment without the daemon's
//! own configuration. What they leave running in the background is theirs, unless they are ended for taking too long.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use tokio::process::Command;

use super::Postgres;
use super::error::PgError;
use super::tool::{EndGroup, ToolError, over, split_words, withhold_configuration};

/// `pre_promote` may take so long: nobody can write meanwhile.
const PRE_PROMOTE_LIMIT: Duration = Duration::from_secs(300);
/// `before_stop` may take so long: whoever asked for the stop waits for it.
const BEFORE_STOP_LIMIT: Duration = Duration::from_secs(60);
/// Of the daemon's service manager: not for anybody else to talk to it.
const SERVICE_VARIABLES: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "PGPASSWORD"];

/// Runs a command of the operator's to its end, with more variables in its environment.
///
/// # Errors
/// It could not be started, ended with another status than zero, or took longer than its limit and was ended.
pub async fn run_hook(words: &[String], env: &[(&str, OsString)], limit: Duration) -> Result<(), ToolError> {
    let (program, args) = words.split_first().map_or(("", words), |(program, args)| (program.as_str(), args));
    let mut command = Command::new(program);
    withhold_configuration(&mut command, std::env::vars_os().map(|(name, _)| name));
    for name in SERVICE_VARIABLES {
        command.env_remove(name);
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command.args(args).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let cannot_run = |source| ToolError::Spawn { program: program.into(), source };
    let mut child = command.spawn().map_err(cannot_run)?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = EndGroup(pid);
    let status = tokio::select! {
        ended = child.wait() => ended.map_err(cannot_run)?,
        seconds = over(Some(limit)) => {
            return Err(ToolError::Timeout { program: program.to_owned(), seconds });
        }
    };
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    let said = "what it said stands beside this log".to_owned();
    Err(ToolError::Failed { program: program.to_owned(), status, said })
}

impl Postgres {
    /// Asks `pre_promote` whether this server may be promoted.
    pub(super) async fn pre_promote(&self) -> Result<(), PgError> {
        match &self.settings().pre_promote {
            Some(command) => run_named("postgresql.pre_promote", command, PRE_PROMOTE_LIMIT).await,
            None => Ok(()),
        }
    }

    /// Tells `before_stop` that this server is about to be stopped on purpose; it is stopped whatever comes of that.
    pub(super) async fn before_stop(&self) {
        let Some(command) = &self.settings().before_stop else { return };
        match run_named("postgresql.before_stop", command, BEFORE_STOP_LIMIT).await {
            Ok(()) => tracing::info!("before_stop script succeeded"),
            Err(error) => {
                tracing::warn!(
                    "before_stop script failed, PostgreSQL is stopped all the same: {}",
                    error.in_full()
                );
            }
        }
    }
}

async fn run_named(key: &str, command: &str, limit: Duration) -> Result<(), PgError> {
    let words = split_words(command)
        .map_err(|why| PgError::Refused(format!("{key} cannot be split into words: {why}")))?;
    Ok(run_hook(&words, &[], limit).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn the_exit_status_counts_and_the_time() {
        let limit = Duration::from_secs(30);
        assert!(run_hook(&shell("exit 0"), &[], limit).await.is_ok());
        assert!(matches!(run_hook(&shell("exit 3"), &[], limit).await, Err(ToolError::Failed { .. })));
        let slow = run_hook(&shell("sleep 60"), &[], Duration::from_millis(50)).await;
        assert!(matches!(slow, Err(ToolError::Timeout { .. })));
        assert!(matches!(run_hook(&[], &[], limit).await, Err(ToolError::Spawn { .. })));
    }

    #[tokio::test]
    async fn what_it_leaves_in_the_background_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("directory");
        let marker = directory.path().join("went-on");
        let script = format!("(until test -e {0}.go; do sleep 0.02; done; : > {0}) &", marker.display());
        run_hook(&shell(&script), &[], Duration::from_secs(30)).await.expect("ended");
        std::fs::write(marker.with_extension("go"), "").expect("marker");
        while !marker.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
