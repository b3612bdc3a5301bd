//! What can go wrong with a store, told apart by what the operator or the caller has to do.
//!
//! A store that is damaged is no error but the outcome [`crate::Opened::Amnesiac`]: the node can go on under a
//! new id. Errors are what stands in the way of opening at all, and what ends a store that was open.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a store could not be opened, or an operation on it not be done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A call of the operating system failed.
    #[error("cannot {operation} {}: {source}; check permissions, free space and the disk", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the store {} is in use by another process; stop the other daemon of this scope first", path.display())]
    Locked {
        /// Directory of the store.
        path: PathBuf,
    },
    /// The path is taken by something that is no directory.
    #[error("{} is not a directory; remove it or set another raft.data_dir", path.display())]
    NotADirectory {
        /// The path that was to be the store.
        path: PathBuf,
    },
    /// The store was written by another version of this program.
    #[error(
        "the store {} has format {found}, this program knows format {known} only; run the version that wrote it, or move the directory away so that this member joins anew",
        path.display()
    )]
    UnknownFormat {
        /// Directory of the store.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version this program reads and writes.
        known: u32,
    },
    /// sled could not open its files for a reason that is no damage (a full disk, for example).
    #[error("cannot open the database in {}: {reason}; sled needs some free space to open", path.display())]
    Open {
        /// Directory of the database.
        path: PathBuf,
        /// What sled said.
        reason: String,
    },
    /// A stored value has the right checksum and cannot be understood.
    #[error("cannot understand {what} in the store: {reason}; run the version of the program that wrote it")]
    Decode {
        /// Which value.
        what: String,
        /// What the decoder said.
        reason: String,
    },
    /// A value cannot be written as JSON.
    #[error("cannot encode {what} for the store: {reason}")]
    Encode {
        /// Which value.
        what: &'static str,
        /// What the encoder said.
        reason: String,
    },
    /// A value is larger than the store takes.
    #[error("{what} has {size} bytes, the store takes at most {limit}")]
    TooLarge {
        /// Which value.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes (for the number of notes: a count).
        limit: usize,
    },
    /// An entry does not follow the last one; nothing was written.
    #[error("log entry {index} does not follow the last entry, {expected} was expected")]
    NotConsecutive {
        /// Index of the refused entry.
        index: u64,
        /// The index that would have been right.
        expected: u64,
    },
    /// The store failed earlier, or was closed, and takes nothing more.
    #[error("{0}")]
    Failed(Failure),
}

impl StoreError {
    /// Maps an error of the operating system.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Io { operation, path, source }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        io::Error::other(error)
    }
}

/// Why a store takes nothing more: the first error a write met, or that it was closed. It never goes away;
/// only opening the store again helps, since after a failed fsync nobody knows what is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(Arc<str>);

impl Failure {
    pub(crate) fn new(reason: impl fmt::Display) -> Self {
        Failure(reason.to_string().into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Why a directory is no longer a memory that may be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmnesiaReason {
    /// The file `format` is missing or damaged while other files are there.
    #[error("the file \"format\" is missing or damaged")]
    Format,
    /// The seal is gone or neither of its slots can be read.
    #[error("the seal is missing or damaged")]
    Seal,
    /// The database is gone while the seal is there.
    #[error("the database is missing")]
    Database,
    /// The database and the seal belong to different nodes.
    #[error("the seal belongs to node {seal}, the database to node {database}")]
    Identity {
        /// Node id in the seal.
        seal: u64,
        /// Node id in the database.
        database: u64,
    },
    /// The database is older than the seal: acknowledged writes are lost.
    #[error("the database was rolled back: its last write is number {database}, the seal knows {seal}")]
    RolledBack {
        /// Number of the last write the seal knows.
        seal: u64,
        /// Number of the last write in the database.
        database: u64,
    },
    /// The seal is older than any crash leaves it: one of the two was put back from a copy.
    #[error("the seal was rolled back: it knows write number {seal}, the database has {database}")]
    SealBehind {
        /// Number of the last write the seal knows.
        seal: u64,
        /// Number of the last write in the database.
        database: u64,
    },
    /// Seal and database name the same last write and differ in what it left.
    #[error("the seal and the database disagree about write number {0}")]
    Disagree(u64),
    /// A record of the database is missing, damaged, or not the one that was written last.
    #[error("the database is damaged: {0}")]
    Record(String),
    /// sled refused to open, or panicked.
    #[error("the database cannot be read: {0}")]
    Unreadable(String),
    /// All of the directory was put back from an older copy, as other members told its bearer.
    #[error("the directory was put back from an older copy: {0}")]
    PutBack(String),
}
