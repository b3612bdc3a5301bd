//! SQL sessions: one statement per named function.

/// The server did not answer, or answered with an error.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No connection could be made.
    #[error("cannot connect to PostgreSQL at {at}: {reason}")]
    Connect {
        /// Where.
        at: String,
        /// Why not.
        reason: String,
    },
    /// No answer in time.
    #[error("PostgreSQL did not answer within {millis} ms ({statement})")]
    Late {
        /// What was asked.
        statement: &'static str,
        /// The limit.
        millis: u128,
    },
    /// The server refused.
    #[error("PostgreSQL refused ({statement}): {reason}")]
    Server {
        /// What was asked.
        statement: &'static str,
        /// The server's words.
        reason: String,
    },
}
