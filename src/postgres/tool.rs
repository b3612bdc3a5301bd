//! Runs one of PostgreSQL's programs, or a command of the operator's.
//!
//! Promises: it never waits longer than its limit, it ends the program and what the program started when the caller
//! goes away, and what it says of a failure holds the end of what the program said. Passwords are never arguments: they
//! come in a password file or in the environment, of which the daemon's own configuration is no part.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pgherd_raft::config::is_configuration_variable;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// As much of a program's output is kept: `pg_controldata` needs 4 KiB.
const KEPT_OUTPUT: usize = 64 * 1024;
/// As much of the end of what a program says on standard error stands in an error.
const KEPT_ERROR: usize = 1500;
/// How often it is looked, in its limit, whether a program moves.
const STANDSTILL_LOOKS: u32 = 10;
/// How often it is looked whether programs of an earlier run are gone, and how long between the looks.
const LEFTOVER_LOOKS: u32 = 50;
const LEFTOVER_PAUSE: Duration = Duration::from_millis(100);
/// How long a program may take which only prints something.
pub(super) const QUICK: Duration = Duration::from_secs(10);

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started.
    #[error("cannot run {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended with another status than zero.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        said: String,
    },
    /// It neither read nor wrote anything any more and was ended.
    #[error("{program} stood still for {seconds} s and was ended")]
    Stalled {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// It took too long and was ended.
    #[error("{program} did not finish within {seconds} s and was ended")]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
    },
}

/// A program with its arguments and environment.
#[derive(Debug)]
pub(super) struct Tool {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

/// Ends the program's process group unless the program has been waited for.
pub(super) struct EndGroup(pub(super) Option<Pid>);

impl Drop for EndGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself in this moment, which is as good.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

impl Tool {
    pub(super) fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    pub(super) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    /// Runs it to its end; what it printed, as far as it is kept. Messages come in English (`LC_ALL=C`), because some
    /// are parsed.
    pub(super) async fn run(self, limit: Option<Duration>) -> Result<String, ToolError> {
        self.run_watched(limit, None).await
    }

    /// The same without a limit for the whole, but for the time in which it neither reads nor writes.
    pub(super) async fn run_while_it_moves(self, still: Duration) -> Result<String, ToolError> {
        self.run_watched(None, Some(still)).await
    }

    async fn run_watched(
        self,
        limit: Option<Duration>,
        still: Option<Duration>,
    ) -> Result<String, ToolError> {
        let program = self.name();
        let mut command = Command::new(&self.program);
        withhold_configuration(&mut command, std::env::vars_os().map(|(name, _)| name));
        command
            .args(&self.args)
            .env_remove("PGPASSWORD")
            .env_remove("PGDATA")
            .env_remove("PGOPTIONS")
            .env_remove("PGSERVICE")
            .env("LC_ALL", "C")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|source| ToolError::Spawn { program: self.program.clone(), source })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let mut group = EndGroup(pid);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work =
            async { tokio::join!(child.wait(), tail_of(stdout, KEPT_OUTPUT), tail_of(stderr, KEPT_ERROR)) };
        let (status, printed, said) = tokio::select! {
            ended = work => ended,
            seconds = over(limit) => return Err(ToolError::Timeout { program, seconds }),
            seconds = standstill(pid, still) => return Err(ToolError::Stalled { program, seconds }),
        };
        let status = status.map_err(|source| ToolError::Spawn { program: self.program.clone(), source })?;
        group.0 = None;
        if status.success() {
            return Ok(printed);
        }
        Err(ToolError::Failed { program, status, said: with_cure(one_line(&said)) })
    }
}

/// Returns the limit's seconds when it has passed; never without a limit.
pub(super) async fn over(limit: Option<Duration>) -> u64 {
    let Some(limit) = limit else { return std::future::pending().await };
    tokio::time::sleep(limit).await;
    limit.as_secs()
}

/// Returns the limit's seconds when the program has neither read nor written for so long; never without a limit.
async fn standstill(pid: Option<Pid>, limit: Option<Duration>) -> u64 {
    let (Some(pid), Some(limit)) = (pid, limit) else { return std::future::pending().await };
    // Its counters; where they cannot be read nothing is known, and the program goes on.
    let counters = || std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok();
    let (mut before, mut still) = (counters(), Duration::ZERO);
    let pause = limit / STANDSTILL_LOOKS;
    while still < limit {
        tokio::time::sleep(pause).await;
        let present = counters();
        let has_moved = present.is_none() || present != before;
        still = if has_moved { Duration::ZERO } else { still.saturating_add(pause) };
        before = present;
    }
    limit.as_secs()
}

