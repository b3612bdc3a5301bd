//! Makes PostgreSQL give the timeline of a promotion the number which is reserved for it.
//!
//! PostgreSQL takes the first number, counting up, for which there is no history file. So for every number below the
//! reserved one a placeholder is written: a history file with nothing but a comment, which PostgreSQL reads as a timeline
//! without ancestors and to which no standby goes. The placeholders below a timeline that exists stay for good: a standby
//! that comes from before the gap asks for the history of each number in it, and one that starts counts up to the first
//! number that is missing. Those with no timeline above them mislead a start, and are removed before it.
//!
//! Nothing is ever written over, and nothing but placeholders is removed. PostgreSQL archives the history files that it
//! makes or receives itself, never one that it finds.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pgherd_raft::model::TimelineId;
use tokio::time::timeout;

use super::Postgres;
use super::error::PgError;
use super::files::{self, blocking};
use super::history::file_name;

/// The first line of a placeholder, by which it is recognised.
const MARK: &str = "# pgherd placeholder";
/// As many numbers may lie between two timelines: every standby that follows across the gap asks for each of them.
const MOST_PLACEHOLDERS: u32 = 10_000;

/// How long the file system may take to tell a time.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// What is there for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Placeholder,
    History,
}

/// A file without content is what a power cut leaves of a placeholder.
fn look(wal: &Path, number: u32) -> Result<Found, PgError> {
    Ok(match files::read(&wal.join(file_name(TimelineId(number))))? {
        None => Found::Nothing,
        Some(text) if text.starts_with(MARK) || text.trim_matches(['\0', '\n']).is_empty() => {
            Found::Placeholder
        }
        Some(_) => Found::History,
    })
}

