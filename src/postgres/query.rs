//! SQL sessions: one statement per named function.
//!
//! A session belongs to exactly one postmaster: whoever answers at the address must show the local `postmaster.pid`.

use std::path::PathBuf;
use std::time::Duration;

use pgherd_raft::model::{PostgresAddr, TimelineId};
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow, Socket};

use super::secure::{self, Attempt, ToAnyHost, Ways};
use super::settings::{Credentials, Settings};

/// What a server answers which starts, has no consistent state yet, or ends.
const CANNOT_CONNECT_NOW: &str = "57P03";
/// How long a connection may take.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a short statement may take; the server ends it by itself a little earlier.
const SHORT: Duration = Duration::from_secs(2);
/// How long a statement may take on which the making of a cluster depends: also on a slow disk.
const PATIENT: Duration = Duration::from_secs(60);
/// Settings of every session. `local`: what pgherd writes must not wait for standbys which are not there yet.
const OPTIONS: &str = "-c statement_timeout=1900 -c search_path=pg_catalog -c synchronous_commit=local \
                       -c default_transaction_read_only=off -c DateStyle=ISO";

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
        /// The server is there and refuses this login: waiting does not help.
        is_refused: bool,
        /// The server is there and lets nobody in yet (or any more).
        is_not_ready: bool,
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

/// How far WAL has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flushed {
    /// On disk.
    pub(super) flushed: String,
    /// Made, and on its way there.
    pub(super) inserted: String,
}

/// Why a probe of writing did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WriteError {
    #[error("PostgreSQL did not answer in time")]
    Late,
    #[error("{0}")]
    Disk(String),
    /// The connection was lost, or the server has another reason that is not its disk's.
    #[error("it could not be asked")]
    Other,
}

impl WriteError {
    fn of(error: &tokio_postgres::Error) -> Self {
        match error.code().map(tokio_postgres::error::SqlState::code) {
            // Cancelled by the time limit of the session.
            Some("57014") => Self::Late,
            // A full disk, an error of the disk, a file that is gone.
            Some("53100" | "58030" | "58P01") => Self::Disk(reason_of(error)),
            Some(_) | None => Self::Other,
        }
    }
}

/// An open connection and the task which drives it.
pub(super) struct Session {
    client: Client,
    limit: Duration,
    _driver: JoinSet<()>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("is_closed", &self.client.is_closed()).finish()
    }
}

/// Where the local server is reached for administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Socket(PathBuf),
    Tcp(String),
}

impl Local {
    /// A socket when the configuration says so, or when there is no password which a TCP connection would need.
    pub(super) fn of(settings: &Settings, socket_directory: Option<PathBuf>) -> Self {
        let wants_socket = settings.use_unix_socket || settings.superuser.password.is_none();
        match socket_directory.filter(|_| wants_socket || settings.listen.is_empty()) {
            Some(directory) => Self::Socket(directory),
            None => Self::Tcp(loopback(&settings.listen)),
        }
    }

    /// The host for libpq.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Socket(directory) => directory.display().to_string(),
            Self::Tcp(host) => host.clone(),
        }
    }
}

/// The address in `listen` which is nearest.
fn loopback(listen: &[String]) -> String {
    let has = |name: &str| listen.iter().any(|host| host == name);
    match () {
        () if has("*") || has("0.0.0.0") || has("127.0.0.1") => "127.0.0.1".to_owned(),
        () if has("localhost") => "localhost".to_owned(),
        () if has("::") || has("::1") => "::1".to_owned(),
        () => listen.first().cloned().unwrap_or_else(|| "127.0.0.1".to_owned()),
    }
}

