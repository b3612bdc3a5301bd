//! Small durable steps on files and directories, and the lock that keeps a second process out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::error::StoreError;

/// More directories set aside than this means that somebody should look.
const MAX_ASIDE: u32 = 1_000;

/// Writes a file that must not exist yet and makes its content durable (not its directory entry).
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::io("write", path))
}

/// Puts a new file in the place of `path` in one step, durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let staging = sibling(path, ".", ".new");
    match fs::remove_file(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove unfinished", &staging)(error));
        }
        Ok(()) | Err(_) => {}
    }
    write_new(&staging, bytes)?;
    fs::rename(&staging, path).map_err(StoreError::io("replace", path))?;
    sync_dir(parent(path))
}

/// Reads a file of at most `limit` bytes (the rest is cut off); `None` when it does not exist.
pub(crate) fn read_limited(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    Ok(Some(bytes))
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", path))
}

/// Makes everything below a directory durable, the directory included.
pub(crate) fn sync_tree(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(StoreError::io("list", path))? {
        let entry = entry.map_err(StoreError::io("list", path))?;
        let child = entry.path();
        let kind = entry.file_type().map_err(StoreError::io("inspect", &child))?;
        if kind.is_dir() {
            sync_tree(&child)?;
        } else if kind.is_file() {
            File::open(&child).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &child))?;
        }
    }
    sync_dir(path)
}

/// Parent of a path, "." for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A path beside `path`, with `before` and `after` around its name.
pub(crate) fn sibling(path: &Path, before: &str, after: &str) -> PathBuf {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    parent(path).join(format!("{before}{name}{after}"))
}

/// Renames a directory to the first free `NAME.aside-N` beside it, durably.
pub(crate) fn set_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let aside = free_aside(dir)?;
    fs::rename(dir, &aside).map_err(StoreError::io("set aside", dir))?;
    sync_dir(parent(dir))?;
    Ok(aside)
}

/// The first free `NAME.aside-N` beside a directory.
pub(crate) fn free_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let mut names = (1..=MAX_ASIDE).map(|number| sibling(dir, "", &format!(".aside-{number}")));
    names.find(|path| path.symlink_metadata().is_err()).ok_or_else(|| {
        let source = io::Error::other(format!("{MAX_ASIDE} directories were set aside already"));
        StoreError::Io { operation: "set aside", path: dir.to_path_buf(), source }
    })
}

/// Lets two directories change places in one step, durably.
pub(crate) fn exchange(one: &Path, other: &Path) -> Result<(), StoreError> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(|error| StoreError::io("put a new store in the place of", other)(error.into()))?;
    sync_dir(parent(other))
}

/// The lock on a store, held while the value lives. It is a file beside the directory, so that it also covers
/// the time before the directory exists and while it is renamed.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock or says who is in the way.
    pub(crate) fn take(dir: &Path) -> Result<Lock, StoreError> {
        let path = sibling(dir, ".", ".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { path: dir.to_path_buf() }),
            Err(error) => Err(StoreError::io("lock", &path)(error.into())),
        }
    }
}
