//! What can go wrong with the local PostgreSQL: a variant per operation that failed.

use std::path::PathBuf;

use pgherd_raft::model::TimelineId;

use super::postmaster::PostmasterError;
use super::tool::ToolError;

/// Why an action on the local PostgreSQL did not succeed. No message holds a password.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// One of PostgreSQL's programs is missing.
    #[error(transparent)]
    Programs(#[from] super::programs::ProgramsError),
    /// A program of PostgreSQL failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file could not be read or written.
    #[error("cannot {operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The parent of the postmaster refused.
    #[error("{operation}")]
    Postmaster {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: PostmasterError,
    },
    /// PostgreSQL ended while it was expected to start.
    #[error("PostgreSQL ended while starting ({how}); the last lines of {log}: {tail}")]
    EndedWhileStarting {
        /// How it ended.
        how: String,
        /// The log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// PostgreSQL did not accept connections in time; it goes on with what it is doing.
    #[error("PostgreSQL did not accept connections within {seconds} s and goes on starting; see {log}")]
    StartTimeout {
        /// The limit.
        seconds: u64,
        /// The log file.
        log: PathBuf,
    },
    /// The server did not answer, or answered with an error.
    #[error(transparent)]
    Query(#[from] super::query::QueryError),
    /// The control data was not understood.
    #[error(transparent)]
    ControlData(#[from] super::control_data::ControlDataError),
    /// PostgreSQL cannot be made to take the reserved number.
    #[error("cannot promote to timeline {timeline}, which is reserved: {why}")]
    Timeline {
        /// The reserved number.
        timeline: TimelineId,
        /// What is in the way, and what to do.
        why: String,
    },
    /// The action must not be done in the state in which things are.
    #[error("{0}")]
    Refused(String),
}

impl PgError {
    /// The error with its causes in one line.
    pub(super) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        text
    }

    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    pub(super) fn postmaster(operation: &'static str) -> impl FnOnce(PostmasterError) -> Self {
        move |source| Self::Postmaster { operation, source }
    }
}