impl Session {
    /// Connects to the local server and makes sure that it is the one of this data directory.
    pub(super) async fn local(settings: &Settings, local: &Local) -> Result<Self, QueryError> {
        let mut config = config(&settings.superuser, settings.port, &settings.database);
        let at = format!("{}, port {}", local.host(), settings.port);
        let ways = match local {
            Local::Socket(directory) => {
                config.host_path(directory);
                secure::NOT_ENCRYPTED
            }
            Local::Tcp(host) => {
                config.host(host);
                ways(&settings.superuser, &at).await?
            }
        };
        let session = Self::open(&config, ways, at.clone()).await?;
        let theirs = session.text("its postmaster.pid", "SELECT pg_read_file('postmaster.pid')").await?;
        let ours = tokio::fs::read_to_string(settings.data_dir.join("postmaster.pid")).await.ok();
        if postmaster_identity(theirs.as_deref().unwrap_or_default())
            != postmaster_identity(ours.as_deref().unwrap_or_default())
        {
            let reason = format!("the server there is not that of {}", settings.data_dir.display());
            return Err(QueryError::Connect { at, reason, is_refused: false, is_not_ready: false });
        }
        Ok(session)
    }

    /// Connects to another member's server.
    pub(super) async fn remote(
        credentials: &Credentials,
        addr: &PostgresAddr,
        database: &str,
    ) -> Result<Self, QueryError> {
        let mut config = config(credentials, addr.port, database);
        config.host(&addr.host);
        let at = addr.to_string();
        let ways = ways(credentials, &at).await?;
        Self::open(&config, ways, at).await
    }

    async fn open(config: &Config, ways: Ways, at: String) -> Result<Self, QueryError> {
        let refusal = |reason, is_refused, is_not_ready| QueryError::Connect {
            at: at.clone(),
            reason,
            is_refused,
            is_not_ready,
        };
        let connecting = tokio::time::timeout(CONNECT_LIMIT, Box::pin(connect_some_way(config, ways)));
        let (client, driver) = connecting
            .await
            .map_err(|_| refusal(format!("no answer within {} s", CONNECT_LIMIT.as_secs()), false, false))?
            .map_err(|error| {
                let code = error.code().map(|state| state.code().to_owned()).unwrap_or_default();
                // Class 28: invalid authorization; a password which the server wants and we do not have.
                let is_refused = code.starts_with("28") || reason_of(&error).contains("password missing");
                let cure = if is_refused { "; check postgresql.authentication and pg_hba" } else { "" };
                refusal(format!("{}{cure}", reason_of(&error)), is_refused, code == CANNOT_CONNECT_NOW)
            })?;
        Ok(Self { client, limit: SHORT, _driver: driver })
    }

    /// The same session with time for slow statements.
    pub(super) async fn patient(self) -> Result<Self, QueryError> {
        self.run("statement_timeout", "SET statement_timeout = 0").await?;
        Ok(Self { limit: PATIENT, ..self })
    }

