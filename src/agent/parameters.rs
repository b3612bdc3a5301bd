//! Asks the local PostgreSQL about the parameters of a document.

use std::sync::Arc;

use serde_json::Value;
use tracing::warn;

use super::jobs::chain;
use crate::config::{self, Mistakes, ParameterCheck};
use crate::postgres::{ParameterRefusal, Postgres};

/// The local PostgreSQL as the judge of parameters.
#[derive(Debug)]
pub struct LocalCheck {
    postgres: Arc<Postgres>,
}

impl LocalCheck {
    /// With this node's programs.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { postgres }
    }
}

impl ParameterCheck for LocalCheck {
    fn mistakes<'a>(&'a self, document: &'a Value) -> Mistakes<'a> {
        Box::pin(async move {
            let parameters = config::in_present_words(&config::parse(document).0.postgresql.parameters);
            if parameters.is_empty() {
                return Vec::new();
            }
            match self.postgres.refusals_of_change(&parameters).await {
                // A name that this major does not know may be another one's: it is left out with a warning.
                Ok(refusals) => refusals.iter().filter(|refusal| !refusal.is_unknown).map(sentence).collect(),
                Err(error) => {
                    warn!("PostgreSQL could not be asked about parameters: {}", chain(&error));
                    Vec::new()
                }
            }
        })
    }
}

fn sentence(refusal: &ParameterRefusal) -> String {
    format!("postgresql.parameters.{}: {}", refusal.name, refusal.reason)
}
