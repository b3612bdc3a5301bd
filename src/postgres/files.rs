//! Small files written durably: aside, fsync, rename, fsync of the directory.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::PgError;

/// The mode of files which may hold secrets or are nobody else's business.
const PRIVATE: u32 = 0o600;
/// Larger files than this are not PostgreSQL's configuration.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Runs blocking file work away from the async threads. Once begun it goes on to its end, also when the caller goes
/// away: each piece leaves the files whole.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PgError> + Send + 'static,
) -> Result<T, PgError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(PgError::Refused("the file work was interrupted".to_owned())))
}

/// Looks at files one at a time: while one look hangs with its disk, no other is begun, so that threads do not pile up.
#[derive(Clone, Debug, Default)]
pub(super) struct OneLook {
    is_looking: Arc<AtomicBool>,
}

impl OneLook {
    /// Is an earlier look still under way?
    pub(super) fn hangs(&self) -> bool {
        self.is_looking.load(Ordering::Acquire)
    }

    /// The look; none: an earlier one has not come back.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.is_looking.swap(true, Ordering::AcqRel) {
            return None;
        }
        let end = EndOfLook(Arc::clone(&self.is_looking));
        let look = tokio::task::spawn_blocking(move || {
            let _end = end;
            work()
        });
        look.await.ok()
    }
}

struct EndOfLook(Arc<AtomicBool>);

impl Drop for EndOfLook {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Replaces a file's content; true when it was another one.
pub(super) fn write(path: &Path, content: &str) -> Result<bool, PgError> {
    write_bytes(path, content.as_bytes())
}

/// The same for a content in whatever encoding.
pub(super) fn write_bytes(path: &Path, content: &[u8]) -> Result<bool, PgError> {
    let is_private = std::fs::metadata(path).is_ok_and(|is| is.permissions().mode() & 0o077 == 0);
    if is_private && std::fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".pgherd-new");
    let aside = Path::new(&aside);
    let written = (|| {
        match std::fs::remove_file(aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(aside, path)?;
        sync_parent(path)
    })();
    written.map_err(PgError::file("write", path))?;
    Ok(true)
}

/// The content of a file; none when it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, PgError> {
    let is_too_large = std::fs::metadata(path).is_ok_and(|is| is.len() > LARGEST);
    if is_too_large {
        return Err(PgError::Refused(format!("{} is larger than any file of its kind", path.display())));
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PgError::file("read", path)(error)),
    }
}

/// Removes a file; true when it was there.
pub(super) fn remove(path: &Path) -> Result<bool, PgError> {
    match std::fs::remove_file(path) {
        Ok(()) => {
            sync_parent(path).map_err(PgError::file("remove", path))?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PgError::file("remove", path)(error)),
    }
}

/// Renames durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), PgError> {
    std::fs::rename(from, to)
        .and_then(|()| sync_parent(from))
        .and_then(|()| sync_parent(to))
        .map_err(PgError::file("rename", from))
}

/// Makes a change of names in a file's directory durable.
pub(super) fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nobody_else_may_read_it() {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("x.conf");
        assert!(write(&path, "one").expect("written"));
        assert!(!write(&path, "one").expect("the same"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("mode");
        assert!(write(&path, "one").expect("the mode is put right"));
        assert!(write(&path, "two").expect("written"));
        assert_eq!(read(&path).expect("read").as_deref(), Some("two"));
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(root.path()).expect("list").count(), 1);
        assert!(remove(&path).expect("removed") && !remove(&path).expect("again"));
        assert_eq!(read(&path).expect("gone"), None);
    }
}
