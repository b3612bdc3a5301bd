//! The server's life: start, wait until it answers, stop.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd_raft::config::{Environment, is_configuration_variable, process_environment};
use tokio::time::{sleep, timeout};

use super::Postgres;
use super::conf::{self, Role};
use super::control_data::LeastSettings;
use super::error::PgError;
use super::observe::refuse_unfinished;
use super::postmaster::{PostmasterCommand, PostmasterSignal};
use super::query::QueryError;
use super::tool::one_line;
use super::write::Access;
use crate::ha::{Process, StopMode};

/// How often a starting server is asked whether it answers.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// A standby which has not reached a consistent state by then goes on as it is: it may need WAL from an upstream, and
/// whom to follow is for others to decide.
const STANDBY_PATIENCE: Duration = Duration::from_secs(5);
/// A checkpoint before a stop may take this long; the shutdown makes its own in any case.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);
/// As much of the end of the server's log stands in an error.
const LOG_TAIL: u64 = 2000;
/// A log file of this size is put aside at the next start; one earlier file is kept.
const LOG_LIMIT: u64 = 64 * 1024 * 1024;

impl Postgres {
    /// Starts the server in a role and waits until it answers. Done already when it runs.
    pub(super) async fn start(&self, role: Role) -> Result<(), PgError> {
        self.start_with(role, Access::Usual).await
    }

    pub(super) async fn start_with(&self, role: Role, access: Access) -> Result<(), PgError> {
        let runs = self.runs().await?;
        if let (true, Role::Standby(upstream)) = (runs, &role) {
            self.follow(upstream.clone()).await?;
        }
        let mut log_offset = None;
        if !runs {
            self.await_stopped().await?;
            self.remove_discarded_in_background();
            if access == Access::Usual {
                refuse_unfinished(&self.layout())?;
            }
            let least = match role {
                Role::Standby(_) => self.read_control().await?.1,
                Role::Primary => LeastSettings::default(),
            };
            self.tidy_histories().await?;
            self.write_all(role.clone(), access).await?;
            if role == Role::Primary {
                self.value_copy().await?;
            }
            self.forget_session();
            self.forget_addresses();
            log_offset = Some(self.spawn(&role, &least).await?);
        }
        self.await_ready(&role, log_offset).await
    }

    /// Starts the postmaster; the length which its log file had.
    async fn spawn(&self, role: &Role, least: &LeastSettings) -> Result<u64, PgError> {
        let settings = self.settings();
        rotate(&settings.log_file);
        let log_offset = std::fs::metadata(&settings.log_file).map_or(0, |is| is.len());
        *self.refusal() = None;
        let command = PostmasterCommand {
            program: self.programs()?.path("postgres"),
            args: conf::arguments(&settings, least),
            env: inherited(process_environment()),
            log_file: settings.log_file.clone(),
            may_write: *role == Role::Primary,
        };
        let started = self.postmaster.start(command).await;
        started.map_err(PgError::postmaster("cannot start PostgreSQL"))?;
        Ok(log_offset)
    }

    async fn await_ready(&self, role: &Role, log_offset: Option<u64>) -> Result<(), PgError> {
        let settings = self.settings();
        let log = settings.log_file.clone();
        let ready = async {
            loop {
                match self.session().await {
                    Ok(_) => return Ok(()),
                    Err(PgError::Query(error @ QueryError::Connect { is_refused: true, .. })) => {
                        return Err(PgError::Query(error));
                    }
                    Err(_) => sleep(ASK_AGAIN).await,
                }
            }
        };
        let limit = match role {
            Role::Standby(_) => Some(STANDBY_PATIENCE),
            Role::Primary => settings.start_timeout,
        };
        let limited = async {
            match limit {
                Some(limit) => timeout(limit, ready).await.ok(),
                None => Some(ready.await),
            }
        };
        tokio::select! {
            answered = limited => match (answered, role) {
                (Some(answered), _) => answered,
                (None, Role::Standby(_)) => Ok(()),
                (None, Role::Primary) => {
                    Err(PgError::StartTimeout { seconds: limit.unwrap_or_default().as_secs(), log })
                }
            },
            ended = self.postmaster.stopped() => {
                let how = ended.map_err(PgError::postmaster("PostgreSQL ended while starting"))?;
                let tail = tail_of(&log, log_offset.unwrap_or(0));
                Err(PgError::EndedWhileStarting { how, log, tail })
            }
        }
    }

    /// Stops the server and starts it in the role that it had.
    pub(super) async fn restart(&self, role: Role) -> Result<(), PgError> {
        self.stop(StopMode::Fast, role == Role::Primary).await?;
        self.start(role).await
    }

