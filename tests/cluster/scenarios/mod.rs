//! One file per kind of event.
//!
//! | fault | where | modes |
//! |---|---|---|
//! | daemon killed and restarted within the lease | `daemons`, `crash` | off, on, quorum |
//! | daemon killed, daemon stopped | `daemons` | off, on, quorum |
//! | daemon deadlocked | `sick` | off |
//! | postmaster killed, again and again | `crash`, `sick` | off |
//! | postmaster stopped | `sick` | off |
//! | guard killed, guard killed in pause | `guards` | quorum, off |
//! | daemon and guard stopped together (a stated limit) | `guards` | off |
//! | node killed | `machines`, `crash`, `synchronous`, `witness` | off, on, quorum |
//! | node frozen beyond the ttl, and thawed | `machines` | off, on, quorum |
//! | all nodes killed at once | `machines`, `crash` | off, on, quorum |
//! | primary cut off from all, from one; both ways, one way | `partitions` | off, on, quorum |
//! | only the replication link cut | `partitions` | off, on, quorum |
//! | only the daemons' network cut | `network`, `synchronous` | off, quorum |
//! | majority lost and regained | `partitions`, `failsafe` | off, quorum |
//! | data disk full, data disk stalled | `sick` | off |
//! | consensus disk stalled for the ttl | `sick` | off |
//! | consensus store lost, put back from a copy | `machines`, `put_back` | quorum, off |
//! | wall clock stepped by hours | `clocks` | quorum |
//! | connections exhausted, standbys stopped | `sick` | off |
//! | processor starved | `clocks` | off, quorum |
//! | mode changed under writes, with a node killed in between | `modes` | off, on, quorum |
//! | synchronous standby lost | `synchronous` | on, quorum |
//! | node killed, with permanent slots | `slots` | off |
//!
//! Every scenario with writers ends with [`finish`](crate::harness::workload::Workload::finish), which fails when two
//! nodes ever acknowledged writes at one time.

mod api;
mod bad_input;
mod clocks;
mod configuration;
mod crash;
mod daemons;
mod failsafe;
mod fencing;
mod guards;
mod hooks;
mod listeners;
mod machines;
mod modes;
mod mutual_tls;
mod network;
mod operations;
mod partitions;
mod pause;
mod planned;
mod put_back;
mod service;
mod sick;
mod slots;
mod stage;
mod synchronous;
mod timelines;
mod watchdog;
mod why;
mod witness;
