//! SQL of an operator's own, on any member's server: what `pgherdctl query` runs.

use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Config, SimpleQueryMessage};

use super::query::{connect_some_way, reason_of, ways};
use super::secure;
use super::settings::Credentials;

/// Where and as whom.
#[derive(Clone, Debug)]
pub struct Login {
    /// The server's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role, with libpq's options for the encryption.
    pub credentials: Credentials,
    /// What the server calls the session.
    pub application_name: String,
    /// How long a connection may take.
    pub patience: Duration,
}

/// Why there are no rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// No connection, or none any more.
    #[error("{0}")]
    NoConnection(String),
    /// The server refused.
    #[error("{reason}")]
    Refused {
        /// The class of the error.
        sqlstate: String,
        /// The server's words.
        reason: String,
    },
}

/// What a column holds, as far as it matters for showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Whole or not.
    Number,
    /// `t` or `f`.
    Boolean,
    /// Anything else.
    Text,
}

/// The rows of a statement, as texts.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rows {
    /// The columns' names and kinds.
    pub columns: Vec<(String, ColumnKind)>,
    /// A text a column; none is null.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Runs statements, and gives the rows of the last one that has some; none: no statement has. There is no limit of time
/// but for the connection: how long a statement may take is the operator's business.
///
/// # Errors
/// No connection, or a statement failed.
pub async fn run_sql(login: &Login, sql: &str) -> Result<Option<Rows>, SqlError> {
    let at = format!("{}, port {}", login.host, login.port);
    let no_connection = |reason: String| SqlError::NoConnection(reason);
    let ways = ways(&login.credentials, &at).await.map_err(|error| no_connection(error.to_string()))?;
    let config = config(login);
    let connecting = tokio::time::timeout(login.patience, connect_some_way(&config, ways));
    let late = || no_connection(format!("no answer within {} s", login.patience.as_secs()));
    let connected = connecting.await.map_err(|_| late())?;
    let (client, _driver) = connected.map_err(|error| no_connection(reason_of(&error)))?;
    // Several statements cannot be prepared together: then the kinds of their columns are not known.
    let kinds: Vec<ColumnKind> = match client.prepare(sql).await {
        Ok(statement) => statement.columns().iter().map(|column| kind_of(column.type_())).collect(),
        Err(_) => Vec::new(),
    };
    let messages = client.simple_query(sql).await.map_err(|error| match error.code() {
        Some(state) => SqlError::Refused { sqlstate: state.code().to_owned(), reason: reason_of(&error) },
        None => no_connection(reason_of(&error)),
    })?;
    Ok(rows(&messages, &kinds))
}

fn config(login: &Login) -> Config {
    let mut config = Config::new();
    config
        .host(&login.host)
        .port(login.port)
        .user(&login.credentials.username)
        .dbname(&login.database)
        .application_name(&login.application_name)
        .connect_timeout(login.patience);
    if let Some(password) = &login.credentials.password {
        config.password(password.expose());
    }
    secure::configure(&mut config, &login.credentials);
    config
}

fn kind_of(kind: &Type) -> ColumnKind {
    const NUMBERS: [Type; 6] = [Type::INT2, Type::INT4, Type::INT8, Type::OID, Type::FLOAT4, Type::FLOAT8];
    match kind {
        kind if NUMBERS.contains(kind) => ColumnKind::Number,
        kind if *kind == Type::BOOL => ColumnKind::Boolean,
        _ => ColumnKind::Text,
    }
}

fn rows(messages: &[SimpleQueryMessage], kinds: &[ColumnKind]) -> Option<Rows> {
    let mut last: Option<Rows> = None;
    for message in messages {
        if let SimpleQueryMessage::RowDescription(columns) = message {
            let kind = |place| kinds.get(place).copied().unwrap_or(ColumnKind::Text);
            let named = columns.iter().enumerate();
            let columns = named.map(|(place, column)| (column.name().to_owned(), kind(place))).collect();
            last = Some(Rows { columns, rows: Vec::new() });
        }
        if let (SimpleQueryMessage::Row(row), Some(rows)) = (message, &mut last) {
            rows.rows.push((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect());
        }
    }
    last
}
