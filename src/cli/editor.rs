//! The operator's editor and pager.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Failure;
use super::output::Output;

/// Lets the operator edit a text, and returns what came of it.
pub(super) fn edit(output: &Output, text: &str, name: &str) -> Result<String, Failure> {
    let words = editor()?;
    let Some((program, options)) = words.split_first() else {
        return Err(Failure::because("EDITOR names no program"));
    };
    let file = Scratch::write(text, name)
        .map_err(|source| Failure::because(format!("cannot write a file for the editor: {source}")))?;
    let mut command = Command::new(program);
    command.args(options).arg(&file.path);
    let ended = output.terminal().lent(|| command.status());
    let ended = ended.map_err(|source| {
        Failure::because(format!("cannot start the editor {}: {source}", program.to_string_lossy()))
    })?;
    if !ended.success() {
        let code = ended.code().map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        return Err(Failure::because(format!("Editor exited with return code {code}")));
    }
    std::fs::read_to_string(&file.path)
        .map_err(|source| Failure::because(format!("cannot read what was edited: {source}")))
}

/// `$EDITOR` with its arguments, or the usual ones.
fn editor() -> Result<Vec<OsString>, Failure> {
    let named: Vec<OsString> =
        std::env::var("EDITOR").unwrap_or_default().split_whitespace().map(OsString::from).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let usual = ["editor", "vi"].into_iter().find_map(|name| in_path(Path::new(name)));
    usual.map(|path| vec![path.into_os_string()]).ok_or_else(|| {
        Failure::because("EDITOR environment variable is not set. editor or vi are not available")
    })
}

fn in_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// A file that nobody else can read, deleted at the end.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn write(text: &str, name: &str) -> std::io::Result<Self> {
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let file = format!("{name}-config-{}.yaml", std::process::id());
        let path = std::env::temp_dir().join(file);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let scratch = Self { path };
        file.write_all(text.as_bytes())?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The editor may have removed it.
        std::fs::remove_file(&self.path).ok();
    }
}

/// Prints the lines of a diff: coloured on a terminal, page by page when they are more than it has.
pub(super) fn show_diff(output: &mut Output, lines: &[String]) {
    if !output.is_terminal() {
        output.say(&lines.join("\n"));
        return;
    }
    let text = lines.iter().map(|line| coloured(line)).collect::<Vec<_>>().join("\n");
    if output.height().is_some_and(|height| lines.len() >= height) && output.terminal().lent(|| paged(&text))
    {
        return;
    }
    output.say(&text);
}

fn coloured(line: &str) -> String {
    let colour = match line.chars().next() {
        _ if line.starts_with("+++") || line.starts_with("---") => "1",
        Some('+') => "32",
        Some('-') => "31",
        Some('@') => "36",
        Some(_) | None => return line.to_owned(),
    };
    format!("\x1b[{colour}m{line}\x1b[0m")
}

/// Shows a text in the operator's pager; false: there is none that works.
fn paged(text: &str) -> bool {
    let named = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    let usual = ["less", "more"].into_iter().find_map(|name| in_path(Path::new(name)));
    let Some(pager) = named.or_else(|| Some(usual?.to_string_lossy().into_owned())) else { return false };
    let mut words = pager.split_whitespace();
    let Some(program) = words.next() else { return false };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", "-FRX");
    }
    let Ok(mut child) = command.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever leaves the pager early has seen enough.
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.write_all(b"\n")).ok();
    }
    child.wait().is_ok_and(|status| status.success())
}
