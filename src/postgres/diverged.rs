//! Keeps the WAL of a former primary which a rewind is about to take away: the only trace of what only this node had.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use pgherd_raft::model::{Lsn, TimelineId};

use super::Postgres;
use super::error::PgError;
use super::files::{self, blocking};
use super::history;
use super::query::Session;
use super::settings::Credentials;
use crate::ha::Upstream;

/// As many WAL files are kept of one divergence: 1 GiB at the usual size.
const MOST_FILES: usize = 64;
/// As many divergences are kept.
const MOST_KEPT: usize = 3;

impl Postgres {
    /// Copies the WAL files from the fork on. What cannot be kept is told, and is no reason not to rewind.
    pub(super) async fn keep_diverged_wal(&self, source: &Upstream, credentials: &Credentials) {
        match self.try_keep_diverged_wal(source, credentials).await {
            Ok(Some((count, place))) => {
                tracing::info!("{count} WAL files which only this node had are kept in {}", place.display());
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("WAL which only this node had is not kept: {}", error.in_full()),
        }
    }

    async fn try_keep_diverged_wal(
        &self,
        source: &Upstream,
        credentials: &Credentials,
    ) -> Result<Option<(usize, PathBuf)>, PgError> {
        let (control, _) = self.read_control().await?;
        let session = Session::remote(credentials, &source.addr, &self.settings().database).await?;
        let told = session.history().await?.unwrap_or_default();
        let Some((size, text)) = told.split_once('\n') else { return Ok(None) };
        let fork = history::parse(text).into_iter().find(|switch| switch.timeline == control.timeline);
        let (Some(fork), Ok(segment_bytes)) = (fork, size.parse::<u64>()) else { return Ok(None) };
        let layout = self.layout();
        blocking(move || {
            let place = layout.diverged_wal();
            let wal = layout.in_data("pg_wal");
            let found = files_from(&wal, fork.timeline, fork.lsn, segment_bytes)
                .map_err(PgError::file("list", &wal))?;
            let kept = place.join(format!("{}-from-{}", fork.timeline, fork.lsn).replace('/', "_"));
            copy(&found, &kept).map_err(PgError::file("copy WAL to", &kept))?;
            forget_oldest(&place).map_err(PgError::file("make room in", &place))?;
            files::sync_parent(&kept).map_err(PgError::file("sync", &place))?;
            Ok(Some((found.len(), kept)))
        })
        .await
    }
}

/// The WAL files of a timeline from a position on, without those which are only kept for use again.
fn files_from(
    wal: &Path,
    timeline: TimelineId,
    from: Lsn,
    segment_bytes: u64,
) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(wal)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = start_of(&name, timeline, segment_bytes);
        let is_after = start.is_some_and(|start| start.0.saturating_add(segment_bytes) > from.0);
        if is_after && start == written_start(&path) {
            found.push(path);
        }
    }
    found.sort();
    found.truncate(MOST_FILES);
    Ok(found)
}

/// The position with which a WAL file of this timeline and name begins.
fn start_of(name: &str, timeline: TimelineId, segment_bytes: u64) -> Option<Lsn> {
    let digits = name.strip_prefix(&format!("{:08X}", timeline.0)).filter(|rest| rest.len() == 16)?;
    let part = |range| u64::from_str_radix(digits.get(range)?, 16).ok();
    let (id, segment): (u64, u64) = (part(0..8)?, part(8..16)?);
    Some(Lsn((id << 32).checked_add(segment.checked_mul(segment_bytes)?)?))
}

/// The position with which the file was written: bytes 8 to 15 of its first page, in the machine's own order.
fn written_start(path: &Path) -> Option<Lsn> {
    let mut header = [0_u8; 16];
    fs::File::open(path).ok()?.read_exact(&mut header).ok()?;
    let bytes: [u8; 8] = header.get(8..16)?.try_into().ok()?;
    Some(Lsn(u64::from_ne_bytes(bytes)))
}

fn copy(from: &[PathBuf], to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for path in from {
        let target = to.join(path.file_name().unwrap_or_default());
        fs::copy(path, &target)?;
        fs::File::open(&target)?.sync_all()?;
    }
    Ok(())
}

fn forget_oldest(place: &Path) -> std::io::Result<()> {
    let mut kept: Vec<(std::time::SystemTime, PathBuf)> = fs::read_dir(place)?
        .map(|entry| entry.and_then(|entry| Ok((entry.metadata()?.modified()?, entry.path()))))
        .collect::<Result<_, _>>()?;
    kept.sort();
    let surplus = kept.len().saturating_sub(MOST_KEPT);
    kept.iter().take(surplus).try_for_each(|(_, path)| fs::remove_dir_all(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 * 1024 * 1024;

    fn write(wal: &Path, name: &str, start: &str) {
        let start: Lsn = start.parse().expect("lsn");
        let mut page = vec![0_u8; 8];
        page.extend(start.0.to_ne_bytes());
        page.resize(8192, 0);
        fs::write(wal.join(name), page).expect("file");
    }

    #[test]
    fn the_files_after_the_fork_are_found_without_recycled_ones() {
        let wal = tempfile::tempdir().expect("directory");
        write(wal.path(), "000000010000000000000003", "0/3000000");
        write(wal.path(), "000000010000000000000004", "0/4000000");
        write(wal.path(), "000000010000000100000000", "1/0");
        write(wal.path(), "000000010000000100000001", "0/2000000");
        write(wal.path(), "000000020000000000000004", "0/4000000");
        write(wal.path(), "00000001.history", "0/4000000");
        let from = "0/4000100".parse().expect("lsn");
        let found = files_from(wal.path(), TimelineId(1), from, SEGMENT).expect("found");
        let names: Vec<_> = found.iter().map(|p| p.file_name().expect("name").to_string_lossy()).collect();
        assert_eq!(names, ["000000010000000000000004", "000000010000000100000000"]);
    }

    #[test]
    fn only_the_last_divergences_are_kept() {
        let place = tempfile::tempdir().expect("directory");
        for i in 0..5 {
            copy(&[], &place.path().join(i.to_string())).expect("made");
            forget_oldest(place.path()).expect("room");
        }
        assert_eq!(fs::read_dir(place.path()).expect("list").count(), MOST_KEPT);
    }
}
