//! The heart: from an [`Observation`] to a [`Decision`], purely.

mod action;
mod decision;
mod facts;
mod rule;

pub use action::*;
pub use decision::{Decision, State};
pub use facts::*;
pub use rule::Rule;
