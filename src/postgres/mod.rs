//! Everything that knows PostgreSQL: observes the local server and performs actions on it.
//!
//! Owns the data directory's files, the administrative connection and the runs of PostgreSQL's programs. It promises
//! that every action can be repeated and can be interrupted at any point by dropping it, that a late answer is unknown
//! and never "stopped", and that no password stands in a log line, an error or an argument. It must never decide, never
//! start a server other than through [`Postmaster`], and never delete data which this node did not make itself.

mod basebackup;
mod conf;
mod control_data;
mod directory;
mod diverged;
mod error;
mod files;
mod foreign;
#[cfg(all(fuzzing, not(test)))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(crate) mod fuzzing;
mod hba;
mod health;
mod history;
mod hook;
mod initdb;
mod inspect;
mod layout;
mod methods;
mod observe;
mod parameters;
mod pending;
mod postmaster;
mod process;
mod programs;
mod promote;
mod query;
mod quote;
mod rewind;
mod roles;
mod secure;
mod server;
mod settings;
mod slot_copy;
mod slots;
mod sql;
mod sync_names;
mod sync_use;
mod timelines;
mod tool;
mod write;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use control_data::ControlDataError;
pub use error::PgError;
pub use health::Probing;
pub use hook::run_hook;
pub use inspect::{InspectError, Inspected, encryption_options, inspect, installed_major};
pub use parameters::{ParameterRefusal, refused_parameters};
use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::SystemIdentifier;
pub use postmaster::{Postmaster, PostmasterCommand, PostmasterError, PostmasterSignal};
pub use programs::ProgramsError;
pub use query::QueryError;
pub use settings::{BootstrapUser, Credentials, ReplicaCommand, ReplicaMethod, Secret, Settings};
pub use sql::{ColumnKind, Login, Rows, SqlError, run_sql};
use tokio::task::JoinSet;
pub use tool::{ToolError, run_command, split_words};

use self::files::OneLook;
use self::health::{Prober, Target};
use self::layout::Layout;
use self::observe::Cache;
use self::programs::Programs;
use self::query::{Local, Session};
use crate::ha::{DataDir, Health, PgAction, Process};

/// Where the server's sockets are unless the configuration says otherwise: Debian's place, if it may be used.
const SOCKETS: &str = "/var/run/postgresql";
const SOCKETS_FALLBACK: &str = "/tmp";

/// A server that refused the login is asked again after so long: it notes each attempt in its log.
const REFUSED_PAUSE: Duration = Duration::from_secs(3);

/// The handle on the local PostgreSQL: cheap to clone.
#[derive(Clone, Debug)]
pub struct Postgres {
    inner: Arc<Inner>,
    postmaster: Arc<dyn Postmaster>,
}

/// What the server said when it refused the login.
#[derive(Clone, Debug)]
struct Refusal {
    at: String,
    reason: String,
}

impl Refusal {
    fn of(error: &PgError) -> Option<Self> {
        let PgError::Query(QueryError::Connect { at, reason, is_refused: true, .. }) = error else {
            return None;
        };
        Some(Self { at: at.clone(), reason: reason.clone() })
    }
}

impl From<Refusal> for QueryError {
    fn from(Refusal { at, reason }: Refusal) -> Self {
        Self::Connect { at, reason, is_refused: true, is_not_ready: false }
    }
}

#[derive(Debug)]
struct Inner {
    settings: RwLock<Arc<Settings>>,
    /// The kept connection.
    session: Mutex<Option<Arc<Session>>>,
    /// The server's last refusal of the login, and when.
    refusal: Mutex<Option<(BootTime, Refusal)>>,
    cache: Mutex<Cache>,
    prober: Prober,
    /// At the files of the data directory.
    look: OneLook,
    /// Work which nobody waits for: the checkpoint after a promotion, the removal of old data.
    background: Mutex<JoinSet<()>>,
}

impl Postgres {
    /// A handle; does nothing yet.
    pub fn new(settings: Settings, postmaster: Arc<dyn Postmaster>) -> Self {
        let inner = Inner {
            settings: RwLock::new(Arc::new(settings)),
            session: Mutex::default(),
            refusal: Mutex::default(),
            cache: Mutex::default(),
            prober: Prober::default(),
            look: OneLook::default(),
            background: Mutex::default(),
        };
        Self { inner: Arc::new(inner), postmaster }
    }