/// The last `keep` bytes of a stream, read to its end so that the writer never blocks.
async fn tail_of(stream: Option<impl AsyncRead + Unpin>, keep: usize) -> String {
    let mut kept = VecDeque::new();
    if let Some(mut stream) = stream {
        let mut buffer = vec![0_u8; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            kept.extend(buffer.iter().take(count));
            let surplus = kept.len().saturating_sub(keep);
            kept.drain(..surplus);
        }
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}

/// The daemon's own settings, passwords among them, are none of the program's business.
pub(super) fn withhold_configuration(command: &mut Command, names: impl Iterator<Item = OsString>) {
    for name in names.filter(|name| is_configuration_variable(&name.to_string_lossy())) {
        command.env_remove(name);
    }
}

/// Ends programs which an earlier life of the daemon left working on a data directory: they would write into it while
/// the next ones do.
pub(super) async fn end_leftovers(data_dir: &Path) {
    for _ in 0..LEFTOVER_LOOKS {
        let left = leftovers(data_dir);
        if left.is_empty() {
            return;
        }
        for pid in left {
            tracing::warn!("ending a program which an earlier run left working on {}", data_dir.display());
            // It may have ended by itself in this moment, which is as good.
            kill_process(pid, Signal::KILL).ok();
        }
        tokio::time::sleep(LEFTOVER_PAUSE).await;
    }
}

/// Our programs on this data directory: recognised by their name and by the directory after `-D`.
fn leftovers(data_dir: &Path) -> Vec<Pid> {
    const PROGRAMS: [&str; 3] = ["initdb", "pg_basebackup", "pg_rewind"];
    let is_left = |pid: &i32| {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let mut words = line.split(|byte| *byte == 0).map(|word| Path::new(OsStr::from_bytes(word)));
        let is_ours = words
            .next()
            .and_then(Path::file_name)
            .is_some_and(|name| PROGRAMS.iter().any(|program| name == *program));
        is_ours
            && words
                .skip_while(|word| *word != Path::new("-D"))
                .nth(1)
                .is_some_and(|d| d.starts_with(data_dir))
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(is_left).filter_map(Pid::from_raw).collect()
}

/// Lines joined so that they fit into one line of a log, without the passwords which PostgreSQL shows when a statement
/// with one fails: `initdb` does.
pub(super) fn one_line(text: &str) -> String {
    let lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(without_password).collect();
    if lines.is_empty() { "it said nothing".to_owned() } else { lines.join(" | ") }
}

/// The server at the other end refuses the login: which settings are behind it.
fn with_cure(said: String) -> String {
    let is_refused = said.contains("authentication failed") || said.contains("no pg_hba.conf entry");
    let cure = "; check postgresql.authentication, which must be the same on all nodes, and pg_hba";
    if is_refused { said + cure } else { said }
}

/// A line up to the literal after the word PASSWORD.
fn without_password(line: &str) -> String {
    const WORD: &str = "PASSWORD";
    let upper = line.to_ascii_uppercase();
    let ends = upper.match_indices(WORD).map(|(start, word)| start + word.len());
    let before_literal = |end: &usize| {
        let rest = upper.get(*end..).unwrap_or_default().trim_start();
        rest.starts_with('\'') || rest.starts_with("E'")
    };
    match ends.into_iter().find(before_literal).and_then(|end| line.get(..end)) {
        Some(kept) => format!("{kept} ..."),
        None => line.to_owned(),
    }
}

/// Runs a command of the operator's that has nothing to do with PostgreSQL; what it printed.
///
/// # Errors
/// It could not be started, failed, or took longer than its limit.
pub async fn run_command(
    words: &[String],
    environment: &[(&'static str, String)],
    limit: Duration,
) -> Result<String, ToolError> {
    let (program, args) = words.split_first().map_or(("", words), |(program, args)| (program.as_str(), args));
    let tool = Tool::new(program).args(args);
    environment.iter().fold(tool, |tool, (name, value)| tool.env(name, value)).run(Some(limit)).await
}

/// Splits a command of the configuration into words as a shell does: quotes and backslashes, nothing else.
///
/// # Errors
/// What is wrong with its quotes.
pub fn split_words(command: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => loop {
                match chars.next().ok_or("a ' is not closed")? {
                    '\'' => break,
                    inner => word.get_or_insert_default().push(inner),
                }
            },
            '"' => loop {
                match chars.next().ok_or("a \" is not closed")? {
                    '"' => break,
                    '\\' => match chars.next().ok_or("a \" is not closed")? {
                        escaped @ ('"' | '\\') => word.get_or_insert_default().push(escaped),
                        other => word.get_or_insert_default().extend(['\\', other]),
                    },
                    inner => word.get_or_insert_default().push(inner),
                }
            },
            '\\' => word.get_or_insert_default().push(chars.next().ok_or("it ends with a \\")?),
            other => word.get_or_insert_default().push(other),
        }
        if matches!(c, '\'' | '"') {
            // Empty quotes are a word, too.
            word.get_or_insert_default();
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let words = |text: &str| split_words(text).expect(text);
        assert_eq!(words("a  b\tc"), ["a", "b", "c"]);
        assert_eq!(words(r#"x 'a b' "c \"d\" $e" f\ g '' "#), ["x", "a b", "c \"d\" $e", "f g", ""]);
        assert_eq!(words(r#"'it'"'"'s'"#), ["it's"]);
        for bad in ["'a", "\"a", "a\\"] {
            assert!(split_words(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_login_names_the_cure() {
        let tool = Tool::new("/bin/sh").arg("-c").arg("echo 'password authentication failed' >&2; exit 1");
        let error = tool.run(None).await.expect_err("status 1").to_string();
        assert!(
            error.ends_with(
                "failed; check postgresql.authentication, which must be the same on all nodes, and pg_hba"
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_configuration_is_withheld() {
        let mut command = Command::new("/usr/bin/env");
        let given = ["PATRONI_SUPERUSER_PASSWORD", "PGHERD_REPLICATION_PASSWORD", "LANG_OF_MINE"];
        command.env_clear().envs(given.map(|name| (name, "value")));
        withhold_configuration(&mut command, given.into_iter().map(OsString::from));
        let printed = command.output().await.expect("env(1)").stdout;
        assert_eq!(String::from_utf8_lossy(&printed), "LANG_OF_MINE=value\n");
    }

    #[tokio::test]
    async fn a_failure_holds_what_the_program_said() {
        let tool = Tool::new("/bin/sh").arg("-c").arg("echo cause; echo why >&2; exit 3");
        let error = tool.run(None).await.expect_err("status 3").to_string();
        assert_eq!(error, "sh failed (exit status: 3): why");
    }

    #[test]
    fn a_password_in_a_failed_statement_is_not_told() {
        let said = "FATAL: role\nSTATEMENT:  ALTER USER \"x\" WITH PASSWORD E'it''s \\\\ secret';\nend";
        assert_eq!(one_line(said), "FATAL: role | STATEMENT:  ALTER USER \"x\" WITH PASSWORD ... | end");
        let harmless = "password authentication failed for user \"password\"";
        assert_eq!(one_line(harmless), harmless);
        assert_eq!(one_line("alter role x password  'y'"), "alter role x password ...");
    }

    #[tokio::test]
    async fn a_late_program_is_ended_with_what_it_started() {
        let marker = tempfile::tempdir().expect("directory");
        let file = marker.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let tool = Tool::new("/bin/sh").arg("-c").arg(script);
        let error = tool.run(Some(Duration::from_millis(500))).await.expect_err("late");
        assert!(matches!(error, ToolError::Timeout { .. }), "{error}");
        let pid = std::fs::read_to_string(file).expect("pid");
        let stat = format!("/proc/{}/stat", pid.trim());
        let is_gone = || !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let ended = async {
            while !is_gone() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the child is ended too");
    }

    #[tokio::test]
    async fn a_program_that_stands_still_is_ended_and_one_that_moves_is_not() {
        let still = Tool::new("/bin/sleep").arg("600");
        let error = still.run_while_it_moves(Duration::from_millis(500)).await.expect_err("stands still");
        assert!(matches!(error, ToolError::Stalled { .. }), "{error}");
        let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; read -r line < /proc/self/stat; done";
        let moves = Tool::new("/bin/sh").arg("-c").arg(script);
        moves.run_while_it_moves(Duration::from_millis(800)).await.expect("moves");
    }

    #[tokio::test]
    async fn much_output_is_cut_at_the_front() {
        let tool = Tool::new("/bin/sh").arg("-c").arg("head -c 1000000 /dev/zero | tr '\\0' x; echo end");
        let printed = tool.run(None).await.expect("success");
        assert_eq!(printed.len(), KEPT_OUTPUT);
        assert!(printed.ends_with("end\n"));
    }
}
