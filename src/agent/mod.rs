//! The one loop that acts: observe, decide, act; and the value which it publishes.

pub mod view;
