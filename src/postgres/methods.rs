//! Makes a replica by the operator's methods (`create_replica_methods`), in their order: the first that succeeds is it.
//!
//! A command finds no data directory where it is to put one, unless it keeps what is there (`keep_data`). What it leaves is
//! a standby's: PostgreSQL is never started on it as a primary by this.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::basebackup::make_room;
use super::conf::Role;
use super::error::PgError;
use super::files::blocking;
use super::hook::run_hook;
use super::layout::{Layout, Marker};
use super::settings::{ReplicaCommand, ReplicaMethod, Settings};
use super::tool::split_words;
use super::write::{Access, ToolPassfile};
use super::{Postgres, foreign};
use crate::ha::{DataDir, Upstream};

/// Restoring a big cluster may take days; what hangs does not last for ever.
const LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// PostgreSQL starts only when nobody else may read the data directory.
const PRIVATE: u32 = 0o700;

impl Postgres {
    /// Makes a replica of the source; without one only by the methods which need none (`no_leader`).
    pub(super) async fn make_replica(&self, source: Option<&Upstream>) -> Result<(), PgError> {
        let settings = self.settings();
        let mut last = None;
        for method in &settings.replica_methods {
            let (name, made) = match (method, source) {
                (ReplicaMethod::BaseBackup, Some(source)) => ("basebackup", self.base_backup(source).await),
                (ReplicaMethod::Command(command), source) if source.is_some() || command.no_leader => {
                    (command.name.as_str(), self.restore(command, source).await)
                }
                (ReplicaMethod::BaseBackup | ReplicaMethod::Command(_), _) => continue,
            };
            match made {
                Ok(()) => {
                    tracing::info!("replica has been created using {name}");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!("Error creating replica using method {name}: {}", error.in_full());
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            PgError::Refused(
                "none of postgresql.create_replica_methods can be used now; add basebackup to it".to_owned(),
            )
        }))
    }

    async fn restore(&self, method: &ReplicaCommand, source: Option<&Upstream>) -> Result<(), PgError> {
        self.clear_for_filling().await?;
        self.forget_control();
        let (settings, layout) = (self.settings(), self.layout());
        let (here, keeps, what) = (layout.clone(), method.keep_data, format!("method {}", method.name));
        blocking(move || prepare(&here, keeps, what)).await?;
        let mut words = split_words(&method.command).map_err(|why| {
            PgError::Refused(format!("postgresql.{}.command cannot be split into words: {why}", method.name))
        })?;
        words.extend(arguments(method, &settings, source));
        let passfile = ToolPassfile::new(&layout, &settings.replication)?;
        let env: [(&str, OsString); 2] =
            [("PGPASSFILE", passfile.path().into()), ("PGSERVICEFILE", passfile.service().into())];
        run_hook(&words, &env, LIMIT).await?;
        drop(passfile);
        let here = layout.clone();
        blocking(move || settle(&here)).await?;
        // Without the signal it could come up as a primary on the timeline of its source.
        self.write_all(Role::Standby(source.cloned()), Access::Usual).await?;
        blocking(move || layout.mark(&Marker::Copied)).await
    }
}

fn prepare(layout: &Layout, keeps_data: bool, what: String) -> Result<(), PgError> {
    if let (true, DataDir::Foreign(why)) = (keeps_data, layout.classify()) {
        return Err(PgError::Refused(why));
    }
    if !keeps_data {
        make_room(layout)?;
    }
    layout.mark(&Marker::Filling(what))?;
    if !keeps_data {
        // Programs that copy a tree want to make the directory themselves. A mount point, or one with `lost+found`, stays.
        match fs::remove_dir(&layout.data_dir) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound
                        | ErrorKind::DirectoryNotEmpty
                        | ErrorKind::ResourceBusy
                        | ErrorKind::PermissionDenied
                ) =>
            {
                return Err(PgError::file("remove", &layout.data_dir)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The command said that it succeeded.
fn settle(layout: &Layout) -> Result<(), PgError> {
    let data_dir = &layout.data_dir;
    if !layout.in_data("global/pg_control").is_file() {
        return Err(PgError::Refused(format!(
            "{} holds no database system after the command has succeeded",
            data_dir.display()
        )));
    }
    fs::set_permissions(data_dir, fs::Permissions::from_mode(PRIVATE))
        .map_err(PgError::file("set the mode of", data_dir))?;
    foreign::carry_over(layout)
}

/// What a command gets behind its own words: `--KEY=VALUE`.
fn arguments(method: &ReplicaCommand, settings: &Settings, source: Option<&Upstream>) -> Vec<String> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if !method.no_params {
        let connection = source.map(|source| address(settings, source)).unwrap_or_default();
        pairs.push(("scope", settings.scope.clone()));
        pairs.push(("role", "replica".to_owned()));
        pairs.push(("datadir", settings.data_dir.display().to_string()));
        pairs.push(("connstring", connection));
        let flags = [("no_leader", method.no_leader), ("keep_data", method.keep_data)];
        pairs.extend(flags.into_iter().filter(|(_, is_on)| *is_on).map(|(key, _)| (key, "1".to_owned())));
    }
    let own = method.arguments.iter().map(|(key, value)| (key.as_str(), value.clone()));
    pairs.into_iter().chain(own).map(|(key, value)| format!("--{key}={value}")).collect()
}

/// A connection address without a password, which is in the file that `PGPASSFILE` names.
fn address(settings: &Settings, source: &Upstream) -> String {
    let host = &source.addr.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    format!(
        "postgres://{}@{host}:{}/{}",
        encode(&settings.replication.username),
        source.addr.port,
        encode(&settings.database)
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pgherd_raft::model::PostgresAddr;

    use super::*;

    #[test]
    fn a_command_is_told_what_it_needs() {
        let settings = Settings::new("batch", "node2", Path::new("/data"), 5432);
        let method = ReplicaCommand {
            name: "barman".to_owned(),
            command: "restore".to_owned(),
            arguments: vec![("server".to_owned(), "main one".to_owned())],
            keep_data: false,
            no_params: false,
            no_leader: true,
        };
        let addr = PostgresAddr { host: "fd00::1".to_owned(), port: 5433 };
        let source = Upstream { name: "node1".to_owned(), addr };
        assert_eq!(
            arguments(&method, &settings, Some(&source)),
            [
                "--scope=batch",
                "--role=replica",
                "--datadir=/data",
                "--connstring=postgres://replicator@[fd00::1]:5433/postgres",
                "--no_leader=1",
                "--server=main one",
            ]
        );
        let plain = ReplicaCommand { no_params: true, ..method };
        assert_eq!(arguments(&plain, &settings, None), ["--server=main one"]);
    }
}