    /// Stops the server and waits until no process of it is left.
    pub(super) async fn stop(&self, mode: StopMode, checkpoint_first: bool) -> Result<(), PgError> {
        if self.known().await? == Process::Stopped {
            return Ok(());
        }
        if checkpoint_first && self.is_running() {
            // Only to make the shutdown short: what keeps it from being made does not keep the server from stopping.
            if let Ok(session) = self.connect().await {
                session.checkpoint(CHECKPOINT_LIMIT).await.ok();
            }
        }
        if mode == StopMode::Fast && self.is_running() {
            self.before_stop().await;
        }
        if self.runs().await? {
            let signal = match mode {
                StopMode::Fast => PostmasterSignal::Fast,
                StopMode::Immediate => PostmasterSignal::Immediate,
            };
            let sent = self.postmaster.signal(signal).await;
            if self.runs().await? {
                sent.map_err(PgError::postmaster("cannot stop PostgreSQL"))?;
            }
        }
        self.await_stopped().await?;
        self.forget_session();
        self.forget_control();
        Ok(())
    }

    /// What the postmaster does, as soon as it is known.
    async fn known(&self) -> Result<Process, PgError> {
        let known = self.postmaster.known().await;
        known.map_err(PgError::postmaster("it is not known whether PostgreSQL runs"))
    }

    async fn runs(&self) -> Result<bool, PgError> {
        Ok(matches!(self.known().await?, Process::Running { .. }))
    }

    /// Waits until no process of the data directory is left.
    pub(super) async fn await_stopped(&self) -> Result<(), PgError> {
        let ended = self.postmaster.stopped().await;
        ended.map_err(PgError::postmaster("cannot wait for the end of PostgreSQL")).map(|_| ())
    }

    /// Is the data directory free to be changed as a whole?
    pub(super) async fn refuse_unless_stopped(&self, what: &str) -> Result<(), PgError> {
        match self.known().await? {
            Process::Stopped => Ok(()),
            Process::Running { .. } | Process::Ending => {
                Err(PgError::Refused(format!("{what}: PostgreSQL is still running")))
            }
        }
    }
}

/// Commands of the operator's which PostgreSQL runs may need the environment; our own settings, with passwords, and
/// libpq's defaults are none of their business.
fn is_inherited(name: &str) -> bool {
    const NOT_INHERITED: [&str; 4] = ["PG", "RUST_", "NOTIFY_SOCKET", "WATCHDOG_"];
    // Read by the postmaster for its children, and set where the service is protected from the OOM killer.
    if name.starts_with("PG_OOM_ADJUST_") {
        return true;
    }
    !is_configuration_variable(name) && !NOT_INHERITED.iter().any(|prefix| name.starts_with(prefix))
}

/// The postmaster's environment. `PG_MALLOC_ARENA_MAX` is its own limit for what the daemon has another one for; empty:
/// the C library's default.
fn inherited(environment: Environment) -> Environment {
    let arenas = environment.get("PG_MALLOC_ARENA_MAX").cloned();
    let mut inherited: Environment = environment.into_iter().filter(|(name, _)| is_inherited(name)).collect();
    match arenas {
        Some(most) if most.is_empty() => drop(inherited.remove("MALLOC_ARENA_MAX")),
        Some(most) => drop(inherited.insert("MALLOC_ARENA_MAX".to_owned(), most)),
        None => {}
    }
    inherited
}

fn rotate(log: &Path) {
    if std::fs::metadata(log).is_ok_and(|is| is.len() > LOG_LIMIT) {
        let mut earlier = log.as_os_str().to_owned();
        earlier.push(".1");
        // A log that cannot be put aside is no reason not to start.
        std::fs::rename(log, PathBuf::from(earlier)).ok();
    }
}

fn tail_of(log: &Path, offset: u64) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset.max(length.saturating_sub(LOG_TAIL))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    one_line(&read().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_postmaster_has_a_limit_of_arenas_of_its_own() {
        let of = |pairs: &[(&str, &str)]| -> Environment {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let given = [("MALLOC_ARENA_MAX", "1"), ("PATRONI_NAME", "x"), ("LANG", "C")];
        assert_eq!(inherited(of(&given)), of(&[("MALLOC_ARENA_MAX", "1"), ("LANG", "C")]));
        let with = |most| inherited(of(&[given[0], ("PG_MALLOC_ARENA_MAX", most)]));
        assert_eq!(with("4"), of(&[("MALLOC_ARENA_MAX", "4")]));
        assert_eq!(with(""), of(&[]));
    }
}
