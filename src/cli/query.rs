//! `query`: SQL on a member's PostgreSQL.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::Type;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::arguments::{Format, QueryArguments};
use super::client::Client;
use super::config::Sources;
use super::dsn::{address, find, refuse_both};
use super::moment::{MOMENT, local_time};
use super::output::Output;
use super::table::{Column, Table};
use super::{Failure, cluster};

/// A server that does not let in within this time does not answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// What the server sees.
const APPLICATION_NAME: &str = "Patroni ctl";
/// The longest text of `--file`.
const MAX_SQL: u64 = 16 * 1024 * 1024;

/// Runs the SQL, once or again and again.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &QueryArguments,
) -> Result<(), Failure> {
    refuse_both(options.role, options.member.as_deref())?;
    let sql = match (&options.file, &options.command) {
        (Some(_), Some(_)) => {
            return Err(Failure::because("--file and --command are mutually exclusive options"));
        }
        (None, None) => return Err(Failure::because("You need to specify either --command or --file")),
        (Some(file), None) => text_of(output, file)?,
        (None, Some(sql)) => sql.clone(),
    };
    let password = match options.password {
        true => Some(output.ask_hidden("Password")?),
        false => None,
    };
    let scope = sources.scope_or(options.scope.as_deref())?;
    loop {
        let answer = ask(sources, client, options, &scope, &sql, password.as_deref()).await;
        let seconds = options.watch.seconds();
        if seconds.is_some() {
            output.clear();
        }
        let done = match answer {
            Ok(table) => {
                if let Some(table) = table {
                    output.say(&printed(&table, options));
                }
                Ok(())
            }
            Err(Trouble::Row { text, detail }) => {
                output.say(&format!("{}{}{text}", local_time(MOMENT), options.delimiter));
                if let Some(detail) = detail {
                    output.complain(&detail);
                }
                Err(Failure::Told)
            }
            Err(Trouble::Failure(failure)) => Err(failure),
        };
        match (seconds, done) {
            (None, done) => return done,
            (Some(_), Err(Failure::Error(error))) => output.say(&format!("Error: {error:#}")),
            (Some(_), _) => {}
        }
        tokio::time::sleep(Duration::from_secs(seconds.unwrap_or_default())).await;
    }
}

fn text_of(output: &Output, file: &str) -> Result<String, Failure> {
    let text = if file == "-" { output.read_all(MAX_SQL) } else { std::fs::read_to_string(file) };
    text.map_err(|source| Failure::because(format!("cannot read {file}: {source}")))
}

/// Why there are no rows.
enum Trouble {
    /// Told in the place of rows.
    Row {
        text: String,
        detail: Option<String>,
    },
    Failure(Failure),
}

async fn ask(
    sources: &Sources,
    client: &Client,
    options: &QueryArguments,
    scope: &str,
    sql: &str,
    password: Option<&str>,
) -> Result<Option<Table>, Trouble> {
    let cluster = cluster::find(sources, client, scope).await.map_err(Trouble::Failure)?;
    let nobody = |detail: Option<String>| Trouble::Row {
        text: match (&options.member, options.role) {
            (Some(name), _) => format!("No connection to member {name} is available"),
            (None, Some(role)) => format!("No connection to role {} is available", role.word()),
            (None, None) => "No connection is available".to_owned(),
        },
        detail,
    };
    let member = find(&cluster, options.role, options.member.as_deref());
    let (host, port) = member.and_then(address).ok_or_else(|| nobody(None))?;
    let config = config(options, host, port, password);
    let connecting = tokio::time::timeout(CONNECT_PATIENCE, config.connect(NoTls)).await;
    let (session, connection) = connecting
        .map_err(|_| nobody(Some(format!("no answer within {} s", CONNECT_PATIENCE.as_secs()))))?
        .map_err(|error| nobody(Some(words_of(&error))))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // The session sees the end of the connection with its next statement.
        connection.await.ok();
    });
    // Several statements cannot be prepared together: then all values are texts.
    let types = match session.prepare(sql).await {
        Ok(statement) => statement.columns().iter().map(|column| column.type_().clone()).collect(),
        Err(_) => Vec::new(),
    };
    let messages = session.simple_query(sql).await.map_err(|error| match error.code() {
        Some(state) => Trouble::Row {
            text: format!("ERROR, SQLSTATE: {}", state.code()),
            detail: Some(words_of(&error)),
        },
        None => nobody(Some(words_of(&error))),
    })?;
    Ok(rows(&messages, &types))
}

