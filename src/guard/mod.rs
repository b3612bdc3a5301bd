//! The guard: a fence which outlives its daemon.
//!
//! A tiny process of its own is the postmaster's parent and kills PostgreSQL at the end of the lease, whatever became
//! of the daemon: killed, stopped, starved, deadlocked. Daemon and guard share a page of memory on tmpfs; the daemon
//! moves the deadline in it with one atomic write, and the guard looks at it when its timer fires.
//!
//! - [`Guard`] is the daemon's handle; [`Deadline`] the part of it which the renewal thread needs.
//! - [`WatchdogConfig`] names the device that resets the machine when the guard itself is stopped.
//! - [`run`] is the guard process (`pgherd guard`, hidden).
//!
//! It promises: at the deadline no process of the data directory is left which could acknowledge a write. It must
//! never touch the file system of the data directory on the way there, never signal a process by a bare number which
//! might have a new owner, and never believe that PostgreSQL is gone before it has looked.

mod clock;
mod deadline;
mod device;
mod error;
mod expiry;
mod handle;
mod hardening;
mod message;
mod page;
mod place;
mod postmaster;
mod process;
mod procfs;
mod server;
mod supervisor;
mod watch;
mod watchdog;

pub use deadline::{Deadline, ExtendError};
pub use error::GuardError;
pub use handle::Guard;
pub use message::{Kill, News, PostmasterExit, PostmasterSignal, StartRequest, Status, WatchdogConfig};
pub use process::run;
