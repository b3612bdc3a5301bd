//! The roles which a new cluster needs. Passwords reach the server as SCRAM verifiers only, so that neither its log nor
//! its statistics can show one.

use super::error::PgError;
use super::query::Session;
use super::quote::{identifier, literal};
use super::settings::{Credentials, Secret, Settings};

/// The options of `CREATE ROLE` which a configuration may use.
const OPTIONS: [&str; 14] = [
    "SUPERUSER",
    "NOSUPERUSER",
    "CREATEDB",
    "NOCREATEDB",
    "CREATEROLE",
    "NOCREATEROLE",
    "INHERIT",
    "NOINHERIT",
    "LOGIN",
    "NOLOGIN",
    "REPLICATION",
    "NOREPLICATION",
    "BYPASSRLS",
    "NOBYPASSRLS",
];

/// What `pg_rewind` runs on its source.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Makes the superuser (where `initdb` made another one), the roles for replication and rewind, and those of the
/// configuration.
pub(super) async fn create_all(session: &Session, settings: &Settings) -> Result<(), PgError> {
    // Verifiers are no passwords, but they need not stand in a log either.
    let quiet = "SET log_statement = 'none'; SET log_min_duration_statement = -1; \
                 SET log_min_error_statement = 'panic'; SET log_duration = off";
    session.run("quiet logging", quiet).await?;
    for user in &settings.users {
        let mut options: Vec<&str> = user.options.iter().map(String::as_str).collect();
        if !options.iter().any(|option| option.trim().to_ascii_uppercase().ends_with("LOGIN")) {
            options.push("LOGIN");
        }
        create(session, &user.name, user.password.as_ref(), &options).await?;
    }
    let replication = &settings.replication;
    create(session, &replication.username, replication.password.as_ref(), &["LOGIN", "REPLICATION"]).await?;
    let rewind = settings.rewind.as_ref().filter(|rewind| rewind.username != settings.superuser.username);
    if let Some(rewind) = rewind {
        create(session, &rewind.username, rewind.password.as_ref(), &["LOGIN"]).await?;
        grant_rewind(session, rewind).await?;
    }
    Ok(())
}

async fn grant_rewind(session: &Session, rewind: &Credentials) -> Result<(), PgError> {
    let role = identifier(&rewind.username);
    for function in REWIND_FUNCTIONS {
        let grant = format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role}");
        session.run("grant for pg_rewind", &grant).await?;
    }
    Ok(())
}

async fn create(
    session: &Session,
    name: &str,
    password: Option<&Secret>,
    options: &[&str],
) -> Result<(), PgError> {
    let query = format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(name));
    let exists = session.text("pg_roles", &query).await?.is_some();
    let verifier =
        password.map(|secret| postgres_protocol::password::scram_sha_256(secret.expose().as_bytes()));
    let statement = render(name, exists, options, verifier.as_deref())?;
    Ok(session.run("a role of the configuration", &statement).await?)
}

fn render(name: &str, exists: bool, options: &[&str], verifier: Option<&str>) -> Result<String, PgError> {
    let verb = if exists { "ALTER" } else { "CREATE" };
    let mut statement = format!("{verb} ROLE {} WITH", identifier(name));
    for option in options {
        statement.push(' ');
        statement.push_str(&known_option(name, option)?);
    }
    if let Some(verifier) = verifier {
        statement.push_str(&format!(" PASSWORD {}", literal(verifier)));
    }
    Ok(statement)
}

fn known_option(role: &str, option: &str) -> Result<String, PgError> {
    let upper = option.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_uppercase();
    let is_limit = upper.strip_prefix("CONNECTION LIMIT ").is_some_and(|limit| limit.parse::<i32>().is_ok());
    if is_limit || OPTIONS.contains(&upper.as_str()) {
        return Ok(upper);
    }
    Err(PgError::Refused(format!(
        "bootstrap.users.{role}: {option:?} is no option of CREATE ROLE which can be used here; known are {} and \
         CONNECTION LIMIT n",
        OPTIONS.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_rendered() {
        let sql = render("a\"b", false, &["createdb", " connection  limit 5"], Some("SCRAM-SHA-256$4096:x"))
            .expect("sql");
        assert_eq!(
            sql,
            "CREATE ROLE \"a\"\"b\" WITH CREATEDB CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:x'"
        );
        assert_eq!(render("r", true, &["LOGIN"], None).expect("sql"), "ALTER ROLE \"r\" WITH LOGIN");
    }

    #[test]
    fn an_option_cannot_smuggle_a_statement() {
        for bad in ["createdb; DROP TABLE t", "PASSWORD 'x'", "CONNECTION LIMIT 1 SUPERUSER", ""] {
            let error = render("r", false, &[bad], None).expect_err(bad).to_string();
            assert!(error.contains("bootstrap.users.r"), "{error}");
        }
    }
}
