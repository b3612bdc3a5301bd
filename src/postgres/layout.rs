//! Where things lie, in what state the data directory is, and the marker file beside it.
//!
//! The marker lies beside the data directory, not inside, because `initdb` and `pg_basebackup` want it empty and
//! because a copy of the data directory must not carry it along.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::PgError;
use super::files;
use super::settings::Settings;
use crate::ha::DataDir;

/// The names inside a data directory which pgherd uses where the directory itself cannot be renamed. PostgreSQL's base
/// backup and `pg_rewind` leave out every name with this beginning, so neither is ever copied to another node.
const INSIDE: &str = "pgsql_tmp.pgherd-";
/// As many names are shown of a directory that is no data directory.
const SHOWN_NAMES: usize = 5;
/// As many given up data directories may wait for their removal.
const MOST_DISCARDED: usize = 8;
/// How many earlier data directories are kept.
pub(super) const KEPT_ASIDE: usize = 2;

/// What is being done, or was done last, to the data directory as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// It is being filled by `initdb` or a base backup: may be emptied.
    Filling(String),
    /// Its content is being moved into this directory inside it: to be gone on with.
    PuttingAside(String),
    /// `pg_rewind` is changing it: must be copied anew if that does not end well.
    Rewinding,
    /// A copy which has not been seen to stream yet: worth less than what was put aside for it.
    Copied,
}

/// The places of one data directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) data_dir: PathBuf,
    state_dir: PathBuf,
    config_dir: PathBuf,
    config_base_name: String,
}

