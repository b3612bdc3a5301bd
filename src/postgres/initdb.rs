//! Makes a new database system.

use std::path::Path;

use super::Postgres;
use super::conf::{Role, TOOL_SERVICE};
use super::error::PgError;
use super::files::{self, blocking};
use super::layout::Marker;
use super::quote::conninfo;
use super::tool::{Tool, end_leftovers, split_words};
use super::write::{Access, ToolPassfile};
use super::{directory, roles};
use crate::ha::{DataDir, StopMode};

/// Options of `initdb` which would defeat what pgherd does with it.
const REFUSED: [&str; 8] =
    ["pgdata", "nosync", "no-sync", "pwfile", "pwprompt", "sync-only", "version", "username"];

impl Postgres {
    /// Makes a new database system, starts it, makes its roles and runs `post_bootstrap`. The data directory counts as
    /// incomplete until all of that is done.
    pub(super) async fn bootstrap(&self) -> Result<(), PgError> {
        self.clear_for_filling().await?;
        match self.layout().classify() {
            DataDir::Empty => {}
            DataDir::Incomplete => self.discard_incomplete().await?,
            DataDir::Initialised { .. } => {
                return Err(PgError::Refused(format!(
                    "{} holds a database system already: no new one is made",
                    self.settings().data_dir.display()
                )));
            }
            DataDir::Foreign(why) => return Err(PgError::Refused(why)),
        }
        self.initdb().await?;
        let made = self.finish_bootstrap().await;
        if made.is_err() {
            // What it says is in the error; the half-made system must not go on running.
            self.stop(StopMode::Immediate, false).await?;
        }
        made
    }

    async fn initdb(&self) -> Result<(), PgError> {
        let (settings, layout) = (self.settings(), self.layout());
        let program = self.programs()?.path("initdb");
        let options = program_options("bootstrap.initdb", &settings.initdb, &REFUSED)?;
        let password = settings.superuser.password.clone();
        let here = layout.clone();
        let target = blocking(move || {
            here.mark(&Marker::Filling("initdb".to_owned()))?;
            directory::prepare(&here)
        })
        .await?;
        let mut tool = Tool::new(program)
            .arg("-D")
            .arg(target.as_os_str())
            .arg(format!("--username={}", settings.superuser.username));
        if !settings.initdb.iter().any(|(name, _)| name.starts_with("auth") || name == "A") {
            tool = tool.arg("--auth-host=scram-sha-256").arg("--auth-local=peer");
        }
        let pwfile =
            password.map(|secret| PasswordFile::new(&layout.tool_pgpass(), secret.expose())).transpose()?;
        if let Some(pwfile) = &pwfile {
            tool = tool.arg("--pwfile").arg(pwfile.0.as_os_str());
        }
        tool.args(options).run(None).await?;
        drop(pwfile);
        blocking(move || directory::settle(&layout, &target)).await
    }

    async fn finish_bootstrap(&self) -> Result<(), PgError> {
        self.start_with(Role::Primary, Access::Bootstrap).await?;
        let settings = self.settings();
        let session = self.connect().await?.patient().await?;
        roles::create_all(&session, &settings).await?;
        drop(session);
        if let Some(command) = &settings.post_bootstrap {
            self.run_post_bootstrap(command).await?;
        }
        self.set_access(Access::Usual).await?;
        let layout = self.layout();
        blocking(move || layout.unmark()).await
    }

    /// The command gets a connection string of the superuser as its last argument and finds the password in the file
    /// which `PGPASSFILE` names.
    async fn run_post_bootstrap(&self, command: &str) -> Result<(), PgError> {
        let settings = self.settings();
        let words = split_words(command).map_err(|why| {
            PgError::Refused(format!("bootstrap.post_bootstrap cannot be split into words: {why}"))
        })?;
        let Some((program, args)) = words.split_first() else {
            return Ok(());
        };
        let (host, port) = (Self::local(&settings).host(), settings.port.to_string());
        let mut pairs = vec![
            ("host", host.as_str()),
            ("port", port.as_str()),
            ("user", settings.superuser.username.as_str()),
            ("dbname", settings.database.as_str()),
        ];
        pairs.extend(settings.superuser.sslpassword.as_ref().map(|_| ("service", TOOL_SERVICE)));
        pairs.extend(settings.superuser.options.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let connection = conninfo(pairs);
        let passfile = ToolPassfile::new(&self.layout(), &settings.superuser)?;
        Tool::new(program)
            .args(args)
            .arg(connection)
            .env("PGPASSFILE", passfile.path())
            .env("PGSERVICEFILE", passfile.service())
            .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0")
            .run(None)
            .await?;
        Ok(())
    }

    /// Stops a server which runs on unfinished data, and ends programs which an earlier life of the daemon started.
    pub(super) async fn clear_for_filling(&self) -> Result<(), PgError> {
        let layout = self.layout();
        end_leftovers(&layout.data_dir).await;
        if layout.classify() == DataDir::Incomplete {
            self.stop(StopMode::Immediate, false).await?;
        }
        self.refuse_unless_stopped("the data directory cannot be filled").await
    }

    /// Empties a data directory which this daemon began to fill and did not finish.
    pub(super) async fn discard_incomplete(&self) -> Result<(), PgError> {
        self.clear_for_filling().await?;
        self.forget_control();
        let layout = self.layout();
        blocking(move || match layout.classify() {
            DataDir::Incomplete => {
                directory::empty(&layout)?;
                layout.unmark()
            }
            DataDir::Empty => Ok(()),
            DataDir::Initialised { .. } | DataDir::Foreign(_) => Err(PgError::Refused(format!(
                "{} is not emptied: it is not unfinished",
                layout.data_dir.display()
            ))),
        })
        .await
    }
}

/// Long options for a program: the configuration's without those which are refused.
pub(super) fn program_options(
    key: &str,
    options: &[(String, Option<String>)],
    refused: &[&str],
) -> Result<Vec<String>, PgError> {
    let render = |(name, value): &(String, Option<String>)| {
        let name = name.trim_start_matches('-');
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !is_name || refused.contains(&name) {
            return Err(PgError::Refused(format!(
                "{key}: the option {name:?} cannot be used here; remove it"
            )));
        }
        Ok(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        })
    };
    options.iter().map(render).collect()
}

/// A file with nothing but a password, for `initdb`; removed afterwards.
struct PasswordFile(std::path::PathBuf);

impl PasswordFile {
    fn new(path: &Path, password: &str) -> Result<Self, PgError> {
        files::write(path, &format!("{password}\n"))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        // It is private and is overwritten by the next run if it stays.
        files::remove(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_rendered_and_dangerous_ones_refused() {
        let option = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let given = [option("data-checksums", None), option("encoding", Some("UTF8"))];
        let rendered = program_options("bootstrap.initdb", &given, &REFUSED).expect("rendered");
        assert_eq!(rendered, ["--data-checksums", "--encoding=UTF8"]);
        for bad in ["pwfile", "a b", "", "x=y"] {
            let error = program_options("bootstrap.initdb", &[option(bad, None)], &REFUSED);
            assert!(error.expect_err(bad).to_string().contains("bootstrap.initdb"));
        }
    }
}