    /// The same session for statements which decode WAL: the server ends them by itself before they count as late.
    pub(super) async fn decoding(self) -> Result<Self, QueryError> {
        self.run("statement_timeout", "SET statement_timeout = '55s'").await?;
        Ok(Self { limit: PATIENT, ..self })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The first column of the first row.
    pub(super) async fn text(
        &self,
        statement: &'static str,
        sql: &str,
    ) -> Result<Option<String>, QueryError> {
        self.text_within(statement, sql, self.limit).await
    }

    /// The same with another limit.
    pub(super) async fn text_within(
        &self,
        statement: &'static str,
        sql: &str,
        limit: Duration,
    ) -> Result<Option<String>, QueryError> {
        let messages = self.ask(statement, sql, limit).await?;
        Ok(messages.iter().find_map(row).and_then(|row| row.get(0).map(str::to_owned)))
    }

    async fn ask(
        &self,
        statement: &'static str,
        sql: &str,
        limit: Duration,
    ) -> Result<Vec<SimpleQueryMessage>, QueryError> {
        tokio::time::timeout(limit, self.client.simple_query(sql))
            .await
            .map_err(|_| QueryError::Late { statement, millis: limit.as_millis() })?
            .map_err(|error| QueryError::Server { statement, reason: reason_of(&error) })
    }

    /// Runs statements whose result does not matter.
    pub(super) async fn run(&self, statement: &'static str, sql: &str) -> Result<(), QueryError> {
        self.text(statement, sql).await.map(|_| ())
    }

    /// How far a primary's WAL has come; none: it is not a primary.
    pub(super) async fn flushed(&self, limit: Duration) -> Result<Option<Flushed>, WriteError> {
        let sql = "SELECT CASE WHEN NOT r THEN pg_current_wal_flush_lsn()::text END, \
                   CASE WHEN NOT r THEN pg_current_wal_insert_lsn()::text END FROM pg_is_in_recovery() r";
        let asked = tokio::time::timeout(limit, self.client.simple_query(sql)).await;
        let messages = asked.map_err(|_| WriteError::Late)?.map_err(|error| WriteError::of(&error))?;
        let text = |row: &SimpleQueryRow, column| row.get(column).map(str::to_owned);
        Ok(messages
            .iter()
            .find_map(row)
            .and_then(|row| Some(Flushed { flushed: text(row, 0)?, inserted: text(row, 1)? })))
    }

    /// Writes a little WAL which means nothing to anybody, and waits for the local disk to have it.
    pub(super) async fn flush_wal(&self, limit: Duration) -> Result<(), WriteError> {
        let sql = "SELECT pg_logical_emit_message(true, 'pgherd', '')";
        let asked = tokio::time::timeout(limit, self.client.simple_query(sql)).await;
        asked.map_err(|_| WriteError::Late)?.map(|_| ()).map_err(|error| WriteError::of(&error))
    }

    /// Leaves recovery. `pg_promote` without waiting: the caller asks again.
    pub(super) async fn promote(&self) -> Result<(), QueryError> {
        self.run("pg_promote", "SELECT pg_promote(false)").await
    }

    pub(super) async fn is_in_recovery(&self) -> Result<bool, QueryError> {
        let answer = self.text("pg_is_in_recovery", "SELECT pg_is_in_recovery()").await?;
        Ok(answer.as_deref() == Some("t"))
    }

    /// The timeline of the last checkpoint: a promotion makes a later one.
    pub(super) async fn checkpoint_timeline(&self) -> Result<TimelineId, QueryError> {
        const NAME: &str = "pg_control_checkpoint";
        let answer = self.text(NAME, "SELECT timeline_id FROM pg_control_checkpoint()").await?;
        let timeline = answer.unwrap_or_default().parse();
        timeline.map(TimelineId).map_err(|_| QueryError::Server {
            statement: NAME,
            reason: "the timeline is not a number".to_owned(),
        })
    }

    /// The timeline on which a primary writes.
    pub(super) async fn written_timeline(&self) -> Result<Option<TimelineId>, QueryError> {
        let sql = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        let digits = self.text("pg_walfile_name", sql).await?.unwrap_or_default();
        Ok(u32::from_str_radix(&digits, 16).ok().map(TimelineId))
    }

    /// Does the control file name the timeline on which the server writes?
    pub(super) async fn has_checkpoint_of_its_timeline(&self) -> Result<bool, QueryError> {
        let sql = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) = \
                   lpad(upper(to_hex(timeline_id)), 8, '0') FROM pg_control_checkpoint()";
        Ok(self.text("pg_control_checkpoint", sql).await?.as_deref() == Some("t"))
    }

    /// The size of a WAL file in the first line, then the history of the timeline on which the server writes.
    pub(super) async fn history(&self) -> Result<Option<String>, QueryError> {
        let sql = "SELECT pg_size_bytes(current_setting('wal_segment_size')) || E'\\n' || \
                   convert_from(pg_read_binary_file('pg_wal/' || \
                   substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '.history'), 'UTF8')";
        self.text("its timeline history", sql).await
    }

    /// A checkpoint, however long it takes within the limit.
    pub(super) async fn checkpoint(&self, limit: Duration) -> Result<(), QueryError> {
        self.run("checkpoint", "SET statement_timeout = 0").await?;
        self.text_within("checkpoint", "CHECKPOINT", limit).await.map(|_| ())
    }
}

fn row(message: &SimpleQueryMessage) -> Option<&SimpleQueryRow> {
    if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None }
}

