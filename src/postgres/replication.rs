//! Physical replication slots of the members.

use std::collections::BTreeSet;

use super::Postgres;
use super::error::PgError;
use super::files::{self, blocking};
use super::query::Session;
use super::quote::literal;

impl Postgres {
    /// Makes the slots exist, with WAL kept from this moment on, and drops those which this node made earlier for
    /// members that are gone. Slots which somebody else made are left alone, and so is one in use.
    pub(super) async fn ensure_slots(&self, names: &BTreeSet<String>) -> Result<(), PgError> {
        let layout = self.layout();
        let file = layout.slots_file();
        let own = blocking(move || files::read(&file)).await?.unwrap_or_default();
        let mut own: BTreeSet<String> = own.lines().map(str::to_owned).collect();
        // Not the kept one: a promotion that is asked for meanwhile would wait for the fsyncs of the slots.
        let session = self.connect().await?;
        let present = slots(&session, "true").await?;
        let missing: Vec<&String> = names.iter().filter(|name| !present.contains(*name)).collect();
        own.extend(missing.iter().map(|name| (*name).clone()));
        // Listed before they are made: one that is made and not listed would stay for ever.
        self.write_own_slots(&own).await?;
        for name in missing {
            let create = format!("SELECT pg_create_physical_replication_slot({}, true)", literal(name));
            session.run("pg_create_physical_replication_slot", &create).await?;
        }
        let inactive = slots(&session, "NOT active").await?;
        let stale: Vec<String> =
            own.iter().filter(|name| !names.contains(*name) && inactive.contains(*name)).cloned().collect();
        for name in &stale {
            let drop = format!("SELECT pg_drop_replication_slot({})", literal(name));
            session.run("pg_drop_replication_slot", &drop).await?;
            own.remove(name);
        }
        if stale.is_empty() { Ok(()) } else { self.write_own_slots(&own).await }
    }

    async fn write_own_slots(&self, own: &BTreeSet<String>) -> Result<(), PgError> {
        let file = self.layout().slots_file();
        let text = own.iter().fold(String::new(), |text, name| text + name + "\n");
        blocking(move || files::write(&file, &text).map(|_| ())).await
    }
}

/// The names of the physical slots which fulfil a condition.
async fn slots(session: &Session, condition: &str) -> Result<BTreeSet<String>, PgError> {
    let query = format!(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary AND {condition}"
    );
    Ok(session.column("pg_replication_slots", &query).await?.into_iter().collect())
}
