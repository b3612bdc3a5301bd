//! Where lines go: standard error, or a file with rotation.
//!
//! Promises that a file which cannot be written costs records and nothing else: it is opened anew with the next one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::settings::LogFile;

/// A destination of lines.
pub(super) trait Sink: Send {
    /// Writes a line and its end.
    fn write(&mut self, line: &str) -> io::Result<()>;
}

/// Standard error, one write a line.
#[derive(Debug)]
pub(super) struct StandardError;

impl Sink for StandardError {
    fn write(&mut self, line: &str) -> io::Result<()> {
        io::stderr().lock().write_all(format!("{line}\n").as_bytes())
    }
}

/// A file that is rotated by size: `NAME` becomes `NAME.1`, that one `NAME.2`, and so on.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    settings: LogFile,
    open: Option<(File, u64)>,
}

impl Rotating {
    /// Opens the file, so that a mistake is seen at once.
    pub(super) fn open(settings: &LogFile, name: &str) -> io::Result<Self> {
        let path = settings.dir.join(name);
        let open = Some(appending(&path, settings.mode)?);
        Ok(Self { path, settings: settings.clone(), open })
    }

    fn is_full(&self, size: u64, more: u64) -> bool {
        let LogFile { file_num, file_size, .. } = self.settings;
        file_num > 0 && file_size > 0 && size > 0 && size.saturating_add(more) > file_size
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        for number in (1..self.settings.file_num).rev() {
            let (from, to) = (self.numbered(number), self.numbered(number + 1));
            match std::fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.open.as_ref().is_some_and(|(_, size)| self.is_full(*size, length)) {
            self.rotate()?;
        }
        let (mut file, size) = match self.open.take() {
            Some(open) => open,
            None => appending(&self.path, self.settings.mode)?,
        };
        file.write_all(bytes)?;
        self.open = Some((file, size.saturating_add(length)));
        Ok(())
    }
}

impl Sink for Rotating {
    fn write(&mut self, line: &str) -> io::Result<()> {
        // Without an open file the next line opens it anew.
        self.try_write(format!("{line}\n").as_bytes())
    }
}

fn appending(path: &Path, mode: Option<u32>) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(mode.unwrap_or(0o666)).open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_rotated_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = LogFile { dir: dir.path().to_owned(), mode: Some(0o640), file_num: 2, file_size: 10 };
        let mut sink = Rotating::open(&settings, "a.log").expect("opened");
        for line in ["1234567", "abc", "defghij", "k", "lmnopqrstuvwxyz", "end"] {
            sink.write(line).expect("written");
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
        assert_eq!(read("a.log").as_deref(), Some("end\n"));
        assert_eq!(read("a.log.1").as_deref(), Some("lmnopqrstuvwxyz\n"));
        assert_eq!(read("a.log.2").as_deref(), Some("defghij\nk\n"));
        assert_eq!(read("a.log.3"), None);
        let mode = std::fs::metadata(&sink.path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_file_is_continued_and_opened_again_after_a_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let below = dir.path().join("logs");
        std::fs::create_dir(&below).expect("made");
        let settings = LogFile { dir: below.clone(), mode: None, file_num: 1, file_size: 6 };
        Rotating::open(&settings, "a.log").expect("opened").write("one").expect("written");
        let mut sink = Rotating::open(&settings, "a.log").expect("opened again");
        std::fs::rename(&below, dir.path().join("away")).expect("moved");
        assert!(sink.write("two").is_err());
        std::fs::rename(dir.path().join("away"), &below).expect("moved back");
        sink.write("three").expect("written");
        let text = std::fs::read_to_string(below.join("a.log")).expect("read");
        assert!(text.ends_with("three\n"), "{text}");
    }
}