/// The numbers of all history files above this one, in order.
fn numbers_above(wal: &Path, from: TimelineId) -> Result<Vec<u32>, PgError> {
    let entries = std::fs::read_dir(wal).map_err(PgError::file("list", wal))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<u32> = names
        .filter_map(|name| {
            let digits = name.strip_suffix(".history").filter(|digits| digits.len() == 8)?;
            u32::from_str_radix(digits, 16).ok().filter(|number| *number > from.0)
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The highest timeline with a history, as PostgreSQL looks for it: counting up from this one.
pub(super) fn newest(wal: &Path, from: TimelineId) -> TimelineId {
    let mut newest = from;
    for number in from.0.saturating_add(1)..=from.0.saturating_add(MOST_PLACEHOLDERS) {
        match look(wal, number) {
            Ok(Found::History) => newest = TimelineId(number),
            Ok(Found::Placeholder) => {}
            Ok(Found::Nothing) | Err(_) => break,
        }
    }
    newest
}

/// A placeholder for each number between these two which has no file.
fn fill(wal: &Path, from: TimelineId, to: TimelineId) -> Result<(), PgError> {
    for number in from.0.saturating_add(1)..to.0 {
        let path = wal.join(file_name(TimelineId(number)));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = opened.and_then(|mut file| {
            writeln!(
                file,
                "{MARK}: no timeline {number} leads here; its number was reserved for another promotion"
            )
        });
        match written {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(PgError::file("write", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Lets a server which is on `from` make the timeline `to` next.
fn make_way(wal: &Path, from: TimelineId, to: TimelineId) -> Result<(), PgError> {
    let refused = |why: String| PgError::Timeline { timeline: to, why };
    let gap = to.0.saturating_sub(from.0);
    if gap > MOST_PLACEHOLDERS {
        return Err(refused(format!(
            "{gap} numbers lie between it and timeline {from} of this server, and at most {MOST_PLACEHOLDERS} are left \
             out. A member that reports such a timeline does not belong to this cluster: remove it, and copy this one \
             from a primary of the cluster"
        )));
    }
    for number in numbers_above(wal, from)?.into_iter().filter(|number| *number >= to.0) {
        if look(wal, number)? == Found::History {
            return Err(refused(format!("there is a history of timeline {number} in {}", wal.display())));
        }
        files::remove(&wal.join(file_name(TimelineId(number))))?;
    }
    fill(wal, from, to)
}

/// Removes the placeholders that have no timeline above them. The highest timeline that is left.
fn drop_last(wal: &Path, from: TimelineId) -> Result<TimelineId, PgError> {
    for number in numbers_above(wal, from)?.into_iter().rev() {
        if look(wal, number)? == Found::History {
            return Ok(TimelineId(number));
        }
        files::remove(&wal.join(file_name(TimelineId(number))))?;
    }
    Ok(from)
}

impl Postgres {
    /// When the history file of a timeline was written: at its promotion. None: that cannot be told.
    pub async fn history_written_at(&self, timeline: TimelineId) -> Option<SystemTime> {
        let path = self.layout().in_data("pg_wal").join(file_name(timeline));
        let look = blocking(move || Ok(std::fs::metadata(path).and_then(|is| is.modified()).ok()));
        timeout(LOOK_PATIENCE, look).await.ok()?.ok()?
    }

    /// Directly before a promotion.
    pub(super) async fn make_way_for(&self, from: TimelineId, to: TimelineId) -> Result<(), PgError> {
        let wal = self.layout().in_data("pg_wal");
        blocking(move || make_way(&wal, from, to)).await
    }

    /// Before a start: what a promotion that came to nothing left behind is removed, and where numbers are missing below
    /// a timeline they are filled, so that PostgreSQL finds it.
    pub(super) async fn tidy_histories(&self) -> Result<(), PgError> {
        let from = self.read_control().await?.0.timeline;
        let wal = self.layout().in_data("pg_wal");
        blocking(move || {
            let last = drop_last(&wal, from)?;
            if last.0.saturating_sub(from.0) > MOST_PLACEHOLDERS {
                return Ok(());
            }
            fill(&wal, from, last)
        })
        .await
    }

    /// Before a running standby follows somebody: a placeholder would stand for a history which that one has.
    pub(super) async fn drop_placeholders(&self) -> Result<(), PgError> {
        let wal = self.layout().in_data("pg_wal");
        if !wal.is_dir() {
            return Ok(());
        }
        blocking(move || drop_last(&wal, TimelineId(1)).map(|_| ())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wal(histories: &[u32]) -> tempfile::TempDir {
        let wal = tempfile::tempdir().expect("directory");
        for number in histories {
            let path = wal.path().join(file_name(TimelineId(*number)));
            std::fs::write(path, "1\t0/3000000\tno recovery target specified\n").expect("file");
        }
        wal
    }

    fn kinds(wal: &tempfile::TempDir) -> Vec<(u32, bool)> {
        let numbers = numbers_above(wal.path(), TimelineId(0)).expect("list");
        numbers.into_iter().map(|n| (n, look(wal.path(), n).expect("look") == Found::History)).collect()
    }

    #[test]
    fn numbers_below_the_reserved_one_are_taken() {
        let wal = wal(&[3]);
        make_way(wal.path(), TimelineId(1), TimelineId(6)).expect("made");
        assert_eq!(kinds(&wal), [(2, false), (3, true), (4, false), (5, false)]);
        assert_eq!(newest(wal.path(), TimelineId(1)), TimelineId(3));
        make_way(wal.path(), TimelineId(1), TimelineId(4))
            .expect("a lower number, the higher placeholders go");
        assert_eq!(kinds(&wal), [(2, false), (3, true)]);
        assert!(make_way(wal.path(), TimelineId(1), TimelineId(3)).is_err(), "there is one already");
        assert!(make_way(wal.path(), TimelineId(1), TimelineId(50_000)).is_err(), "too many");
    }

    #[test]
    fn only_placeholders_below_a_timeline_stay() {
        let wal = wal(&[4]);
        make_way(wal.path(), TimelineId(1), TimelineId(8)).expect("made");
        std::fs::write(wal.path().join("00000008.history"), "").expect("the rest of a power cut");
        assert_eq!(drop_last(wal.path(), TimelineId(1)).expect("dropped"), TimelineId(4));
        assert_eq!(kinds(&wal), [(2, false), (3, false), (4, true)]);
        assert_eq!(drop_last(wal.path(), TimelineId(4)).expect("dropped"), TimelineId(4));
        assert_eq!(drop_last(tempfile::tempdir().expect("empty").path(), TimelineId(7)).expect("none").0, 7);
    }
}
