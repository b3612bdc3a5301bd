//! Keeps what somebody else wrote as `pg_hba.conf` and `pg_ident.conf`.
//!
//! Such a file stays in force while the configuration has no lines of its own for it. Before it is replaced it is kept
//! beside as `pg_hba.conf.backup`, the next ones as `pg_hba.conf.backup.2` and so on. Neither a rewind nor a new copy,
//! which bring the files of another node, takes them away.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::PgError;
use super::layout::Layout;
use super::{conf, files};

/// The files which somebody else may have written.
const NAMES: [&str; 2] = ["pg_hba.conf", "pg_ident.conf"];
/// As many different ones are kept of each; the last one gives way.
const MOST_KEPT: usize = 5;

/// Is this a file that pgherd did not write? A missing one is not.
pub(super) fn is_foreign(path: &Path) -> Result<bool, PgError> {
    Ok(bytes(path)?.is_some_and(|found| !found.starts_with(conf::HEADER.as_bytes())))
}

/// Replaces a file; what somebody else wrote is kept.
pub(super) fn replace(path: &Path, content: &str) -> Result<(), PgError> {
    if is_foreign(path)?
        && let Some(found) = bytes(path)?.filter(|found| found != content.as_bytes())
    {
        keep(path, &found)?;
    }
    files::write(path, content).map(|_| ())
}

/// Takes along what was kept of the files of an earlier data directory, and what was in force there.
pub(super) fn carry_over(layout: &Layout) -> Result<(), PgError> {
    if !layout.has_config_in_data() {
        return Ok(());
    }
    for (aside, name) in layout.asides().iter().flat_map(|aside| NAMES.map(|name| (aside, name))) {
        let (old, new) = (aside.join(name), layout.in_config(name));
        let in_force = is_foreign(&old)?.then(|| old.clone());
        for path in backups(&old).chain(in_force) {
            match bytes(&path)? {
                Some(found) if bytes(&new)?.is_none_or(|present| present != found) => keep(&new, &found)?,
                Some(_) | None => {}
            }
        }
    }
    Ok(())
}

/// The content of all files of this node which a rewind replaces by those of its source.
pub(super) fn remember(layout: &Layout) -> Result<Vec<(PathBuf, Vec<u8>)>, PgError> {
    if !layout.has_config_in_data() {
        return Ok(Vec::new());
    }
    let mut paths = vec![layout.base_file()];
    for path in NAMES.map(|name| layout.in_config(name)) {
        paths.extend(backups(&path));
        paths.push(path);
    }
    let contents = paths.into_iter().map(|path| Ok(bytes(&path)?.map(|found| (path, found))));
    contents.filter_map(Result::transpose).collect()
}

/// Puts back what was remembered.
pub(super) fn put_back(remembered: &[(PathBuf, Vec<u8>)]) -> Result<(), PgError> {
    remembered.iter().try_for_each(|(path, content)| files::write_bytes(path, content).map(|_| ()))
}

fn backups(path: &Path) -> impl Iterator<Item = PathBuf> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let next: Vec<_> = (2..=MOST_KEPT).map(|i| named(&format!(".backup.{i}"))).collect();
    std::iter::once(named(".backup")).chain(next)
}

/// Keeps this content beside the file, unless it is kept already.
fn keep(path: &Path, content: &[u8]) -> Result<(), PgError> {
    let mut last = None;
    for backup in backups(path) {
        match bytes(&backup)? {
            Some(kept) if kept == content => return Ok(()),
            Some(_) => last = Some(backup),
            None => {
                last = Some(backup);
                break;
            }
        }
    }
    let Some(backup) = last else { return Ok(()) };
    files::write_bytes(&backup, content)?;
    tracing::info!("{} was not written by pgherd: it is kept as {}", path.display(), backup.display());
    Ok(())
}

/// A file as it is, in whatever encoding.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>, PgError> {
    match std::fs::read(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PgError::file("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Settings;

    fn read(path: &Path) -> String {
        String::from_utf8_lossy(&std::fs::read(path).expect("file")).into_owned()
    }

    #[test]
    fn each_foreign_file_is_kept_once() {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("pg_hba.conf");
        let own = format!("{}\nlocal all all peer\n", conf::HEADER);
        replace(&path, &own).expect("written");
        replace(&path, &own).expect("written again");
        assert_eq!(std::fs::read_dir(root.path()).expect("list").count(), 1, "nothing foreign, nothing kept");
        for foreign in ["local all all trust # \u{e9}\n", "a", "b", "local all all trust # \u{e9}\n"] {
            std::fs::write(&path, foreign).expect("file");
            replace(&path, &own).expect("written");
            assert_eq!(read(&path), own);
        }
        let kept: Vec<_> = backups(&path).filter(|path| path.exists()).map(|path| read(&path)).collect();
        assert_eq!(kept, ["local all all trust # \u{e9}\n", "a", "b"]);
        for number in 0..100 {
            std::fs::write(&path, number.to_string()).expect("file");
            replace(&path, &own).expect("written");
        }
        let kept: Vec<_> = backups(&path).filter(|path| path.exists()).map(|path| read(&path)).collect();
        assert_eq!(kept, ["local all all trust # \u{e9}\n", "a", "b", "0", "99"]);
        std::fs::write(&path, [0xff, 0xfe]).expect("file");
        assert!(is_foreign(&path).expect("read"), "not every file is UTF-8");
    }

    #[test]
    fn a_new_copy_takes_along_what_was_kept() {
        let root = tempfile::tempdir().expect("directory");
        let layout = Layout::of(&Settings::new("s", "m", &root.path().join("data"), 1));
        let aside = layout.next_aside();
        for directory in [&layout.data_dir, &aside] {
            std::fs::create_dir(directory).expect("directory");
        }
        std::fs::write(aside.join("pg_hba.conf"), conf::HEADER).expect("file");
        std::fs::write(aside.join("pg_hba.conf.backup"), "first").expect("file");
        std::fs::write(aside.join("pg_ident.conf"), "in force").expect("file");
        std::fs::write(layout.in_config("pg_ident.conf"), "in force").expect("file");
        carry_over(&layout).expect("carried over");
        assert_eq!(read(&layout.in_config("pg_hba.conf.backup")), "first");
        assert!(!layout.in_config("pg_ident.conf.backup").exists(), "the copy has the same");
    }
}
