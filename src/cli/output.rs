//! The only place of the tool that prints and asks.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::sync::Arc;

use super::Failure;
use super::interrupt::Terminal;

/// Longer lines are hard to read.
const WIDEST: usize = 100;
/// In fewer columns an indented sentence is a word a line.
const NARROWEST: usize = 40;

/// The terminal, or what stands in its place. A reader that went away (`| head`) is no error.
#[derive(Debug, Default)]
pub(super) struct Output {
    terminal: Arc<Terminal>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// What Ctrl-C has to know.
    pub(super) fn terminal(&self) -> Arc<Terminal> {
        Arc::clone(&self.terminal)
    }

    /// A line, or several, on standard output.
    pub(super) fn say(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// The terminal's width in characters, within what can be read well; the widest where there is no terminal.
    pub(super) fn width(&self) -> usize {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout());
        let columns = size.map_or(WIDEST, |size| usize::from(size.ws_col));
        if columns == 0 { WIDEST } else { columns.clamp(NARROWEST, WIDEST) }
    }

    /// Does a person read it at once?
    pub(super) fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// The terminal's height in lines, if there is one.
    pub(super) fn height(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
        Some(usize::from(size.ws_row)).filter(|rows| *rows > 0 && self.is_terminal())
    }

    /// A line that is written over by the next one; only a terminal shows it. An empty one takes it away.
    pub(super) fn progress(&mut self, text: &str) {
        if self.is_terminal() {
            let columns = rustix::termios::tcgetwinsize(rustix::stdio::stdout());
            let columns = columns.map_or(0, |size| usize::from(size.ws_col)).max(NARROWEST);
            let text: String = text.chars().take(columns.saturating_sub(1)).collect();
            self.write(&format!("\r\x1b[K{text}"));
        }
    }

    /// Empties the screen.
    pub(super) fn clear(&mut self) {
        self.write("\x1b[H\x1b[2J");
    }

    /// A line on standard error.
    pub(super) fn complain(&mut self, text: &str) {
        if writeln!(std::io::stderr(), "{text}").is_err() {
            // Nobody is left who could be told.
        }
    }

    /// Asks for a text; the answer to an empty line is the default, if there is one.
    pub(super) fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, Failure> {
        loop {
            match default {
                Some(default) => self.write(&format!("{question} [{default}]: ")),
                None => self.write(&format!("{question}: ")),
            }
            let line = self.read_line()?;
            match (line.trim(), default) {
                ("", Some(default)) => return Ok(default.to_owned()),
                ("", None) => {}
                (text, _) => return Ok(text.to_owned()),
            }
        }
    }

    /// Asks a question which is denied by an empty line.
    pub(super) fn confirm(&mut self, question: &str) -> Result<bool, Failure> {
        loop {
            self.write(&format!("{question} [y/N]: "));
            match self.read_line()?.trim().to_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "" | "n" | "no" => return Ok(false),
                _ => self.say("Error: invalid input"),
            }
        }
    }

    /// Asks for a text that the terminal does not show.
    pub(super) fn ask_hidden(&mut self, question: &str) -> Result<String, Failure> {
        self.write(&format!("{question}: "));
        let cannot = |why| Failure::because(format!("cannot hide what is typed: {why}"));
        let is_hidden = self.terminal.hide().map_err(cannot)?;
        let line = self.read_line();
        if is_hidden {
            self.terminal.show();
            self.write("\n");
        }
        line.map(|line| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// All of standard input, up to so many bytes.
    pub(super) fn read_all(&self, most: u64) -> std::io::Result<String> {
        let mut text = String::new();
        std::io::stdin().lock().take(most).read_to_string(&mut text)?;
        Ok(text)
    }

    fn write(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            // The reader went away; the command's effect does not depend on it.
        }
    }

    fn read_line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => {
                self.write("\n");
                Err(Failure::Aborted)
            }
            Ok(_) => Ok(line),
        }
    }
}
