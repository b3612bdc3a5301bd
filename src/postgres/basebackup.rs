//! Copies another member's database system.

use std::time::Duration;

use super::conf::{Role, program_conninfo};
use super::directory;
use super::error::PgError;
use super::files::blocking;
use super::initdb::program_options;
use super::layout::{Layout, Marker};
use super::tool::Tool;
use super::write::{Access, ToolPassfile};
use super::{Postgres, foreign};
use crate::ha::{DataDir, StopMode, Upstream};

/// A copy which neither reads nor writes for so long has lost its source: a frozen server's kernel still answers. The
/// source's checkpoint at the beginning, during which nothing moves, is a fast one.
const STALL_LIMIT: Duration = Duration::from_secs(300);
/// Options of `pg_basebackup` which would defeat what pgherd does with it.
const REFUSED: [&str; 13] = [
    "pgdata",
    "format",
    "wal-method",
    "write-recovery-conf",
    "gzip",
    "target",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
    "no-sync",
];

impl Postgres {
    /// Copies the source. What lies in the data directory is put aside first, unless it is an unfinished copy or one
    /// that never streamed.
    pub(super) async fn base_backup(&self, source: &Upstream) -> Result<(), PgError> {
        self.clear_for_filling().await?;
        self.forget_control();
        let (settings, layout) = (self.settings(), self.layout());
        let program = self.programs()?.path("pg_basebackup");
        let mut options = program_options("postgresql.basebackup", &settings.basebackup, &REFUSED)?;
        if !settings.basebackup.iter().any(|(name, _)| name == "checkpoint") {
            options.push("--checkpoint=fast".to_owned());
        }
        let here = layout.clone();
        let target = blocking(move || {
            make_room(&here)?;
            here.mark(&Marker::Filling("base backup".to_owned()))?;
            directory::prepare(&here)
        })
        .await?;
        let passfile = ToolPassfile::new(&layout, &settings.replication)?;
        Tool::new(program)
            .arg("-D")
            .arg(target.as_os_str())
            .args(["-X", "stream", "--no-password"])
            .args(options)
            .arg("-d")
            .arg(program_conninfo(&settings.replication, &source.addr, None))
            .env("PGPASSFILE", passfile.path())
            .env("PGSERVICEFILE", passfile.service())
            .env("PGAPPNAME", &settings.member)
            .run_while_it_moves(STALL_LIMIT)
            .await?;
        drop(passfile);
        let here = layout.clone();
        blocking(move || {
            directory::settle(&here, &target)?;
            foreign::carry_over(&here)
        })
        .await?;
        // Without the signal it could come up as a primary on the timeline of its source.
        self.write_all(Role::Standby(Some(source.clone())), Access::Usual).await?;
        blocking(move || layout.mark(&Marker::Copied)).await
    }

    /// Stops the server at once, removes its data, and copies the source: an operator says that the data is worth
    /// nothing.
    pub(super) async fn reinitialize(&self, source: &Upstream) -> Result<(), PgError> {
        self.stop(StopMode::Immediate, false).await?;
        self.clear_for_filling().await?;
        self.forget_control();
        let layout = self.layout();
        blocking(move || match layout.classify() {
            DataDir::Foreign(why) => Err(PgError::Refused(why)),
            DataDir::Empty => Ok(()),
            DataDir::Initialised { .. } | DataDir::Incomplete => {
                layout.mark(&Marker::Filling("base backup".to_owned()))?;
                directory::empty(&layout)
            }
        })
        .await?;
        self.base_backup(source).await
    }

    /// Gives up what was put aside. The removal, which may take long, goes on in the background.
    pub(super) async fn discard_old_data(&self) -> Result<(), PgError> {
        let layout = self.layout();
        blocking(move || directory::discard_asides(&layout)).await?;
        self.remove_discarded_in_background();
        Ok(())
    }

    /// Also after an interruption: what was given up needs room and is of no use.
    pub(super) fn remove_discarded_in_background(&self) {
        let layout = self.layout();
        self.in_background(async move {
            let removed = blocking(move || directory::remove_discarded(&layout)).await;
            if let Err(error) = removed {
                tracing::warn!("data which was given up is still there: {}", error.in_full());
            }
        });
    }
}

/// After this the data directory is missing or empty.
pub(super) fn make_room(layout: &Layout) -> Result<(), PgError> {
    match (layout.classify(), layout.marker()?) {
        (DataDir::Foreign(why), _) => Err(PgError::Refused(why)),
        (DataDir::Empty, _) => Ok(()),
        (DataDir::Incomplete, _) | (DataDir::Initialised { .. }, Some(Marker::Copied)) => {
            directory::empty(layout)
        }
        (DataDir::Initialised { .. }, _) => {
            directory::put_aside(layout)?;
            layout.unmark()
        }
    }
}
