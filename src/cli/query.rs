//! `query`: SQL on a member's PostgreSQL.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::arguments::{Format, QueryArguments};
use super::client::Client;
use super::config::Sources;
use super::dsn::{address, find, refuse_both};
use super::moment::{SECOND, local_time};
use super::output::Output;
use super::table::{Column, Table};
use super::{Failure, cluster};
use crate::postgres::{ColumnKind, Credentials, Login, Rows, SqlError, encryption_options, run_sql};

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
        let pause = options.watch.pause();
        if pause.is_some() {
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
                output.say(&format!("{}{}{text}", local_time(SECOND), options.delimiter));
                if let Some(detail) = detail {
                    output.complain(&detail);
                }
                Err(Failure::Told)
            }
            Err(Trouble::Failure(failure)) => Err(failure),
        };
        let Some(pause) = pause else { return done };
        if let Err(Failure::Error(error)) = done {
            output.say(&format!("Error: {error:#}"));
        }
        tokio::time::sleep(pause).await;
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
    let login = login(options, host, port, password);
    match Box::pin(run_sql(&login, sql)).await {
        Ok(rows) => Ok(rows.map(table)),
        Err(SqlError::NoConnection(why)) => Err(nobody(Some(why))),
        Err(SqlError::Refused { sqlstate, reason }) => Err(Trouble::Row {
            text: format!("ERROR, SQLSTATE: {sqlstate}"),
            detail: Some(format!("ERROR: {reason}")),
        }),
    }
}

fn login(options: &QueryArguments, host: &str, port: u16, password: Option<&str>) -> Login {
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
    let mut credentials = Credentials::new(&user, password.as_deref());
    credentials.options = encryption_options(variable);
    Login {
        host: host.to_owned(),
        port,
        database,
        credentials,
        application_name: APPLICATION_NAME.to_owned(),
        patience: CONNECT_PATIENCE,
    }
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

fn table(rows: Rows) -> Table {
    let Rows { columns, rows } = rows;
    let kinds: Vec<ColumnKind> = columns.iter().map(|(_, kind)| *kind).collect();
    let cells = |row: Vec<Option<String>>| {
        row.into_iter().zip(&kinds).map(|(text, kind)| value(text, *kind)).collect()
    };
    let rows = rows.into_iter().map(cells).collect();
    let column = |(name, kind): (String, ColumnKind)| Column {
        title: Some(name.clone().into()),
        key: name.into(),
        is_right: kind == ColumnKind::Number,
    };
    Table { columns: columns.into_iter().map(column).collect(), rows, keeps_empty: true, ..Table::default() }
}

fn value(text: Option<String>, kind: ColumnKind) -> Value {
    match (text, kind) {
        (None, _) => Value::Null,
        (Some(text), ColumnKind::Boolean) => Value::Bool(text == "t"),
        (Some(text), ColumnKind::Number) => text.parse().map_or(Value::String(text), Value::Number),
        (Some(text), ColumnKind::Text) => Value::String(text),
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
        let value = |text: &str, kind| value(Some(text.to_owned()), kind);
        assert_eq!(value("5", ColumnKind::Number), json!(5));
        assert_eq!(value("NaN", ColumnKind::Number), json!("NaN"));
        assert_eq!(value("t", ColumnKind::Boolean), json!(true));
        assert_eq!(value("5", ColumnKind::Text), json!("5"));
        assert_eq!(super::value(None, ColumnKind::Text), Value::Null);
    }
}
