//! Founding and joining: how nodes without a group become one group, and never two. Pure: events in, actions out.

mod machine;
mod message;

pub use machine::{Action, Founding};
pub use message::{Identity, Promise, PromiseAnswer, PromiseRequest, PromiseVerdict, Status};