impl Layout {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            data_dir: settings.data_dir.clone(),
            state_dir: settings.state_dir.clone(),
            config_dir: settings.config_dir.clone(),
            config_base_name: settings.config_base_name.clone(),
        }
    }

    pub(super) fn in_data(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    pub(super) fn in_config(&self, name: &str) -> PathBuf {
        self.config_dir.join(name)
    }

    /// The server's configuration file.
    pub(super) fn conf_file(&self) -> PathBuf {
        self.in_config(&format!("{}.conf", self.config_base_name))
    }

    /// What is included first, unless the configuration names another file for that.
    pub(super) fn base_file(&self) -> PathBuf {
        self.in_config(&format!("{}.base.conf", self.config_base_name))
    }

    /// The cluster's settings as this node knew them last, under Patroni's name for them.
    pub(super) fn document_file(&self) -> PathBuf {
        self.in_data("patroni.dynamic.json")
    }

    /// A directory in which PostgreSQL is asked about parameters.
    pub(super) fn check_dir(&self, number: u32) -> PathBuf {
        self.named(&self.state_dir, &format!(".pgherd-check-{number}"))
    }

    /// Does what happens to the data directory as a whole happen to the configuration as well?
    pub(super) fn has_config_in_data(&self) -> bool {
        self.config_dir.starts_with(&self.data_dir)
    }

    fn named(&self, directory: &Path, suffix: &str) -> PathBuf {
        let mut name: OsString = self.data_dir.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        directory.join(name)
    }

    fn marker_file(&self) -> PathBuf {
        self.named(&self.state_dir, ".pgherd-state")
    }

    /// The epoch up to which this standby follows nobody.
    pub(super) fn fence_file(&self) -> PathBuf {
        self.named(&self.state_dir, ".pgherd-fence")
    }

    /// The restart which an operator scheduled.
    pub(super) fn restart_file(&self) -> PathBuf {
        self.named(&self.state_dir, ".pgherd-restart")
    }

    /// A password file for the run of one program.
    pub(super) fn tool_pgpass(&self) -> PathBuf {
        self.named(&self.state_dir, ".pgherd-tool-pgpass")
    }

    /// A file of connection services for the run of one program.
    pub(super) fn tool_service(&self) -> PathBuf {
        self.named(&self.state_dir, ".pgherd-tool-service")
    }

    /// Where earlier data is put aside, the oldest first: beside the data directory, or inside it when it cannot be
    /// renamed.
    pub(super) fn asides(&self) -> Vec<PathBuf> {
        let parent = self.data_dir.parent().unwrap_or(Path::new("/"));
        let beside = (1..=KEPT_ASIDE).map(|i| self.named(parent, &format!(".pgherd-before-clone.{i}")));
        let inside = (1..=KEPT_ASIDE).map(|i| self.in_data(&format!("{INSIDE}before-clone.{i}")));
        beside.chain(inside).filter(|path| path.symlink_metadata().is_ok()).collect()
    }

    /// What was given up and is being removed.
    pub(super) fn discarded(&self) -> Vec<PathBuf> {
        let parent = self.data_dir.parent().unwrap_or(Path::new("/"));
        let beside = (1..=MOST_DISCARDED).map(|i| self.named(parent, &format!(".pgherd-discarded.{i}")));
        let inside = (1..=MOST_DISCARDED).map(|i| self.in_data(&format!("{INSIDE}discarded.{i}")));
        beside.chain(inside).filter(|path| path.symlink_metadata().is_ok()).collect()
    }

    /// Where data goes that is given up: in the same directory, so that renaming is enough.
    pub(super) fn next_discarded(&self, aside: &Path) -> PathBuf {
        let is_inside = aside.parent() == Some(&self.data_dir);
        let parent = self.data_dir.parent().unwrap_or(Path::new("/"));
        let path = |i| match is_inside {
            true => self.in_data(&format!("{INSIDE}discarded.{i}")),
            false => self.named(parent, &format!(".pgherd-discarded.{i}")),
        };
        let free = (1..=MOST_DISCARDED).map(&path).find(|path| path.symlink_metadata().is_err());
        free.unwrap_or_else(|| path(MOST_DISCARDED))
    }

    /// Where the WAL is kept which a rewind takes away.
    pub(super) fn diverged_wal(&self) -> PathBuf {
        self.named(&self.state_dir, ".pgherd-diverged-wal")
    }

    /// The path for the next data to put aside, beside the data directory.
    pub(super) fn next_aside(&self) -> PathBuf {
        let parent = self.data_dir.parent().unwrap_or(Path::new("/"));
        self.first_free(|i| self.named(parent, &format!(".pgherd-before-clone.{i}")))
    }

    /// The same, inside the data directory.
    pub(super) fn next_aside_inside(&self) -> PathBuf {
        self.first_free(|i| self.in_data(&format!("{INSIDE}before-clone.{i}")))
    }

    /// A directory inside the data directory which is filled where the data directory itself cannot be empty.
    pub(super) fn staging(&self) -> PathBuf {
        self.in_data(&format!("{INSIDE}new"))
    }

    fn first_free(&self, path: impl Fn(usize) -> PathBuf) -> PathBuf {
        let free = (1..=KEPT_ASIDE).map(&path).find(|path| path.symlink_metadata().is_err());
        free.unwrap_or_else(|| path(KEPT_ASIDE))
    }

    pub(super) fn marker(&self) -> Result<Option<Marker>, PgError> {
        let Some(text) = files::read(&self.marker_file())? else {
            return Ok(None);
        };
        let marker = match text.trim().split_once(": ") {
            Some(("filling", what)) => Marker::Filling(what.to_owned()),
            Some(("putting aside", name)) => Marker::PuttingAside(name.to_owned()),
            _ if text.trim() == "rewinding" => Marker::Rewinding,
            _ if text.trim() == "copied" => Marker::Copied,
            _ => {
                let path = self.marker_file();
                let path = path.display();
                return Err(PgError::Refused(format!(
                    "{path} was written by another version of pgherd: look at the data directory, then remove the file"
                )));
            }
        };
        Ok(Some(marker))
    }

    pub(super) fn mark(&self, marker: &Marker) -> Result<(), PgError> {
        let text = match marker {
            Marker::Filling(what) => format!("filling: {what}\n"),
            Marker::PuttingAside(name) => format!("putting aside: {name}\n"),
            Marker::Rewinding => "rewinding\n".to_owned(),
            Marker::Copied => "copied\n".to_owned(),
        };
        files::write(&self.marker_file(), &text).map(|_| ())
    }

    pub(super) fn unmark(&self) -> Result<(), PgError> {
        files::remove(&self.marker_file()).map(|_| ())
    }

    /// The major version of the data directory.
    pub(super) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.in_data("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// In what state is the data directory?
    pub(super) fn classify(&self) -> DataDir {
        match self.marker() {
            Ok(Some(Marker::Filling(_) | Marker::PuttingAside(_))) => return DataDir::Incomplete,
            Ok(Some(Marker::Rewinding | Marker::Copied) | None) => {}
            Err(error) => return DataDir::Foreign(error.in_full()),
        }
        if self.in_data("global/pg_control").is_file() && self.major().is_some() {
            return DataDir::Initialised {
                has_backup_label: self.in_data("backup_label").exists(),
                has_standby_signal: self.in_data("standby.signal").exists(),
            };
        }
        match foreign_names(&self.data_dir) {
            Ok(names) if names.is_empty() => DataDir::Empty,
            Ok(names) => DataDir::Foreign(format!(
                "{} is not empty and holds no database system: it has {}",
                self.data_dir.display(),
                names.join(", ")
            )),
            Err(error) => DataDir::Foreign(format!("cannot read {}: {error}", self.data_dir.display())),
        }
    }
}

/// What lies in a directory apart from what a fresh file system or pgherd itself has put there.
fn foreign_names(directory: &Path) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_foreign = !name.starts_with('.') && name != "lost+found" && !name.starts_with(INSIDE);
        if is_foreign {
            names.push(name);
        }
        if names.len() >= SHOWN_NAMES {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// Is this one of pgherd's own names inside a data directory?
pub(super) fn is_own_name(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with(INSIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &Path) -> Layout {
        Layout::of(&Settings::new("s", "m", &root.join("data"), 1))
    }

    #[test]
    fn each_state_of_a_data_directory_is_told() {
        let root = tempfile::tempdir().expect("directory");
        let layout = layout(root.path());
        let data = root.path().join("data");
        assert_eq!(layout.classify(), DataDir::Empty);
        fs::create_dir(&data).expect("directory");
        fs::create_dir(data.join("lost+found")).expect("directory");
        fs::write(data.join(".keep"), "").expect("file");
        assert_eq!(layout.classify(), DataDir::Empty);
        fs::write(data.join("letter.txt"), "").expect("file");
        let DataDir::Foreign(why) = layout.classify() else { panic!("foreign") };
        assert!(why.contains("letter.txt"), "{why}");
        fs::create_dir(data.join("global")).expect("directory");
        fs::write(data.join("global/pg_control"), "").expect("file");
        fs::write(data.join("PG_VERSION"), "15\n").expect("file");
        let plain = DataDir::Initialised { has_backup_label: false, has_standby_signal: false };
        assert_eq!(layout.classify(), plain);
        fs::write(data.join("standby.signal"), "").expect("file");
        let standby = DataDir::Initialised { has_backup_label: false, has_standby_signal: true };
        assert_eq!(layout.classify(), standby);
        layout.mark(&Marker::Filling("base backup".to_owned())).expect("marked");
        assert_eq!(layout.classify(), DataDir::Incomplete);
        layout.mark(&Marker::Copied).expect("marked");
        assert_eq!(layout.classify(), standby);
        layout.unmark().expect("unmarked");
        assert_eq!(layout.marker().expect("read"), None);
    }

    #[test]
    fn markers_survive_and_an_unknown_one_is_not_guessed_at() {
        let root = tempfile::tempdir().expect("directory");
        let layout = layout(root.path());
        for marker in [
            Marker::Filling("initdb".to_owned()),
            Marker::PuttingAside("x".to_owned()),
            Marker::Rewinding,
            Marker::Copied,
        ] {
            layout.mark(&marker).expect("marked");
            assert_eq!(layout.marker().expect("read"), Some(marker));
        }
        fs::write(layout.marker_file(), "something else").expect("file");
        assert!(matches!(layout.classify(), DataDir::Foreign(_)));
    }
}
