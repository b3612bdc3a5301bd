//! What PostgreSQL says of the parameters of a document, before it is written.

use std::pin::Pin;

use serde_json::Value;

/// What comes later.
pub type Mistakes<'a> = Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>>;

/// Somebody who can ask PostgreSQL. API and configuration know nothing of PostgreSQL's programs.
pub trait ParameterCheck: Send + Sync {
    /// Why PostgreSQL would not start with the parameters of these settings: a sentence each, with the path. None: it
    /// would, or it cannot be asked.
    fn mistakes<'a>(&'a self, document: &'a Value) -> Mistakes<'a>;
}