/// The server's words.
fn words_of(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| format!("{}: {}", error.severity(), error.message()))
}

fn config(options: &QueryArguments, host: &str, port: u16, password: Option<&str>) -> Config {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let user = options
        .username
        .clone()
        .or_else(|| variable("PGUSER"))
        .or_else(|| variable("USER"))
        .unwrap_or_else(|| "postgres".to_owned());
    let database = options.dbname.clone().or_else(|| variable("PGDATABASE")).unwrap_or_else(|| user.clone());
    let password = password
        .map(str::to_owned)
        .or_else(|| variable("PGPASSWORD"))
        .or_else(|| from_password_file(host, port, &database, &user));
    let mut config = Config::new();
    config.host(host).port(port).user(&user).dbname(&database).application_name(APPLICATION_NAME);
    config.ssl_mode(SslMode::Prefer).connect_timeout(CONNECT_PATIENCE);
    if let Some(password) = password {
        config.password(password);
    }
    config
}

/// Of libpq's password file.
fn from_password_file(host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let file = std::env::var_os("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))?;
    let text = std::fs::read_to_string(file).ok()?;
    let wanted = [host, &port.to_string(), database, user];
    text.lines().find_map(|line| {
        let fields = fields_of(line);
        let (password, keys) = fields.split_last()?;
        let is_meant = keys.len() == wanted.len()
            && keys.iter().zip(wanted).all(|(key, wanted)| key == "*" || key == wanted);
        is_meant.then(|| password.clone())
    })
}

/// Colons divide, a backslash takes the meaning from the next character.
fn fields_of(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => fields.push(String::new()),
            c => {
                let c = if c == '\\' { chars.next().unwrap_or(c) } else { c };
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    fields
}

/// The rows of the last statement that has some; none: no statement has.
fn rows(messages: &[SimpleQueryMessage], types: &[Type]) -> Option<Table> {
    let mut table: Option<Table> = None;
    for message in messages {
        if let SimpleQueryMessage::RowDescription(columns) = message {
            let column = |(place, name): (usize, &str)| Column {
                key: name.to_owned().into(),
                title: Some(name.to_owned().into()),
                is_right: types.get(place).is_some_and(is_number),
            };
            let columns = columns.iter().map(|column| column.name()).enumerate().map(column).collect();
            table = Some(Table { columns, ..Table::default() });
        }
        if let (SimpleQueryMessage::Row(row), Some(table)) = (message, &mut table) {
            let cell = |place| value(row.get(place), types.get(place));
            table.rows.push((0..row.len()).map(cell).collect());
        }
    }
    table
}

fn is_number(kind: &Type) -> bool {
    [Type::INT2, Type::INT4, Type::INT8, Type::OID, Type::FLOAT4, Type::FLOAT8].contains(kind)
}

/// A number or a truth value where PostgreSQL says that it is one.
fn value(text: Option<&str>, kind: Option<&Type>) -> Value {
    let Some(text) = text else { return Value::Null };
    match kind {
        Some(kind) if *kind == Type::BOOL => Value::Bool(text == "t"),
        Some(kind) if is_number(kind) => text.parse().map_or_else(|_| Value::from(text), Value::Number),
        Some(_) | None => Value::from(text),
    }
}

fn printed(table: &Table, options: &QueryArguments) -> String {
    match options.format {
        Format::Tsv => table.tsv(&options.delimiter),
        Format::Pretty | Format::Json | Format::Yaml => table.in_format(options.format),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_of_a_password_file() {
        assert_eq!(fields_of(r"host:5432:*:user:pa\:ss\\word"), ["host", "5432", "*", "user", r"pa:ss\word"]);
    }

    #[test]
    fn values_have_their_types() {
        assert_eq!(value(Some("5"), Some(&Type::INT8)), json!(5));
        assert_eq!(value(Some("NaN"), Some(&Type::FLOAT8)), json!("NaN"));
        assert_eq!(value(Some("t"), Some(&Type::BOOL)), json!(true));
        assert_eq!(value(Some("5"), Some(&Type::TEXT)), json!("5"));
        assert_eq!(value(None, None), Value::Null);
    }
}
