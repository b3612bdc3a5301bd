//! One file per kind of event.

mod bad_input;
mod crash;
mod failsafe;
mod network;
mod pause;
mod planned;
mod put_back;
mod sick;
mod synchronous;
mod timelines;
mod watchdog;
mod why;
mod witness;