/// The ways to connect, with their files.
pub(super) async fn ways(credentials: &Credentials, at: &str) -> Result<Ways, QueryError> {
    let credentials = credentials.clone();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let reading = tokio::task::spawn_blocking(move || secure::ways(&credentials, home.as_deref()));
    let read = reading.await.unwrap_or_else(|_| Err("reading its files was interrupted".to_owned()));
    read.map_err(|reason| QueryError::Connect {
        at: at.to_owned(),
        reason,
        is_refused: false,
        is_not_ready: false,
    })
}

pub(super) async fn connect_some_way(
    config: &Config,
    (first, second): Ways,
) -> Result<(Client, JoinSet<()>), tokio_postgres::Error> {
    let error = match connect(config.clone(), first).await {
        Ok(connected) => return Ok(connected),
        Err(error) => error,
    };
    let Some(second) = second.filter(|_| secure::is_about_encryption(&error)) else { return Err(error) };
    // Where both are refused for the same kind of reason, the way which was wished for tells more.
    connect(config.clone(), second)
        .await
        .map_err(|other| if secure::is_about_encryption(&other) { error } else { other })
}

async fn connect(mut config: Config, way: Attempt) -> Result<(Client, JoinSet<()>), tokio_postgres::Error> {
    match way {
        Attempt::Plain => {
            let (client, connection) = config.ssl_mode(SslMode::Disable).connect(NoTls).await?;
            Ok((client, drive(connection)))
        }
        Attempt::Encrypted(encryption) => {
            encryption.configure(&mut config);
            let (client, connection) = config.connect(ToAnyHost(encryption.tls)).await?;
            Ok((client, drive(connection)))
        }
    }
}

fn drive<T: TlsStream + Send + Unpin + 'static>(connection: Connection<Socket, T>) -> JoinSet<()> {
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // The client sees the end of the connection with its next statement.
        connection.await.ok();
    });
    driver
}

fn config(credentials: &Credentials, port: u16, database: &str) -> Config {
    let mut config = Config::new();
    config
        .user(&credentials.username)
        .port(port)
        .dbname(database)
        .application_name("pgherd")
        .connect_timeout(CONNECT_LIMIT)
        .options(OPTIONS);
    if let Some(password) = &credentials.password {
        config.password(password.expose());
    }
    secure::configure(&mut config, credentials);
    config
}

/// The lines of a `postmaster.pid` which name one life of one server: pid, data directory, start time.
fn postmaster_identity(content: &str) -> Option<[&str; 3]> {
    let mut lines = content.lines();
    Some([lines.next()?, lines.next()?, lines.next()?])
}

/// What the server said, or why there was no answer. The library's own text says only "db error".
pub(super) fn reason_of(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{}{detail}", said.message());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_nearest_address_is_taken() {
        let nearest = |listen: &[&str]| {
            let mut settings = Settings::new("s", "m", Path::new("/d"), 1);
            settings.superuser = Credentials::new("postgres", Some("x"));
            settings.listen = listen.iter().map(|host| (*host).to_owned()).collect();
            Local::of(&settings, Some(PathBuf::from("/run"))).host()
        };
        assert_eq!(nearest(&["10.0.0.1", "*"]), "127.0.0.1");
        assert_eq!(nearest(&["localhost"]), "localhost");
        assert_eq!(nearest(&["::"]), "::1");
        assert_eq!(nearest(&["10.0.0.1"]), "10.0.0.1");
        assert_eq!(nearest(&[]), "/run");
    }

    #[test]
    fn without_a_password_the_socket_is_used() {
        let settings = Settings::new("s", "m", Path::new("/d"), 1);
        assert_eq!(Local::of(&settings, Some(PathBuf::from("/run"))).host(), "/run");
        assert_eq!(Local::of(&settings, None).host(), "localhost");
    }

    #[test]
    fn a_postmaster_is_told_by_pid_directory_and_start() {
        let starting = "7\n/d\n1700000000\n5432\n/tmp\n*\n  1 2\nstarting\n";
        let ready = starting.replace("starting", "ready   ");
        assert_eq!(postmaster_identity(starting), postmaster_identity(&ready));
        assert_ne!(postmaster_identity(starting), postmaster_identity(&starting.replace("17", "18")));
        assert_eq!(postmaster_identity("7\n"), None);
    }
}
