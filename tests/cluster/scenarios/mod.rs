//! One file per kind of event.

mod bad_input;
mod clocks;
mod crash;
mod daemons;
mod failsafe;
mod fencing;
mod guards;
mod machines;
mod modes;
mod network;
mod partitions;
mod pause;
mod planned;
mod put_back;
mod sick;
mod stage;
mod synchronous;
mod timelines;
mod watchdog;
mod why;
mod witness;
