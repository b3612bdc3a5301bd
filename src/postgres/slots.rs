//! Replication slots of the running server.

use pgherd_raft::model::Lsn;
use serde::Deserialize;
use tracing::{info, warn};

use super::Postgres;
use super::error::PgError;
use super::query::{QueryError, Session};
use super::quote::literal;
use crate::ha::{DropReason, Slot, SlotKind, SlotStep};

/// A row of `pg_replication_slots`, as JSON of the whole row: older servers lack the later columns.
#[derive(Debug, Deserialize)]
pub(super) struct SlotRow {
    slot_name: String,
    slot_type: String,
    database: Option<String>,
    plugin: Option<String>,
    active: bool,
    restart_lsn: Option<Lsn>,
    confirmed_flush_lsn: Option<Lsn>,
    xmin: Option<String>,
    catalog_xmin: Option<String>,
    wal_status: Option<String>,
    /// Since 16.
    #[serde(default)]
    conflicting: Option<bool>,
    /// Since 17.
    #[serde(default)]
    failover: Option<bool>,
    /// Since 17.
    #[serde(default)]
    synced: Option<bool>,
    /// Since 17.
    #[serde(default)]
    invalidation_reason: Option<String>,
}

impl From<SlotRow> for Slot {
    fn from(row: SlotRow) -> Self {
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Self {
            name: row.slot_name,
            kind: match row.slot_type.as_str() {
                "logical" => SlotKind::Logical {
                    database: row.database.unwrap_or_default(),
                    plugin: row.plugin.unwrap_or_default(),
                },
                _ => SlotKind::Physical,
            },
            is_active: row.active,
            restart: row.restart_lsn,
            confirmed: row.confirmed_flush_lsn,
            xmin: number(row.xmin),
            catalog_xmin: number(row.catalog_xmin),
            is_lost: row.wal_status.as_deref() == Some("lost")
                || row.conflicting == Some(true)
                || row.invalidation_reason.is_some(),
            is_failover: row.failover == Some(true) || row.synced == Some(true),
        }
    }
}

/// The sessions that steps need: decoding is done in the slot's own database.
#[derive(Debug, Default)]
struct Sessions {
    usual: Option<Session>,
    of_database: Option<(String, Session)>,
}

impl Postgres {
    /// Does the steps one after the other; what fails for one slot does not hinder the others.
    pub async fn keep_slots(&self, steps: &[SlotStep]) -> Vec<(String, Result<(), String>)> {
        let mut sessions = Sessions::default();
        let mut outcome = Vec::new();
        for step in steps {
            let done = self.keep_slot(step, &mut sessions).await.map_err(|error| error.in_full());
            outcome.push((step.name().to_owned(), done));
        }
        outcome
    }

    /// The same, where one failure is enough.
    pub(super) async fn keep_all_slots(&self, steps: &[SlotStep]) -> Result<(), PgError> {
        let mut sessions = Sessions::default();
        for step in steps {
            self.keep_slot(step, &mut sessions).await?;
        }
        Ok(())
    }

    async fn keep_slot(&self, step: &SlotStep, sessions: &mut Sessions) -> Result<(), PgError> {
        match step {
            SlotStep::Create { name, kind: SlotKind::Physical } => {
                let session = self.usual(sessions).await?;
                let sql = format!(
                    "SELECT pg_create_physical_replication_slot({name}, true) \
                     WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {name})",
                    name = literal(name)
                );
                Ok(session.run("pg_create_physical_replication_slot", &sql).await?)
            }
            SlotStep::Create { name, kind: SlotKind::Logical { database, plugin } } => {
                let session = self.in_database(sessions, database).await?;
                let sql = format!(
                    "SELECT pg_create_logical_replication_slot({name}, {plugin}) \
                     WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {name})",
                    name = literal(name),
                    plugin = literal(plugin)
                );
                session.run("pg_create_logical_replication_slot", &sql).await?;
                info!("Created logical replication slot '{name}' in database '{database}'");
                Ok(())
            }
            SlotStep::Advance { name, database, to } => {
                let session = match database {
                    Some(database) => self.in_database(sessions, database).await?,
                    None => self.usual(sessions).await?,
                };
                advance(session, name, *to).await
            }
            SlotStep::Drop { name, why } => {
                tell_drop(name, why);
                let session = self.usual(sessions).await?;
                let sql = format!(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                     WHERE slot_name = {} AND NOT active",
                    literal(name)
                );
                session.run("pg_drop_replication_slot", &sql).await?;
                info!("Dropped replication slot '{name}'");
                Ok(())
            }
        }
    }

