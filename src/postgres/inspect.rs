//! Looks at a PostgreSQL that runs on this machine without pgherd: what a configuration for it has to say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, SimpleQueryMessage};

use super::error::PgError;
use super::files;
use super::programs::{self, Programs};
use super::query::{self, CONNECT_LIMIT};
use super::secure;
use super::settings::{Credentials, Secret};
use super::tool::{QUICK, Tool};

/// How long a statement may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Where sockets are, in the order to be tried.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Why a running PostgreSQL could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The connection string is none.
    #[error("the connection string is not understood: {0}")]
    Dsn(String),
    /// The server wants a password.
    #[error("PostgreSQL wants a password for {0}: give it in --dsn or PGPASSWORD")]
    PasswordNeeded(String),
    /// No connection could be made, or a statement failed.
    #[error("cannot ask PostgreSQL: {0}")]
    Server(String),
    /// The role is not allowed to see what is needed.
    #[error("The provided user does not have superuser privilege")]
    NoSuperuser,
    /// The server is on another machine, or stopped meanwhile.
    #[error("the server does not run on this machine: {0}")]
    Elsewhere(String),
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] PgError),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The major version.
    pub major: u32,
    /// Parameters which somebody has set, and the named ones, as `SHOW` prints them.
    pub parameters: BTreeMap<String, String>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the running server's programs are.
    pub bin_dir: Option<PathBuf>,
    /// The role which looked.
    pub user: String,
    /// Its password, if one was needed.
    pub password: Option<Secret>,
    /// The lines of pg_hba.conf, when it is in the data directory.
    pub pg_hba: Option<Vec<String>>,
    /// The lines of pg_ident.conf, when it is in the data directory.
    pub pg_ident: Option<Vec<String>>,
}

/// The major version of the programs which would be used.
///
/// # Errors
/// There are none.
pub async fn installed_major(
    bin_dir: Option<&Path>,
    bin_names: &BTreeMap<String, String>,
) -> Result<u32, PgError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = Programs::find(bin_dir, bin_names, &path, None)?;
    let server = found.path("postgres");
    let printed = Tool::new(&server).arg("--version").run(Some(QUICK)).await?;
    Ok(programs::parse_version(&printed, server.parent().unwrap_or(&server))?)
}

#[derive(Debug, Deserialize)]
struct Answer {
    is_superuser: bool,
    version: u32,
    parameters: BTreeMap<String, Option<String>>,
    data_directory: String,
    hba_file: String,
    ident_file: String,
    user: String,
}

/// Connects and looks. `dsn`: libpq's connection string or URI; what it leaves out comes from `variables` (PGHOST and the
/// like). `named` are parameters to tell in any case.
///
/// # Errors
/// [`InspectError::PasswordNeeded`]: to be tried again with a password.
pub async fn inspect(
    dsn: Option<&str>,
    variables: &BTreeMap<String, String>,
    password: Option<&Secret>,
    named: &[&str],
) -> Result<Inspected, InspectError> {
    let mut config: Config = dsn
        .unwrap_or_default()
        .parse()
        .map_err(|error: tokio_postgres::Error| InspectError::Dsn(error.to_string()))?;
    complete(&mut config, variables, password)?;
    let answer = ask(&config, &encryption(&config, variables), named).await?;
    if !answer.is_superuser {
        return Err(InspectError::NoSuperuser);
    }
    let data_dir = PathBuf::from(&answer.data_directory);
    let lines = |file: &str, name: &str| -> Result<Option<Vec<String>>, PgError> {
        if Path::new(file) != data_dir.join(name) {
            return Ok(None);
        }
        Ok(files::read(Path::new(file))?.map(|text| significant(&text)))
    };
    Ok(Inspected {
        major: answer.version / 10_000,
        bin_dir: Some(programs_of(&data_dir)?),
        parameters: answer.parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        pg_hba: lines(&answer.hba_file, "pg_hba.conf")?,
        pg_ident: lines(&answer.ident_file, "pg_ident.conf")?,
        user: answer.user,
        password: config.get_password().map(|bytes| Secret::new(String::from_utf8_lossy(bytes))),
        data_dir,
    })
}

