//! Everything that knows PostgreSQL: observes the local server and performs actions on it.
//!
//! Owns the data directory's files, the administrative connection and the runs of PostgreSQL's programs. It promises
//! that every action can be repeated and can be interrupted at any point by dropping it, that a late answer is unknown
//! and never "stopped", and that no password stands in a log line, an error or an argument. It must never decide, never
//! start a server other than through [`Postmaster`], and never delete data which this node did not make itself.
#![allow(dead_code, clippy::unused_async, reason = "signatures first")]

mod error;
mod postmaster;
mod programs;
mod query;
mod settings;
mod tool;

use std::sync::Arc;

pub use error::PgError;
pub use postmaster::{Postmaster, PostmasterCommand, PostmasterError, PostmasterSignal};
pub use programs::ProgramsError;
pub use query::QueryError;
pub use settings::{BootstrapUser, Credentials, Secret, Settings};
pub use tool::ToolError;

use crate::ha::{DataDir, Fact, PgAction, PostgresFacts, Server};

/// The handle on the local PostgreSQL: cheap to clone.
#[derive(Clone, Debug)]
pub struct Postgres {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: std::sync::RwLock<Arc<Settings>>,
    postmaster: Arc<dyn Postmaster>,
}

impl Postgres {
    /// A handle; does nothing yet.
    pub fn new(settings: Settings, postmaster: Arc<dyn Postmaster>) -> Self {
        Self { inner: Arc::new(Inner { settings: std::sync::RwLock::new(Arc::new(settings)), postmaster }) }
    }

    /// Are PostgreSQL's programs there? Their major version. To be asked before anything else is begun.
    pub async fn check(&self) -> Result<u32, PgError> {
        Err(PgError::Refused("not built yet".to_owned()))
    }

    /// Takes other settings, rewrites the configuration files of an existing data directory and reloads a running
    /// server. What needs a restart takes effect with the next start.
    pub async fn reconfigure(&self, settings: Settings) -> Result<(), PgError> {
        let _ = settings;
        Err(PgError::Refused("not built yet".to_owned()))
    }

    /// Looks at everything at once; never takes longer than about two seconds, and what is late is unknown.
    pub async fn observe(&self) -> PostgresFacts {
        PostgresFacts {
            data_dir: DataDir::Empty,
            control: Fact::Unknown("not built yet".to_owned()),
            process: self.inner.postmaster.process(),
            server: self.report_position().await,
            configured_upstream: None,
            history: Vec::new(),
            has_old_data: false,
        }
    }

    /// Only what the server says by SQL, freshly read and with a short deadline: for the succession.
    pub async fn report_position(&self) -> Fact<Server> {
        Fact::Unknown("not built yet".to_owned())
    }

    /// Performs an action. Safe to repeat; dropping the future interrupts it, and the next observation shows what is
    /// left to do. A job returns when it is done or has failed, however long that takes.
    pub async fn perform(&self, action: &PgAction) -> Result<(), PgError> {
        let _ = action;
        Err(PgError::Refused("not built yet".to_owned()))
    }
}
