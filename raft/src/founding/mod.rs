//! Founding and joining: how nodes without a group become one group, and never two. Pure: events in, actions out.
//!
//! A node which belongs to no group asks the partners it lists. If one of them is a member of a group, it asks to be
//! taken in, and never founds. Otherwise the data node with the smallest address among those which answer coordinates
//! a founding: it promises itself to it durably, then asks the others for the same promise, looks once more at those
//! which did not answer, and initialises Raft with those which promised. The group's id is the founding's.
//!
//! A data node without a vote is no founder. When the partners which answer are witnesses only, it tells them its list and
//! wishes a founding, and a witness coordinates one as a data node would, with that list beside its own.
//!
//! What is promised, and why it holds:
//!
//! - *Each node takes part in one founding.* The promise is durable before it is given, and only the coordinator can
//!   release from it: by showing, in answer to a question asked after the promise was made, that it has cancelled. It
//!   cancels durably, and never after it has sealed the list of founders, which comes before Raft is initialised.
//! - *Every founder's own list has its majority among the founders.* So two foundings of nodes which list the same
//!   members share a node, whatever is lost, delayed, partitioned or restarted: only one of them gets its promise.
//! - *A node that answers and is listed by a founder is a founder, or there is no founding.* The coordinator looks at
//!   every address which a founder lists after that founder has promised. Two foundings of nodes that name each other
//!   both promise first and look afterwards, so at least one sees the other. Lists which differ do not lead to
//!   two groups either, whatever the start order, as long as they name each other, or name a common node which
//!   runs, and nodes that run reach each other.
//!
//! What no rule can give while a majority suffices: lists that differ and share only a node which is down while both
//! majorities found without it, or lists that differ while their nodes are partitioned. Equal lists exclude both.

mod gathering;
mod machine;
mod message;
mod wishing;

pub use machine::{Action, Founding};
pub use message::{Identity, Promise, PromiseAnswer, PromiseRequest, PromiseVerdict, Status};

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod testscripts;
