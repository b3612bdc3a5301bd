//! Where a guard and its daemon meet: a private directory on tmpfs, and names derived from the data directory.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::error::GuardError;

/// The files of one data directory's guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The data directory, canonical.
    pub(super) data_dir: PathBuf,
    /// The private directory.
    pub(super) directory: PathBuf,
    /// A hash of the data directory's path, so that the socket's name stays within its 107 bytes.
    name: String,
}

impl Place {
    /// The place of this data directory's guard, which need not exist yet. Makes the private directory.
    pub(super) fn find(data_dir: &Path) -> Result<Self, GuardError> {
        Self::within(data_dir, runtime_directory()?)
    }

    /// The same in a given private directory.
    pub(super) fn within(data_dir: &Path, directory: PathBuf) -> Result<Self, GuardError> {
        let data_dir = canonical(data_dir)
            .map_err(|source| GuardError::DataDir { path: data_dir.to_owned(), source })?;
        let name = format!("{:016x}", fnv1a(data_dir.as_os_str().as_encoded_bytes()));
        Ok(Self { data_dir, directory, name })
    }

    /// The shared page.
    pub(super) fn page(&self) -> PathBuf {
        self.file("page")
    }

    /// The guard's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// Locked by the guard as long as it lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.file("lock")
    }

    /// What the guard did, for the time when no daemon listens.
    pub(super) fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// Says which watchdog device is open, for the guard after one that was killed.
    pub(super) fn watchdog(&self) -> PathBuf {
        self.file("watchdog")
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", self.name))
    }
}

/// The canonical path, also of something that is not there yet: a restarted daemon must come to the same name whether
/// or not the data directory has been made meanwhile.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        decided => return decided,
    }
    if let Ok(target) = fs::read_link(path) {
        let base = path.parent().unwrap_or(Path::new("/"));
        return canonical(&base.join(target));
    }
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(canonical(parent)?.join(name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// FNV-1a, 64 bits: the same in every version of this program, unlike std's hasher. A collision is found out, since
/// the page holds the whole path.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The first usable of the directories: memory only, since the page must not outlive the boot and writing to it must
/// never wait for a disk.
fn runtime_directory() -> Result<PathBuf, GuardError> {
    let uid = rustix::process::geteuid().as_raw();
    let candidates = [
        PathBuf::from(format!("/dev/shm/pgherd-{uid}")),
        PathBuf::from(format!("/run/user/{uid}/pgherd")),
        PathBuf::from(format!("/tmp/pgherd-{uid}")),
    ];
    let mut refused = None;
    for path in candidates {
        match private_directory(&path, uid) {
            Ok(()) => {
                if path.starts_with("/tmp") {
                    tracing::warn!(
                        "the guard's page lies in {}, which may be on a disk: mount /dev/shm",
                        path.display()
                    );
                }
                return Ok(path);
            }
            // A directory that is there and not ours is never passed over in silence: the next start could come to
            // another choice and to a second guard.
            Err(GuardError::RuntimeDir { path, reason }) if path.exists() => {
                return Err(GuardError::RuntimeDir { path, reason });
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| GuardError::RuntimeDir {
        path: PathBuf::from("/dev/shm"),
        reason: "no directory was tried".to_owned(),
    }))
}

fn private_directory(path: &Path, uid: u32) -> Result<(), GuardError> {
    let refuse = |reason: String| GuardError::RuntimeDir { path: path.to_owned(), reason };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refuse(format!("{error}; mount a tmpfs on /dev/shm"))),
    }
    let seen = fs::symlink_metadata(path).map_err(|error| refuse(error.to_string()))?;
    if !seen.is_dir() {
        return Err(refuse("it is not a directory; remove it".to_owned()));
    }
    if seen.uid() != uid {
        return Err(refuse(format!("it belongs to user id {}, not {uid}; remove it", seen.uid())));
    }
    if seen.mode() & 0o077 != 0 {
        return Err(refuse("others may enter it; chmod it to 0700".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_same_before_and_after_the_directory_is_made() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let real = temp.path().join("real");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("symlink");
        let place = |path: &Path| Place::within(path, temp.path().to_owned()).expect("a place");
        let before = (place(&real), place(&link));
        fs::create_dir(&real).expect("create");
        assert_eq!(before, (place(&real), place(&link)));
        assert_eq!(before.0, before.1);
        assert_ne!(before.0.page(), place(temp.path()).page());
    }

    #[test]
    fn a_directory_which_others_may_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().expect("temporary directory");
        let uid = rustix::process::geteuid().as_raw();
        let path = temp.path().join("shared");
        private_directory(&path, uid).expect("made");
        private_directory(&path, uid).expect("found");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("chmod");
        assert!(private_directory(&path, uid).is_err());
        assert!(private_directory(&path, uid + 1).is_err());
    }
}