fn complete(
    config: &mut Config,
    variables: &BTreeMap<String, String>,
    password: Option<&Secret>,
) -> Result<(), InspectError> {
    let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty());
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        match variable("PGHOST") {
            Some(host) if host.starts_with('/') => config.host_path(host),
            Some(host) => config.host(host),
            None => {
                let socket = SOCKETS.into_iter().find(|path| Path::new(path).is_dir()).unwrap_or("/tmp");
                config.host_path(socket)
            }
        };
    }
    if config.get_ports().is_empty() {
        let port = variable("PGPORT").map_or(Ok(5432), |text| text.parse());
        config.port(port.map_err(|_| InspectError::Dsn("PGPORT is not a port".to_owned()))?);
    }
    if config.get_user().is_none() {
        let user = variable("PGUSER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
        config.user(user.map_or("postgres", String::as_str));
    }
    if config.get_dbname().is_none() {
        config.dbname(variable("PGDATABASE").map_or("postgres", String::as_str));
    }
    let known = password.map(Secret::expose).or_else(|| variable("PGPASSWORD").map(String::as_str));
    if let (None, Some(password)) = (config.get_password(), known) {
        config.password(password);
    }
    config.application_name("pgherd").connect_timeout(CONNECT_LIMIT);
    Ok(())
}

/// libpq's variables for the encryption, and what they stand for.
const ENCRYPTION: [(&str, &str); 8] = [
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGCHANNELBINDING", "channel_binding"),
];

/// libpq's options for the encryption, from the variables that stand for them.
pub fn encryption_options(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let given = |(name, option): (&str, &str)| Some((option.to_owned(), variable(name)?));
    ENCRYPTION.into_iter().filter_map(given).collect()
}

/// What the connection string and the environment say about the encryption; the former goes first.
fn encryption(config: &Config, variables: &BTreeMap<String, String>) -> Credentials {
    let mut credentials = Credentials::new(config.get_user().unwrap_or_default(), None);
    credentials.options = encryption_options(|name| variables.get(name).cloned());
    let is_written = |mode| config.get_ssl_mode() == mode;
    let written = match () {
        () if is_written(SslMode::Disable) => Some("disable"),
        () if is_written(SslMode::Require) => Some("require"),
        () => None,
    };
    credentials.options.extend(written.map(|mode| ("sslmode".to_owned(), mode.to_owned())));
    credentials
}

async fn ask(config: &Config, encryption: &Credentials, named: &[&str]) -> Result<Answer, InspectError> {
    let server = |error: &tokio_postgres::Error| {
        let text = error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned());
        let mut source = std::error::Error::source(error);
        let mut whole = text;
        while let Some(cause) = source {
            whole = format!("{whole}: {cause}");
            source = cause.source();
        }
        whole
    };
    let is_socket = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    let ways = match is_socket {
        true => secure::NOT_ENCRYPTED,
        false => {
            query::ways(encryption, "it").await.map_err(|error| InspectError::Server(error.to_string()))?
        }
    };
    let (client, _driver) = Box::pin(query::connect_some_way(config, ways)).await.map_err(|error| {
        let text = server(&error);
        let wants_password = text.contains("password missing");
        let user = config.get_user().unwrap_or_default().to_owned();
        let at = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        if wants_password {
            InspectError::PasswordNeeded(user)
        } else {
            InspectError::Server(format!("{at}: {text}"))
        }
    })?;
    let list: Vec<String> = named.iter().map(|name| super::quote::literal(name)).collect();
    let sql = format!(
        "SELECT json_build_object('is_superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
         'version', current_setting('server_version_num')::int, 'user', current_user, \
         'data_directory', current_setting('data_directory', true), 'hba_file', coalesce(current_setting('hba_file', true), ''), \
         'ident_file', coalesce(current_setting('ident_file', true), ''), \
         'parameters', (SELECT json_object_agg(name, current_setting(name, true)) FROM pg_settings \
         WHERE source IN ('configuration file', 'command line', 'environment variable') OR name IN ({})))",
        list.join(", ")
    );
    // A role without the right to see the data directory gets an error here.
    let asked = tokio::time::timeout(LIMIT, client.simple_query(&sql)).await;
    let messages = asked.map_err(|_| InspectError::Server("it did not answer in time".to_owned()))?.map_err(
        |error| {
            let is_denied = error.code().is_some_and(|code| code.code() == "42501");
            if is_denied { InspectError::NoSuperuser } else { InspectError::Server(server(&error)) }
        },
    )?;
    let text = messages
        .iter()
        .find_map(|message| if let SimpleQueryMessage::Row(row) = message { row.get(0) } else { None });
    serde_json::from_str(text.unwrap_or_default()).map_err(|error| InspectError::Server(error.to_string()))
}

/// The directory of the program which runs on this data directory.
fn programs_of(data_dir: &Path) -> Result<PathBuf, InspectError> {
    let file = data_dir.join("postmaster.pid");
    let elsewhere = |why: String| InspectError::Elsewhere(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|error| elsewhere(error.to_string()))?;
    let pid = text.lines().next().unwrap_or_default().trim().to_owned();
    let program =
        std::fs::read_link(format!("/proc/{pid}/exe")).map_err(|error| elsewhere(error.to_string()))?;
    program.parent().map(Path::to_owned).ok_or_else(|| elsewhere("its program has no directory".to_owned()))
}

/// Without comments and empty lines.
fn significant(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}
