//! Logical slots of the primary, put into a standby's data directory: a standby cannot make them by itself.
//!
//! What the server needs at its start is looked at before it is stopped: it ends if there are more slots than
//! `max_replication_slots`, and a slot whose WAL is not here would be of no use.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use tracing::{info, warn};

use super::Postgres;
use super::conf::Role;
use super::error::PgError;
use super::files::blocking;
use super::query::Session;
use super::quote::literal;
use crate::ha::{SlotKind, StopMode, Upstream};

/// A slot's state is some hundred bytes.
const LARGEST_STATE: usize = 64 * 1024;

/// A slot as the primary has it on its disk.
#[derive(Debug)]
struct Copied {
    name: String,
    state: Vec<u8>,
}

impl Postgres {
    /// Copies the slots; when nothing can be copied the server is left alone.
    pub(super) async fn copy_slots(
        &self,
        source: &Upstream,
        slots: &BTreeMap<String, SlotKind>,
    ) -> Result<(), PgError> {
        let names: Vec<&str> = slots.keys().map(String::as_str).collect();
        info!("Copying logical slots [{}] from the primary", names.join(", "));
        let copied = self.read_slots(source, slots).await?;
        let room = self.room_for_slots().await?;
        if copied.len() > room {
            return Err(PgError::Refused(format!(
                "{} slots are to be copied and there is room for {room}: raise max_replication_slots",
                copied.len()
            )));
        }
        self.stop(StopMode::Fast, false).await?;
        let directory = self.layout().in_data("pg_replslot");
        let written = blocking(move || {
            copied.iter().try_for_each(|slot| {
                write_slot(&directory, slot).map_err(PgError::file("write a slot to", &directory))
            })
        })
        .await;
        // Whatever became of the slots, the standby comes up again.
        self.start(Role::Standby(Some(source.clone()))).await?;
        written
    }

    /// The slots that are on the primary as they should be, and whose WAL is here.
    async fn read_slots(
        &self,
        source: &Upstream,
        slots: &BTreeMap<String, SlotKind>,
    ) -> Result<Vec<Copied>, PgError> {
        let settings = self.settings();
        let credentials = settings.rewind.as_ref().unwrap_or(&settings.superuser);
        let session = Session::remote(credentials, &source.addr, &settings.database).await?;
        let mut copied = Vec::new();
        let mut refusal = None;
        for (name, kind) in slots {
            match self.read_slot(&session, name, kind).await {
                Ok(state) => copied.push(Copied { name: name.clone(), state }),
                Err(why) => {
                    warn!("Will not copy the logical slot \"{name}\": {}", why.in_full());
                    refusal = Some(why);
                }
            }
        }
        match refusal {
            Some(why) if copied.is_empty() => Err(why),
            Some(_) | None => Ok(copied),
        }
    }

    async fn read_slot(&self, session: &Session, name: &str, kind: &SlotKind) -> Result<Vec<u8>, PgError> {
        const NAME: &str = "the state of a slot";
        let SlotKind::Logical { database, plugin } = kind else {
            return Err(PgError::Refused("it is a physical slot".to_owned()));
        };
        let sql = format!(
            "SELECT substr(pg_walfile_name(restart_lsn), 9) || ' ' || \
             encode(pg_read_binary_file('pg_replslot/' || slot_name || '/state'), 'hex') \
             FROM pg_replication_slots WHERE NOT pg_is_in_recovery() AND slot_type = 'logical' \
             AND slot_name = {} AND database = {} AND plugin = {}",
            literal(name),
            literal(database),
            literal(plugin)
        );
        let answer = session.text(NAME, &sql).await?.ok_or_else(|| {
            PgError::Refused(format!(
                "the primary has no logical slot of that name for database {database} with plugin {plugin}"
            ))
        })?;
        let (segment, state) = answer.split_once(' ').unwrap_or_default();
        let state = unhex(state).filter(|state| (1..=LARGEST_STATE).contains(&state.len()));
        let state = state.ok_or_else(|| PgError::Refused("its state is no state of a slot".to_owned()))?;
        let (wal, segment) = (self.layout().in_data("pg_wal"), segment.to_owned());
        let is_here = blocking(move || has_segment(&wal, &segment).map_err(PgError::file("list", &wal)));
        if !is_here.await? {
            return Err(PgError::Refused(
                "it needs WAL that this standby does not have: it is copied once its consumer has moved on"
                    .to_owned(),
            ));
        }
        Ok(state)
    }

    async fn room_for_slots(&self) -> Result<usize, PgError> {
        let session = self.connect().await?;
        let sql = "SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots";
        let room = session.text("max_replication_slots", sql).await?.unwrap_or_default();
        Ok(room.parse().unwrap_or(0))
    }
}

/// Is there a WAL file for this segment, on whichever timeline?
fn has_segment(wal: &Path, segment: &str) -> std::io::Result<bool> {
    for entry in fs::read_dir(wal)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.len() == 24 && name.ends_with(segment) && !segment.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Beside its place first, then renamed, as the server does it: at its start it removes what was not finished.
fn write_slot(directory: &Path, slot: &Copied) -> std::io::Result<()> {
    let (place, aside) = (directory.join(&slot.name), directory.join(format!("{}.tmp", slot.name)));
    for leftover in [&place, &aside] {
        if leftover.symlink_metadata().is_ok() {
            fs::remove_dir_all(leftover)?;
        }
    }
    // As the operator lets the group read the data directory, or not.
    let mode = fs::metadata(directory)?.mode() & 0o750;
    fs::DirBuilder::new().mode(mode).create(&aside)?;
    let state = aside.join("state");
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode & 0o640).open(&state)?;
    file.write_all(&slot.state)?;
    file.sync_all()?;
    fs::File::open(&aside)?.sync_all()?;
    fs::rename(&aside, &place)?;
    fs::File::open(directory)?.sync_all()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_slot_takes_the_place_of_what_was_left() {
        let root = tempfile::tempdir().expect("directory");
        fs::set_permissions(root.path(), PermissionsExt::from_mode(0o700)).expect("as the server makes it");
        let stale = root.path().join("s.tmp");
        fs::create_dir(&stale).expect("a leftover");
        for state in [vec![1, 2], vec![3]] {
            write_slot(root.path(), &Copied { name: "s".to_owned(), state: state.clone() }).expect("written");
            assert_eq!(fs::read(root.path().join("s/state")).expect("read"), state);
        }
        assert!(!stale.exists());
        let mode = fs::metadata(root.path().join("s/state")).expect("metadata").mode();
        assert_eq!(mode & 0o077, 0);
    }

    #[test]
    fn the_wal_of_a_slot_is_looked_for_on_every_timeline() {
        let wal = tempfile::tempdir().expect("directory");
        for name in ["000000030000000100000002", "000000010000000100000005.partial", "00000003.history"] {
            fs::write(wal.path().join(name), "").expect("file");
        }
        let has = |segment: &str| has_segment(wal.path(), segment).expect("listed");
        assert!(has("0000000100000002") && !has("0000000100000003") && !has("0000000100000005") && !has(""));
    }

    #[test]
    fn a_state_comes_as_hexadecimal_digits() {
        assert_eq!(unhex("00ff7a"), Some(vec![0, 255, 0x7a]));
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("é"), None);
    }
}