    /// The same PostgreSQL for one action, through a parent which refuses it once it is no longer the one for which the
    /// action was decided.
    #[must_use]
    pub fn through(&self, postmaster: Arc<dyn Postmaster>) -> Self {
        Self { inner: Arc::clone(&self.inner), postmaster }
    }

    /// Are PostgreSQL's programs there, and can they be used? Their major version. To be asked before anything else is
    /// begun.
    pub async fn check(&self) -> Result<u32, PgError> {
        let server = self.programs()?.path("postgres");
        let printed = tool::Tool::new(&server).arg("--version").run(Some(tool::QUICK)).await?;
        let directory = server.parent().unwrap_or(&server);
        let major = programs::parse_version(&printed, directory)?;
        if let Some(data) = self.layout().major().filter(|data| *data != major) {
            return Err(PgError::Refused(format!(
                "{} was made by PostgreSQL {data}, but the programs in {} are of PostgreSQL {major}: \
                 set postgresql.bin_dir to those of {data}",
                self.settings().data_dir.display(),
                directory.display()
            )));
        }
        self.refuse_unwritable()?;
        Ok(major)
    }

    /// The system identifier of the data directory; none: it holds no database system, or none that can be read yet.
    pub async fn system_identifier(&self) -> Option<SystemIdentifier> {
        let is_initialised = matches!(self.layout().classify(), DataDir::Initialised { .. });
        if !is_initialised {
            return None;
        }
        let (control, _) = self.read_control().await.ok()?;
        Some(control.system_identifier)
    }

    /// The marker of unfinished work and earlier data lie beside the data directory.
    fn refuse_unwritable(&self) -> Result<(), PgError> {
        let settings = self.settings();
        let beside = &settings.state_dir;
        let access = rustix::fs::access(beside, rustix::fs::Access::WRITE_OK);
        access.map_err(|errno| {
            PgError::Refused(format!(
                "pgherd keeps files beside the data directory, but cannot write to {}: {errno}. Give the directory to \
                 the user which runs pgherd, or put postgresql.data_dir one level deeper",
                beside.display()
            ))
        })
    }

    /// Takes other settings, rewrites the configuration files of an existing data directory and reloads a running
    /// server. What needs a restart takes effect with the next start.
    pub async fn reconfigure(&self, settings: Settings) -> Result<(), PgError> {
        *self.refusal() = None;
        let settings = self.sifted(settings).await;
        *self.inner.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.rewrite().await
    }