    /// Not the kept one: a promotion that is asked for meanwhile would wait for the fsyncs of the slots.
    async fn usual<'a>(&self, sessions: &'a mut Sessions) -> Result<&'a Session, PgError> {
        let session = match sessions.usual.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        Ok(sessions.usual.insert(session))
    }

    /// The patience is for decoding, and for the transactions whose end a new logical slot waits for.
    async fn in_database<'a>(
        &self,
        sessions: &'a mut Sessions,
        database: &str,
    ) -> Result<&'a Session, PgError> {
        let session = match sessions.of_database.take() {
            Some((of, session)) if of == database => session,
            Some(_) | None => self.connect_to(database).await?.decoding().await?,
        };
        Ok(&sessions.of_database.insert((database.to_owned(), session)).1)
    }
}

/// The slot may have come further meanwhile, which PostgreSQL takes for an error.
async fn advance(session: &Session, name: &str, to: Lsn) -> Result<(), PgError> {
    let sql = format!(
        "SELECT pg_replication_slot_advance(slot_name, {to}) FROM pg_replication_slots \
         WHERE slot_name = {name} AND NOT active AND coalesce(confirmed_flush_lsn, restart_lsn) < {to}",
        name = literal(name),
        to = literal(&to.to_string())
    );
    let advanced = session.run("pg_replication_slot_advance", &sql).await;
    match advanced {
        Err(QueryError::Server { reason, .. }) if reason.contains("has already been removed") => {
            // Of no use to anybody: what a later copy from the primary brings may have its WAL here.
            let drop = format!("SELECT pg_drop_replication_slot({})", literal(name));
            session.run("pg_drop_replication_slot", &drop).await?;
            warn!("Dropped replication slot '{name}': WAL that it needs is gone ({reason})");
            Ok(())
        }
        other => Ok(other?),
    }
}

fn tell_drop(name: &str, why: &DropReason) {
    match why {
        DropReason::Unknown => info!("Trying to drop unknown replication slot '{name}'"),
        DropReason::Differs => {
            info!("Trying to drop replication slot '{name}': the settings ask for another kind");
        }
        DropReason::Lost => warn!("Trying to drop replication slot '{name}': WAL that it needs is gone"),
        DropReason::Xmin(xmin) => {
            warn!("Dropping physical replication slot {name} because of its xmin value {xmin}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_any_version_is_read() {
        let of_13 = r#"{"slot_name": "a", "plugin": null, "slot_type": "physical", "datoid": null, "database": null,
            "temporary": false, "active": true, "active_pid": 5, "xmin": "731", "catalog_xmin": null,
            "restart_lsn": "0/3000060", "confirmed_flush_lsn": null, "wal_status": "reserved", "safe_wal_size": null}"#;
        let slot = Slot::from(serde_json::from_str::<SlotRow>(of_13).expect("a row"));
        assert_eq!((slot.kind.clone(), slot.xmin, slot.is_lost), (SlotKind::Physical, Some(731), false));
        assert_eq!(slot.position().map(|lsn| lsn.to_string()).as_deref(), Some("0/3000060"));
        let of_17 = r#"{"slot_name": "b", "plugin": "pgoutput", "slot_type": "logical", "datoid": "5", "database": "db",
            "temporary": false, "active": false, "active_pid": null, "xmin": null, "catalog_xmin": "740",
            "restart_lsn": "0/3000028", "confirmed_flush_lsn": "0/3000060", "wal_status": "lost", "safe_wal_size": null,
            "two_phase": false, "inactive_since": null, "conflicting": false, "invalidation_reason": "wal_removed",
            "failover": true, "synced": false}"#;
        let slot = Slot::from(serde_json::from_str::<SlotRow>(of_17).expect("a row"));
        assert!(slot.is_lost && slot.is_failover && !slot.is_active);
        assert_eq!(slot.catalog_xmin, Some(740));
        assert_eq!(slot.position().map(|lsn| lsn.to_string()).as_deref(), Some("0/3000060"));
    }
}
