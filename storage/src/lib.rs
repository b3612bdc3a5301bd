//! Durable memory of one Raft member: log, vote, snapshot, the voter's floor and small notes, in sled, behind
//! openraft's storage traits, with a seal beside it.
//!
//! # The directory
//!
//! | path | content |
//! |---|---|
//! | `format` | version of the layout; an unknown one is refused |
//! | `db/` | sled: one tree, see the `codec` module for keys and records |
//! | `seal` | two alternating 4 KiB slots with the state the database must have |
//! | `memory` | what the member remembers of others, without a promise; outside of database and seal |
//! | `../.NAME.lock` | held while the store is open |
//!
//! # Promises
//!
//! - Votes, entries, the floor, notes and snapshots are on disk before they are acknowledged: written to sled, sled's
//!   flush, `fdatasync` on an own descriptor (sled's flush alone loses acknowledged records in a power cut), then the
//!   seal, then the answer. What waits meanwhile is written together.
//! - A write counts as a whole or not at all, whenever the process is killed or the power is cut.
//! - A store that lost, tore or rolled back anything acknowledged is found out at open: [`Opened::Amnesiac`]. It is
//!   never started empty and never repaired; [`Amnesiac::set_aside`] keeps its directory for whoever wants to look.
//!   What no single directory can find out is that all of it was put back from an older copy: [`Store::mark`]
//!   is there so that other members can, and [`Store::distrust`] makes what they found out durable.
//! - The first error ends the store ([`Store::failed`]); only opening it again helps.
//! - An idle store writes nothing.
//!
//! Each write ends with a state record that has its number and the checksums of everything else; the seal has a
//! copy. So opening compares two records to find a rollback, and walks log, snapshot and notes against the record to
//! find damage. All of it is kept in memory afterwards (it is small: the log is purged behind snapshots), so that
//! nothing but opening ever reads the disk.

mod codec;
mod engine;
mod error;
mod files;
mod format;
mod log_store;
mod memory;
mod meta;
mod mirror;
mod seal;
mod snapshot_store;
mod store;
mod verify;
mod writer;

pub use error::{AmnesiaReason, Failure, StoreError};
pub use format::FORMAT_VERSION;
pub use log_store::MAX_ENTRY_BYTES;
pub use memory::MAX_MEMORY_BYTES;
pub use snapshot_store::MAX_SNAPSHOT_BYTES;
pub use store::{Amnesiac, MAX_NOTE_BYTES, MAX_NOTES, Mark, Opened, Options, Store};