    /// Leaves out, with a warning each, what the server would not start with: once, before anything is begun.
    pub async fn sift_parameters(&self) {
        let settings = self.sifted(Settings::clone(&self.settings())).await;
        *self.inner.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Performs an action. Safe to repeat; dropping the future interrupts it, and the next observation shows what is
    /// left to do. A job returns when it is done or has failed, however long that takes.
    pub async fn perform(&self, action: &PgAction) -> Result<(), PgError> {
        match action {
            PgAction::Bootstrap => self.bootstrap().await,
            PgAction::StartPrimary => self.start(conf::Role::Primary).await,
            PgAction::StartStandby { upstream } => self.start(conf::Role::Standby(upstream.clone())).await,
            PgAction::Stop { mode, checkpoint_first } => self.stop(*mode, *checkpoint_first).await,
            PgAction::Promote { timeline } => self.promote(*timeline).await,
            PgAction::Follow { upstream } => self.follow(upstream.clone()).await,
            PgAction::Fence { epoch } => self.fence(*epoch).await,
            PgAction::SetSync { names } => self.set_sync(names.clone()).await,
            PgAction::Rewind { source } => self.rewind(source).await,
            PgAction::Clone { source } => self.make_replica(Some(source)).await,
            PgAction::Restore => self.make_replica(None).await,
            PgAction::PrePromote => self.pre_promote().await,
            PgAction::Restart { is_standby, upstream } => {
                let role =
                    if *is_standby { conf::Role::Standby(upstream.clone()) } else { conf::Role::Primary };
                self.restart(role).await
            }
            PgAction::Reinitialize { source } => self.reinitialize(source).await,
            PgAction::DiscardOldData => self.discard_old_data().await,
            PgAction::DiscardIncomplete => self.discard_incomplete().await,
            PgAction::KeepSlots { steps } => self.keep_all_slots(steps).await,
            PgAction::CopySlots { source, slots } => self.copy_slots(source, slots).await,
        }
    }

    /// What the probes of the server's health do from now on; `limit` is the time after which a failure counts.
    pub fn probe(&self, probing: Probing, limit: Duration) {
        self.inner.prober.direct(probing, limit, || {
            let settings = self.reached();
            let socket = Self::sockets(&settings).0;
            Target { local: Local::of(&settings, socket.clone()), socket, settings }
        });
    }

    /// What the probes say at this moment.
    pub fn health(&self) -> Health {
        self.inner.prober.health()
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The settings with the addresses at which the running server is reached: it keeps them until its next start.
    fn reached(&self) -> Arc<Settings> {
        let settings = self.settings();
        let Some(at) = self.runs_at().filter(|at| at.port != settings.port) else { return settings };
        let mut reached = Settings::clone(&settings);
        reached.port = at.port;
        reached.listen = at.host.into_iter().collect();
        if let Some(sockets) = at.sockets {
            reached.parameters.insert("unix_socket_directories".to_owned(), sockets);
        }
        Arc::new(reached)
    }

    fn layout(&self) -> Layout {
        Layout::of(&self.settings())
    }

    fn programs(&self) -> Result<Programs, PgError> {
        let settings = self.settings();
        let path = std::env::var("PATH").unwrap_or_default();
        let names = &settings.bin_names;
        Ok(Programs::find(settings.bin_dir.as_deref(), names, &path, self.layout().major())?)
    }

    fn is_running(&self) -> bool {
        matches!(self.postmaster.process().of_any_age(), Some(Process::Running { .. }))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of the sockets, and the value to write where the configuration says nothing.
    fn sockets(settings: &Settings) -> (Option<PathBuf>, Option<&'static str>) {
        match settings.parameters.get("unix_socket_directories") {
            Some(given) => {
                let mut entries = given.split(',').map(|entry| entry.trim().trim_matches('"'));
                (entries.find(|entry| entry.starts_with('/')).map(PathBuf::from), None)
            }
            None => {
                let may_write = rustix::fs::access(SOCKETS, rustix::fs::Access::WRITE_OK).is_ok();
                let directory = if may_write { SOCKETS } else { SOCKETS_FALLBACK };
                (Some(PathBuf::from(directory)), Some(directory))
            }
        }
    }

    fn local(settings: &Settings) -> Local {
        Local::of(settings, Self::sockets(settings).0)
    }

    /// A connection of its own to the local server.
    async fn connect(&self) -> Result<Session, PgError> {
        let settings = self.reached();
        Ok(Session::local(&settings, &Self::local(&settings)).await?)
    }

    /// The same to another database.
    async fn connect_to(&self, database: &str) -> Result<Session, PgError> {
        let mut settings = Settings::clone(&self.reached());
        database.clone_into(&mut settings.database);
        Ok(Session::local(&settings, &Self::local(&settings)).await?)
    }

    /// The kept connection, or a new one.
    async fn session(&self) -> Result<Arc<Session>, PgError> {
        let kept = self.kept().as_ref().filter(|session| !session.is_closed()).map(Arc::clone);
        if let Some(session) = kept {
            return Ok(session);
        }
        if let Some((at, refusal)) = self.refusal().as_ref()
            && clock::now().since(*at) < REFUSED_PAUSE
        {
            return Err(QueryError::from(refusal.clone()).into());
        }
        let connected = self.connect().await;
        let refusal = connected.as_ref().err().and_then(Refusal::of);
        *self.refusal() = refusal.map(|refusal| (clock::now(), refusal));
        let session = Arc::new(connected?);
        *self.kept() = Some(Arc::clone(&session));
        Ok(session)
    }

    fn refusal(&self) -> std::sync::MutexGuard<'_, Option<(BootTime, Refusal)>> {
        self.inner.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Arc<Session>>> {
        self.inner.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts work which nobody waits for; it ends with the handle.
    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut background = self.inner.background.lock().unwrap_or_else(PoisonError::into_inner);
        while background.try_join_next().is_some() {}
        background.spawn(work);
    }

    fn forget_session(&self) {
        *self.kept() = None;
    }
}
