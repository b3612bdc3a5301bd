//! Brings a diverged former primary back with `pg_rewind`.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::conf::{Role, program_conninfo};
use super::error::PgError;
use super::files::blocking;
use super::layout::Marker;
use super::observe::refuse_unfinished;
use super::query::Session;
use super::settings::Credentials;
use super::tool::{Tool, ToolError, end_leftovers};
use super::write::{Access, ToolPassfile};
use super::{Postgres, foreign};
use crate::ha::Upstream;

/// How long the source may take to write its first checkpoint after its promotion.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// `pg_rewind` says this before it changes the first file.
const CHANGING: &str = "rewinding from last common checkpoint";

impl Postgres {
    /// Rewinds the stopped data directory. A failure before anything was changed leaves it usable; after that it can
    /// only be copied anew, and starting it is refused.
    pub(super) async fn rewind(&self, source: &Upstream) -> Result<(), PgError> {
        let (settings, layout) = (self.settings(), self.layout());
        end_leftovers(&layout.data_dir).await;
        self.refuse_unless_stopped("pg_rewind cannot run").await?;
        refuse_unfinished(&layout)?;
        self.forget_control();
        let credentials = settings.rewind.as_ref().unwrap_or(&settings.superuser);
        self.await_checkpoint(source, credentials).await?;
        self.keep_diverged_wal(source, credentials).await;
        let here = layout.clone();
        let was_standby = blocking(move || {
            here.mark(&Marker::Rewinding)?;
            Ok(here.in_data("standby.signal").exists())
        })
        .await?;
        // pg_rewind runs crash recovery first, which a standby.signal would forbid.
        self.write_all(Role::Primary, Access::Usual).await?;
        let passfile = ToolPassfile::new(&layout, credentials)?;
        let mut tool = Tool::new(self.programs()?.path("pg_rewind"))
            .arg("-D")
            .arg(settings.data_dir.as_os_str())
            .arg("--source-server")
            .arg(program_conninfo(credentials, &source.addr, Some(&settings.database)))
            .env("PGPASSFILE", passfile.path())
            .env("PGSERVICEFILE", passfile.service())
            .env("PGAPPNAME", &settings.member)
            .env("PGOPTIONS", "-c statement_timeout=0");
        if settings.recovery_parameters.get("restore_command").is_some_and(|command| !command.is_empty()) {
            tool = tool.arg("--restore-target-wal");
        }
        // Older versions look for the configuration in the data directory only.
        if settings.config_dir != settings.data_dir && layout.major().is_some_and(|major| major >= 15) {
            let conf = layout.conf_file();
            tool = tool.arg(format!("--config-file={}", conf.display()));
        }
        let here = layout.clone();
        let own_files = blocking(move || foreign::remember(&here)).await?;
        let ran = tool.run(None).await;
        drop(passfile);
        blocking(move || foreign::put_back(&own_files)).await?;
        let is_whole = match &ran {
            Ok(_) => true,
            Err(ToolError::Failed { said, .. }) => !said.contains(CHANGING),
            Err(ToolError::Spawn { .. }) => true,
            Err(ToolError::Timeout { .. } | ToolError::Stalled { .. }) => false,
        };
        if is_whole {
            // Without the signal it could come up as a primary on the timeline of its source.
            if ran.is_ok() || was_standby {
                self.write_all(Role::Standby(None), Access::Usual).await?;
            }
            blocking(move || layout.unmark()).await?;
        }
        ran?;
        Ok(())
    }

    /// Until the source's first checkpoint after its promotion, its control file names the old timeline and `pg_rewind`
    /// would see no difference.
    async fn await_checkpoint(&self, source: &Upstream, credentials: &Credentials) -> Result<(), PgError> {
        let settings = self.settings();
        let waiting = async {
            loop {
                let session = Session::remote(credentials, &source.addr, &settings.database).await?;
                if session.is_in_recovery().await? {
                    return Err(PgError::Refused(format!(
                        "{} is in recovery: nothing to rewind to",
                        source.name
                    )));
                }
                if session.has_checkpoint_of_its_timeline().await? {
                    return Ok(());
                }
                self.ask_for_checkpoint(source).await;
                sleep(ASK_AGAIN).await;
            }
        };
        timeout(CHECKPOINT_LIMIT, waiting).await.unwrap_or_else(|_| {
            Err(PgError::Refused(format!(
                "{} made no checkpoint within {} s after its promotion",
                source.name,
                CHECKPOINT_LIMIT.as_secs()
            )))
        })
    }

    /// The source asks for one itself after its promotion; the superuser may hurry it.
    async fn ask_for_checkpoint(&self, source: &Upstream) {
        let settings = self.settings();
        let ask = async {
            let session = Session::remote(&settings.superuser, &source.addr, &settings.database).await?;
            session.checkpoint(CHECKPOINT_LIMIT).await
        };
        if let Err(error) = ask.await {
            tracing::debug!("no checkpoint was asked for on {}: {error}", source.name);
        }
    }
}
